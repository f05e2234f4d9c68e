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
