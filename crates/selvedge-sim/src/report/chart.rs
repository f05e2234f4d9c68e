//! Inline SVG: lines with envelopes, strips and heat maps over the same time axis.

use std::fmt::Write as _;

use super::number;

pub(super) const WIDTH: f64 = 920.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 12.0;

/// The time axis that all charts of a page share.
#[derive(Clone, Copy)]
pub(super) struct Time {
    pub(super) end: f64,
    pub(super) bin: f64,
}

impl Time {
    fn x(self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at / self.end).clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<f64> {
        let step = nice(self.end / 8.0);
        (0..).map(|n| f64::from(n) * step).take_while(|at| *at <= self.end * 1.0001).collect()
    }
}

/// One line with the band that it lies in.
pub(super) struct Line<'a> {
    pub(super) class: &'a str,
    pub(super) label: &'a str,
    pub(super) envelope: &'a [[f64; 3]],
}

fn nice(raw: f64) -> f64 {
    let magnitude = libm::pow(10.0, libm::floor(libm::log10(raw.max(1e-12))));
    let lead = raw / magnitude;
    magnitude
        * if lead <= 1.0 {
            1.0
        } else if lead <= 2.0 {
            2.0
        } else if lead <= 5.0 {
            5.0
        } else {
            10.0
        }
}

fn path(time: Time, values: impl Iterator<Item = f64>, y: impl Fn(f64) -> f64) -> String {
    let mut out = String::new();
    for (bin, value) in values.enumerate() {
        let command = if bin == 0 { 'M' } else { 'L' };
        let _ =
            write!(out, "{command}{:.1} {:.1}", time.x((bin as f64 + 0.5) * time.bin), y(value));
    }
    out
}

