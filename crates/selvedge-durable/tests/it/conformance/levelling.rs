//! A group hands out no faster than it is told.

use selvedge_durable::group::GetGroup;
use selvedge_patterns::limit;

use super::*;

cases!(
    levelling,
    a_rate_lets_a_burst_through_and_then_one_at_a_time,
    a_waiting_consumer_wakes_when_the_rate_lets_it,
    a_request_that_fails_gives_nothing_of_the_rate_back,
    another_rate_begins_anew_and_the_same_one_goes_on,
);

fn rate(count: u32, burst: u32) -> Config {
    let rate = limit::Config { rate: limit::Rate::per_second(count), burst, ..Default::default() };
    Config { rate: Some(rate), ..Config::default() }
}

async fn backlog<E: TestEngine>(world: &World<E>, config: Config) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", config).await;
    for n in 0..20 {
        world.publish("t", message(&n.to_string())).await;
    }
}

async fn throttled<E: TestEngine>(world: &World<E>) -> Option<Wall> {
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    world.run(GetGroup { topic, group }).await.throttled
}

pub(crate) async fn a_rate_lets_a_burst_through_and_then_one_at_a_time<E: TestEngine>(
    world: &World<E>,
) {
    backlog(world, rate(10, 3)).await;
    assert_eq!(throttled(world).await, None);
    assert_eq!(texts(&world.receive("t", "g", 99).await), ["0", "1", "2"]);
    assert_eq!(world.receive("t", "g", 99).await, []);
    assert_eq!(throttled(world).await, Some(start() + Duration::from_millis(100)));
    world.pass(Duration::from_millis(99)).await;
    assert_eq!(world.receive("t", "g", 99).await, []);
    world.pass(Duration::from_millis(1)).await;
    let third = world.receive("t", "g", 99).await;
    assert_eq!(texts(&third), ["3"]);
    world.pass(Duration::from_millis(100)).await;
    let again = Verdict::Retry { after: Some(Duration::ZERO) };
    world.settle("t", "g", &third[0], again).await;
    assert_eq!(texts(&world.receive("t", "g", 99).await), ["3"], "a repeat is a delivery");
    assert_eq!(world.receive("t", "g", 99).await, []);
}

pub(crate) async fn a_waiting_consumer_wakes_when_the_rate_lets_it<E: TestEngine>(
    world: &World<E>,
) {
    backlog(world, rate(1, 1)).await;
    assert_eq!(texts(&world.receive("t", "g", 99).await), ["0"]);
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    let (first, second) = (world.engine.execute(wait.clone()), world.engine.execute(wait));
    let time = async {
        world.pass(Duration::from_millis(999)).await;
        world.pass(Duration::from_millis(1)).await;
        world.pass(Duration::from_secs(1)).await;
    };
    let (first, second, ()) = tokio::join!(first, second, time);
    assert_eq!(texts(&first.unwrap()), ["1"]);
    assert_eq!(texts(&second.unwrap()), ["2"]);
}

pub(crate) async fn a_request_that_fails_gives_nothing_of_the_rate_back<E: TestEngine>(
    world: &World<E>,
) {
    backlog(world, rate(1, 2)).await;
    assert_eq!(world.receive("t", "g", 1).await.len(), 1);
    // What is kept in memory is read anew after a failure.
    assert_eq!(world.fails(receive("t", "nobody", 1)).await.code(), "SV0410");
    assert_eq!(world.receive("t", "g", 9).await.len(), 1);
    assert_eq!(world.receive("t", "g", 9).await, []);
}

pub(crate) async fn another_rate_begins_anew_and_the_same_one_goes_on<E: TestEngine>(
    world: &World<E>,
) {
    backlog(world, rate(1, 2)).await;
    assert_eq!(world.receive("t", "g", 9).await.len(), 2);
    let longer = Config { lease: Duration::from_secs(60), ..rate(1, 2) };
    world.group("t", "g", longer).await;
    assert_eq!(world.receive("t", "g", 9).await, []);
    world.group("t", "g", rate(2, 3)).await;
    assert_eq!(world.receive("t", "g", 9).await.len(), 3);
    world.group("t", "g", Config::default()).await;
    assert_eq!(world.receive("t", "g", 99).await.len(), 15);
    let invalid = Config { rate: rate(0, 1).rate, ..Config::default() };
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    let put = PutGroup { topic, group, config: invalid, from: From::First };
    assert_eq!(world.fails(put).await.code(), "SV0413");
}
