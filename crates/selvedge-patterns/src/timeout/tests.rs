use super::*;

const T: Instant = Instant::from_millis(1_000);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn each_kind_is_cut_by_the_one_around_it() {
    let config = Config::default();
    let deadline = config.deadline(T, Some(T + secs(7)));
    let attempt = config.attempt_ends(T, deadline);
    assert_eq!(attempt, T + secs(7));
    assert_eq!(config.connect_ends(T, attempt), T + secs(2));
    assert_eq!(config.connect_ends(T + secs(6), attempt), T + secs(7));
    assert_eq!(config.attempt_ends(T, config.deadline(T, None)), T + secs(10));
}

/// Catalogue vector "timeouts": an inner timeout above its outer one is refused.
#[test]
fn an_inversion_is_refused() {
    let key = |config: Config| config.validate().map_err(|error| error.key);
    let base = Config::default();
    assert_eq!(key(base), Ok(()));
    assert_eq!(key(Config { attempt: Some(secs(31)), ..base }), Err("attempt"));
    assert_eq!(key(Config { connect: secs(11), ..base }), Err("connect"));
    assert_eq!(key(Config { connect: secs(31), attempt: None, ..base }), Err("connect"));
    assert_eq!(key(Config { total: Some(secs(0)), ..base }), Err("total"));
    assert_eq!(key(Config { attempt: None, total: None, ..base }), Ok(()));
}

#[test]
fn defaults_make_way() {
    let fitting = |attempt: Option<u64>, total: Option<u64>| {
        let config = Config::fitting(attempt.map(secs), total.map(secs));
        (config.connect.as_secs(), config.attempt, config.total, config.validate().is_ok())
    };
    assert_eq!(fitting(None, None), (2, Some(secs(10)), Some(secs(30)), true));
    assert_eq!(fitting(None, Some(1)), (1, Some(secs(1)), Some(secs(1)), true));
    assert_eq!(fitting(Some(1), None), (1, Some(secs(1)), Some(secs(30)), true));
    assert_eq!(fitting(Some(31), None), (2, Some(secs(31)), Some(secs(30)), false));
}
