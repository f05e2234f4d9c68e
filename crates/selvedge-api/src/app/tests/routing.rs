//! Which messages reach whom.

use super::*;

fn event<'a>(kind: &'a str, id: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("ce-specversion", "1.0"),
        ("ce-source", "/shop"),
        ("ce-type", kind),
        ("ce-id", id),
        ("content-type", "application/json"),
    ]
}

#[tokio::test]
async fn a_group_receives_what_its_filter_wants() {
    let world = world().await;
    world.ok("PUT", "/v1/topics/t", json!({})).await;
    let filter = json!({"all": [
        {"prefix": {"type": "order."}},
        {"equals": {"data.customer.tier": "gold"}},
    ]});
    let group = "/v1/topics/t/groups/gold";
    let put = world.ok("PUT", group, json!({ "filter": filter })).await;
    assert_eq!(put["filter"], filter);
    let gold = br#"{"customer": {"tier": "gold"}}"#;
    for (kind, id, body) in [
        ("order.placed", "1", &gold[..]),
        ("invoice.sent", "2", gold),
        ("order.placed", "3", b"{}"),
        ("order.cancelled", "4", gold),
    ] {
        let got = world.send("POST", "/v1/topics/t/messages", &event(kind, id), body).await;
        assert_eq!(got.status, StatusCode::OK, "{:?}", got.bytes);
    }
    let receive = format!("{group}/receive?wait=5s&format=cloudevents");
    let got = world.send("POST", &receive, &[], b"").await.json();
    let ids: Vec<&str> =
        got.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1", "4"]);
    let status = world.ok("GET", group, Value::Null).await;
    assert_eq!((&status["lag"], &status["in_flight"]), (&json!(2), &json!(2)));
    let changed = world.ok("PUT", group, json!({})).await;
    assert_eq!(changed["filter"], Value::Null, "what is not said is the default");
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_is_refused_and_says_where() {
    let world = world().await;
    world.ok("PUT", "/v1/topics/t", json!({})).await;
    let wrong = json!({"filter": {"any": [{"exact": {"type": "a"}}, {"wildcard": {"key": "a*"}}]}});
    let got = world.json("PUT", "/v1/topics/t/groups/g", wrong).await;
    assert_eq!((got.status, &got.code()[..]), (StatusCode::UNPROCESSABLE_ENTITY, "SV0413"));
    let detail = got.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("at `any[1].wildcard.key`") && detail.contains("whole words"),
        "{detail}"
    );
    let missing = world.json("GET", "/v1/topics/t/groups/g", Value::Null).await;
    assert_eq!(missing.code(), "SV0410");
}

#[tokio::test]
async fn one_topic_collects_what_is_published_to_others() {
    let world = world().await;
    let collect =
        json!(["orders.#", {"from": "mail", "where": {"exact": {"type": "mail.bounced"}}}]);
    let put = world.ok("PUT", "/v1/topics/all", json!({ "collect": collect })).await;
    assert_eq!(put["collect"][0], json!({"from": "orders.#"}));
    for topic in ["orders.eu", "mail"] {
        world.ok("PUT", &format!("/v1/topics/{topic}"), json!({})).await;
    }
    world.ok("PUT", "/v1/topics/all/groups/g", json!({})).await;
    world.ok("POST", "/v1/topics/orders.eu/messages", json!({"n": 1})).await;
    for (kind, id) in [("mail.sent", "1"), ("mail.bounced", "2")] {
        world.send("POST", "/v1/topics/mail/messages", &event(kind, id), b"{}").await;
    }
    let got = world.ok("POST", "/v1/topics/all/groups/g/receive", Value::Null).await;
    let origin = |message: &Value| {
        let headers = &message["headers"];
        (headers["selvedge-origin"].clone(), headers["selvedge-origin-position"].clone())
    };
    let origins: Vec<_> = got["messages"].as_array().unwrap().iter().map(origin).collect();
    assert_eq!(origins, [(json!("orders.eu"), json!("1")), (json!("mail"), json!("2"))]);
    let wrong = world.json("PUT", "/v1/topics/all", json!({"collect": ["orders*"]})).await;
    assert_eq!(wrong.code(), "SV0413");
}

#[tokio::test]
async fn a_message_that_the_schema_refuses_gets_its_place_in_a_problem_document() {
    let world = world().await;
    let document = json!({
        "type": "object",
        "properties": {"customer": {"properties": {"tier": {"enum": ["gold", "tin"]}}}},
    });
    let topic = json!({"schema": document, "compatibility": "full"});
    let put = world.ok("PUT", "/v1/topics/t", topic).await;
    assert_eq!((&put["schema_version"], &put["compatibility"]), (&json!(1), &json!("full")));
    assert_eq!(put["schema"], document);
    let good = json!({"data": {"customer": {"tier": "gold"}}});
    let bad = json!({"data": {"customer": {"tier": "brass"}}});
    let got = world.json("POST", "/v1/topics/t/batch", json!({"messages": [good, bad]})).await;
    assert_eq!((got.status, &got.code()[..]), (StatusCode::UNPROCESSABLE_ENTITY, "SV0417"));
    let problem = got.json();
    let facts = (&problem["index"], &problem["path"], &problem["rule"]);
    let rule = "/properties/customer/properties/tier/enum";
    assert_eq!(facts, (&json!(1), &json!("/customer/tier"), &json!(rule)));
    assert!(!problem["detail"].as_str().unwrap().contains("brass"), "{problem}");
    assert_eq!(world.ok("GET", "/v1/topics/t", Value::Null).await["next"], 1);
    world.ok("POST", "/v1/topics/t/batch", json!({"messages": [good]})).await;

    let narrower =
        json!({"schema": {"type": "object", "required": ["id"]}, "compatibility": "backward"});
    let got = world.json("PUT", "/v1/topics/t", narrower).await;
    assert_eq!((got.status, &got.code()[..]), (StatusCode::CONFLICT, "SV0418"));
    assert_eq!(got.json()["path"], "/required");
    for wrong in [
        json!({"schema": {"$ref": "http://127.0.0.1:1/s"}}),
        json!({"schema": {"type": 7}}),
        json!({"schema": {}, "compatibility": "both"}),
    ] {
        assert_eq!(world.json("PUT", "/v1/topics/t", wrong).await.code(), "SV0413");
    }
}
