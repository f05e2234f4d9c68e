use super::*;

#[test]
fn methods() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
        assert_eq!(safety(method, false), Safety::Safe, "{method}");
    }
    for method in ["PUT", "DELETE"] {
        assert_eq!(safety(method, false), Safety::Idempotent, "{method}");
    }
    for method in ["POST", "PATCH", "CONNECT", "get", "PROPFIND", ""] {
        assert_eq!(safety(method, false), Safety::Unsafe, "{method}");
        assert_eq!(safety(method, true), Safety::Idempotent, "{method} with a key");
    }
    assert_eq!(safety("GET", true), Safety::Safe);
}

/// Catalogue vectors idem-dup and idem-race, and the statuses of the draft.
#[test]
fn keys() {
    let stored = |fingerprint, completed| Some(Stored { fingerprint, completed });
    assert_eq!(admit(true, None, None), Verdict::Refuse(Reason::Missing));
    assert_eq!(admit(false, None, None), Verdict::Process);
    assert_eq!(admit(true, Some(7), None), Verdict::Process);
    assert_eq!(admit(true, Some(7), stored(7, true)), Verdict::Replay);
    assert_eq!(admit(true, Some(7), stored(7, false)), Verdict::Refuse(Reason::InFlight));
    assert_eq!(admit(true, Some(8), stored(7, false)), Verdict::Refuse(Reason::Mismatch));
    assert_eq!(admit(true, Some(8), stored(7, true)), Verdict::Refuse(Reason::Mismatch));
}
