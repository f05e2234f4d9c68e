//! The examples, started as their pages say and asked what their pages ask.

use selvedge_tests::{
    raw,
    selvedge::{Ports, Selvedge},
    upstream::{Received, Reply, Upstream},
    wait,
};
use std::time::Instant;

/// An example's file on our ports, before our servers in place of its own.
fn started(name: &str, servers: &[(&str, &Upstream)]) -> Selvedge {
    let path = format!("{}/../../examples/{name}/selvedge.yaml", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(path).unwrap();
    let ports = Ports::free();
    let own = |port: u16| format!("\"127.0.0.1:{port}\"");
    text = text.replace("ambassador: on", &format!("ambassador: {}", own(ports.ambassador)));
    text = text.replace("\"127.0.0.1:8080\"", &own(ports.edge));
    for (theirs, server) in servers {
        assert!(text.contains(theirs), "the example has no {theirs}");
        text = text.replace(theirs, &server.address());
    }
    text.push_str(&format!("operator: {}\n", own(ports.operator)));
    Selvedge::run_file(&text, ports, &[])
}

/// A server of plain files, which takes no `POST`.
fn files(name: &'static str) -> Upstream {
    Upstream::http(move |request: &Received| match request.method.as_str() {
        "GET" => Reply::ok(name),
        _ => Reply::status(501),
    })
}

#[test]
fn the_ambassador_reaches_both_services_and_survives_one_endpoint() {
    let (payments, mut stock, mut more) = (files("payments"), files("stock"), files("stock"));
    let servers =
        [("127.0.0.1:9001", &payments), ("127.0.0.1:9002", &stock), ("127.0.0.1:9003", &more)];
    let selvedge = started("ambassador", &servers);
    let ask = |target: &str| raw::get(selvedge.ambassador, target).unwrap();
    for _ in 0..6 {
        assert_eq!((ask("/stock/").status, ask("/stock/").text().as_str()), (200, "stock"));
    }
    assert_eq!(ask("/payments/charge").text(), "payments");
    let request = &payments.requests()[0];
    assert_eq!(request.target, "/charge");
    assert_eq!(request.header("host"), Some(payments.address().as_str()), "its own name");
    let key = "idempotency-key: 42\r\ncontent-length: 0\r\n";
    let refused = raw::exchange(
        selvedge.ambassador,
        &format!("POST /payments/ HTTP/1.1\r\nhost: a\r\n{key}connection: close\r\n\r\n"),
    );
    assert_eq!(refused.unwrap().status, 501, "what the service says, the caller hears");
    let unknown = ask("/nobody/");
    assert_eq!((unknown.status, unknown.code().as_deref()), (404, Some("SV0215")));
    stock.kill();
    for _ in 0..10 {
        assert_eq!(ask("/stock/").status, 200);
    }
    more.kill();
    let stale = ask("/stock/");
    assert_eq!((stale.status, stale.text().as_str()), (200, "stock"));
    assert!(stale.header("x-selvedge-stale").is_some(), "the last good answer, marked as such");
}

#[test]
fn the_protected_service_is_limited_by_caller_and_has_an_answer_of_its_own() {
    let mut api = files("api");
    let selvedge = started("protect", &[("127.0.0.1:9001", &api)]);
    let first = selvedge.get("/");
    assert_eq!(first.status, 200);
    assert!(first.header("ratelimit-policy").is_some() && first.header("ratelimit").is_some());
    let begun = Instant::now();
    let answers: Vec<_> =
        (0..40).map(|_| selvedge.get_with("/search/x", "x-api-key: me\r\n")).collect();
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().find(|answer| answer.status == 429).expect("some are refused");
    assert!(refused.header("retry-after").is_some());
    // Ten at once, then five a second.
    let most = 10 + 5 * (begun.elapsed().as_secs() as usize + 1);
    assert!((10..=most).contains(&passed), "{passed} of at most {most}");
    assert_eq!(selvedge.get_with("/search/x", "x-api-key: you\r\n").status, 200);
    api.kill();
    let own = wait::until("the service to be gone", || {
        Some(selvedge.get("/")).filter(|answer| answer.status == 503)
    });
    assert!(own.text().contains("busy"), "{}", own.text());
    assert_eq!(own.header("retry-after"), Some("5"));
}
