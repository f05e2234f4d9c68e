use super::{Action, Config, Operated, Refusal, Server, Target, action, decode, question, view};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Fake {
    done: Mutex<Vec<Action>>,
    draining: bool,
}

impl Operated for Fake {
    fn health(&self) -> view::Health {
        let why = self.draining.then(|| "it drains".to_owned());
        view::Health { live: true, ready: !self.draining, started: true, why }
    }

    fn services(&self) -> Vec<view::Service> {
        let breaker = view::Breaker { state: "open".to_owned(), ..view::Breaker::default() };
        vec![view::Service {
            name: "orders".to_owned(),
            breakers: vec![breaker],
            ..view::Service::default()
        }]
    }

    fn listeners(&self) -> Vec<view::Listener> {
        Vec::new()
    }

    fn routes(&self) -> Vec<view::Route> {
        Vec::new()
    }

    fn explain(&self, question: &view::Question) -> Result<view::Explanation, String> {
        Ok(view::Explanation { url: question.url.clone(), ..view::Explanation::default() })
    }

    fn config_status(&self) -> view::ConfigStatus {
        view::ConfigStatus { generation: 3, ..view::ConfigStatus::default() }
    }

    fn config_effective(&self) -> String {
        "version: 1\n".to_owned()
    }

    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }

    fn act(&self, action: &Action) -> Result<view::Done, Refusal> {
        match action {
            Action::ForceOpen(target) if target.service == "nobody" => {
                Err(Refusal::Unknown("no service `nobody`".to_owned()))
            }
            Action::Reload => Err(Refusal::Config("line 3: no".to_owned())),
            _ => {
                self.done.lock().unwrap().push(action.clone());
                Ok(view::Done { done: "so".to_owned(), generation: 3 })
            }
        }
    }
}

struct Asked {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Asked {
    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn ask(config: Config, fake: Fake, method: &str, path: &str, headers: &[(&str, &str)]) -> Asked {
    let server = Server::new(config, Arc::new(fake));
    let mut map = HeaderMap::new();
    map.insert("host", HeaderValue::from_static("127.0.0.1:9900"));
    for (name, value) in headers {
        map.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    let method = Method::try_from(method).unwrap();
    let answer = server.answer(&method, &path.parse::<Uri>().unwrap(), &map);
    let (parts, body) = answer.into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let body = runtime.block_on(body.collect()).unwrap().to_bytes();
    Asked {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

fn get(path: &str) -> Asked {
    ask(Config::default(), Fake::default(), "GET", path, &[])
}

fn post(path: &str, headers: &[(&str, &str)]) -> Asked {
    ask(Config::default(), Fake::default(), "POST", path, headers)
}

#[test]
fn everything_in_the_openapi_document_answers() {
    let document: Value = serde_json::from_str(&get("/openapi.json").body).unwrap();
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{service}", "orders")
            .replace("{endpoint}", "127.0.0.1:9001")
            .replace("{verb}", "reset");
        for method in operations.as_object().unwrap().keys() {
            let query = if path.ends_with("/explain") { "?url=/x" } else { "" };
            let path = format!("{path}{query}");
            let answer =
                ask(Config::default(), Fake::default(), &method.to_uppercase(), &path, &[]);
            let reload = path.ends_with("/reload");
            let expected = if reload { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
            assert_eq!(answer.status, expected, "{method} {path}: {}", answer.body);
            asked += 1;
        }
    }
    assert!(asked >= 16, "{asked}");
}

#[test]
fn health_follows_the_process() {
    assert_eq!(get("/health/ready").status, StatusCode::OK);
    let draining = Fake { draining: true, ..Fake::default() };
    let answer = ask(Config::default(), draining, "GET", "/health/ready", &[]);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body, serde_json::json!({ "status": "fail", "output": "it drains" }));
}

#[test]
fn what_is_not_there_is_a_problem_document() {
    let answer = get("/api/v1/nothing");
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "SV0301"));
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(get("/api/v1/services/nobody/breakers").code(), "SV0306");
    assert_eq!(post("/api/v1/services/nobody/breakers/force-open", &[]).code(), "SV0306");
    assert_eq!(post("/api/v1/config/reload", &[]).code(), "SV0309");
}

#[test]
fn only_the_right_method_is_answered() {
    let answer = get("/api/v1/config/reload");
    assert_eq!(
        (answer.code().as_str(), &answer.headers["allow"]),
        ("SV0302", &HeaderValue::from_static("POST"))
    );
    assert_eq!(post("/api/v1/services", &[]).code(), "SV0302");
}

#[test]
fn a_token_is_asked_for_when_there_is_one() {
    let with = |headers: &[(&str, &str)], path: &str| {
        let config = Config { token: Some("s3cret".to_owned()), ..Config::default() };
        ask(config, Fake::default(), "GET", path, headers)
    };
    let answer = with(&[], "/api/v1/services");
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "SV0303"));
    assert!(answer.headers.contains_key("www-authenticate"));
    assert_eq!(with(&[("authorization", "Bearer s3cre")], "/metrics").code(), "SV0303");
    assert_eq!(with(&[("authorization", "Bearer s3cret")], "/metrics").status, StatusCode::OK);
    let by_name = [("authorization", "bearer s3cret"), ("host", "selvedge.internal:9900")];
    assert_eq!(with(&by_name, "/metrics").status, StatusCode::OK);
    assert_eq!(with(&[], "/health/live").status, StatusCode::OK);
    assert_eq!(with(&[], "/").status, StatusCode::OK, "the page holds no data");
}

