//! P1 to P4: published results without published distributions. Only the shape
//! is held: what is better than what, and by about how much.

use selvedge_patterns::balance::{Algorithm, Balancer, Candidates, Config, Load, Standing};
use selvedge_patterns::policy::Policy;
use selvedge_patterns::random::{Keyed, Rng};
use selvedge_patterns::time::{Duration, Instant};
use selvedge_patterns::{bulkhead, hedge};
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{Arrivals, Client, Discipline, Fault, FaultKind, Scenario, Service};
use selvedge_sim::record::Replication;

use crate::policies::bare;
use crate::support::{UNIT, over, run};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// P1, "The tail at scale": reads that are rarely very slow, hedged after 10 ms.
#[test]
fn a_hedge_cuts_the_tail_for_little() {
    let time = Distribution::Bimodal { fast: ms(2), slow: ms(600), slow_share: 0.01 };
    let leaf = Service { replicas: 100, slots: 1000, ..Service::new("leaf", time) };
    let hedge = hedge::Config {
        delay: hedge::Delay::Fixed(ms(10)),
        share: 0.05,
        burst: 100,
        ..hedge::Config::default()
    };
    let runs = |hedge| {
        let policy = Some(Box::new(Policy { hedge, ..bare() }));
        let service = Service { policy, ..leaf.clone() };
        let client = Client::new("read", Arrivals::Poisson { rate: 1000.0 });
        let mut scenario = Scenario::new("tail", client, vec![service]);
        scenario.run.duration = UNIT * 40;
        run(&scenario)
    };
    let tail = |runs: &[Replication]| over(runs, |run| run.clients.latency.quantile(0.999)).mean;
    let (alone, hedged) = (runs(None), runs(Some(hedge)));
    let extra = over(&hedged, |run| run.services[0].hedges as f64 / run.services[0].calls as f64);
    let (before, after) = (tail(&alone) / 1e6, tail(&hedged) / 1e6);
    println!("p99.9 {before:.0} ms, hedged {after:.0} ms, for {:.2} % more", extra.mean * 100.0);
    assert!(before > 10.0 * after, "p99.9 {before} ms alone, {after} ms hedged");
    assert!(extra.mean < 0.05, "{extra:?}");
}

/// Endpoints as they were when somebody last looked.
struct Seen<'a>(&'a [Load]);

