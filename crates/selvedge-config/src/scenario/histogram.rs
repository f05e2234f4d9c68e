//! Measured service times and recorded arrivals, as the tools that make them write them.

use selvedge_sim::distribution::{Empirical, Impossible};

fn not_rising(why: impl Into<String>) -> Impossible {
    Impossible::NotRising(why.into())
}

/// The percentile table of an `HdrHistogram` (`.hgrm`): value, percentile, count, 1/(1−percentile).
pub(super) fn hdr(text: &str, unit: f64) -> Result<Empirical, Impossible> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    let (mut total, mut mean) = (0.0f64, None);
    for line in text.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("#[Mean") {
            let value = rest.trim_start_matches([' ', '=']).split(',').next().unwrap_or("");
            mean = value.trim().parse::<f64>().ok().map(|mean| mean * unit);
        }
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [value, percentile, count, ..] = columns[..] else { continue };
        let (Ok(value), Ok(_), Ok(count)) =
            (value.parse::<f64>(), percentile.parse::<f64>(), count.parse::<f64>())
        else {
            continue;
        };
        total = total.max(count);
        match points.last_mut() {
            // The same value again: the higher count holds. A value of zero has no logarithm.
            Some(last) if last.0 >= value * unit && last.1 <= count => last.1 = count,
            _ if value > 0.0 => points.push((value * unit, count)),
            _ => {}
        }
    }
    Empirical::from_cumulative(&points, total, mean)
}

/// One classic histogram of a Prometheus text exposition, summed over its label sets.
pub(super) fn prometheus(
    text: &str,
    unit: f64,
    metric: Option<&str>,
) -> Result<Empirical, Impossible> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    let (mut total, mut sum, mut name) = (0.0, None, metric.map(str::to_owned));
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let base = series.split('{').next().unwrap_or(series);
        if let Some(found) = base.strip_suffix("_bucket") {
            if name.get_or_insert_with(|| found.to_owned()) != found {
                continue;
            }
            let Some(edge) = series.split("le=\"").nth(1).and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            if edge == "+Inf" {
                total += value;
                continue;
            }
            let edge = edge
                .parse::<f64>()
                .map_err(|_| not_rising(format!("the edge `{edge}` is no number")))?
                * unit;
            match points.iter_mut().find(|(known, _)| (known / edge - 1.0).abs() < 1e-12) {
                Some((_, count)) => *count += value,
                None => points.push((edge, value)),
            }
        } else if base
            .strip_suffix("_sum")
            .is_some_and(|it| name.as_deref().is_none_or(|name| name == it))
        {
            sum = Some(sum.unwrap_or(0.0) + value * unit);
        }
    }
    if total <= 0.0 {
        return Err(not_rising("there is no `_bucket{le=\"+Inf\"}` with a count"));
    }
    Empirical::from_cumulative(&points, total, sum.map(|sum| sum / total))
}

/// Arrival times: the first column of each line, in seconds since the first.
pub(super) fn trace(text: &str) -> Result<Vec<u64>, String> {
    let mut times = Vec::new();
    let mut first = None;
    for (number, line) in text.lines().enumerate() {
        let column = line.split([',', ';', '\t', ' ']).next().unwrap_or("").trim();
        let Ok(at) = column.parse::<f64>() else {
            if number == 0 || column.is_empty() {
                continue;
            }
            return Err(format!("line {}: `{column}` is no time in seconds", number + 1));
        };
        let since = at - *first.get_or_insert(at);
        if since < 0.0 || times.last().is_some_and(|last| *last > (since * 1e9) as u64) {
            return Err(format!("line {}: time goes back", number + 1));
        }
        times.push((since * 1e9) as u64);
    }
    if times.is_empty() {
        Err("no line begins with a time in seconds".to_owned())
    } else {
        Ok(times)
    }
}
