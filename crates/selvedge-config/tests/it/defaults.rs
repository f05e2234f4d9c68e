//! The defaults of the file are the documented defaults of the parts.

use std::time::Duration;

use selvedge_patterns::{breaker, budget, outlier, policy::Policy, retry};
use selvedge_proxy::config as proxy;

fn service(text: &str) -> proxy::Service {
    let loaded =
        crate::load(&crate::with_service(text)).unwrap_or_else(|report| panic!("{report}"));
    loaded.proxy.services[0].clone()
}

#[test]
fn a_service_that_says_nothing_is_protected() {
    let expected = Policy {
        retry: Some(retry::Config::default()),
        budget: Some(budget::Config::default()),
        outlier: Some(outlier::Config::default()),
        breaker: Some(breaker::Config::default()),
        ..Policy::default()
    };
    let service = service("");
    assert_eq!(service.policy, expected);
    assert_eq!(service.pool, proxy::Pool::default());
    assert_eq!(service.resolve_every, proxy::Service::default().resolve_every);
}

#[test]
fn the_rest_has_the_defaults_of_the_data_plane() {
    let loaded = crate::load(&crate::with_service("")).unwrap();
    let default = proxy::Config::default();
    assert_eq!(loaded.proxy.limits, default.limits);
    assert_eq!(loaded.proxy.deadline, default.deadline);
    assert_eq!(loaded.proxy.drain, default.drain);
    assert_eq!(loaded.proxy.workers, default.workers);
    assert_eq!(loaded.operator.unwrap().bind.to_string(), "127.0.0.1:9900");
}

#[test]
fn sections_that_are_off_by_default_have_the_defaults_of_their_patterns() {
    use selvedge_patterns::{bulkhead, health, hedge};
    let policy = service("    health: on\n    hedge: on\n    bulkhead: on").policy;
    assert_eq!(policy.health, Some(health::Config::default()));
    assert_eq!(policy.hedge, Some(hedge::Config::default()));
    assert_eq!(policy.bulkhead, Some(bulkhead::Config::default()));
    let outlier = service("    outlier: { failure_percentage: on }").policy.outlier.unwrap();
    assert_eq!(outlier.failure_percentage, Some(outlier::FailurePercentage::default()));
}

#[test]
fn off_switches_a_pattern_off() {
    let policy =
        service("    retry: off\n    breaker: off\n    outlier: off\n    health: /up").policy;
    assert!(policy.retry.is_none() && policy.budget.is_none());
    assert!(policy.breaker.is_none() && policy.outlier.is_none());
}

#[test]
fn a_bare_value_is_the_key_most_wanted() {
    let policy = service("    timeout: 3s\n    retry: 2\n    bulkhead: 7\n    health: /up").policy;
    assert_eq!(policy.timeout.total, Some(Duration::from_secs(3)));
    assert_eq!(policy.retry.unwrap().attempts, 2);
    assert_eq!(policy.bulkhead.unwrap().max_in_flight, 7);
}

#[test]
fn defaults_that_depend_on_others_follow_them() {
    let timeout = |text: &str| service(text).policy.timeout;
    // An even share of the total, so that no attempt is cut short.
    assert_eq!(timeout("    timeout: 3s").attempt, Some(Duration::from_secs(1)));
    assert_eq!(timeout("    timeout: 300ms").connect, Duration::from_millis(100));
    assert_eq!(timeout("    timeout: { attempt: 20s }").total, Some(Duration::from_secs(60)));
    let breaker =
        service("    breaker: { window: 10 calls, open_for: 2m }").policy.breaker.unwrap();
    assert_eq!(breaker.min_calls, 10);
    assert_eq!(breaker.open_max, Duration::from_secs(120));
}

