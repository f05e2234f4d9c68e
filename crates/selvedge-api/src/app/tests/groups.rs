//! Groups that hand out by rules of their own.

use super::*;

#[tokio::test]
async fn an_exclusive_group_serves_one_consumer_at_a_time() {
    let world = world().await;
    world.queue().await;
    let group = "/v1/topics/t/groups/x";
    world.ok("PUT", group, json!({"exclusive": true})).await;
    assert_eq!(world.json("PUT", group, json!({"exclusive": 3})).await.code(), "SV0440");
    let batch = json!({"messages": [{"data": "a"}, {"data": "b"}]});
    world.ok("POST", "/v1/topics/t/batch", batch).await;
    let unnamed = world.json("POST", &format!("{group}/receive"), Value::Null).await;
    assert_eq!(unnamed.code(), "SV0413");
    let detail = unnamed.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("`consumer`"), "{detail}");
    let receive = |consumer| format!("{group}/receive?max=1&consumer={consumer}");
    let got = world.ok("POST", &receive("one"), Value::Null).await;
    assert_eq!(got["messages"][0]["data"], "a");
    assert_eq!(world.ok("POST", &receive("two"), Value::Null).await, json!({"messages": []}));
    let status = world.ok("GET", group, Value::Null).await;
    assert_eq!(
        (&status["exclusive"], &status["active"]["consumer"]),
        (&json!(true), &json!("one"))
    );
    let leave = format!("{group}/leave");
    let wait = format!("{}&wait=30s", receive("two"));
    let wait = world.ok("POST", &wait, Value::Null);
    let left = world.ok("POST", &leave, json!({"consumer": "one"}));
    let both = async { tokio::join!(wait, left) };
    let (next, left) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!(left, json!({"left": true}));
    assert_eq!(
        (&next["messages"][0]["data"], &next["messages"][0]["attempt"]),
        (&json!("a"), &json!(1))
    );
    let stale = json!({"ids": [got["messages"][0]["id"]]});
    assert_eq!(world.json("POST", &format!("{group}/ack"), stale).await.code(), "SV0414");
}

#[tokio::test]
async fn a_group_full_of_dead_letters_says_so() {
    let world = world().await;
    world.queue().await;
    let group = "/v1/topics/t/groups/d";
    let bound = json!({"dead_letters_max": 1, "dead_letters_full": "hold"});
    world.ok("PUT", group, bound).await;
    let batch = json!({"messages": [{"data": "a"}, {"data": "b"}]});
    world.ok("POST", "/v1/topics/t/batch", batch).await;
    let receive = format!("{group}/receive?max=1");
    let got = world.ok("POST", &receive, Value::Null).await;
    let park = json!({"ids": [got["messages"][0]["id"]]});
    world.ok("POST", &format!("{group}/park"), park).await;
    assert_eq!(world.ok("POST", &receive, Value::Null).await, json!({"messages": []}));
    let status = world.ok("GET", group, Value::Null).await;
    let seen = (&status["dead_letters_full"], &status["dead_letters_max"], &status["dropped"]);
    assert_eq!(seen, (&json!(true), &json!(1), &json!(0)));
    world.ok("POST", &format!("{group}/dead-letters/discard"), json!({})).await;
    assert_eq!(world.ok("POST", &receive, Value::Null).await["messages"][0]["data"], "b");
    assert_eq!(
        world.json("PUT", group, json!({"dead_letters_full": "lose"})).await.code(),
        "SV0440"
    );
}

#[tokio::test]
async fn all_leases_are_listed_a_page_at_a_time() {
    let world = world().await;
    for (resource, owner) in [("b", "one"), ("a", "two"), ("b", "three")] {
        let acquire = json!({"owner": owner, "permits": 2, "ttl": "60s"});
        world.ok("POST", &format!("/v1/leases/{resource}/acquire"), acquire).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/leases?max=2".to_owned();
    loop {
        let page = world.ok("GET", &path, Value::Null).await;
        for lease in page["leases"].as_array().unwrap() {
            assert!(lease["since"].is_string() && lease["until"].is_string(), "{lease}");
            let text = |name: &str| lease[name].as_str().unwrap().to_owned();
            seen.push((text("resource"), text("owner")));
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/leases?max=2&after={next}");
    }
    let pairs: Vec<_> = seen.iter().map(|(resource, owner)| (&resource[..], &owner[..])).collect();
    assert_eq!(pairs, [("a", "two"), ("b", "one"), ("b", "three")]);
    let long = world.ok("GET", "/v1/leases?held_for=1h", Value::Null).await;
    assert_eq!(long, json!({"leases": [], "next": null}));
    assert_eq!(world.json("GET", "/v1/leases?after=x", Value::Null).await.code(), "SV0440");
}

#[tokio::test]
async fn what_is_given_back_costs_no_attempt() {
    let world = world().await;
    world.queue().await;
    let group = "/v1/topics/t/groups/g";
    world.ok("POST", "/v1/topics/t/batch", json!({"messages": [{"data": "a"}]})).await;
    for _ in 0..3 {
        let got = world.ok("POST", &format!("{group}/receive"), Value::Null).await;
        assert_eq!(got["messages"][0]["attempt"], 1);
        let back = json!({"ids": [got["messages"][0]["id"]]});
        let settled = world.ok("POST", &format!("{group}/give-back"), back).await;
        assert_eq!(settled["settled"], 1);
    }
}
