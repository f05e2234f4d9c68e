//! A real file system that has no room left, and then has some again.
#![cfg(target_os = "linux")]

use selvedge_tests::{
    raw,
    selvedge::{Selvedge, command},
    wait,
};
use std::{fs::File, io::Write};

const DISK: u64 = 8 << 20;

/// Publishes until it is refused: the positions that were acknowledged, and the refusal.
fn fill(selvedge: &Selvedge, kept: &mut Vec<u64>) -> raw::Answer {
    let payload = "x".repeat(20_000);
    for _ in 0..2 * DISK / 20_000 {
        let answer = selvedge.app("POST", "/v1/topics/orders/messages", &format!("\"{payload}\""));
        if answer.status != 200 {
            return answer;
        }
        kept.push(answer.json()["position"].as_u64().unwrap());
    }
    panic!("twice as much as the disk holds was taken");
}

fn positions(selvedge: &Selvedge) -> Vec<u64> {
    let mut all: Vec<u64> = Vec::new();
    loop {
        let from = all.last().map_or(1, |last| last + 1);
        let page = selvedge.app("GET", &format!("/v1/topics/orders/messages?from={from}"), "");
        assert_eq!(page.status, 200, "reads go on: {}", page.text());
        let page = page.json();
        let page = page["messages"].as_array().unwrap().iter();
        let before = all.len();
        all.extend(page.map(|it| it["position"].as_u64().unwrap()));
        if all.len() == before {
            return all;
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_by_name_and_nothing_more_is_needed_than_space() {
    let selvedge = Selvedge::on_a_small_disk(DISK, "topics: { orders: on }\n");
    let ready = || raw::get(selvedge.operator, "/health/ready").unwrap();
    let operator = format!("127.0.0.1:{}", selvedge.operator);
    let doctor = || command(&["doctor", "--operator", &operator], "");

    // Half of the disk is somebody else's.
    let mut other = File::create(selvedge.small_disk().join("other")).unwrap();
    other.write_all(&vec![7; DISK as usize / 2]).unwrap();
    let mut kept = Vec::new();
    let refused = fill(&selvedge, &mut kept);
    assert!(kept.len() > 10, "{}", kept.len());
    assert_eq!((refused.status, refused.code().as_deref()), (507, Some("SV0403")));
    assert_eq!(refused.header("retry-after"), Some("1"));

    // The last hole is filled too, so that not even a small write goes through.
    for size in [64 << 10, 4096, 1] {
        while other.write_all(&vec![7; size]).is_ok() {}
    }
    let not_ready = wait::until("readiness to fail", || {
        let _ = selvedge.app("PUT", "/v1/state/k", "1");
        Some(ready()).filter(|answer| answer.status == 503)
    });
    let why = not_ready.json();
    assert_eq!(why["status"], "fail");
    assert!(why["output"].as_str().is_some_and(|why| why.contains("SV0403")), "{why}");
    assert_eq!(raw::get(selvedge.operator, "/health/live").unwrap().status, 200);
    let said = doctor();
    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("no space left for the store (SV0403)"), "{said}");
    assert!(said.contains("free space on the disk"), "{said}");
    assert_eq!(selvedge.metrics().sum("selvedge_store_writable", &[]), 0.0);
    assert_eq!(positions(&selvedge), kept, "what was refused is not there, all else is");

    // Nobody but the owner of the other file does anything.
    other.set_len(0).unwrap();
    wait::until_true("readiness to come back", || ready().status == 200);
    let after = selvedge.app("POST", "/v1/topics/orders/messages", "\"after\"");
    assert_eq!(after.status, 200, "{}", after.text());
    kept.push(after.json()["position"].as_u64().unwrap());
    assert_eq!(positions(&selvedge), kept);

    // And again: the first time left nothing behind that would make the second worse.
    let refused = fill(&selvedge, &mut kept);
    assert_eq!((refused.status, refused.code().as_deref()), (507, Some("SV0403")));
    assert_eq!(positions(&selvedge), kept);
    assert!(selvedge.log().contains("SV0403"), "{}", selvedge.log());
}
