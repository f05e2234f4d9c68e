use proptest::prelude::*;

use super::*;
use crate::outcome::Failure;
use crate::random::{Rng, SplitMix64};

struct Pool {
    loads: Vec<Load>,
    standings: Vec<Standing>,
    weights: Vec<u32>,
}

impl Pool {
    fn of(count: usize) -> Self {
        Self {
            loads: (0..count).map(|_| Load::new()).collect(),
            standings: vec![Standing::Usable; count],
            weights: vec![1; count],
        }
    }

    fn weighing(weights: &[u32]) -> Self {
        Self { weights: weights.to_vec(), ..Self::of(weights.len()) }
    }

    fn standing(standings: &str) -> Self {
        let standings = standings
            .chars()
            .map(|letter| match letter {
                'u' => Standing::Usable,
                'h' => Standing::Unhealthy,
                _ => Standing::Excluded,
            })
            .collect::<Vec<_>>();
        Self { standings, ..Self::of(4) }
    }
}

impl Candidates for Pool {
    fn count(&self) -> usize {
        self.standings.len()
    }
    fn load(&self, index: usize) -> &Load {
        &self.loads[index]
    }
    fn standing(&self, index: usize) -> Standing {
        self.standings[index]
    }
    fn weight(&self, index: usize) -> u32 {
        self.weights[index]
    }
}

fn balancer(algorithm: Algorithm) -> Balancer {
    Balancer::new(Config { algorithm, ..Config::default() })
}

const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::RoundRobin,
    Algorithm::WeightedRoundRobin,
    Algorithm::LeastRequest,
    Algorithm::PeakEwma,
];

/// The endpoints chosen in `picks` decisions, as letters.
fn sequence(algorithm: Algorithm, pool: &Pool, picks: usize) -> String {
    let balancer = balancer(algorithm);
    let mut rng = SplitMix64::new(1);
    (0..picks)
        .map(|_| match balancer.pick(Instant::ZERO, pool, &mut rng) {
            Some(pick) => (b'a' + pick.index as u8) as char,
            None => '-',
        })
        .collect()
}

fn shares(algorithm: Algorithm, pool: &Pool, picks: usize) -> Vec<usize> {
    let sequence = sequence(algorithm, pool, picks);
    (0..pool.count()).map(|index| sequence.matches((b'a' + index as u8) as char).count()).collect()
}

#[test]
fn round_robin_takes_turns() {
    assert_eq!(sequence(Algorithm::RoundRobin, &Pool::of(3), 7), "abcabca");
}

#[test]
fn round_robin_shares_an_absent_endpoint_s_turns_among_all() {
    let mut pool = Pool::of(4);
    pool.standings[1] = Standing::Unhealthy;
    assert_eq!(
        sequence(Algorithm::RoundRobin, &pool, 6),
        "acdacd",
        "c must not get the turns of b"
    );
}

#[test]
fn smooth_weights_as_in_nginx() {
    assert_eq!(
        sequence(Algorithm::WeightedRoundRobin, &Pool::weighing(&[5, 1, 1]), 14),
        "aabacaaaabacaa"
    );
    assert_eq!(sequence(Algorithm::WeightedRoundRobin, &Pool::weighing(&[1, 2, 3]), 6), "cbacbc");
}

#[test]
fn weight_zero_gets_nothing() {
    for algorithm in ALGORITHMS {
        assert_eq!(shares(algorithm, &Pool::weighing(&[1, 0, 1]), 1000)[1], 0, "{algorithm:?}");
    }
}

#[test]
fn random_choices_are_even_when_all_are_alike() {
    for algorithm in [Algorithm::LeastRequest, Algorithm::PeakEwma] {
        for share in shares(algorithm, &Pool::of(5), 10_000) {
            assert!((1_800..2_200).contains(&share), "{algorithm:?}: {share}");
        }
    }
}

