use std::collections::HashSet;

use super::*;

#[test]
fn every_kind_has_its_own_code_and_reason() {
    let codes: HashSet<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
    let reasons: HashSet<_> = Kind::ALL.iter().map(|kind| kind.reason()).collect();
    assert_eq!((codes.len(), reasons.len()), (Kind::ALL.len(), Kind::ALL.len()));
    assert!(
        Kind::ALL
            .iter()
            .all(|kind| kind.status().is_client_error() || kind.status().is_server_error())
    );
}

#[test]
fn every_code_has_its_page() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
    for kind in Kind::ALL {
        let page = std::fs::read_to_string(format!("{folder}/{}.md", kind.code()));
        assert!(page.unwrap_or_default().contains(kind.reason()), "{} has no page", kind.code());
    }
}

#[test]
fn grpc_callers_get_trailers_only() {
    let refusal = Refusal::new(Kind::BulkheadFull, "100 % full\n").respond(true);
    assert_eq!(refusal.status(), 200);
    assert_eq!(refusal.headers()["grpc-status"], "8");
    assert!(refusal.headers()["grpc-message"].to_str().unwrap().ends_with("100 %25 full%0A"));
}

#[test]
fn others_get_a_problem_document() {
    let after = Some(Duration::from_millis(1500));
    let refusal = Refusal::new(Kind::RateLimited, "say \"no\"\n").after(after).respond(false);
    assert_eq!(refusal.status(), 429);
    assert_eq!(refusal.headers()["content-type"], "application/problem+json");
    assert_eq!(refusal.headers()["retry-after"], "2");
}
