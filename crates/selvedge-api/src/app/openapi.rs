//! What can be asked, for machines: a short OpenAPI 3.1 document.

use serde_json::{Map, Value, json};

/// Method, path, what it does. Kept beside the routes and checked by a test.
pub(super) const PATHS: &[(&str, &str, &str)] = &[
    ("get", "/v1/topics", "all topics"),
    ("put", "/v1/topics/{topic}", "create a topic or change its settings"),
    ("get", "/v1/topics/{topic}", "where a topic stands"),
    ("delete", "/v1/topics/{topic}", "remove a topic with its messages and groups"),
    (
        "post",
        "/v1/topics/{topic}/messages",
        "publish: any body, or CloudEvents (binary, structured, batched)",
    ),
    (
        "get",
        "/v1/topics/{topic}/messages",
        "read messages without a group, or follow them as server-sent events",
    ),
    ("post", "/v1/topics/{topic}/batch", "publish several messages, all or none"),
    ("post", "/v1/topics/{topic}/stream", "publish lines of JSON, many under way at once"),
    (
        "delete",
        "/v1/topics/{topic}/delayed/{number}",
        "take back a message that waits for its time",
    ),
    ("get", "/v1/topics/{topic}/groups", "the groups of a topic"),
    ("put", "/v1/topics/{topic}/groups/{group}", "create a group or change it"),
    ("get", "/v1/topics/{topic}/groups/{group}", "where a group stands"),
    ("delete", "/v1/topics/{topic}/groups/{group}", "remove a group"),
    (
        "post",
        "/v1/topics/{topic}/groups/{group}/receive",
        "take messages to process, waiting if there are none",
    ),
    ("post", "/v1/topics/{topic}/groups/{group}/ack", "settle deliveries"),
    ("post", "/v1/topics/{topic}/groups/{group}/nack", "have deliveries again, after a while"),
    (
        "post",
        "/v1/topics/{topic}/groups/{group}/give-back",
        "give deliveries back that were not looked at, which costs no attempt",
    ),
    ("post", "/v1/topics/{topic}/groups/{group}/park", "make deliveries dead letters"),
    ("post", "/v1/topics/{topic}/groups/{group}/extend", "hold deliveries for longer"),
    (
        "post",
        "/v1/topics/{topic}/groups/{group}/leave",
        "a consumer of an exclusive group goes, and another one may take over",
    ),
    ("post", "/v1/topics/{topic}/groups/{group}/pause", "stop handing out"),
    ("post", "/v1/topics/{topic}/groups/{group}/resume", "go on handing out"),
    ("post", "/v1/topics/{topic}/groups/{group}/seek", "move the group in the log"),
    ("get", "/v1/topics/{topic}/groups/{group}/dead-letters", "what the group gave up on, and why"),
    ("post", "/v1/topics/{topic}/groups/{group}/dead-letters/redrive", "take dead letters back"),
    ("post", "/v1/topics/{topic}/groups/{group}/dead-letters/discard", "throw dead letters away"),
    (
        "get",
        "/v1/topics/{topic}/groups/{group}/stream",
        "deliveries as server-sent events, to be settled like received ones",
    ),
    (
        "post",
        "/v1/pipeline",
        "one operation a line in, one answer a line out, many under way at once; with `payloads=raw` \
         a message's `bytes` follow the line",
    ),
    ("post", "/v1/transactions", "several operations, all or none"),
    ("get", "/v1/groups", "all groups of all topics"),
    ("get", "/v1/events", "all events by position, or as server-sent events"),
    ("post", "/v1/append", "append to several streams, all or none"),
    ("get", "/v1/streams/{stream}", "read a stream, forwards, backwards or as server-sent events"),
    ("post", "/v1/streams/{stream}", "append with an expected version"),
    ("delete", "/v1/streams/{stream}", "remove all events of a stream"),
    ("get", "/v1/streams/{stream}/snapshot", "the latest snapshot of a schema"),
    ("put", "/v1/streams/{stream}/snapshot", "keep a snapshot, with its schema and version"),
    ("post", "/v1/streams/{stream}/truncate", "remove the beginning of a stream"),
    ("get", "/v1/state", "keys by prefix"),
    ("get", "/v1/state/{key}", "a value with its ETag"),
    ("put", "/v1/state/{key}", "write a value, with If-Match, If-None-Match or If-Fence"),
    ("delete", "/v1/state/{key}", "remove a value"),
    ("get", "/v1/leases", "all leases that are held, by whom and since when"),
    (
        "get",
        "/v1/leases/{resource}",
        "who holds a resource, or whenever that changes as server-sent events",
    ),
    ("post", "/v1/leases/{resource}/acquire", "ask for a permit, waiting if all are out"),
    ("post", "/v1/leases/{resource}/renew", "keep a permit"),
    ("post", "/v1/leases/{resource}/release", "give a permit back"),
    ("get", "/v1/schedules", "all schedules"),
    ("put", "/v1/schedules/{name}", "create or replace a schedule"),
    ("delete", "/v1/schedules/{name}", "remove a schedule"),
];

