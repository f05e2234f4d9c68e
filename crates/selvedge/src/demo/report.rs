//! What a run amounts to, for people and for machines.

use super::{
    load::{Sample, Verdict},
    scenario::{ALL, Pace, Scenario},
};
use crate::terminal::{Paint, pad, pad_left};
use serde::Serialize;
use std::time::Duration;

/// One run, from the moment the fault begins.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// Visits that were due.
    pub(crate) visits: usize,
    /// Visits answered well and in time.
    pub(crate) good: usize,
    /// Of these, with an earlier answer, marked stale.
    pub(crate) stale: usize,
    /// Good visits per second.
    pub(crate) goodput_per_second: f64,
    /// Milliseconds that 99 of 100 visits stayed under; a shopper who gave up
    /// waited as long as shoppers wait.
    pub(crate) p99_ms: f64,
    /// Median, likewise.
    pub(crate) p50_ms: f64,
    /// Calls that reached the broken service while it was broken.
    pub(crate) calls_to_broken: u64,
    /// Milliseconds from the mending until nine of ten visits were good again
    /// and stayed so; absent when they never were.
    pub(crate) recovered_after_ms: Option<f64>,
}

/// Both runs of a scenario.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) scenario: &'static str,
    pub(crate) patterns: &'static str,
    pub(crate) without: Outcome,
    pub(crate) with: Outcome,
    /// Whether the patterns made a difference that a shopper would notice.
    pub(crate) helped: bool,
}

/// Everything, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenarios: Vec<Comparison>,
    pub(crate) helped: bool,
}

impl Outcome {
    /// Judges `samples` of a run at `pace`, broken at `breaks` and mended at `mended`.
    pub(crate) fn of(samples: &[Sample], breaks: Duration, mended: Duration, pace: Pace) -> Self {
        let judged: Vec<&Sample> = samples.iter().filter(|sample| sample.due >= breaks).collect();
        let good = judged.iter().filter(|sample| sample.verdict.good()).count();
        let mut took: Vec<Duration> =
            judged.iter().map(|sample| sample.took.min(pace.patience)).collect();
        took.sort();
        Self {
            visits: judged.len(),
            good,
            stale: judged.iter().filter(|sample| sample.verdict == Verdict::Stale).count(),
            goodput_per_second: good as f64 / pace.lasting.saturating_sub(breaks).as_secs_f64(),
            p99_ms: quantile_ms(&took, 0.99),
            p50_ms: quantile_ms(&took, 0.5),
            calls_to_broken: 0,
            recovered_after_ms: recovered(samples, mended, pace.lasting)
                .map(|after| after.as_secs_f64() * 1e3),
        }
    }

    /// Share of visits that went well.
    pub(crate) fn good_share(&self) -> f64 {
        if self.visits == 0 { 0.0 } else { self.good as f64 / self.visits as f64 }
    }
}

fn quantile_ms(sorted: &[Duration], q: f64) -> f64 {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

fn recovered(samples: &[Sample], mended: Duration, lasting: Duration) -> Option<Duration> {
    const STEP: Duration = Duration::from_millis(50);
    let mut after: Vec<&Sample> = samples.iter().filter(|sample| sample.due >= mended).collect();
    after.sort_by_key(|sample| sample.due);
    let mut from = mended;
    while from + STEP < lasting {
        let rest = after.iter().filter(|sample| sample.due >= from);
        let (all, good) = rest.fold((0, 0), |(all, good), sample| {
            (all + 1, good + usize::from(sample.verdict.good()))
        });
        if all > 0 && good * 10 >= all * 9 {
            return Some(from.saturating_sub(mended));
        }
        from += STEP;
    }
    None
}

impl Comparison {
    /// Judges `scenario` by its two runs.
    pub(crate) fn of(scenario: &Scenario, without: Outcome, with: Outcome) -> Self {
        // Of the visits that went wrong at least half go well: more than luck
        // or a busy machine could do.
        let helped = 1.0 - with.good_share() <= (1.0 - without.good_share()) / 2.0;
        Self { scenario: scenario.key, patterns: scenario.patterns, without, with, helped }
    }
}

impl Report {
    /// The report over `scenarios`.
    pub(crate) fn of(scenarios: Vec<Comparison>) -> Self {
        let helped = scenarios.len() == ALL.len() && scenarios.iter().all(|one| one.helped);
        Self { scenarios, helped }
    }

    /// The table at the end of the demo.
    pub(crate) fn table(&self, paint: Paint) -> String {
        let mut text = String::new();
        let row = |cells: [String; 6]| {
            let [title, good, goodput, p99, calls, mark] = cells;
            format!(
                "  {}{}{}{}{}  {mark}\n",
                pad(&title, 38),
                pad_left(&good, 8),
                pad_left(&goodput, 12),
                pad_left(&p99, 11),
                pad_left(&calls, 11),
            )
        };
        let heading = ["", "good", "goodput", "p99", "calls*", ""];
        text.push_str(&row(heading.map(|word| paint.dim(word))));
        for comparison in &self.scenarios {
            let title = ALL
                .iter()
                .find(|scenario| scenario.key == comparison.scenario)
                .map_or(comparison.scenario, |scenario| scenario.title);
            text.push_str(&format!("  {}\n", paint.bold(title)));
            let cells = |name: String, outcome: &Outcome, mark: String| {
                let share = format!("{:.1} %", outcome.good_share() * 100.0);
                row([
                    name,
                    if outcome.good_share() >= 0.95 {
                        paint.good(&share)
                    } else {
                        paint.bad(&share)
                    },
                    format!("{:.0}/s", outcome.goodput_per_second),
                    format!("{:.0} ms", outcome.p99_ms),
                    outcome.calls_to_broken.to_string(),
                    mark,
                ])
            };
            text.push_str(&cells(paint.dim("  without"), &comparison.without, String::new()));
            let mark =
                if comparison.helped { paint.good("✓") } else { paint.bad("✗ did not help") };
            text.push_str(&cells(format!("  {}", comparison.patterns), &comparison.with, mark));
        }
        text.push_str(
            &paint.dim("  * calls that reached the broken service while it was broken\n"),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Pace, Sample, Verdict, quantile_ms};
    use std::time::Duration;

    fn at(ms: u64, verdict: Verdict) -> Sample {
        Sample { due: Duration::from_millis(ms), took: Duration::from_millis(10), verdict }
    }

    #[test]
    fn only_what_comes_after_the_break_is_judged() {
        let samples = [at(0, Verdict::Failed), at(100, Verdict::Good), at(150, Verdict::Failed)];
        let ms = Duration::from_millis;
        let outcome =
            Outcome::of(&samples, ms(100), ms(200), Pace { lasting: ms(300), ..Pace::FULL });
        assert_eq!((outcome.visits, outcome.good), (2, 1));
        assert!((outcome.goodput_per_second - 5.0).abs() < 1e-9);
    }

    #[test]
    fn recovery_is_when_visits_are_good_and_stay_good() {
        let mut samples: Vec<Sample> =
            (0..10).map(|i| at(1000 + i * 10, Verdict::GaveUp)).collect();
        samples.extend((0..50).map(|i| at(1100 + i * 10, Verdict::Good)));
        let ms = Duration::from_millis;
        let outcome =
            Outcome::of(&samples, ms(500), ms(1000), Pace { lasting: ms(1600), ..Pace::FULL });
        assert_eq!(outcome.recovered_after_ms, Some(50.0));
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let took: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert!((quantile_ms(&took, 0.99) - 99.0).abs() < 1e-9);
        assert!(quantile_ms(&[], 0.99).abs() < 1e-9);
    }
}
