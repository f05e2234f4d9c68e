use std::time::Duration;

use selvedge_patterns::limit::{Rate, Reason};
use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::testing::Echo;

fn config(burst: u32) -> Config {
    Config { rate: Rate::per_second(1), burst, ..Config::default() }
}

/// A server makes a clone per connection; the limit must hold over them all.
#[tokio::test(start_paused = true)]
async fn clones_and_services_share_one_limit() {
    let layer = Layer::new(config(3)).unwrap();
    let (one, other) = (layer.layer(Echo), layer.clone().layer(Echo));
    for service in [&one, &other, &one] {
        assert_eq!(service.clone().oneshot(1).await.unwrap(), 1);
    }
    for service in [&one, &other] {
        let error = service.clone().oneshot(1).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.retry_after()),
            ("rate_limited", Some(Duration::from_secs(1)))
        );
        assert!(error.retryable());
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(one.oneshot(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own() {
    let keyed = keyed::Config { limit: config(1), ..keyed::Config::default() };
    let layer = Layer::keyed(keyed, |request: &String| Cow::Borrowed(request.as_bytes())).unwrap();
    let service = layer.layer(Echo);
    let call = |key: &str| service.clone().oneshot(key.to_owned());
    assert!(call("a").await.is_ok());
    assert!(call("b").await.is_ok());
    let Err(Error::Rejected(Rejected::Limit(rejected))) = call("a").await else {
        panic!("a is over its limit")
    };
    assert_eq!(rejected.reason, Reason::Rate);
}

#[tokio::test]
async fn nonsense_is_refused_when_it_is_built() {
    assert_eq!(Layer::new(config(0)).unwrap_err().key, "burst");
}
