use super::*;

fn status(status: u16, seconds: Option<u64>) -> Decision {
    decide(Answer::Status { status, retry_after: seconds.map(Duration::from_secs) })
}

#[test]
fn only_success_is_success() {
    for good in [200, 201, 202, 204, 299] {
        assert_eq!(status(good, Some(5)), Decision::Ack);
    }
    for bad in [100, 300, 301, 307, 400, 401, 404, 409, 500, 501, 599, 999] {
        assert_eq!(status(bad, Some(5)), Decision::Retry { after: None }, "{bad}");
    }
    assert_eq!(decide(Answer::Failed), Decision::Retry { after: None });
}

#[test]
fn who_is_busy_says_when_to_come_back() {
    for busy in [429, 502, 503, 504] {
        let after = Some(Duration::from_secs(7));
        assert_eq!(status(busy, Some(7)), Decision::Retry { after });
        assert_eq!(status(busy, None), Decision::Retry { after: None });
        let most = Some(RETRY_AFTER_MAX);
        assert_eq!(status(busy, Some(u64::MAX)), Decision::Retry { after: most }, "bounded");
    }
}

#[test]
fn what_was_never_sent_costs_nothing() {
    let held = |seconds: Option<u64>| {
        decide(Answer::HeldBack { retry_after: seconds.map(Duration::from_secs) })
    };
    assert_eq!(held(None), Decision::Release { after: HELD_BACK_FOR });
    assert_eq!(held(Some(9)), Decision::Release { after: Duration::from_secs(9) });
    assert_eq!(held(Some(u64::MAX)), Decision::Release { after: RETRY_AFTER_MAX });
}

#[test]
fn gone_is_gone() {
    assert_eq!(status(410, None), Decision::Pause);
}
