use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use selvedge_durable::Sqlite;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::{Config, Server, openapi};

mod flows;
mod groups;
mod routing;

/// A server on a store of its own; both go when it is dropped.
struct World {
    address: SocketAddr,
    _folder: tempfile::TempDir,
    _server: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self._server.abort();
    }
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| panic!("{} {:?}", self.status, self.bytes))
    }

    fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{:?}", self.bytes);
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

async fn world() -> World {
    world_with(Config::default()).await
}

async fn world_with(config: Config) -> World {
    world_and_store(config).await.0
}

async fn world_and_store(config: Config) -> (World, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(selvedge_durable::Config::new(folder.path().join("s.db"))).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Server::new(config, store.clone()).run(listener, std::future::pending());
    let server = tokio::spawn(serve);
    (World { address, _folder: folder, _server: server }, store)
}

impl World {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        connection.abort();
        Got { status: head.status, headers: head.headers, bytes }
    }

    async fn json(&self, method: &str, path: &str, body: Value) -> Got {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[("content-type", "application/json")], body.as_bytes()).await
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let got = self.json(method, path, body).await;
        assert!(got.status.is_success(), "{method} {path}: {} {:?}", got.status, got.bytes);
        if got.bytes.is_empty() { Value::Null } else { got.json() }
    }

    async fn queue(&self) {
        self.ok("PUT", "/v1/topics/t", json!({})).await;
        self.ok("PUT", "/v1/topics/t/groups/g", json!({"lease": "30s"})).await;
    }
}

#[tokio::test]
async fn a_message_goes_from_publisher_to_consumer() {
    let world = world().await;
    world.queue().await;
    let headers = [("content-type", "application/json"), ("selvedge-key", "k")];
    let got = world.send("POST", "/v1/topics/t/messages", &headers, br#"{"n":1}"#).await;
    assert_eq!(got.json(), json!({"position": 1, "duplicate": false}));
    let got = world.ok("POST", "/v1/topics/t/groups/g/receive?max=5&wait=1s", Value::Null).await;
    let message = &got["messages"][0];
    assert_eq!((&message["data"], &message["key"]), (&json!({"n": 1}), &json!("k")));
    let ack = json!({"ids": [message["id"]]});
    let got = world.ok("POST", "/v1/topics/t/groups/g/ack", ack.clone()).await;
    assert_eq!(got, json!({"settled": 1, "dead": 0, "stale": []}));
    let again = world.json("POST", "/v1/topics/t/groups/g/ack", ack).await;
    assert_eq!((again.status, &again.code()[..]), (StatusCode::CONFLICT, "SV0414"));
    assert_eq!(world.ok("GET", "/v1/topics/t/groups/g", Value::Null).await["lag"], 0);
}

#[tokio::test]
async fn failed_messages_come_back_and_end_as_dead_letters() {
    let world = world().await;
    world.queue().await;
    let batch = json!({"messages": [{"data": "a"}, {"data_base64": "/w=="}]});
    let got = world.ok("POST", "/v1/topics/t/batch", batch).await;
    assert_eq!(got["published"][1]["position"], 2);
    let receive = "/v1/topics/t/groups/g/receive";
    let got = world.ok("POST", receive, Value::Null).await;
    let (a, b) = (got["messages"][0].clone(), got["messages"][1].clone());
    assert_eq!((&a["data"], &b["data_base64"]), (&json!("a"), &json!("/w==")));
    let nack = json!({"ids": [a["id"]], "after": "0ms"});
    world.ok("POST", "/v1/topics/t/groups/g/nack", nack).await;
    let got = world.ok("POST", receive, Value::Null).await;
    assert_eq!(got["messages"][0]["attempt"], 2);
    let park = json!({"ids": [b["id"]], "reason": "no use"});
    let got = world.ok("POST", "/v1/topics/t/groups/g/park", park).await;
    assert_eq!(got["dead"], 1);
    let got = world.ok("GET", "/v1/topics/t/groups/g/dead-letters", Value::Null).await;
    let letter = &got["dead_letters"][0];
    assert_eq!((&letter["cause"], &letter["reason"]), (&json!("parked"), &json!("no use")));
    let redrive = "/v1/topics/t/groups/g/dead-letters/redrive";
    assert_eq!(world.ok("POST", redrive, json!({})).await, json!({"redriven": 1}));
    let got = world.ok("POST", receive, Value::Null).await;
    assert_eq!(got["messages"][0]["position"], 2);
}

#[tokio::test]
async fn a_waiting_receive_is_answered_by_the_publish() {
    let world = world().await;
    world.queue().await;
    let wait = world.ok("POST", "/v1/topics/t/groups/g/receive?wait=30s", Value::Null);
    let publish = world.send("POST", "/v1/topics/t/messages", &[], b"x");
    let both = async { tokio::join!(wait, publish) };
    let (got, _) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!(got["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn cloud_events_come_in_three_shapes_and_go_out_whole() {
    let world = world().await;
    world.queue().await;
    let path = "/v1/topics/t/messages";
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/shop"),
        ("ce-type", "paid"),
        ("ce-subject", "caf%C3%A9"),
        ("content-type", "application/json"),
    ];
    let first = world.send("POST", path, &binary, b"{\"n\":1}").await.json();
    let again = world.send("POST", path, &binary, b"{\"n\":1}").await.json();
    assert_eq!(first, json!({"position": 1, "duplicate": false}));
    assert_eq!(again, json!({"position": 1, "duplicate": true}), "source and id name one event");
    let event = |id: &str| {
        json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "paid",
               "partitionkey": "k", "data": {"n": id}})
    };
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let got = world.send("POST", path, &structured, event("2").to_string().as_bytes()).await;
    assert_eq!(got.json()["position"], 2);
    let batched = [("content-type", "application/cloudevents-batch+json")];
    let events = json!([event("3"), event("2")]).to_string();
    let got = world.send("POST", path, &batched, events.as_bytes()).await;
    assert_eq!(got.json()["published"][1], json!({"position": 2, "duplicate": true}));

    let got = world.json("GET", "/v1/topics/t/messages?format=cloudevents", Value::Null).await;
    assert_eq!(got.headers["content-type"], "application/cloudevents-batch+json");
    let events = got.json();
    assert_eq!(events[0]["subject"], "café");
    assert_eq!(events[0]["data"], json!({"n": 1}));
    assert_eq!((&events[2]["id"], &events[2]["partitionkey"]), (&json!("3"), &json!("k")));
    for (headers, body) in [
        (&structured[..], "{\"id\":\"1\"}"),
        (&structured[..], "[]"),
        (&binary[..2], "x"),
        (&[("content-type", "application/cloudevents+avro")][..], "x"),
    ] {
        let got = world.send("POST", path, headers, body.as_bytes()).await;
        assert_eq!((got.status, &got.code()[..]), (StatusCode::BAD_REQUEST, "SV0440"), "{body}");
    }
}

