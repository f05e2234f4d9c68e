use super::*;
use crate::time::Duration;

#[test]
fn the_defaults_fit_together() {
    assert_eq!(Policy::default().problems(), []);
    assert_eq!(Policy::careful().problems(), []);
}

#[test]
fn every_problem_is_named_at_once() {
    let policy = Policy {
        retry: Some(retry::Config { attempts: 0, ..retry::Config::default() }),
        hedge: Some(hedge::Config { extra_max: 4, ..hedge::Config::default() }),
        timeout: timeout::Config {
            connect: Duration::from_millis(1),
            attempt: None,
            total: Some(Duration::from_millis(5)),
            ..timeout::Config::default()
        },
        ..Policy::default()
    };
    let named: Vec<_> = policy.problems().iter().map(|it| (it.part, it.error.key)).collect();
    assert_eq!(named, [("retry", "attempts"), ("hedge", "extra_max"), ("timeout", "total")]);
    assert_eq!(
        policy.validate().unwrap_err().to_string(),
        "`retry.attempts` must be between 1 and 16, the first attempt included"
    );
}