/// Lines over time, with every seed faint behind them and faults shaded.
pub(super) fn lines(
    time: Time,
    height: f64,
    unit: &str,
    lines: &[Line<'_>],
    faint: &[Vec<f64>],
    faults: &[(f64, f64)],
) -> String {
    let (top, bottom) = (10.0, height - 22.0);
    let highest = lines
        .iter()
        .flat_map(|line| line.envelope.iter().map(|point| point[2]))
        .fold(0.0, f64::max)
        .max(1e-9);
    let step = nice(highest / 4.0);
    let ceiling = step * libm::ceil(highest / step);
    let y = |value: f64| bottom - (bottom - top) * (value / ceiling).clamp(0.0, 1.0);
    let mut out = open(height);
    shade(&mut out, time, top, bottom, faults);
    let mut level = 0.0;
    while level <= ceiling * 1.0001 {
        let at = y(level);
        let _ = write!(
            out,
            r#"<line class="grid" x1="{LEFT}" x2="{:.0}" y1="{at:.1}" y2="{at:.1}"/>"#,
            WIDTH - RIGHT
        );
        let _ = write!(
            out,
            r#"<text class="tick" x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            at + 4.0,
            number(level)
        );
        level += step;
    }
    axis(&mut out, time, bottom);
    for seed in faint.iter().take(40) {
        let _ = write!(out, r#"<path class="faint" d="{}"/>"#, path(time, seed.iter().copied(), y));
    }
    for line in lines {
        let upper = path(time, line.envelope.iter().map(|point| point[2]), y);
        let mut band = upper;
        for (bin, point) in line.envelope.iter().enumerate().rev() {
            let _ =
                write!(band, "L{:.1} {:.1}", time.x((bin as f64 + 0.5) * time.bin), y(point[0]));
        }
        let _ = write!(out, r#"<path class="band {}" d="{band}Z"/>"#, line.class);
    }
    for line in lines {
        let _ = write!(
            out,
            r#"<path class="line {}" d="{}"><title>{}</title></path>"#,
            line.class,
            path(time, line.envelope.iter().map(|point| point[1]), y),
            super::escape(line.label)
        );
    }
    out.push_str("</svg></div>");
    let legend: String = lines
        .iter()
        .map(|line| {
            format!(
                r#"<span class="key {}"><i></i>{}</span>"#,
                line.class,
                super::escape(line.label)
            )
        })
        .collect();
    format!(r#"<div class="legend"><em>{unit}</em>{legend}</div>{out}"#)
}

/// Rows of shares between 0 and 1, one colour each.
pub(super) fn strips(
    time: Time,
    rows: &[(String, &str, Vec<f64>)],
    faults: &[(f64, f64)],
) -> String {
    let height = rows.len() as f64 * 24.0 + 26.0;
    let mut out = open(height);
    for (row, (label, class, values)) in rows.iter().enumerate() {
        let y = row as f64 * 24.0 + 4.0;
        let _ = write!(
            out,
            r#"<rect class="track" x="{LEFT}" y="{y}" width="{:.0}" height="18"/>"#,
            WIDTH - LEFT - RIGHT
        );
        let short: String = label.chars().take(17).collect();
        let _ = write!(
            out,
            r#"<text class="tick" x="{:.0}" y="{:.0}" text-anchor="end">{}<title>{}</title></text>"#,
            LEFT - 8.0,
            y + 13.0,
            super::escape(&short),
            super::escape(label)
        );
        for (bin, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.004) {
            let (from, to) = (time.x(bin as f64 * time.bin), time.x((bin as f64 + 1.0) * time.bin));
            let _ = write!(
                out,
                r#"<rect class="{class}" x="{from:.1}" y="{y}" width="{:.1}" height="18" opacity="{:.2}"/>"#,
                (to - from).max(0.6) + 0.2,
                value.clamp(0.05, 1.0)
            );
        }
    }
    shade(&mut out, time, 4.0, height - 22.0, faults);
    axis(&mut out, time, height - 22.0);
    out.push_str("</svg></div>");
    out
}

/// Counts by time and logarithmic size, darker for more.
pub(super) fn heat(
    time: Time,
    low_label: &dyn Fn(usize) -> String,
    columns: &[Vec<u64>],
    faults: &[(f64, f64)],
) -> String {
    let rows = columns.first().map_or(0, Vec::len);
    let height = rows as f64 * 9.0 + 34.0;
    let bottom = height - 22.0;
    let mut out = open(height);
    for (bin, column) in columns.iter().enumerate() {
        let total: u64 = column.iter().sum();
        let (from, to) = (time.x(bin as f64 * time.bin), time.x((bin as f64 + 1.0) * time.bin));
        for (row, count) in column.iter().enumerate().filter(|(_, count)| **count > 0) {
            let share = libm::sqrt(*count as f64 / total as f64);
            let _ = write!(
                out,
                r#"<rect class="heat" x="{from:.1}" y="{:.1}" width="{:.1}" height="9.2" opacity="{:.2}"/>"#,
                bottom - (row as f64 + 1.0) * 9.0,
                (to - from).max(0.6) + 0.2,
                share.max(0.04)
            );
        }
    }
    for row in (0..=rows).step_by(4) {
        let y = bottom - row as f64 * 9.0;
        let _ = write!(
            out,
            r#"<line class="grid" x1="{LEFT}" x2="{:.0}" y1="{y:.1}" y2="{y:.1}"/>"#,
            WIDTH - RIGHT
        );
        let _ = write!(
            out,
            r#"<text class="tick" x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            y + 4.0,
            low_label(row)
        );
    }
    shade(&mut out, time, 10.0, bottom, faults);
    axis(&mut out, time, bottom);
    out.push_str("</svg></div>");
    out
}

fn open(height: f64) -> String {
    format!(r#"<div class="wide"><svg viewBox="0 0 {WIDTH} {height:.0}" role="img">"#)
}

fn shade(out: &mut String, time: Time, top: f64, bottom: f64, faults: &[(f64, f64)]) {
    for (from, to) in faults {
        let (from, to) = (time.x(*from), time.x(*to));
        let _ = write!(
            out,
            r#"<rect class="fault" x="{from:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"#,
            (to - from).max(1.0),
            bottom - top
        );
    }
}

fn axis(out: &mut String, time: Time, y: f64) {
    for at in time.ticks() {
        let _ = write!(
            out,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{} s</text>"#,
            time.x(at),
            y + 16.0,
            number(at)
        );
    }
}
