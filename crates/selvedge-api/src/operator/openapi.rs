//! `/openapi.json`: every path of the operator API, from one table.

use serde_json::{Map, Value, json};

/// (method, path, summary, what a 200 carries).
const PATHS: &[(&str, &str, &str, &str)] = &[
    ("get", "/health/live", "The process answers", "application/json"),
    ("get", "/health/ready", "It should be sent traffic", "application/json"),
    ("get", "/health/startup", "Its listeners are open", "application/json"),
    ("get", "/metrics", "Prometheus text", "text/plain"),
    (
        "get",
        "/api/v1/services",
        "Every service with endpoints, breakers, counts",
        "application/json",
    ),
    ("get", "/api/v1/services/{service}", "One service", "application/json"),
    ("get", "/api/v1/services/{service}/endpoints", "Its endpoints", "application/json"),
    (
        "get",
        "/api/v1/services/{service}/breakers",
        "Its breakers with their history",
        "application/json",
    ),
    (
        "post",
        "/api/v1/services/{service}/breakers/{verb}",
        "force-open, force-close, disable or reset every breaker of a service",
        "application/json",
    ),
    (
        "post",
        "/api/v1/services/{service}/endpoints/{endpoint}/{verb}",
        "force-open, force-close, disable, reset, drain or undrain one endpoint",
        "application/json",
    ),
    ("get", "/api/v1/listeners", "Every address listened on", "application/json"),
    ("get", "/api/v1/routes", "Every route, in the order they are tried", "application/json"),
    (
        "get",
        "/api/v1/explain",
        "What would happen to a request now: ?method=GET&url=/orders/1&header=name:value",
        "application/json",
    ),
    (
        "get",
        "/api/v1/doctor",
        "What is stuck in the store, how old it is, why, and what to do",
        "application/json",
    ),
    ("get", "/api/v1/config/status", "Generation, file, last error", "application/json"),
    ("get", "/api/v1/config/effective", "The configuration with every default", "application/yaml"),
    ("post", "/api/v1/config/reload", "Read the file again, all or nothing", "application/json"),
];

/// The OpenAPI 3.1 document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for (method, path, summary, content) in PATHS {
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": {
                "200": { "description": "as asked", "content": { *content: {} } },
                "default": {
                    "description": "a problem document (RFC 9457) with a stable code",
                    "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
                },
            },
        });
        let entry = paths.entry(*path).or_insert_with(|| json!({}));
        entry[*method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Selvedge operator API", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": { "Problem": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "code"],
                "properties": {
                    "type": { "type": "string" },
                    "title": { "type": "string" },
                    "status": { "type": "integer" },
                    "detail": { "type": "string" },
                    "instance": { "type": "string" },
                    "code": { "type": "string", "pattern": "^SV[0-9]{4}$" },
                },
            } },
        },
        "security": [{}, { "token": [] }],
    })
}