#[tokio::test]
async fn a_stream_of_lines_is_answered_line_by_line() {
    let world = world().await;
    world.queue().await;
    let mut lines: Vec<String> = (0..500).map(|n| json!({"data": n}).to_string()).collect();
    lines.insert(250, "{\"dta\": 1}".to_owned());
    let got = world.send("POST", "/v1/topics/t/stream", &[], lines.join("\n").as_bytes()).await;
    let answers: Vec<Value> = got
        .bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 501);
    assert_eq!(answers[250]["code"], "SV0440");
    let positions: Vec<u64> =
        answers.iter().filter_map(|answer| answer["position"].as_u64()).collect();
    assert_eq!(positions, (1..=500).collect::<Vec<_>>());
    let got = world.ok("GET", "/v1/topics/t/messages?from=500", Value::Null).await;
    assert_eq!(got["messages"][0]["data"], 499, "in the order of the lines");
}

#[tokio::test]
async fn streams_refuse_a_wrong_version_and_a_lost_fence() {
    let world = world().await;
    let opened = json!({"expected": "none", "events": [{"type": "Opened", "data": {"n": 1}}]});
    let got = world.ok("POST", "/v1/streams/account%2F1", opened.clone()).await;
    assert_eq!(got, json!({"versions": [0], "position": 1, "duplicate": false}));
    let got = world.json("POST", "/v1/streams/account%2F1", opened.clone()).await;
    assert_eq!((got.status, &got.code()[..]), (StatusCode::CONFLICT, "SV0420"));
    assert_eq!(got.json()["actual"], 0);
    let page = world.ok("GET", "/v1/streams/account%2F1?direction=backwards", Value::Null).await;
    assert_eq!(page["events"][0]["data"], json!({"n": 1}));
    let grant = world.ok("POST", "/v1/leases/l/acquire", json!({"owner": "me"})).await;
    let write = |token: u64| {
        let fence = format!("l:{token}");
        let body = json!({"events": [{"type": "More"}]}).to_string();
        let world = &world;
        async move {
            world.send("POST", "/v1/streams/s", &[("if-fence", &fence)], body.as_bytes()).await
        }
    };
    let token = grant["token"].as_u64().unwrap();
    assert_eq!(write(token).await.status, StatusCode::OK);
    let late = write(token + 1).await;
    assert_eq!((late.status, &late.code()[..]), (StatusCode::PRECONDITION_FAILED, "SV0431"));
    assert_eq!(
        world.ok("GET", "/v1/events?after=1", Value::Null).await["events"][0]["stream"],
        "s"
    );
}

