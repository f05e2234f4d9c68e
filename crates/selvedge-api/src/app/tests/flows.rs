//! Requests of many operations, and answers that go on.

use std::convert::Infallible;

use http_body_util::channel::{Channel, Sender};

use super::*;

/// A request whose body and answer both go on.
struct Flow {
    body: Option<Sender<Bytes, Infallible>>,
    answer: hyper::body::Incoming,
    unread: Vec<u8>,
    _connection: tokio::task::JoinHandle<()>,
}

impl World {
    async fn flow(&self, method: &str, path: &str, headers: &[(&str, &str)], http2: bool) -> Flow {
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (body, channel) = Channel::<Bytes, Infallible>::new(8);
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method);
        request = if http2 {
            request.uri(uri)
        } else {
            request.uri(path).header("host", self.address.to_string())
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = (method == "POST").then_some(body);
        let request = request.body(channel).unwrap();
        let (answer, connection) = if http2 {
            let executor = hyper_util::rt::TokioExecutor::new();
            let handshake = hyper::client::conn::http2::handshake(executor, stream).await;
            let (mut sender, connection) = handshake.unwrap();
            let connection = tokio::spawn(async move { drop(connection.await) });
            (sender.send_request(request).await.unwrap(), connection)
        } else {
            let handshake = hyper::client::conn::http1::handshake(stream).await;
            let (mut sender, connection) = handshake.unwrap();
            let connection = tokio::spawn(async move { drop(connection.await) });
            (sender.send_request(request).await.unwrap(), connection)
        };
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        Flow { body, answer: answer.into_body(), unread: Vec::new(), _connection: connection }
    }

    async fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Flow {
        let all = [&[("accept", "text/event-stream")], headers].concat();
        self.flow("GET", path, &all, false).await
    }
}

impl Flow {
    async fn say(&mut self, line: Value) {
        let line = Bytes::from(format!("{line}\n"));
        self.body.as_mut().unwrap().send_data(line).await.unwrap();
    }

    /// The answer up to and with `end`, or nothing when it is over.
    async fn until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                let rest = self.unread.split_off(at + end.len());
                let piece = std::mem::replace(&mut self.unread, rest);
                return Some(String::from_utf8(piece).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.answer.frame());
            match frame.await.expect("something comes") {
                Some(frame) => {
                    if let Ok(data) = frame.unwrap().into_data() {
                        self.unread.extend_from_slice(&data);
                    }
                }
                None => return None,
            }
        }
    }

    async fn line(&mut self) -> Value {
        serde_json::from_str(&self.until(b"\n").await.expect("one more line")).unwrap()
    }

    /// The next event: its name, its id, its data.
    async fn event(&mut self) -> (String, Option<String>, Value) {
        loop {
            let text = self.until(b"\n\n").await.expect("one more event");
            let field = |name: &str| {
                let mut lines = text.lines();
                lines
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                    .map(str::to_owned)
            };
            // A comment is no event.
            let Some(kind) = field("event") else { continue };
            let data = serde_json::from_str(&field("data").unwrap()).unwrap();
            return (kind, field("id"), data);
        }
    }
}

#[tokio::test]
async fn publish_receive_and_acknowledge_share_one_request() {
    for http2 in [false, true] {
        let world = world().await;
        world.queue().await;
        let mut flow = world.flow("POST", "/v1/pipeline", &[], http2).await;
        let receive = json!({"id": "r", "receive": {"topic": "t", "group": "g", "wait": "30s"}});
        flow.say(receive).await;
        flow.say(json!({"id": 1, "publish": {"topic": "t", "messages": [{"data": {"n": 7}}]}}))
            .await;
        let answers = [flow.line().await, flow.line().await];
        let of = |id: Value| answers.iter().find(|it| it["id"] == id).unwrap();
        assert_eq!(of(json!(1))["published"][0]["position"], 1);
        let message = &of(json!("r"))["messages"][0];
        assert_eq!(message["data"], json!({"n": 7}), "waited for in the same request");
        let ids = json!([message["id"]]);
        flow.say(json!({"id": 2, "ack": {"topic": "t", "group": "g", "ids": ids}})).await;
        assert_eq!(flow.line().await, json!({"id": 2, "settled": 1, "dead": 0, "stale": []}));

        // What is wrong with one line is that line's affair.
        flow.say(json!({"id": 3, "publish": {"topic": "nowhere", "messages": [{}]}})).await;
        let refused = flow.line().await;
        assert_eq!((&refused["id"], &refused["code"]), (&json!(3), &json!("SV0410")));
        flow.say(json!({"id": 4, "publsh": {}})).await;
        assert_eq!(flow.line().await["code"], "SV0440");
        flow.say(json!({"id": 5})).await;
        let empty = flow.line().await;
        assert_eq!((&empty["id"], &empty["code"]), (&json!(5), &json!("SV0440")));
        drop(flow.body.take());
        assert_eq!(flow.until(b"\n").await, None, "it ends with the request");
    }
}

