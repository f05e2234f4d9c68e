//! How the demo looks: a frame for a terminal, lines for anything else.

use super::{
    load::Sample,
    report::Outcome,
    scenario::{ALL, BREAKS_AT, Pace, SHOP, Scenario},
};
use crate::terminal::{Paint, Screen, cut, pad};
use std::time::Duration;

const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Everything a frame shows.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) number: usize,
    pub(crate) scenario: &'a Scenario,
    pub(crate) pace: Pace,
    /// Where the run is; `None` before it begins.
    pub(crate) elapsed: Option<Duration>,
    pub(crate) broken_now: bool,
    pub(crate) breaker: Option<&'a str>,
    pub(crate) generation: u64,
    pub(crate) operator: &'a str,
    /// The run without patterns: over, or the one that runs.
    pub(crate) without: &'a [Sample],
    /// The run with them, once it began.
    pub(crate) with: Option<&'a [Sample]>,
}

/// Where the demo is shown.
#[derive(Debug)]
pub(crate) enum View {
    /// A live terminal.
    Live(Screen, Paint),
    /// Lines, as they happen.
    Lines(Paint),
}

impl View {
    /// Draws `frame` where that is possible.
    pub(crate) fn draw(&mut self, frame: &Frame<'_>) {
        if let Self::Live(screen, paint) = self {
            let columns =
                crossterm::terminal::size().map_or(100, |(columns, _)| usize::from(columns));
            screen.draw(&lines(frame, *paint, columns.clamp(60, 120)));
        }
    }

    /// Says `line` where there is no live view.
    pub(crate) fn say(&self, line: &str) {
        if let Self::Lines(_) = self {
            eprintln!("{line}");
        }
    }

    pub(crate) fn paint(&self) -> Paint {
        match self {
            Self::Live(_, paint) | Self::Lines(paint) => *paint,
        }
    }
}

fn lines(frame: &Frame<'_>, paint: Paint, columns: usize) -> Vec<String> {
    let Frame { scenario, .. } = frame;
    let mut lines = vec![
        String::new(),
        format!(
            "  {}  {}",
            paint.bold("selvedge demo"),
            paint.dim(&format!(
                "{} of {} · a small shop, its outages, and what each pattern does about them",
                frame.number,
                ALL.len()
            ))
        ),
        String::new(),
    ];
    lines.extend(map(frame, paint));
    lines.push(String::new());
    lines.push(format!("  {}", paint.bold(scenario.title)));
    lines.extend(wrap(scenario.story, columns - 4).into_iter().map(|line| format!("  {line}")));
    lines.push(String::new());

    let half = (columns - 6) / 2;
    let with_begun = frame.with.is_some();
    let column = |title: &str, samples: &[Sample], runs: bool| {
        panel(frame, title, samples, runs, half, paint)
    };
    let left = column("without", frame.without, !with_begun);
    let right = match frame.with {
        Some(samples) => column(&format!("with {}", scenario.patterns), samples, true),
        None => vec![paint.dim(&cut(&format!("with {} · next", scenario.patterns), half))],
    };
    for row in 0..left.len().max(right.len()) {
        let cell = |side: &[String]| side.get(row).cloned().unwrap_or_default();
        lines.push(format!("  {}  {}", pad(&cell(&left), half), cell(&right)));
    }
    lines.push(String::new());
    if with_begun {
        lines.push(paint.dim(&format!(
            "  what was added to the running file, under services.{}:",
            scenario.service
        )));
        lines.extend(scenario.lines.iter().map(|line| format!("  {} {line}", paint.good("+"))));
        lines.push(String::new());
        lines
            .extend(wrap(scenario.answer, columns - 4).into_iter().map(|line| format!("  {line}")));
        lines.push(String::new());
    }
    lines.push(paint.dim(&format!(
        "  configuration generation {} · dashboard http://{}/ · Ctrl-C ends",
        frame.generation, frame.operator
    )));
    lines
}

/// Shoppers, proxy and shop, with what is broken.
fn map(frame: &Frame<'_>, paint: Paint) -> Vec<String> {
    let mut rows: Vec<(&str, String)> = Vec::new();
    for (index, member) in SHOP.iter().enumerate() {
        let dot = if frame.broken_now && index == frame.scenario.broken {
            paint.bad("✗")
        } else {
            paint.good("●")
        };
        match rows.last_mut() {
            Some((name, dots)) if *name == member.service => dots.push_str(&format!(" {dot}")),
            _ => rows.push((member.service, dot)),
        }
    }
    let middle = 1;
    let last = rows.len() - 1;
    rows.into_iter()
        .enumerate()
        .map(|(row, (name, dots))| {
            let before = if row == middle {
                "shoppers ─▶ selvedge ─"
            } else {
                "                      "
            };
            let joint = match row {
                0 => "┌",
                row if row == middle => "┼",
                row if row == last => "└",
                _ => "├",
            };
            let mut note = String::new();
            if name == "orders" {
                note = paint.dim("  checkout calls payments, through selvedge");
            }
            if name == frame.scenario.service
                && frame.with.is_some()
                && let Some(state) = frame.breaker
            {
                let text = format!("  breaker {state}");
                note = match state {
                    "closed" => paint.good(&text),
                    "open" => paint.bad(&text),
                    _ => paint.warn(&text),
                };
            }
            format!("  {before}{joint}▶ {} {}{note}", pad(name, 10), pad(&dots, 4))
        })
        .collect()
}