/// Method, path, and the query parameters it takes; all others take none.
const PARAMETERS: &[(&str, &str, &[&str])] = &[
    ("get", "/v1/topics/{topic}/messages", &["from", "max", "data", "format", "wait_for", "wait"]),
    (
        "post",
        "/v1/topics/{topic}/groups/{group}/receive",
        &["max", "wait", "lease", "consumer", "data", "format"],
    ),
    ("get", "/v1/topics/{topic}/groups/{group}/dead-letters", &["from", "max", "data"]),
    ("get", "/v1/topics/{topic}/groups/{group}/stream", &["max", "lease", "consumer", "data"]),
    ("post", "/v1/pipeline", &["payloads"]),
    ("get", "/v1/events", &["after", "max", "wait_for", "wait"]),
    ("get", "/v1/streams/{stream}", &["from", "max", "direction", "wait_for", "wait"]),
    ("delete", "/v1/streams/{stream}", &["expected"]),
    ("get", "/v1/streams/{stream}/snapshot", &["schema"]),
    ("put", "/v1/streams/{stream}/snapshot", &["schema", "version"]),
    ("get", "/v1/state", &["prefix", "after", "max"]),
    ("put", "/v1/state/{key}", &["ttl"]),
    ("get", "/v1/leases", &["after", "max", "held_for"]),
];

fn parameters_of(method: &str, template: &str) -> &'static [&'static str] {
    let found = PARAMETERS.iter().find(|(its, path, _)| *its == method && *path == template);
    found.map_or(&[], |(.., names)| names)
}

/// The query parameters that a request may have; `None` if there is no such path.
pub(super) fn parameters(method: &str, path: &[&str]) -> Option<&'static [&'static str]> {
    let method = method.to_ascii_lowercase();
    let found = PATHS.iter().find(|(its, template, _)| *its == method && is(template, path));
    found.map(|(_, template, _)| parameters_of(&method, template))
}

fn is(template: &str, path: &[&str]) -> bool {
    let template = template.split('/').skip(1);
    template.clone().count() == path.len()
        && template.zip(path).all(|(named, real)| named.starts_with('{') || named == *real)
}

/// The methods that a path takes, as `Allow` names them; nothing if there is no such path.
pub(super) fn methods(path: &[&str]) -> String {
    let mut methods: Vec<String> = PATHS
        .iter()
        .filter(|(_, template, _)| is(template, path))
        .map(|(method, ..)| method.to_uppercase())
        .collect();
    if !methods.is_empty() {
        methods.push("OPTIONS".to_owned());
    }
    if methods[..].iter().any(|method| method == "GET") && path.last() != Some(&"stream") {
        methods.push("HEAD".to_owned());
    }
    methods.join(", ")
}

/// Operations of a pipeline and a transaction, with their fields; those with `?`
/// have defaults. Checked by a test.
pub(super) const OPERATIONS: &[(&str, &str)] = &[
    ("publish", "topic, messages"),
    ("receive", "topic, group, max?, wait?, lease?, consumer?"),
    ("ack", "topic, group, ids"),
    ("nack", "topic, group, ids, after?, reason?"),
    ("give_back", "topic, group, ids, after?"),
    ("park", "topic, group, ids, reason?"),
    (
        "settle",
        "topic, group, replies of {id, verdict: ack|nack|park|release, after?, reason?}, strict?",
    ),
    ("extend", "topic, group, ids, lease?"),
    ("leave", "topic, group, consumer"),
    ("append", "writes of {stream, expected?, events}"),
    ("put_state", "key, value or value_base64, content_type?, if_match?, if_absent?, ttl?"),
    ("delete_state", "key, if_match?, if_absent?"),
    ("get_state", "key"),
    ("list_state", "prefix?, after?, max?"),
    ("check_fence", "resource, token"),
    ("acquire", "resource, owner, ttl?, permits?, wait?"),
    ("renew", "resource, token, ttl?"),
    ("release", "resource, token"),
    ("get_lease", "resource"),
    ("list_leases", "after?, held_for?, max?"),
    ("put_topic", "topic, settings?"),
    ("delete_topic", "topic"),
    ("get_topic", "topic"),
    ("list_topics", ""),
    ("read_topic", "topic, from?, max?"),
    ("cancel_delayed", "topic, number"),
    ("put_group", "topic, group, settings?"),
    ("delete_group", "topic, group"),
    ("get_group", "topic, group"),
    ("list_groups", "topic?"),
    ("list_dead_letters", "topic, group, from?, max?"),
    ("pause", "topic, group, paused?"),
    ("seek", "topic, group, to"),
    ("redrive", "topic, group, positions?"),
    ("discard", "topic, group, positions?"),
    ("read_stream", "stream, from?, backwards?, max?"),
    ("read_events", "after?, max?"),
    ("truncate_stream", "stream, before"),
    ("delete_stream", "stream, expected?"),
    ("put_snapshot", "stream, version, schema?, data_base64"),
    ("get_snapshot", "stream, schema?"),
    ("put_schedule", "name, schedule of {spec, zone?, overlap?, missed?, topic, message}"),
    ("delete_schedule", "name"),
    ("list_schedules", ""),
    ("transact", "operations"),
];

pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for (method, path, summary) in PATHS {
        let query = parameters_of(method, path)
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .chain(query)
            .collect();
        let operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": {
                "2XX": {"description": "done, and on disk"},
                "default": {"description": "a problem (RFC 9457) with a stable `code`"},
            },
        });
        let entry = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        entry[*method] = operation;
    }
    let names: Map<String, Value> = OPERATIONS
        .iter()
        .map(|(name, fields)| {
            ((*name).to_owned(), json!({"type": "object", "description": fields}))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Selvedge app API", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": {"Operation": {
            "description": "a line of /v1/pipeline and an entry of `operations` in /v1/transactions: \
                one of these, and on a line an `id` that comes back with the answer and `exact: true` \
                for an answer with content in base64, headers in order and a word on each receipt; \
                a server that drains ends with `{\"taken\": n}`: it began the first n lines only",
            "type": "object",
            "properties": names,
        }}},
    })
}