#[test]
fn random_choices_are_even_among_the_usable() {
    let mut pool = Pool::of(5);
    pool.standings[0] = Standing::Excluded;
    pool.standings[3] = Standing::Unhealthy;
    for algorithm in [Algorithm::LeastRequest, Algorithm::PeakEwma] {
        let shares = shares(algorithm, &pool, 9_000);
        assert_eq!((shares[0], shares[3]), (0, 0));
        for share in [shares[1], shares[2], shares[4]] {
            assert!((2_800..3_200).contains(&share), "{algorithm:?}: {share}");
        }
    }
}

#[test]
fn too_few_healthy_is_panic() {
    let pick = |standings, algorithm| {
        balancer(algorithm).pick(Instant::ZERO, &Pool::standing(standings), &mut SplitMix64::new(3))
    };
    for algorithm in ALGORITHMS {
        assert_eq!(pick("uuhh", algorithm).map(|pick| pick.panic), Some(false), "half is enough");
        assert_eq!(pick("hhhh", algorithm).map(|pick| pick.panic), Some(true));
        assert_eq!(pick("xxxx", algorithm), None, "panic never picks an excluded one");
        assert_eq!(pick("hxxx", algorithm), Some(Pick { index: 0, panic: true }));
        assert_eq!(
            pick("xxux", algorithm),
            Some(Pick { index: 2, panic: false }),
            "excluded ones are no reason"
        );
        assert_eq!(pick("", algorithm), None);
    }
}

#[test]
fn panic_spreads_over_all() {
    for algorithm in ALGORITHMS {
        for share in shares(algorithm, &Pool::standing("uhhh"), 8_000) {
            assert!((1_800..2_200).contains(&share), "{algorithm:?}: {share}");
        }
    }
}

#[test]
fn panic_can_be_turned_off() {
    let never = Balancer::new(Config { panic_below: 0.0, ..Config::default() });
    assert_eq!(never.pick(Instant::ZERO, &Pool::standing("hhhh"), &mut SplitMix64::new(1)), None);
}

#[test]
fn least_request_prefers_the_idle_one_by_weight() {
    let mut pool = Pool::of(2);
    pool.loads[0].start();
    assert_eq!(shares(Algorithm::LeastRequest, &pool, 100), [0, 100]);
    pool.weights = vec![3, 1];
    assert_eq!(shares(Algorithm::LeastRequest, &pool, 100), [100, 0], "2/3 beats 1/1");
}

fn millis(ms: f64) -> Duration {
    Duration::from_nanos((ms * 1e6) as u64)
}

#[test]
fn peak_ewma_vectors() {
    let config = Config::default();
    for (seconds, expected) in [(1, 905.79), (5, 610.47), (10, 374.20), (30, 59.29)] {
        let load = Load::seeded(Instant::ZERO, millis(1_000.0));
        let now = Instant::from_millis(seconds * 1_000);
        load.start();
        load.settle(now, &config, millis(10.0), Outcome::Success);
        let estimate = load.estimate(now, &config).unwrap().as_secs_f64() * 1e3;
        assert!((estimate - expected).abs() < 0.01, "after {seconds} s: {estimate}");
    }
    let load = Load::seeded(Instant::ZERO, millis(1_000.0));
    load.start();
    load.settle(Instant::from_millis(7), &config, millis(1_500.0), Outcome::Success);
    assert_eq!(
        load.estimate(Instant::from_millis(7), &config),
        Some(millis(1_500.0)),
        "up at once"
    );
}

#[test]
fn reading_does_not_change_the_estimate() {
    let config = Config::default();
    let load = Load::seeded(Instant::ZERO, millis(1_000.0));
    let later = Instant::from_millis(10_000);
    let once = load.estimate(later, &config);
    for second in 0..100 {
        load.estimate(Instant::from_millis(second * 1_000), &config);
    }
    assert_eq!(load.estimate(later, &config), once);
    assert!((once.unwrap().as_secs_f64() - (-1.0f64).exp()).abs() < 1e-6);
}