fn panel(
    frame: &Frame<'_>,
    title: &str,
    samples: &[Sample],
    runs: bool,
    columns: usize,
    paint: Paint,
) -> Vec<String> {
    let elapsed = if runs { frame.elapsed.unwrap_or_default() } else { frame.pace.lasting };
    let breaks = frame.pace.lasting.mul_f64(BREAKS_AT);
    let mended = frame.pace.lasting.mul_f64(frame.scenario.mended_at);
    let pace = Pace { lasting: elapsed.max(breaks + Duration::from_millis(1)), ..frame.pace };
    let outcome = Outcome::of(samples, breaks, mended, pace);
    let share = outcome.good_share();
    let painted = |text: String| {
        if outcome.visits == 0 {
            paint.dim(&text)
        } else if share >= 0.95 {
            paint.good(&text)
        } else if share >= 0.7 {
            paint.warn(&text)
        } else {
            paint.bad(&text)
        }
    };
    let title = cut(title, columns);
    let mut rows = vec![if runs { paint.accent(&paint.bold(&title)) } else { paint.bold(&title) }];
    rows.extend(chart(frame, samples, elapsed, columns - 2, paint));
    rows.push(timeline(frame, columns - 2, paint));
    if outcome.visits == 0 {
        rows.push(paint.dim("all is well so far"));
        rows.push(String::new());
    } else {
        rows.push(format!(
            "{}  {}",
            paint.bold(&painted(format!("{:>5.1} % good", share * 100.0))),
            paint.dim(&if outcome.stale > 0 {
                format!("{} stale", outcome.stale)
            } else {
                String::new()
            })
        ));
        rows.push(format!(
            "goodput {:.0}/s   p99 {:.0} ms",
            outcome.goodput_per_second, outcome.p99_ms
        ));
    }
    rows
}

/// Good visits per slot, three rows high, red where others failed.
fn chart(
    frame: &Frame<'_>,
    samples: &[Sample],
    elapsed: Duration,
    columns: usize,
    paint: Paint,
) -> Vec<String> {
    const ROWS: usize = 3;
    let slot = frame.pace.lasting.as_secs_f64() / columns as f64;
    let mut good = vec![0_u32; columns];
    let mut all = vec![0_u32; columns];
    for sample in samples {
        let index = ((sample.due.as_secs_f64() / slot) as usize).min(columns - 1);
        all[index] += 1;
        good[index] += u32::from(sample.verdict.good());
    }
    (0..ROWS)
        .map(|row| {
            let from = (ROWS - 1 - row) * 8;
            (0..columns)
                .map(|index| {
                    if slot * index as f64 > elapsed.as_secs_f64() || all[index] == 0 {
                        return " ".to_owned();
                    }
                    // Share of good visits: arrivals vary, and that is not the point here.
                    let share = f64::from(good[index]) / f64::from(all[index]);
                    let eighths = ((share * (ROWS * 8) as f64).round() as usize).max(1);
                    let bar = BARS[eighths.saturating_sub(from).min(8)].to_string();
                    if share >= 0.95 {
                        paint.good(&bar)
                    } else if share >= 0.7 {
                        paint.warn(&bar)
                    } else {
                        paint.bad(&bar)
                    }
                })
                .collect()
        })
        .collect()
}

/// The axis under a chart, with the outage marked.
fn timeline(frame: &Frame<'_>, columns: usize, paint: Paint) -> String {
    let breaks = (columns as f64 * BREAKS_AT) as usize;
    let mended = (columns as f64 * frame.scenario.mended_at) as usize;
    let label = " outage ";
    let dashes = (mended - breaks).saturating_sub(label.len());
    let outage = format!("{}{label}{}", "─".repeat(dashes / 2), "─".repeat(dashes - dashes / 2));
    format!(
        "{}{}{}",
        paint.dim(&"─".repeat(breaks)),
        paint.bad(&outage),
        paint.dim(&"─".repeat(columns - mended))
    )
}

fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= columns {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Frame, Pace, Paint, lines, wrap};
    use crate::demo::{
        load::{Sample, Verdict},
        scenario::ALL,
    };
    use std::time::Duration;

    #[test]
    fn words_are_wrapped_whole() {
        assert_eq!(wrap("a quick brown fox", 8), ["a quick", "brown", "fox"]);
    }

    #[test]
    fn a_frame_in_the_middle_of_an_outage() {
        let lasting = Pace::FULL.lasting;
        let run = |until_ms: u64, verdict: Verdict| -> Vec<Sample> {
            (0..until_ms / 20)
                .map(|i| {
                    let due = Duration::from_millis(i * 20);
                    let broken = due > lasting.mul_f64(0.2) && due < lasting.mul_f64(0.65);
                    let verdict = if broken { verdict } else { Verdict::Good };
                    Sample { due, took: Duration::from_millis(30), verdict }
                })
                .collect()
        };
        let (without, with) = (run(7000, Verdict::GaveUp), run(4000, Verdict::Stale));
        let frame = Frame {
            number: 4,
            scenario: &ALL[3],
            pace: Pace::FULL,
            elapsed: Some(Duration::from_secs(4)),
            broken_now: true,
            breaker: Some("open"),
            generation: 7,
            operator: "127.0.0.1:9900",
            without: &without,
            with: Some(&with),
        };
        insta::assert_snapshot!(lines(&frame, Paint::off(), 100).join("\n"));
    }
}