#[test]
fn a_service_is_laid_over_the_defaults_key_by_key() {
    let text = "
version: 1
ambassador: on
defaults:
  timeout: { connect: 100ms, total: 4s }
  retry: { attempts: 2, backoff: { base: 10ms } }
  breaker: off
services:
  a: { endpoints: \"127.0.0.1:1\", timeout: { total: 2s }, retry: { backoff: { cap: 1s } } }
  b: { endpoints: \"127.0.0.1:2\", timeout: 6s, retry: off, breaker: { min_calls: 5 } }
";
    let loaded = crate::load(text).unwrap_or_else(|report| panic!("{report}"));
    let (a, b) = (&loaded.proxy.services[0].policy, &loaded.proxy.services[1].policy);
    let ms = Duration::from_millis;
    assert_eq!((a.timeout.connect, a.timeout.total), (ms(100), Some(ms(2000))));
    assert_eq!(a.retry.unwrap().backoff.base, ms(10));
    assert_eq!(a.retry.unwrap().backoff.cap, ms(1000));
    assert_eq!(a.retry.unwrap().attempts, 2);
    assert!(a.breaker.is_none());
    assert_eq!((b.timeout.connect, b.timeout.total), (ms(100), Some(ms(6000))));
    assert!(b.retry.is_none());
    assert_eq!(b.breaker.unwrap().min_calls, 5);
}

#[test]
fn routes_without_a_name_take_their_service_s() {
    let text = crate::with_service("").replace(
        "  - { match: /orders/**, to: orders }",
        "  - { match: /a, to: orders }\n  - { match: /b, to: orders }\n  - { match: /c, to: orders, name: orders-2 }",
    );
    let loaded = crate::load(&text).unwrap_or_else(|report| panic!("{report}"));
    let names: Vec<&str> = loaded.proxy.routes.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["orders", "orders-3", "orders-2"]);
}

#[test]
fn the_durable_engine_has_the_defaults_of_its_crate() {
    use selvedge_durable::{group, schedule::Missed, topic};
    let text = "version: 1
durable: selvedge.db
topics: { orders: on, rates: { compact: on, priorities: off } }
subscriptions: { billing: orders }
schedules: { nightly: { spec: \"@daily\", topic: orders } }
";
    let loaded = crate::load(text).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.report.warnings(), 0, "{}", loaded.report);
    let durable = loaded.durable.unwrap();
    let store = selvedge_durable::Config::new("selvedge.db");
    let bounds = |it: &selvedge_durable::Config| {
        (
            (it.path.clone(), it.readers, it.queue_max, it.batch_max, it.waiting_max),
            (it.payload_max, it.headers_max, it.items_max, it.cache_bytes, it.checkpoint_bytes),
            (it.filter_scan_max, it.filter_payload_max, it.collectors_max),
        )
    };
    assert_eq!(bounds(&durable.store), bounds(&store));
    assert_eq!(durable.topics[0].settings, topic::Settings::default());
    let compact = topic::Settings { compact: true, ..topic::Settings::default() };
    assert_eq!(durable.topics[1].settings, compact);
    let billing = &durable.groups[0];
    assert_eq!((&billing.topic[..], &billing.group[..]), ("orders", "billing"));
    assert_eq!((&billing.config, billing.from), (&group::Config::default(), topic::From::First));
    assert_eq!(durable.schedules[0].missed, Missed::default());
    let api = loaded.api.unwrap();
    assert_eq!(api.bind.to_string(), "127.0.0.1:9901");
    assert!(crate::load(&crate::with_service("")).unwrap().api.is_none(), "nothing to speak for");
}

#[test]
fn a_filter_means_what_it_says_whether_in_yaml_or_json() {
    use selvedge_durable::filter;
    let text = "version: 1
durable: selvedge.db
topics: { orders: on }
subscriptions:
  gold:
    topic: orders
    filter:
      - exact: { type: order.placed, data.zip: 01234, data.yes: true }
      - any:
          - gt: { data.amount: 100 }
          - in: { data.tier: [gold, \"1\", 1, false] }
      - wildcard: { key: \"eu.#\" }
";
    let loaded = crate::load(text).unwrap_or_else(|report| panic!("{report}"));
    let expected = serde_json::json!([
        {"exact": {"type": "order.placed", "data.zip": "01234", "data.yes": "true"}},
        {"any": [{"gt": {"data.amount": 100}}, {"in": {"data.tier": ["gold", "1", 1, false]}}]},
        {"wildcard": {"key": "eu.#"}},
    ]);
    let found = loaded.durable.unwrap().groups[0].config.filter.clone();
    assert_eq!(found, Some(filter::parse(&expected).unwrap()));
}