#[tokio::test]
async fn state_follows_its_tags() {
    let world = world().await;
    let world = &world;
    let put = |headers: &[(&'static str, &str)], value: &'static str| {
        let headers: Vec<(&str, String)> =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        async move {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, &value[..])).collect();
            world.send("PUT", "/v1/state/k", &headers, value.as_bytes()).await
        }
    };
    let first = put(&[("if-none-match", "*"), ("content-type", "text/plain")], "1").await;
    assert_eq!(first.status, StatusCode::NO_CONTENT);
    assert_eq!(put(&[("if-none-match", "*")], "2").await.code(), "SV0421");
    assert_eq!(put(&[("if-match", "\"ffff\"")], "2").await.status, StatusCode::PRECONDITION_FAILED);
    // Tags that are none of ours are tags all the same.
    for foreign in ["W/\"1\"", "\"v1-abc\"", "\"\"", "\"+1\""] {
        let got = put(&[("if-match", foreign)], "2").await;
        assert_eq!((got.status, &got.code()[..]), (StatusCode::PRECONDITION_FAILED, "SV0421"));
    }
    for broken in ["1", "\"1", "\"1\", \"2\"", "", "\"a b\"", "w/\"1\""] {
        let got = put(&[("if-match", broken)], "2").await;
        assert_eq!((got.status, &got.code()[..]), (StatusCode::BAD_REQUEST, "SV0440"), "{broken}");
    }
    let anything = [("if-match", "*")];
    let nothing = world.send("PUT", "/v1/state/new", &anything, b"1").await;
    assert_eq!(nothing.status, StatusCode::PRECONDITION_FAILED);
    let nothing = world.send("DELETE", "/v1/state/new", &anything, b"").await;
    assert_eq!(nothing.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(world.json("GET", "/v1/state/new", Value::Null).await.status, StatusCode::NOT_FOUND);
    let again = put(&[("if-match", "*"), ("content-type", "text/plain")], "1").await;
    assert_eq!(again.status, StatusCode::NO_CONTENT);
    let tag = again.headers["etag"].to_str().unwrap().to_owned();
    let got = world.send("GET", "/v1/state/k", &[], b"").await;
    assert_eq!((&got.bytes[..], got.headers["etag"].to_str().unwrap()), (&b"1"[..], &tag[..]));
    assert_eq!(got.headers["content-type"], "text/plain");
    let delete = world.send("DELETE", "/v1/state/k", &[("if-match", &tag)], b"").await;
    assert_eq!(delete.status, StatusCode::NO_CONTENT);
    assert_eq!(world.json("GET", "/v1/state/k", Value::Null).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_parameter_that_means_nothing_is_refused_on_every_path() {
    let world = world().await;
    for (method, path, _) in openapi::PATHS {
        let path = path.replace(['{', '}'], "");
        let got = world.send(&method.to_uppercase(), &format!("{path}?mx=1"), &[], b"").await;
        assert_eq!((got.status, &got.code()[..]), (StatusCode::BAD_REQUEST, "SV0440"), "{path}");
        let said = got.json()["detail"].as_str().unwrap().to_owned();
        assert!(said.starts_with("unknown parameter `mx`; here are "), "{method} {path}: {said}");
    }
    let got = world.send("PUT", "/v1/state/k?tll=1s", &[], b"").await;
    assert_eq!(got.json()["detail"], "unknown parameter `tll`; here are ttl");
}

#[tokio::test]
async fn who_has_no_token_is_told_which_one() {
    let token = Some("correct-horse-battery".to_owned());
    let world = world_with(Config { token, ..Config::default() }).await;
    let got = world.json("GET", "/v1/topics", Value::Null).await;
    assert_eq!((got.status, &got.code()[..]), (StatusCode::UNAUTHORIZED, "SV0303"));
    assert_eq!(got.headers["www-authenticate"], "Bearer realm=\"selvedge app\"");
    let said = got.json();
    let (title, detail) = (said["title"].as_str().unwrap(), said["detail"].as_str().unwrap());
    assert!(detail.contains("`api.token`"), "{detail}");
    assert!(!title.contains("operator") && !detail.contains("operator"), "{title}: {detail}");
}

#[tokio::test]
async fn a_topic_shows_its_settings_as_it_takes_them() {
    let world = world().await;
    let given = json!({
        "retention_age": "36h", "retention_bytes": 5_000_000, "retain_unconsumed": true,
        "compact": true, "compact_lag": "90s", "tombstone_for": "2d", "priorities": false,
        "ageing": "1500ms", "dedupe_window": "0ms", "dedupe_max": 0, "relaxed": true,
        "collect": [],
    });
    world.ok("PUT", "/v1/topics/t", given.clone()).await;
    let shown = world.ok("GET", "/v1/topics/t", Value::Null).await;
    let all = world.ok("GET", "/v1/topics", Value::Null).await;
    assert_eq!(all["topics"][0], shown);
    let mut again = json!({});
    for (name, value) in given.as_object().unwrap() {
        assert_eq!(&shown[name], value, "{name}");
        again[name] = shown[name].clone();
    }
    world.ok("PUT", "/v1/topics/t", again).await;
    let forever = world.ok("PUT", "/v1/topics/ever", json!({"retention_age": null})).await;
    assert_eq!(forever["retention_age"], Value::Null, "as it is shown, so it is taken");
    assert_eq!(world.ok("GET", "/v1/topics/t", Value::Null).await, shown);
}

#[tokio::test]
async fn a_lock_is_waited_for_and_handed_over() {
    let world = world().await;
    let path = "/v1/leases/leader/acquire";
    let first = world.ok("POST", path, json!({"owner": "a", "ttl": "1m"})).await;
    let held = world.json("POST", path, json!({"owner": "b"})).await;
    assert_eq!((held.status, &held.code()[..]), (StatusCode::CONFLICT, "SV0430"));
    assert_eq!(held.json()["owner"], "a");
    let wait = world.ok("POST", path, json!({"owner": "b", "wait": "30s"}));
    let token = json!({"token": first["token"]});
    let release = world.ok("POST", "/v1/leases/leader/release", token);
    let (second, _) = tokio::join!(wait, release);
    assert!(second["token"].as_u64() > first["token"].as_u64());
    let holders = world.ok("GET", "/v1/leases/leader", Value::Null).await;
    assert_eq!(holders["holders"][0]["owner"], "b");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_its_code() {
    let world = world_with(Config { body_max: 2 << 20, ..Config::default() }).await;
    world.queue().await;
    let large = "x".repeat((1 << 20) + 1);
    let huge = "x".repeat((2 << 20) + 1);
    for (method, path, body, code) in [
        ("PUT", "/v1/topics/u", "{\"retention\": 1}", "SV0440"),
        ("PUT", "/v1/topics/u", "{\"compact\": \"yes\"}", "SV0440"),
        ("PUT", "/v1/topics/u", "{\"ageing\": \"5 parsecs\"}", "SV0440"),
        ("PUT", "/v1/topics/u", "{", "SV0440"),
        ("PUT", "/v1/topics/no%20spaces", "{}", "SV0413"),
        ("PUT", "/v1/topics/t", "{\"compact\": true}", "SV0411"),
        ("PUT", "/v1/topics/t/groups/h", "{\"attempts\": 0}", "SV0413"),
        ("POST", "/v1/topics/t/messages", &large, "SV0412"),
        ("POST", "/v1/topics/t/messages", &huge, "SV0412"),
        ("POST", "/v1/topics/nowhere/messages", "x", "SV0410"),
        ("POST", "/v1/topics/t/groups/nobody/receive", "", "SV0410"),
        ("POST", "/v1/topics/t/groups/g/receive?max=many", "", "SV0440"),
        ("POST", "/v1/topics/t/groups/g/receive?mx=1", "", "SV0440"),
        ("POST", "/v1/topics/t/groups/g/receive?wait=5", "", "SV0440"),
        ("POST", "/v1/topics/t/groups/g/ack", "{\"ids\": [\"1-2\"]}", "SV0440"),
        ("POST", "/v1/topics/t/groups/g/ack", "{\"ids\": [\"1-1-1\"]}", "SV0414"),
        ("POST", "/v1/streams/s", "{\"events\": [{\"type\": \"\"}]}", "SV0413"),
        ("POST", "/v1/streams/s", "{\"expected\": -1, \"events\": []}", "SV0440"),
        (
            "PUT",
            "/v1/schedules/s",
            "{\"spec\": \"x\", \"topic\": \"t\", \"message\": {}}",
            "SV0413",
        ),
        ("GET", "/v1/topics/%zz", "", "SV0441"),
        ("GET", "/v2/topics", "", "SV0441"),
        ("PATCH", "/v1/topics/t", "", "SV0441"),
    ] {
        let got = world.send(method, path, &[], body.as_bytes()).await;
        let shown = &body[..body.len().min(40)];
        assert_eq!(got.code(), code, "{method} {path} {shown}");
        assert!(got.status.is_client_error(), "{method} {path} {shown}: {}", got.status);
    }
    assert_eq!(world.ok("GET", "/v1/topics/t", Value::Null).await["next"], 1, "nothing stayed");
}

#[tokio::test]
async fn every_documented_path_is_there() {
    let world = world().await;
    let document = world.ok("GET", "/openapi.json", Value::Null).await;
    for (method, path, _) in openapi::PATHS {
        assert!(document["paths"][path][method].is_object(), "{path}");
        let mut real = String::new();
        for segment in path.split('/').skip(1) {
            real.push('/');
            real.push_str(if segment.starts_with('{') { "1" } else { segment });
        }
        let got = world.send(&method.to_uppercase(), &real, &[], b"").await;
        let missing = !got.status.is_success() && got.code() == "SV0441";
        assert!(!missing, "{method} {path} is documented and not there");
    }
}

#[tokio::test]
async fn strangers_are_kept_out() {
    let world = world().await;
    let got = world.send("GET", "/v1/topics", &[("host", "evil.example")], b"").await;
    assert_eq!(got.code(), "SV0304");
    let headers = [("origin", "http://evil.example")];
    assert_eq!(world.send("PUT", "/v1/topics/t", &headers, b"").await.code(), "SV0305");
    let config = Config { token: Some("secret".to_owned()), ..Config::default() };
    let world = world_with(config).await;
    assert_eq!(world.send("GET", "/v1/topics", &[], b"").await.code(), "SV0303");
    let headers = [("authorization", "Bearer secret")];
    assert_eq!(world.send("GET", "/v1/topics", &headers, b"").await.status, StatusCode::OK);
}

#[tokio::test]
async fn http_2_is_guarded_and_served_alike() {
    let world = world().await;
    for (host, status) in [
        (world.address.to_string(), StatusCode::OK),
        ("evil.example".to_owned(), StatusCode::MISDIRECTED_REQUEST),
    ] {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("http://{host}/v1/topics"));
        let request = request.body(Full::new(Bytes::new())).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), status, "{host}");
        connection.abort();
    }
}

#[tokio::test]
async fn methods_and_conditions_are_those_of_http() {
    let world = world().await;
    world.queue().await;
    let text = [("content-type", "text/html")];
    world.send("PUT", "/v1/state/k", &text, b"<script>").await;
    let got = world.send("GET", "/v1/state/k", &[], b"").await;
    assert_eq!(got.headers["content-security-policy"], "sandbox; default-src 'none'");
    let tag = got.headers["etag"].to_str().unwrap().to_owned();
    let head = world.send("HEAD", "/v1/state/k", &[], b"").await;
    assert_eq!(
        (head.status, &head.headers["content-length"]),
        (StatusCode::OK, &"8".parse().unwrap())
    );
    assert!(head.bytes.is_empty());
    let several = format!("\"ffff\", {tag}");
    let known = world.send("GET", "/v1/state/k", &[("if-none-match", &several)], b"").await;
    assert_eq!(
        (known.status, known.headers["etag"].to_str().unwrap()),
        (StatusCode::NOT_MODIFIED, &tag[..])
    );
    let other = world.send("GET", "/v1/state/k", &[("if-none-match", "\"ffff\"")], b"").await;
    assert_eq!(other.status, StatusCode::OK);
    let patch = world.send("PATCH", "/v1/topics/t", &[], b"").await;
    assert_eq!((patch.status, &patch.code()[..]), (StatusCode::METHOD_NOT_ALLOWED, "SV0441"));
    assert_eq!(patch.headers["allow"], "PUT, GET, DELETE, OPTIONS, HEAD");
    let options = world.send("OPTIONS", "/v1/state/k", &[], b"").await;
    assert_eq!(options.status, StatusCode::NO_CONTENT);
    assert_eq!(options.headers["allow"], "GET, PUT, DELETE, OPTIONS, HEAD");
    assert_eq!(world.send("OPTIONS", "/v1/nowhere", &[], b"").await.status, StatusCode::NOT_FOUND);
    let events = [("accept", "text/event-stream")];
    let head = world.send("HEAD", "/v1/events", &events, b"").await;
    assert_eq!(head.headers["content-type"], "application/json", "and it ended");
}

#[tokio::test]
async fn a_page_of_another_origin_takes_no_messages() {
    let world = world().await;
    world.queue().await;
    world.ok("POST", "/v1/topics/t/batch", json!({"messages": [{"data": 1}]})).await;
    let path = "/v1/topics/t/groups/g/stream";
    for headers in [
        [("accept", "text/event-stream"), ("sec-fetch-site", "cross-site")],
        [("accept", "text/event-stream"), ("origin", "http://evil.example")],
    ] {
        let got = world.send("GET", path, &headers, b"").await;
        assert_eq!((got.status, &got.code()[..]), (StatusCode::FORBIDDEN, "SV0305"));
    }
    assert_eq!(world.send("HEAD", path, &[], b"").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let group = world.ok("GET", "/v1/topics/t/groups/g", Value::Null).await;
    assert_eq!(group["in_flight"], 0, "nothing was handed out");
}

#[tokio::test]
async fn a_fence_is_heeded_or_refused() {
    let world = world().await;
    world.queue().await;
    let event = json!({"events": [{"type": "a"}, {"type": "b"}]});
    world.ok("POST", "/v1/streams/s", event).await;
    let late = [("if-fence", "l:7")];
    for (method, path, body, code) in [
        ("POST", "/v1/streams/s/truncate", "{\"before\": 1}", "SV0431"),
        ("PUT", "/v1/streams/s/snapshot?version=0", "x", "SV0431"),
        ("DELETE", "/v1/streams/s", "", "SV0431"),
        ("PUT", "/v1/state/k", "x", "SV0431"),
        ("DELETE", "/v1/state/k", "", "SV0431"),
        (
            "POST",
            "/v1/transactions",
            "{\"operations\": [{\"get_state\": {\"key\": \"k\"}}]}",
            "SV0431",
        ),
        // Nobody looks at it there: better said than passed over.
        ("POST", "/v1/topics/t/messages", "x", "SV0440"),
        ("POST", "/v1/topics/t/groups/g/ack", "{\"ids\": []}", "SV0440"),
        ("DELETE", "/v1/topics/t", "", "SV0440"),
    ] {
        let got = world.send(method, path, &late, body.as_bytes()).await;
        assert_eq!(got.code(), code, "{method} {path}");
    }
    let page = world.ok("GET", "/v1/streams/s", Value::Null).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn numbers_come_back_as_they_were_sent() {
    let world = world().await;
    world.queue().await;
    // A parser that is only nearly right loses the last digit of each of these.
    for number in ["449.49106478873813", "945.2706955539223", "901.4274576114835"] {
        let body = format!("{{\"messages\": [{{\"data\": [{number}]}}]}}");
        let path = "/v1/topics/t/batch";
        let got = world.send("POST", path, &[], body.as_bytes()).await;
        assert_eq!(got.status, StatusCode::OK);
        let body = format!("{{\"events\": [{{\"type\": \"a\", \"data\": [{number}]}}]}}");
        let got = world.send("POST", "/v1/streams/s", &[], body.as_bytes()).await;
        assert_eq!(got.status, StatusCode::OK);
        for path in ["/v1/topics/t/messages", "/v1/streams/s"] {
            let got = world.send("GET", path, &[], b"").await;
            let text = String::from_utf8(got.bytes.to_vec()).unwrap();
            assert!(text.contains(&format!("[{number}]")), "{number}: {text}");
        }
    }
}
