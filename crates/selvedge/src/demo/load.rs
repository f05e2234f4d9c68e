//! Shoppers: an open-loop load generator.
//!
//! Requests start when their time has come, whether or not earlier ones were
//! answered, and are timed from the moment they were due: a slow shop cannot
//! slow its shoppers down and so hide how slow it is. Arrivals come from a seed,
//! so two runs see the same shoppers.

use crate::client::{self, Sender};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use selvedge_patterns::random::{Rng as _, SplitMix64};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// One kind of visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) weight: u32,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
}

/// Who comes, and how patient they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) per_second: f64,
    pub(crate) patience: Duration,
    /// Shoppers in the shop at once; one more is turned away and counts as failed.
    pub(crate) in_flight_max: usize,
    pub(crate) seed: u64,
    pub(crate) visits: &'static [Visit],
}

impl Plan {
    /// When shoppers come within `lasting`, and what for.
    pub(crate) fn visits(self, lasting: Duration) -> impl Iterator<Item = (Duration, Visit)> {
        let mut rng = SplitMix64::new(self.seed);
        let mut due = Duration::ZERO;
        let mut turns = vec![0; self.visits.len()];
        std::iter::from_fn(move || {
            // Exponential gaps: shoppers do not know of each other.
            due += Duration::from_secs_f64(-(1.0 - rng.unit()).ln() / self.per_second);
            Some((due, next_visit(self.visits, &mut turns)))
        })
        .take_while(move |(due, _)| *due < lasting)
    }
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answered, in time.
    Good,
    /// Answered in time with an earlier answer, marked stale.
    Stale,
    /// Answered with an error.
    Failed,
    /// Not answered while the shopper waited.
    GaveUp,
    /// Not even sent: too many were waiting already.
    TurnedAway,
}

impl Verdict {
    pub(crate) const fn good(self) -> bool {
        matches!(self, Self::Good | Self::Stale)
    }
}

/// One visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was due, from the start of the run.
    pub(crate) due: Duration,
    pub(crate) took: Duration,
    pub(crate) verdict: Verdict,
}

/// Everything seen so far, shared with whoever draws it.
pub(crate) type Samples = Arc<Mutex<Vec<Sample>>>;

/// Sends shoppers to `address` for `lasting`, and waits for the last of them.
pub(crate) async fn run(address: &str, plan: Plan, lasting: Duration, samples: Samples) {
    let begun = Instant::now();
    let room = Arc::new(Semaphore::new(plan.in_flight_max));
    let idle: Arc<Mutex<Vec<Sender>>> = Arc::default();
    for (due, visit) in plan.visits(lasting) {
        tokio::time::sleep_until(begun + due).await;
        let record = |verdict, took| {
            samples.lock().expect("no one panics while counting").push(Sample {
                due,
                took,
                verdict,
            });
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            record(Verdict::TurnedAway, plan.patience);
            continue;
        };
        let (samples, idle, address) =
            (Arc::clone(&samples), Arc::clone(&idle), address.to_owned());
        tokio::spawn(async move {
            let verdict =
                tokio::time::timeout_at(begun + due + plan.patience, call(&address, visit, &idle))
                    .await
                    .unwrap_or(Verdict::GaveUp);
            let took = (begun + due).elapsed();
            samples.lock().expect("no one panics while counting").push(Sample {
                due,
                took,
                verdict,
            });
            drop(place);
        });
    }
    let everyone = u32::try_from(plan.in_flight_max).unwrap_or(u32::MAX);
    let _ = room.acquire_many(everyone).await;
}

/// The visits in turn, each as often as its weight says and evenly among the
/// others: in a run this short, luck would decide what it shows.
fn next_visit(visits: &'static [Visit], turns: &mut [i64]) -> Visit {
    let total: i64 = visits.iter().map(|visit| i64::from(visit.weight)).sum();
    let mut next = 0;
    for (index, visit) in visits.iter().enumerate() {
        turns[index] += i64::from(visit.weight);
        if turns[index] > turns[next] {
            next = index;
        }
    }
    turns[next] -= total;
    visits[next]
}

async fn call(address: &str, visit: Visit, idle: &Mutex<Vec<Sender>>) -> Verdict {
    let kept = idle.lock().expect("no one panics while pooling").pop();
    let mut sender = match kept {
        Some(sender) if sender.is_ready() => sender,
        _ => match client::connect(address).await {
            Ok(sender) => sender,
            Err(_) => return Verdict::Failed,
        },
    };
    let request = Request::builder()
        .method(visit.method)
        .uri(visit.path)
        .header("host", address)
        .body(Full::new(Bytes::new()))
        .expect("the demo's own requests are valid");
    let Ok(response) = sender.send_request(request).await else { return Verdict::Failed };
    let stale = is_stale(response.headers());
    let Ok((status, _)) = client::read(response).await else { return Verdict::Failed };
    if sender.ready().await.is_ok() {
        idle.lock().expect("no one panics while pooling").push(sender);
    }
    match (status.is_success(), stale) {
        (true, false) => Verdict::Good,
        (true, true) => Verdict::Stale,
        (false, _) => Verdict::Failed,
    }
}

/// RFC 9211 (`Cache-Status: …; fwd=stale`) or the older warning 110.
fn is_stale(headers: &http::HeaderMap) -> bool {
    let says = |name: &str, word: &str| {
        headers
            .get_all(name)
            .iter()
            .any(|value| value.to_str().is_ok_and(|value| value.contains(word)))
    };
    says("cache-status", "stale")
        || says("warning", "110")
        || headers.contains_key("x-selvedge-stale")
}