#[tokio::test]
async fn lines_of_a_pipeline_reach_the_log_in_their_order() {
    let world = world().await;
    world.queue().await;
    let line =
        |n: u32| json!({"id": n, "publish": {"topic": "t", "messages": [{"data": n}]}}).to_string();
    let lines: Vec<String> = (1..=3000).map(line).collect();
    let got = world.send("POST", "/v1/pipeline", &[], lines.join("\n").as_bytes()).await;
    let answers = got.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut count = 0;
    for line in answers {
        let answer: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(answer["id"], answer["published"][0]["position"], "{answer}");
        count += 1;
    }
    assert_eq!(count, 3000);
}

#[tokio::test]
async fn a_transaction_is_done_whole_or_not_at_all() {
    let world = world().await;
    world.queue().await;
    let token = world.ok("POST", "/v1/leases/l/acquire", json!({"owner": "me"})).await["token"]
        .as_u64()
        .unwrap();
    let all = |token: u64, expected: &str| {
        json!({"operations": [
            {"check_fence": {"resource": "l", "token": token}},
            {"put_state": {"key": "balance", "value": {"eur": 5}, "if_absent": true}},
            {"publish": {"topic": "t", "messages": [{"key": "a", "data": "opened"}]}},
            {"append": {"writes": [{"stream": "s", "expected": expected, "events": [{"type": "Opened"}]}]}},
        ]})
    };
    for (token, expected, code) in [(token + 1, "none", "SV0431"), (token, "exists", "SV0420")] {
        let got = world.json("POST", "/v1/transactions", all(token, expected)).await;
        assert_eq!(got.code(), code);
        assert_eq!(world.json("GET", "/v1/state/balance", Value::Null).await.code(), "SV0410");
        assert_eq!(world.ok("GET", "/v1/topics/t", Value::Null).await["next"], 1, "nothing stayed");
    }
    let got = world.ok("POST", "/v1/transactions", all(token, "none")).await;
    let answers = got["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 4);
    assert_eq!(answers[2]["published"][0]["position"], 1);
    assert_eq!(answers[3]["versions"], json!([0]));
    let etag = answers[1]["etag"].as_str().unwrap();
    let got = world.send("GET", "/v1/state/balance", &[], b"").await;
    assert_eq!(got.headers["etag"], format!("\"{etag}\""));
    assert_eq!(got.json(), json!({"eur": 5}));

    // Take a message, remember what came of it, and settle it: together.
    let message = world.ok("POST", "/v1/topics/t/groups/g/receive", Value::Null).await;
    let ids = json!([message["messages"][0]["id"]]);
    let done = json!({"operations": [
        {"put_state": {"key": "balance", "value": 6, "if_match": etag}},
        {"ack": {"topic": "t", "group": "g", "ids": ids}},
    ]});
    let fence = [("if-fence", &format!("l:{}", token + 9)[..])];
    let got = world.send("POST", "/v1/transactions", &fence, done.to_string().as_bytes()).await;
    assert_eq!(got.code(), "SV0431");
    let fence = [("if-fence", &format!("l:{token}")[..])];
    let got = world.send("POST", "/v1/transactions", &fence, done.to_string().as_bytes()).await;
    assert_eq!(got.json()["answers"].as_array().unwrap().len(), 2, "{:?}", got.bytes);
    let again = world.json("POST", "/v1/transactions", done).await;
    assert_eq!(again.code(), "SV0421", "the tag has changed");
    let late = json!({"operations": [
        {"put_state": {"key": "late", "value": 1}},
        {"ack": {"topic": "t", "group": "g", "ids": ids}},
    ]});
    assert_eq!(world.json("POST", "/v1/transactions", late).await.code(), "SV0414");
    assert_eq!(world.json("GET", "/v1/state/late", Value::Null).await.code(), "SV0410");
    for wrong in [
        json!({"operations": []}),
        json!({"operations": [{}]}),
        json!({"operations": [{"get_state": {"key": "a"}, "release": {"resource": "l", "token": 1}}]}),
        json!({"operations": [{"put_state": {"key": "a"}}]}),
        json!({"operations": [{"put_state": {"key": "a", "value": 1, "if_match": "xyz"}}]}),
        json!({"operations": [{"ack": {"topic": "t", "group": "g", "ids": ["1"]}}]}),
        json!({"operation": []}),
    ] {
        assert_eq!(
            world.json("POST", "/v1/transactions", wrong.clone()).await.code(),
            "SV0440",
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_group_is_followed_and_settled() {
    let world = world().await;
    world.queue().await;
    let mut flow = world.follow("/v1/topics/t/groups/g/stream", &[]).await;
    for n in 1..=3 {
        world
            .send(
                "POST",
                "/v1/topics/t/messages",
                &[("content-type", "application/json")],
                n.to_string().as_bytes(),
            )
            .await;
        let (kind, id, message) = flow.event().await;
        assert_eq!(
            (&kind[..], id.as_deref(), &message["data"]),
            ("message", Some(&n.to_string()[..]), &json!(n))
        );
        let ack = json!({"ids": [message["id"]]});
        world.ok("POST", "/v1/topics/t/groups/g/ack", ack).await;
    }
    assert_eq!(world.ok("GET", "/v1/topics/t/groups/g", Value::Null).await["lag"], 0);
    let nobody = "/v1/topics/t/groups/nobody/stream";
    assert_eq!(world.json("GET", nobody, Value::Null).await.code(), "SV0410");
}

#[tokio::test]
async fn a_topic_is_followed_and_gone_on_with() {
    let world = world().await;
    world.queue().await;
    let publish = |text: &'static str| {
        world.send(
            "POST",
            "/v1/topics/t/messages",
            &[("content-type", "text/plain")],
            text.as_bytes(),
        )
    };
    publish("before").await;
    let mut new = world.follow("/v1/topics/t/messages", &[]).await;
    let mut all = world.follow("/v1/topics/t/messages?from=first", &[]).await;
    assert_eq!(all.event().await.2["data"], "before");
    publish("after").await;
    assert_eq!(all.event().await.2["data"], "after");
    let (_, id, message) = new.event().await;
    assert_eq!((id.as_deref(), &message["data"]), (Some("2"), &json!("after")));
    let mut again = world.follow("/v1/topics/t/messages", &[("last-event-id", "1")]).await;
    assert_eq!(again.event().await.2["data"], "after");
    let headers = [("accept", "text/event-stream"), ("last-event-id", "x")];
    assert_eq!(world.send("GET", "/v1/topics/t/messages", &headers, b"").await.code(), "SV0440");
}

#[tokio::test]
async fn streams_and_leases_are_followed() {
    let world = world().await;
    let append = |stream: &'static str, kind: &'static str| async move {
        let body = json!({"events": [{"type": kind}]});
        (format!("/v1/streams/{stream}"), body)
    };
    let mut one = world.follow("/v1/streams/a", &[]).await;
    let mut every = world.follow("/v1/events", &[]).await;
    for (stream, kind) in [("b", "First"), ("a", "Second"), ("a", "Third")] {
        let (path, body) = append(stream, kind).await;
        world.ok("POST", &path, body).await;
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (kind, id, event) = every.event().await;
        assert_eq!(kind, "event");
        seen.push((id.unwrap(), event["type"].as_str().unwrap().to_owned()));
    }
    let texts = |all: &[(&str, &str)]| {
        all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(seen, texts(&[("1", "First"), ("2", "Second"), ("3", "Third")]));
    assert_eq!(one.event().await.1.as_deref(), Some("0"));
    assert_eq!(one.event().await.2["type"], "Third");

    let mut lease = world.follow("/v1/leases/leader", &[]).await;
    assert_eq!(lease.event().await.2, json!({"holders": []}));
    let grant = world.ok("POST", "/v1/leases/leader/acquire", json!({"owner": "me"})).await;
    let (kind, _, holders) = lease.event().await;
    assert_eq!((&kind[..], &holders["holders"][0]["token"]), ("holders", &grant["token"]));
    let token = json!({"token": grant["token"]});
    world.ok("POST", "/v1/leases/leader/release", token).await;
    assert_eq!(lease.event().await.2, json!({"holders": []}));
}

#[tokio::test]
async fn snapshots_are_kept_by_schema_and_version() {
    let world = world().await;
    let events = json!({"events": [{"type": "A"}, {"type": "B"}]});
    world.ok("POST", "/v1/streams/s", events).await;
    let path = "/v1/streams/s/snapshot";
    assert_eq!(world.json("GET", path, Value::Null).await.code(), "SV0410");
    assert_eq!(world.send("PUT", path, &[], b"x").await.code(), "SV0440", "which version?");
    let put = world.send("PUT", "/v1/streams/s/snapshot?schema=v2&version=1", &[], b"sum").await;
    assert_eq!(put.status, StatusCode::NO_CONTENT);
    let got = world.send("GET", "/v1/streams/s/snapshot?schema=v2", &[], b"").await;
    assert_eq!(&got.bytes[..], b"sum");
    assert_eq!(got.headers["selvedge-version"], "1");
    let other = world.send("GET", "/v1/streams/s/snapshot?schema=v1", &[], b"").await;
    assert_eq!(other.code(), "SV0410", "another shape is no snapshot");
}

#[tokio::test]
async fn a_reader_sees_what_a_writer_was_told() {
    let world = world().await;
    world.queue().await;
    let waits = world.json("GET", "/v1/topics/t/messages?wait_for=1&wait=30s", Value::Null);
    let publish = world.send("POST", "/v1/topics/t/messages", &[], b"x");
    let (got, _) = tokio::join!(waits, publish);
    assert_eq!(got.json()["messages"].as_array().unwrap().len(), 1);
    let event = json!({"events": [{"type": "A"}]});
    let told = world.ok("POST", "/v1/streams/s", event).await["position"].clone();
    let path = format!("/v1/events?wait_for={told}&wait=0ms");
    assert_eq!(world.ok("GET", &path, Value::Null).await["events"].as_array().unwrap().len(), 1);
    let path = format!("/v1/streams/s?wait_for={told}");
    assert_eq!(world.ok("GET", &path, Value::Null).await["last"], 0);
    let got = world.json("GET", "/v1/events?wait_for=99&wait=1ms", Value::Null).await;
    assert_eq!((got.status, &got.code()[..]), (StatusCode::GATEWAY_TIMEOUT, "SV0442"));
}

#[tokio::test]
async fn a_semaphore_lets_a_few_in() {
    let world = world().await;
    let acquire = |owner: &'static str| {
        let body = json!({"owner": owner, "permits": 2});
        world.json("POST", "/v1/leases/slots/acquire", body)
    };
    assert!(acquire("a").await.status.is_success());
    let second = acquire("b").await.json();
    assert_eq!(acquire("c").await.code(), "SV0430");
    world.ok("POST", "/v1/leases/slots/release", json!({"token": second["token"]})).await;
    assert!(acquire("c").await.status.is_success());
}

#[tokio::test]
async fn a_group_with_a_rate_hands_out_as_it_was_told() {
    let world = world().await;
    world.queue().await;
    let group = "/v1/topics/t/groups/g";
    world.ok("PUT", group, json!({"rate": "2/h", "burst": 3})).await;
    let messages: Vec<Value> = (0..5).map(|n| json!({"data": n})).collect();
    world.ok("POST", "/v1/topics/t/batch", json!({"messages": messages})).await;
    let got = world.ok("POST", &format!("{group}/receive"), Value::Null).await;
    assert_eq!(got["messages"].as_array().unwrap().len(), 3);
    let got = world.ok("POST", &format!("{group}/receive"), Value::Null).await;
    assert_eq!(got, json!({"messages": []}));
    let status = world.ok("GET", group, Value::Null).await;
    assert_eq!((&status["rate"], &status["burst"]), (&json!("2/h"), &json!(3)));
    assert!(status["throttled_until"].is_string(), "{status}");
    for wrong in [json!({"rate": "2"}), json!({"burst": 3}), json!({"rate": "1/0s"})] {
        assert_eq!(world.json("PUT", group, wrong).await.code(), "SV0440");
    }
}

/// Idle is idle: who waits is told, and asks nothing.
#[tokio::test]
async fn those_who_wait_cost_nothing_until_something_comes() {
    let (world, store) = world_and_store(Config::default()).await;
    world.queue().await;
    world.ok("PUT", "/v1/topics/quiet", json!({})).await;
    let mut flows = Vec::new();
    for n in 0..20 {
        let group = format!("/v1/topics/quiet/groups/g{n}");
        world.ok("PUT", &group, json!({})).await;
        for path in [
            format!("{group}/stream"),
            "/v1/topics/quiet/messages".to_owned(),
            format!("/v1/streams/s{n}"),
            "/v1/events".to_owned(),
        ] {
            let mut flow = world.follow(&path, &[]).await;
            flow.until(b"hello\n\n").await;
            flows.push(flow);
        }
        let mut lease = world.follow(&format!("/v1/leases/l{n}"), &[]).await;
        lease.event().await;
        flows.push(lease);
    }
    let mut long_poll = world.flow("POST", "/v1/pipeline", &[], true).await;
    for n in 0..100 {
        let receive = json!({"topic": "quiet", "group": format!("g{}", n % 20), "wait": "60s"});
        long_poll.say(json!({ "id": n, "receive": receive })).await;
    }
    let later = json!({"data": 1, "deliver_at": "2099-01-01T00:00:00Z"});
    let later = json!({"messages": vec![later; 1000]});
    let refused = world.json("POST", "/v1/topics/quiet/batch", later).await;
    assert_eq!(refused.code(), "SV0413", "a year ahead at most");
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let later = json!({"data": 1, "deliver_at": at.to_string()});
    world.ok("POST", "/v1/topics/quiet/batch", json!({"messages": vec![later; 1000]})).await;

    let settled = || (store.reads(), store.transactions());
    // A look for each that watches, and one more for each that had to learn where a topic
    // or a group is; the rest has come to the writer when three turns bring nothing.
    let (mut last, mut quiet) = (settled(), 0);
    while quiet < 3 || last.0 < 20 * 6 {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        store.wake().await.unwrap();
        let now = settled();
        quiet = if now == (last.0, last.1 + 1) { quiet + 1 } else { 0 };
        last = now;
    }
    let before = settled();
    // By the clock of those who wait the better part of a minute, heartbeats included.
    tokio::time::pause();
    for _ in 0..58 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
    let beats = flows.iter_mut().map(|flow| async {
        loop {
            let frame = flow.answer.frame().await.unwrap().unwrap().into_data().unwrap();
            if frame.as_ref().starts_with(b":\n") {
                break;
            }
        }
    });
    for beat in beats {
        beat.await;
    }
    assert_eq!(settled(), before, "nobody asked for anything");

    // A message elsewhere is nobody's business here.
    world.send("POST", "/v1/topics/t/messages", &[], b"x").await;
    assert_eq!(settled(), (before.0, before.1 + 1));
}

impl Flow {
    /// A line and what follows it.
    async fn say_raw(&mut self, line: Value, after: &[u8]) {
        let bytes = [line.to_string().as_bytes(), b"\n", after].concat();
        // In pieces, however they fall.
        for piece in bytes.chunks(7) {
            self.body.as_mut().unwrap().send_data(Bytes::copy_from_slice(piece)).await.unwrap();
        }
    }

    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let frame = self.answer.frame().await.expect("more comes").unwrap();
            self.unread.extend_from_slice(&frame.into_data().unwrap());
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }
}

#[tokio::test]
async fn payloads_follow_their_line_as_they_are() {
    for http2 in [false, true] {
        let world = world().await;
        world.queue().await;
        let mut flow = world.flow("POST", "/v1/pipeline?payloads=raw", &[], http2).await;
        let payloads = [&b"\n{\"delete\n"[..], b"", &[0xFF; 300], b"x"];
        let messages = json!([{"bytes": 10, "key": "k"}, {"bytes": 0}, {"data": "text"}, {"bytes": 300}, {"bytes": 1}]);
        let publish = json!({"id": 1, "publish": {"topic": "t", "messages": messages}});
        flow.say_raw(publish, &payloads.concat()).await;
        assert_eq!(flow.line().await["published"][4]["position"], 5);
        let receive = json!({"id": 2, "receive": {"topic": "t", "group": "g", "max": 9}});
        flow.say_raw(receive, b"").await;
        let answer = flow.line().await;
        let messages = answer["messages"].as_array().unwrap();
        let mut got = Vec::new();
        for message in messages {
            got.push(flow.bytes(message["bytes"].as_u64().unwrap() as usize).await);
        }
        assert_eq!(got, [payloads[0], payloads[1], b"text", payloads[2], payloads[3]]);
        assert_eq!(
            (&messages[0]["key"], &messages[2]["headers"]["content-type"]),
            (&json!("k"), &json!("text/plain"))
        );
        let ids: Vec<&Value> = messages.iter().map(|it| &it["id"]).collect();
        flow.say_raw(json!({"id": 3, "ack": {"topic": "t", "group": "g", "ids": ids}}), b"").await;
        assert_eq!(flow.line().await["settled"], 5);

        // What is refused takes its payload with it.
        let both = json!([{"bytes": 11, "data": "x"}]);
        let publish = json!({"id": 4, "publish": {"topic": "t", "messages": both}});
        flow.say_raw(publish, b"{\"id\":\"no\"}").await;
        let refused = flow.line().await;
        assert_eq!((&refused["id"], &refused["code"]), (&json!(4), &json!("SV0440")));
        flow.say_raw(
            json!({"id": 5, "publish": {"topic": "no", "messages": [{"bytes": 2}]}}),
            b"ab",
        )
        .await;
        assert_eq!(flow.line().await["code"], "SV0410");
    }
}

#[tokio::test]
async fn what_somebody_wrote_into_a_payload_is_never_obeyed() {
    let world = world().await;
    world.queue().await;
    let path = "/v1/pipeline?payloads=raw";
    let evil = json!({"publish": {"topic": "t", "messages": [{"data": "evil"}]}});
    let evil = format!("\n{evil}\n");
    let bytes = evil.len();
    for line in [
        json!({"publsh": {"topic": "t", "messages": [{"bytes": bytes}]}}),
        json!({"publish": {"topic": "t", "messages": [{"bytes": -1}]}}),
        json!({"publish": {"topic": "t", "messages": [{"bytes": 1_u64 << 40}]}}),
        json!({"publish": {"topic": "t", "messages": [{"bytes": bytes + 1}]}}),
    ] {
        let got = world.send("POST", path, &[], format!("{line}\n{evil}").as_bytes()).await;
        let answers = got.bytes.split(|byte| *byte == b'\n').filter(|it| !it.is_empty()).count();
        assert!(answers <= 1, "{line}: {:?}", got.bytes);
        assert_eq!(world.ok("GET", "/v1/topics/t", Value::Null).await["next"], 1, "{line}");
    }
    let beside = json!({"publish": {"topic": "t", "messages": [{"bytes": 1}]}}).to_string();
    let got = world.send("POST", "/v1/pipeline", &[], beside.as_bytes()).await;
    assert_eq!(got.json()["code"], "SV0440", "not without saying so");
    let batch = json!({"messages": [{"bytes": 1}]});
    assert_eq!(world.json("POST", "/v1/topics/t/batch", batch).await.code(), "SV0440");
    let got = world.json("POST", "/v1/pipeline?payloads=base64", Value::Null).await;
    assert_eq!(got.code(), "SV0440");
}

#[tokio::test]
async fn every_documented_operation_is_read_on_a_line() {
    let world = world().await;
    let names = openapi::OPERATIONS.iter().map(|(name, _)| *name);
    // What is none is told which there are.
    let got = world.send("POST", "/v1/pipeline", &[], b"{\"id\": 1, \"publsh\": {}}").await;
    let refused: Value = serde_json::from_slice(&got.bytes).unwrap();
    let detail = refused["detail"].as_str().unwrap();
    let known = detail.split('`').skip(3).step_by(2);
    assert!(names.clone().eq(known), "{detail}");
    assert_eq!((&refused["id"], &refused["code"]), (&json!(1), &json!("SV0440")));
    let lines: Vec<String> = names.map(|name| json!({name: {"odd": 1}}).to_string()).collect();
    let got = world.send("POST", "/v1/pipeline", &[], lines.join("\n").as_bytes()).await;
    let answers = String::from_utf8(got.bytes.to_vec()).unwrap();
    assert_eq!(answers.lines().count(), openapi::OPERATIONS.len());
    assert!(answers.lines().all(|line| line.contains("unknown field `odd`")), "{answers}");
}

#[tokio::test]
async fn an_exact_answer_has_bytes_and_a_word_on_each_receipt() {
    let world = world().await;
    let mut flow = world.flow("POST", "/v1/pipeline", &[], true).await;
    for (id, line, answer) in [
        (1, json!({"put_topic": {"topic": "t"}}), json!({"name": "t", "retention_age": "604800s"})),
        (2, json!({"put_group": {"topic": "t", "group": "g"}}), json!({"lag": 0, "attempts": 10})),
        (
            3,
            json!({"publish": {"topic": "t", "messages": [
            {"data": {"n": 1}, "headers": [["b", "1"], ["a", "2"], ["b", "3"]]}]}}),
            json!({"published": [{"position": 1, "duplicate": false}]}),
        ),
        (4, json!({"receive": {"topic": "t", "group": "g"}}), json!({})),
        (
            5,
            json!({"settle": {"topic": "t", "group": "g", "replies": [
            {"id": "1-1-1", "verdict": "park", "reason": "no"}, {"id": "1-1-1", "verdict": "ack"}]}}),
            json!({"settled": 1, "dead": 1, "verdicts": [
                {"cause": "parked"}, {"stale": {"id": "1-1-1", "latest": null}}]}),
        ),
        (
            6,
            json!({"transact": {"operations": [
            {"redrive": {"topic": "t", "group": "g"}}, {"get_topic": {"topic": "t"}}]}}),
            json!({}),
        ),
        (
            7,
            json!({"get_topic": {"topic": "u"}}),
            json!({"code": "SV0410", "kind": "topic", "name": "u", "status": 404}),
        ),
    ] {
        let mut line = line;
        line["id"] = id.into();
        line["exact"] = true.into();
        flow.say(line).await;
        let got = flow.line().await;
        assert_eq!(got["id"], id);
        for (name, value) in answer.as_object().unwrap() {
            assert_eq!(&got[name], value, "{got}");
        }
        match id {
            4 => {
                let message = &got["messages"][0];
                assert_eq!(message["data_base64"], "eyJuIjoxfQ==", "{got}");
                let headers = json!([
                    ["b", "1"],
                    ["a", "2"],
                    ["b", "3"],
                    ["content-type", "application/json"]
                ]);
                assert_eq!(message["headers"], headers, "{got}");
            }
            6 => {
                assert_eq!(got["answers"][0], json!({"redriven": 1}), "{got}");
                assert_eq!(got["answers"][1]["next"], 2, "{got}");
            }
            _ => {}
        }
    }
}
