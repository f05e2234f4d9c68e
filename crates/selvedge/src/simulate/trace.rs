//! Arrivals as they were: from a table, or from Selvedge's own access log.

use selvedge_sim::model::{Arrivals, Scenario};

/// A trace is read up to so many calls.
const CALLS_MAX: usize = 20_000_000;

/// Gives the client called `name` (or the only one) the arrivals in `text`,
/// those whose route begins with `only`, and makes the run as long as they are.
/// What was recorded of answers is not used: it has the waiting of then in it.
pub(super) fn replay(
    scenario: &mut Scenario,
    text: &str,
    name: Option<&str>,
    only: Option<&str>,
) -> Result<usize, String> {
    let client = match name {
        Some(name) => scenario.clients.iter().position(|client| client.name == name),
        None if scenario.clients.len() == 1 => Some(0),
        None => None,
    };
    let names: Vec<&str> = scenario.clients.iter().map(|client| client.name.as_str()).collect();
    let client = client.ok_or_else(|| {
        format!("say whose calls these are: `--client` with one of {}", names.join(", "))
    })?;
    let times = arrivals(text, only)?;
    let calls = times.len();
    let last = times.last().copied().unwrap_or_default();
    scenario.run.duration = selvedge_patterns::time::Duration::from_nanos(last + 1_000_000_000);
    if scenario.run.warm_up >= scenario.run.duration {
        scenario.run.warm_up = scenario.run.duration / 10;
    }
    let name = &scenario.clients[client].name;
    scenario.assumptions.push(format!(
        "The {calls} calls of {name} come when they came; everything else is the scenario's."
    ));
    scenario.clients[client].arrivals = Arrivals::Trace(times);
    Ok(calls)
}

/// Times since the first line, in nanoseconds, rising.
fn arrivals(text: &str, only: Option<&str>) -> Result<Vec<u64>, String> {
    let mut times: Vec<f64> = Vec::new();
    let mut first = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let (at, route) = match line.trim_start().starts_with('{') {
            true => logged(line).ok_or_else(|| format!("line {number}: no `time` and `path`"))?,
            false => match tabled(line) {
                Some(found) => found,
                // A heading, or nothing.
                None if index == 0 || line.trim().is_empty() => continue,
                None => {
                    return Err(format!("line {number}: it does not begin with a time in seconds"));
                }
            },
        };
        let zero = *first.get_or_insert(at);
        if only.is_none_or(|only| route.starts_with(only)) {
            times.push(at - zero);
        }
        if times.len() > CALLS_MAX {
            return Err(format!("more than {CALLS_MAX} calls; cut it into pieces"));
        }
    }
    if times.is_empty() {
        return Err(match only {
            Some(only) => format!("no call of the trace goes to `{only}`"),
            None => "no line begins with a time in seconds".to_owned(),
        });
    }
    // An access log is written as calls end; they are sorted by when they came.
    times.sort_by(f64::total_cmp);
    let zero = times[0].min(0.0);
    Ok(times.into_iter().map(|at| ((at - zero) * 1e9) as u64).collect())
}

/// `time,route,…` with seconds.
fn tabled(line: &str) -> Option<(f64, String)> {
    let mut columns = line.split([',', ';', '\t']);
    let at = columns.next()?.trim().parse::<f64>().ok().filter(|at| at.is_finite())?;
    Some((at, columns.next().unwrap_or_default().trim().trim_matches('"').to_owned()))
}

/// A line of the access log; its time is when the call came.
fn logged(line: &str) -> Option<(f64, String)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some((seconds(line["time"].as_str()?)?, line["path"].as_str()?.to_owned()))
}

/// `2023-11-14T22:13:20.123Z` in seconds since 1970.
fn seconds(time: &str) -> Option<f64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let mut parts = clock.split(':').map(|part| part.parse::<f64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    // Howard Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days as f64 * 86_400.0 + hour * 3600.0 + minute * 60.0 + second)
}

#[cfg(test)]
mod tests {
    use super::{arrivals, seconds};

    #[test]
    fn a_table_by_route() {
        let text = "time,route\n10.0,/a\n10.5,/b\n11,/a/c\n";
        assert_eq!(arrivals(text, None).unwrap(), [0, 500_000_000, 1_000_000_000]);
        assert_eq!(arrivals(text, Some("/a")).unwrap(), [0, 1_000_000_000]);
        assert!(arrivals(text, Some("/c")).unwrap_err().contains("`/c`"));
        assert!(arrivals("1\nx\n", None).unwrap_err().contains("line 2"));
    }

    #[test]
    fn the_access_log() {
        let line =
            |time: &str| format!("{{\"log\":\"access\",\"time\":\"{time}\",\"path\":\"/a\"}}\n");
        let text = line("2023-11-14T22:13:20.123Z") + &line("2023-11-14T22:13:19.123Z");
        assert_eq!(arrivals(&text, None).unwrap(), [0, 1_000_000_000]);
        assert_eq!(seconds("1970-01-02T00:00:01.500Z"), Some(86_401.5));
        assert_eq!(seconds("2000-02-29T12:00:00.000Z"), Some(951_825_600.0));
    }
}