#[test]
fn what_an_outcome_costs() {
    let config = Config::default();
    let after = |outcome| {
        let load = Load::seeded(Instant::ZERO, millis(10.0));
        load.start();
        load.settle(Instant::ZERO, &config, millis(20.0), outcome);
        assert_eq!(load.pending(), 0, "{outcome:?}");
        load.estimate(Instant::ZERO, &config).unwrap().as_millis()
    };
    let overload = |seconds| Outcome::Overload { retry_after: Some(Duration::from_secs(seconds)) };
    assert_eq!(after(Outcome::Success), 20);
    assert_eq!(after(Outcome::ClientFault), 20);
    assert_eq!(after(Outcome::Failure(Failure::Gateway)), 5_000, "failing fast is not being fast");
    assert_eq!(after(Outcome::Overload { retry_after: None }), 5_000);
    assert_eq!(after(overload(60)), 60_000);
    assert_eq!(after(overload(86_400)), 300_000, "capped");
    assert_eq!(after(Outcome::Cancelled), 20, "it would have taken longer still");
    assert_eq!(after(Outcome::Local), 10, "the endpoint never saw it");
}

#[test]
fn a_cancelled_attempt_shorter_than_expected_says_nothing() {
    let config = Config::default();
    let load = Load::seeded(Instant::ZERO, millis(100.0));
    load.start();
    load.settle(Instant::ZERO, &config, millis(20.0), Outcome::Cancelled);
    assert_eq!(load.estimate(Instant::ZERO, &config), Some(millis(100.0)));
}

#[test]
fn a_fast_failing_endpoint_does_not_attract_traffic() {
    let config = Config::default();
    let pool = Pool::of(2);
    for (load, outcome) in
        pool.loads.iter().zip([Outcome::Failure(Failure::Gateway), Outcome::Success])
    {
        load.start();
        load.settle(
            Instant::ZERO,
            &config,
            if outcome == Outcome::Success { millis(50.0) } else { millis(1.0) },
            outcome,
        );
    }
    assert_eq!(shares(Algorithm::PeakEwma, &pool, 100), [0, 100]);
}

#[test]
fn a_new_endpoint_is_neither_starved_nor_flooded() {
    let config = Config::default();
    let mut pool = Pool::of(4);
    for load in &pool.loads[..3] {
        load.start();
        load.settle(Instant::ZERO, &config, millis(5.0), Outcome::Success);
    }
    let share = shares(Algorithm::PeakEwma, &pool, 8_000)[3];
    assert!((1_800..2_200).contains(&share), "unknown: {share}");
    let seed = median(Instant::ZERO, &config, &pool.loads).unwrap();
    assert_eq!(seed, millis(5.0));
    pool.loads[3] = Load::seeded(Instant::ZERO, seed);
    let share = shares(Algorithm::PeakEwma, &pool, 8_000)[3];
    assert!((1_800..2_200).contains(&share), "seeded: {share}");
}

#[test]
fn median_of_nothing_is_nothing() {
    assert_eq!(median(Instant::ZERO, &Config::default(), &Pool::of(3).loads), None);
}

/// n balls into n bins: the fullest bin of two choices stays near
/// log log n / log 2, that of one choice near log n / log log n.
#[test]
fn supermarket_property() {
    let pool = Pool::of(10_000);
    let balancer = balancer(Algorithm::LeastRequest);
    let mut rng = SplitMix64::new(42);
    let mut one_choice = vec![0u32; 10_000];
    for _ in 0..10_000 {
        let pick = balancer.pick(Instant::ZERO, &pool, &mut rng).unwrap();
        pool.loads[pick.index].start();
        one_choice[rng.below(10_000) as usize] += 1;
    }
    let fullest = pool.loads.iter().map(Load::pending).max().unwrap();
    let fullest_of_one = one_choice.into_iter().max().unwrap();
    assert!(fullest <= 4, "two choices: {fullest}");
    assert!(fullest_of_one >= 6, "one choice: {fullest_of_one}");
}