#[test]
fn a_rebound_name_is_not_answered() {
    let host = |host: &str| {
        ask(Config::default(), Fake::default(), "GET", "/api/v1/services", &[("host", host)])
    };
    assert_eq!(host("evil.example:9900").code(), "SV0304");
    assert_eq!(host("localhost.evil.example").code(), "SV0304");
    for known in ["localhost:9900", "127.0.0.1", "[::1]:9900", "10.0.0.7:9900"] {
        assert_eq!(host(known).status, StatusCode::OK, "{known}");
    }
    let config = Config { hosts: vec!["ops.internal".to_owned()], ..Config::default() };
    let answer =
        ask(config, Fake::default(), "GET", "/api/v1/services", &[("host", "ops.internal:9900")]);
    assert_eq!(answer.status, StatusCode::OK);
}

#[test]
fn another_origin_may_not_act() {
    let path = "/api/v1/services/orders/breakers/force-open";
    assert_eq!(post(path, &[]).status, StatusCode::OK, "curl sends no origin");
    assert_eq!(post(path, &[("origin", "http://127.0.0.1:9900")]).status, StatusCode::OK);
    assert_eq!(post(path, &[("origin", "https://evil.example")]).code(), "SV0305");
    assert_eq!(post(path, &[("origin", "null")]).code(), "SV0305");
    assert_eq!(post(path, &[("sec-fetch-site", "cross-site")]).code(), "SV0305");
    assert_eq!(post(path, &[("sec-fetch-site", "same-site")]).code(), "SV0305");
}

#[test]
fn paths_become_actions() {
    let target = |endpoint: Option<&str>| Target {
        service: "orders".to_owned(),
        endpoint: endpoint.map(str::to_owned),
    };
    assert_eq!(
        action(&["services", "orders", "breakers", "disable"]),
        Some(Action::Disable(target(None)))
    );
    assert_eq!(
        action(&["services", "orders", "endpoints", "10.0.0.1:80", "drain"]),
        Some(Action::Drain(target(Some("10.0.0.1:80"))))
    );
    assert_eq!(action(&["services", "orders", "breakers", "drain"]), None);
    assert_eq!(action(&["services", "orders", "breakers", "explode"]), None);
}

#[test]
fn a_question_is_read_from_the_query() {
    let asked = question("method=post&url=/orders/1%3Fa%3D1&header=x-api-key:%20abc").unwrap();
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.url, "/orders/1?a=1");
    assert_eq!(asked.headers, [("x-api-key".to_owned(), "abc".to_owned())]);
    assert!(question("method=GET").is_err());
    assert!(question("url=/&colour=red").is_err());
}

#[test]
fn a_broken_escape_stands_for_itself() {
    assert_eq!(decode("a%2Fb%zz%", false), "a/b%zz%");
    assert_eq!(decode("%é", false), "%é");
    assert_eq!(decode("a+b", true), "a b");
}