impl Candidates for Seen<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn load(&self, index: usize) -> &Load {
        &self.0[index]
    }

    fn standing(&self, _index: usize) -> Standing {
        Standing::Usable
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Choice {
    Random,
    OfTwo,
    Best,
}

/// Ten servers that each end a request every eight seconds, one request a
/// second, and queues that are looked at every `refresh` seconds: the mean
/// queue that a request finds.
fn stale(choice: Choice, refresh: u64, seed: u64) -> f64 {
    const SERVERS: usize = 10;
    let mut rng = Keyed::new(&[seed, refresh, choice as u64]);
    let balancer =
        Balancer::new(Config { algorithm: Algorithm::LeastRequest, ..Config::default() });
    let mut queues = [0u32; SERVERS];
    let seen: Vec<Load> = (0..SERVERS).map(|_| Load::new()).collect();
    let mut found = 0.0;
    let seconds = 20_000;
    for second in 0..seconds {
        if second % refresh.max(1) == 0 {
            for (load, queue) in seen.iter().zip(queues) {
                while load.pending() < queue {
                    load.start();
                }
                while load.pending() > queue {
                    load.abandon();
                }
            }
        }
        let at = match choice {
            Choice::Random => rng.below(SERVERS as u64) as usize,
            Choice::OfTwo => {
                let now = Instant::from_nanos(second * 1_000_000_000);
                balancer.pick(now, &Seen(&seen), &mut rng).expect("all are usable").index
            }
            // The first of the best: a herd.
            Choice::Best => {
                (0..SERVERS).min_by_key(|at| seen[*at].pending()).expect("there are ten")
            }
        };
        found += f64::from(queues[at]);
        queues[at] += 1;
        if second % 8 == 7 {
            for queue in &mut queues {
                *queue = queue.saturating_sub(1);
            }
        }
    }
    found / seconds as f64
}

/// P2: what is best depends on how old the news is.
#[test]
fn two_choices_on_stale_news() {
    let mean =
        |choice, refresh| (0..20).map(|seed| stale(choice, refresh, seed)).sum::<f64>() / 20.0;
    for (refresh, order) in [
        (1, [Choice::Best, Choice::OfTwo, Choice::Random]),
        (30, [Choice::OfTwo, Choice::Random, Choice::Best]),
        (150, [Choice::Random, Choice::OfTwo, Choice::Best]),
    ] {
        let queues = order.map(|choice| mean(choice, refresh));
        println!("news of {refresh} s: {queues:.2?}");
        assert!(queues.is_sorted() && queues[0] < queues[2], "news of {refresh} s: {queues:?}");
    }
}

/// P3, "Beyond round robin": one of ten instances is slow; who asks it least
/// answers most calls within a second.
#[test]
fn a_slow_instance_is_found_by_its_latency() {
    let success = |algorithm| {
        let balance = Config { algorithm, ..Config::default() };
        let mut client = Client::new("web", Arrivals::Poisson { rate: 100.0 });
        client.deadline = Some(UNIT);
        let service = Service {
            replicas: 10,
            slots: 20,
            policy: Some(Box::new(Policy { balance, ..bare() })),
            ..Service::new("app", Distribution::LogNormal { p50: ms(50), p99: ms(200) })
        };
        let mut scenario = Scenario::new("slow", client, vec![service]);
        scenario.faults = vec![Fault {
            kind: FaultKind::Latency { service: 0, factor: 40.0, replicas: 1 },
            at: UNIT * 10,
            lasts: UNIT * 50,
            ramp: Duration::ZERO,
        }];
        scenario.run.duration = UNIT * 60;
        scenario.run.warm_up = UNIT * 10;
        over(&run(&scenario), |run| run.clients.good as f64 / run.clients.requests as f64).mean
    };
    let found = [Algorithm::RoundRobin, Algorithm::LeastRequest, Algorithm::PeakEwma].map(success);
    println!("in time: {found:.4?}");
    assert!(found.is_sorted(), "{found:?}");
    assert!(found[0] < 0.95 && found[2] > 0.99, "{found:?}");
}

/// P4, the step of Breakwater and DAGOR: demand rises from 0.7 to 1.4 times
/// the capacity. Whoever limits what is in progress goes on at capacity at
/// once; whoever drops by a control law comes back in time; whoever queues it
/// all serves nobody before they have left.
#[test]
fn a_limit_holds_through_a_step_of_demand() {
    let base =
        Service { slots: 10, ..Service::new("db", Distribution::Exponential { mean: ms(20) }) };
    let capacity = base.capacity();
    let bulkhead = bulkhead::Config {
        max_in_flight: 10,
        queue: 20,
        queue_for: ms(100),
        ..bulkhead::Config::default()
    };
    let policy = Some(Box::new(Policy { bulkhead: Some(bulkhead), ..bare() }));
    let limited = Service { policy, ..base.clone() };
    let mut dropping = base.clone();
    dropping.queue.discipline = Discipline::CoDel { target: ms(20), interval: ms(100) };
    let step = |service: Service| {
        let mut client = Client::new("web", Arrivals::Poisson { rate: 0.7 * capacity });
        client.deadline = Some(ms(300));
        let mut scenario = Scenario::new("step", client, vec![service]);
        scenario.faults = vec![Fault {
            kind: FaultKind::Load { client: 0, factor: 2.0 },
            at: UNIT * 10,
            lasts: UNIT * 50,
            ramp: Duration::ZERO,
        }];
        scenario.run.duration = UNIT * 60;
        let runs = run(&scenario);
        let share = |run: &Replication, second: usize| f64::from(run.bins[second].good) / capacity;
        let last = over(&runs, |run| (50..60).map(|s| share(run, s)).sum::<f64>() / 10.0);
        // The last second after the step with less than a third of what is possible.
        let settled = over(&runs, |run| {
            (10..60).rposition(|s| share(run, s) < 0.33).map_or(0.0, |last| last as f64 + 1.0)
        });
        (last.mean, settled.mean)
    };
    let (open, dropping, limited) = (step(base), step(dropping), step(limited));
    println!(
        "(goodput, settled after s): open {open:.3?}, CoDel {dropping:.3?}, limit {limited:.3?}"
    );
    assert!(open.0 < 0.1, "an open queue collapses: {open:?}");
    assert!(limited.0 > 0.9 && dropping.0 > 0.5, "{limited:?} and {dropping:?}");
    assert!(limited.1 < 2.0 && limited.1 < dropping.1 && dropping.1 < open.1, "who settles first");
}