#[test]
fn wrong_configurations() {
    assert_eq!(Config::default().validate(), Ok(()));
    let wrong = |config: Config| config.validate().unwrap_err().key;
    assert_eq!(wrong(Config { decay: Duration::ZERO, ..Config::default() }), "decay");
    assert_eq!(wrong(Config { panic_below: f64::NAN, ..Config::default() }), "panic_below");
    assert_eq!(wrong(Config { panic_below: 1.01, ..Config::default() }), "panic_below");
}

proptest! {
    /// Whoever is picked may be picked, and somebody is if anybody may be.
    #[test]
    fn picks_obey_standing(
        endpoints in prop::collection::vec((0u8..3, 0u32..3), 0..12),
        algorithm in 0usize..4,
        seed: u64,
    ) {
        let mut pool = Pool::of(endpoints.len());
        for (index, (standing, weight)) in endpoints.iter().enumerate() {
            pool.standings[index] = [Standing::Usable, Standing::Unhealthy, Standing::Excluded][*standing as usize];
            pool.weights[index] = *weight;
        }
        let balancer = balancer(ALGORITHMS[algorithm]);
        let mut rng = SplitMix64::new(seed);
        for _ in 0..20 {
            let pick = balancer.pick(Instant::ZERO, &pool, &mut rng);
            let any = (0..pool.count()).any(|index| standing(&pool, index) != Standing::Excluded);
            prop_assert_eq!(pick.is_some(), any);
            if let Some(pick) = pick {
                let standing = standing(&pool, pick.index);
                prop_assert!(standing == Standing::Usable || (pick.panic && standing == Standing::Unhealthy));
            }
        }
    }

    /// In every whole cycle each endpoint comes exactly as often as its weight says.
    #[test]
    fn smooth_weights_are_exact_per_cycle(weights in prop::collection::vec(1u32..8, 1..6), cycles in 1usize..4) {
        let total: u32 = weights.iter().sum();
        let shares = shares(Algorithm::WeightedRoundRobin, &Pool::weighing(&weights), total as usize * cycles);
        let expected: Vec<usize> = weights.iter().map(|&weight| weight as usize * cycles).collect();
        prop_assert_eq!(shares, expected);
    }

    /// The estimate lies between the samples' bounds and never below the newest peak's decay.
    #[test]
    fn peak_ewma_stays_within_samples(samples in prop::collection::vec((1u64..1_000_000_000, 0u64..5_000_000_000), 1..50)) {
        let config = Config::default();
        let load = Load::new();
        let (mut now, mut low, mut high) = (Instant::ZERO, u64::MAX, 0);
        for (sample, pause) in samples {
            now = now + Duration::from_nanos(pause);
            low = low.min(sample);
            high = high.max(sample);
            load.start();
            load.settle(now, &config, Duration::from_nanos(sample), Outcome::Success);
            let estimate = load.estimate(now, &config).unwrap().as_nanos() as u64;
            prop_assert!(estimate >= sample.min(low).saturating_sub(1) && estimate <= high, "{low} {estimate} {high}");
        }
    }
}

/// An endpoint that was down for a moment must not stay without traffic for
/// minutes because the other one answers within a millisecond.
#[test]
fn a_penalty_ends() {
    let config = Config::default();
    let pool = Pool::of(2);
    for load in &pool.loads {
        load.start();
        load.settle(Instant::ZERO, &config, millis(0.2), Outcome::Success);
    }
    pool.loads[0].start();
    pool.loads[0].settle(Instant::ZERO, &config, millis(0.1), Outcome::Failure(Failure::Connect));
    let balancer = balancer(Algorithm::PeakEwma);
    let mut rng = SplitMix64::new(7);
    let mut first_of_100 =
        |now| (0..100).filter(|_| balancer.pick(now, &pool, &mut rng).unwrap().index == 0).count();
    assert_eq!(first_of_100(Instant::from_millis(4_999)), 0);
    assert!(first_of_100(Instant::from_millis(5_000)) > 20);
}
