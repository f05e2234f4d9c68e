//! `selvedge demo`: a small shop, its outages, and what each pattern does
//! about them.
//!
//! Nothing here is staged: real processes, a real proxy that takes its changed
//! file while it runs, and shoppers who come whether or not the shop keeps up.

pub(crate) mod load;
pub(crate) mod rehearsal;
pub(crate) mod report;
pub(crate) mod scenario;
pub(crate) mod shop;
pub(crate) mod stage;
pub(crate) mod view;

use self::{
    load::{Sample, Samples},
    report::{Comparison, Outcome, Report},
    scenario::{ALL, BREAKS_AT, Pace, SHOP, Scenario},
    shop::Fault,
    stage::Stage,
    view::{Frame, View},
};
use crate::terminal::{Paint, Screen, can_draw};
use std::{io, path::PathBuf, time::Duration};
use tokio::time::Instant;

/// How the demo runs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Shorter outages: all four in about 15 seconds
    #[arg(long)]
    pub(crate) fast: bool,
    /// Print the results as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Lines instead of a live view, even on a terminal
    #[arg(long)]
    pub(crate) plain: bool,
    /// Play nothing: write the shop and its outages as scenarios for `selvedge simulate`, in slow
    /// motion or, with --fast, exactly as the fast demo plays them
    #[arg(long, value_name = "FOLDER")]
    pub(crate) scenarios: Option<PathBuf>,
}

const FRAME: Duration = Duration::from_millis(100);

/// Runs all of it.
pub(crate) async fn run(options: &Options) -> io::Result<Report> {
    let pace = if options.fast { Pace::FAST } else { Pace::FULL };
    let paint = Paint::for_stderr();
    let mut view = if can_draw() && !options.plain && !options.json {
        View::Live(Screen::open(), paint)
    } else {
        View::Lines(paint)
    };
    view.say(&format!("starting the shop: {} processes and the proxy before them", SHOP.len()));
    let mut stage = Stage::open().await?;
    let mut comparisons = Vec::new();
    for (index, scenario) in ALL.iter().enumerate() {
        let paint = view.paint();
        view.say(&format!(
            "\n{} {}",
            paint.dim(&format!("{}/{}", index + 1, ALL.len())),
            paint.bold(scenario.title)
        ));
        view.say(&format!("    {}", scenario.story));
        let mut run = Run { stage: &mut stage, view: &mut view, scenario, number: index + 1, pace };
        let (without, samples) = run.play(None).await?;
        run.rest(pace.pause / 2, &samples, None).await;
        let (with, samples_with) = run.play(Some(&samples)).await?;
        run.rest(pace.pause, &samples, Some(&samples_with)).await;
        comparisons.push(Comparison::of(scenario, without, with));
    }
    Ok(Report::of(comparisons))
}

/// One scenario on the stage.
struct Run<'a> {
    stage: &'a mut Stage,
    view: &'a mut View,
    scenario: &'a Scenario,
    number: usize,
    pace: Pace,
}

impl Run<'_> {
    /// Plays the outage: without patterns, or with them if `before` holds the run without.
    async fn play(&mut self, before: Option<&[Sample]>) -> io::Result<(Outcome, Vec<Sample>)> {
        let scenario = self.scenario;
        self.stage.settle().await?;
        let lines = before.map(|_| (scenario.service, scenario.lines));
        self.stage.configure(lines).await?;
        let samples = Samples::default();
        let address = self.stage.edge.clone();
        let shoppers = tokio::spawn({
            let (samples, plan, lasting) =
                (samples.clone(), scenario.plan(self.pace), self.pace.lasting);
            async move { load::run(&address, plan, lasting, samples).await }
        });
        let begun = Instant::now();
        let breaks = self.pace.lasting.mul_f64(BREAKS_AT);
        let mended = self.pace.lasting.mul_f64(scenario.mended_at);
        let (mut broken, mut over) = (None, None);
        let generation = self.stage.generation().await?;
        while !shoppers.is_finished() {
            let elapsed = begun.elapsed();
            if broken.is_none() && elapsed >= breaks {
                broken = Some(self.stage.counts(scenario.broken).await?.received);
                self.stage.break_member(scenario.broken, scenario.fault(self.pace)).await?;
            }
            if over.is_none() && elapsed >= mended {
                over = Some(self.stage.counts(scenario.broken).await?.received);
                self.stage.break_member(scenario.broken, Fault::default()).await?;
            }
            if let View::Live(..) = self.view {
                let breaker = match before {
                    Some(_) => self.stage.breaker(scenario.service).await,
                    None => None,
                };
                let now = samples.lock().expect("no one panics while counting").clone();
                let (without, with) = match before {
                    Some(before) => (before, Some(now.as_slice())),
                    None => (now.as_slice(), None),
                };
                let broken_now = broken.is_some() && over.is_none();
                self.draw(Some(elapsed), broken_now, breaker.as_deref(), generation, without, with);
            }
            // The outage keeps to its times, whatever the frames do.
            let change = match (broken, over) {
                (None, _) => breaks,
                (Some(_), None) => mended,
                _ => self.pace.lasting,
            };
            let frame = begun + begun.elapsed() + FRAME.min(self.pace.lasting / 50);
            let change = begun + change;
            let next = if change > Instant::now() { frame.min(change) } else { frame };
            tokio::time::sleep_until(next).await;
        }
        if !self.stage.alive() {
            return Err(io::Error::other("the proxy ended in the middle of the demo"));
        }
        let samples = samples.lock().expect("no one panics while counting").clone();
        let mut outcome = Outcome::of(&samples, breaks, mended, self.pace);
        outcome.calls_to_broken = over.unwrap_or(0).saturating_sub(broken.unwrap_or(0));
        let name = if before.is_some() { scenario.patterns } else { "without" };
        self.view.say(&format!(
            "    {name}: {:.1} % good, goodput {:.0}/s, p99 {:.0} ms, {} calls reached the broken service",
            outcome.good_share() * 100.0,
            outcome.goodput_per_second,
            outcome.p99_ms,
            outcome.calls_to_broken,
        ));
        Ok((outcome, samples))
    }

    /// Leaves a finished run on screen for `pause`, to be read.
    async fn rest(&mut self, pause: Duration, without: &[Sample], with: Option<&[Sample]>) {
        if matches!(self.view, View::Lines(_)) {
            return;
        }
        let generation = self.stage.generation().await.unwrap_or(0);
        self.draw(Some(self.pace.lasting), false, None, generation, without, with);
        tokio::time::sleep(pause).await;
    }

    fn draw(
        &mut self,
        elapsed: Option<Duration>,
        broken_now: bool,
        breaker: Option<&str>,
        generation: u64,
        without: &[Sample],
        with: Option<&[Sample]>,
    ) {
        self.view.draw(&Frame {
            number: self.number,
            scenario: self.scenario,
            pace: self.pace,
            elapsed,
            broken_now,
            breaker,
            generation,
            operator: &self.stage.operator,
            without,
            with,
        });
    }
}
