//! The shop and its outages as files that `selvedge simulate` reads: the same
//! numbers that the live shop runs on, so that the rehearsal can be held
//! against it.

use super::{
    load::Plan,
    scenario::{ALL, BREAKS_AT, Member, Pace, SHOP, Scenario},
    stage,
};
use std::{fmt::Write as _, io, path::Path, time::Duration};

/// What the live shop takes longer than it is told to: its timers go by whole milliseconds.
const TICK_MS: u64 = 1;

/// Writes every outage, with and without its patterns, into `folder`; answers
/// the files' names. `fast` is exactly what the fast demo plays, otherwise the
/// outages last long enough for a verdict.
pub(crate) fn write(folder: &Path, fast: bool) -> io::Result<Vec<String>> {
    std::fs::create_dir_all(folder)?;
    let mut names = Vec::new();
    let (pace, shoppers) =
        if fast { (Pace::FAST, Shoppers::TheSame) } else { (SLOW, Shoppers::Alike) };
    for (name, text) in files(pace, shoppers) {
        std::fs::write(folder.join(&name), text)?;
        names.push(name);
    }
    Ok(names)
}

/// Who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shoppers {
    /// Those of the live run, one by one.
    TheSame,
    /// Others like them, in every seed.
    Alike,
}

/// The demo in slow motion: a verdict looks for a recovery that holds for ten seconds.
const SLOW: Pace = Pace { lasting: Duration::from_secs(200), ..Pace::FULL };

fn files(pace: Pace, shoppers: Shoppers) -> Vec<(String, String)> {
    let mut files = vec![("selvedge.yaml".to_owned(), production(None))];
    for outage in ALL {
        let key = outage.key;
        files.push((format!("selvedge.{key}.yaml"), production(Some(outage))));
        files.push((format!("{key}.without.yaml"), scenario(outage, pace, shoppers, false)));
        files.push((format!("{key}.with.yaml"), scenario(outage, pace, shoppers, true)));
        if shoppers == Shoppers::TheSame {
            files.push((format!("{key}.csv"), arrivals(outage.plan(pace), pace)));
        }
    }
    files
}

/// The file that the proxy of the demo runs on, with addresses that do not change.
fn production(outage: Option<&Scenario>) -> String {
    let addresses: Vec<String> =
        (0..SHOP.len()).map(|member| format!("127.0.0.1:{}", 9001 + member)).collect();
    let lines = outage.map(|outage| (outage.service, outage.lines));
    stage::configuration(&addresses, "127.0.0.1:8080", "127.0.0.1:9900", lines)
}

/// The shoppers of a run, as the live demo draws them.
fn arrivals(plan: Plan, pace: Pace) -> String {
    let mut text = String::from("seconds\n");
    for (due, _) in plan.visits(pace.lasting) {
        let _ = writeln!(text, "{:.6}", due.as_secs_f64());
    }
    text
}

fn scenario(outage: &Scenario, pace: Pace, shoppers: Shoppers, with: bool) -> String {
    let Scenario { key, title, .. } = *outage;
    let (story, name, config) = if with {
        (outage.answer, outage.patterns, format!("selvedge.{key}.yaml"))
    } else {
        (outage.story, "without patterns", "selvedge.yaml".to_owned())
    };
    let mut text = format!("# {title}. {story}\nname: \"{title}, {name}\"\nconfig: ./{config}\n");
    let arrivals = match shoppers {
        Shoppers::TheSame => format!("arrivals: trace, trace: ./{key}.csv"),
        Shoppers::Alike => format!("arrivals: poisson, rate: {}/s", outage.per_second),
    };
    let (route, patience) = (outage.visits[0].path, millis(pace.patience.as_millis()));
    let _ = writeln!(
        text,
        "clients:\n  - {{ name: shoppers, {arrivals}, route: {route}, deadline: {patience} }}"
    );
    text.push_str("services:\n");
    for service in involved(outage) {
        text.push_str(&model(service, outage));
    }
    let lasting = pace.lasting.as_secs_f64();
    let (breaks, mended) = (lasting * BREAKS_AT, lasting * outage.mended_at);
    let _ = writeln!(
        text,
        "faults:\n  - {{ at: {}, for: {}, {} }}",
        millis((breaks * 1e3) as u128),
        millis(((mended - breaks) * 1e3).round() as u128),
        fault(outage, pace)
    );
    let (seeds, bin) = match shoppers {
        Shoppers::TheSame => (20, "50ms"),
        Shoppers::Alike => (5, "1s"),
    };
    let _ = writeln!(
        text,
        "run: {{ duration: {}, warm_up: {}, seeds: {seeds}, bin: {bin} }}",
        millis(pace.lasting.as_millis()),
        millis((breaks * 500.0) as u128)
    );
    let share = if with { ">= 95%" } else { "<= 80%" };
    let _ = writeln!(text, "expect:\n  - success_rate: \"{share}\"");
    text
}

/// The services that the shoppers of an outage meet, and what these call.
fn involved(outage: &Scenario) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for member in SHOP {
        let visited = outage.visits.iter().any(|visit| first(visit.path) == member.service);
        let called = SHOP.iter().any(|caller| {
            outage.visits.iter().any(|visit| first(visit.path) == caller.service)
                && caller.calls.is_some_and(|path| first(path) == member.service)
        });
        if (visited || called) && !names.contains(&member.service) {
            names.push(member.service);
        }
    }
    names
}

fn first(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

fn model(service: &str, outage: &Scenario) -> String {
    let is = |member: &&Member| member.service == service;
    let Some(member) = SHOP.iter().find(is) else { return String::new() };
    let mut text = format!(
        "  {service}: {{ replicas: {}, slots: {}, service: {}, queue: unbounded, on_disconnect: keep",
        SHOP.iter().filter(is).count(),
        member.workers,
        millis(u128::from(member.work_ms + TICK_MS)),
    );
    // A POST calls on, and an order is kept whether or not that works.
    if let Some(path) = member.calls {
        let total: u32 = outage.visits.iter().map(|visit| visit.weight).sum();
        let posts: u32 =
            outage.visits.iter().filter(|it| it.method == "POST").map(|it| it.weight).sum();
        let _ = write!(
            text,
            ", while_calling: hold, forwards: false, calls: [{{ {}: {{ prob: {}%, optional: true }} }}]",
            first(path),
            100 * posts / total.max(1)
        );
    }
    text + " }\n"
}

fn fault(outage: &Scenario, pace: Pace) -> String {
    let broken = &SHOP[outage.broken];
    let fault = outage.fault(pace);
    let kind = if fault.down {
        "crash: 1".to_owned()
    } else if fault.hang {
        "capacity: 0%".to_owned()
    } else if fault.error_rate > 0.0 {
        format!("errors: {{ p: {}%, slow: true }}", fault.error_rate * 100.0)
    } else {
        let healthy = (broken.work_ms + TICK_MS) as f64;
        format!("latency: x{:.3}", (fault.latency_ms as f64 + healthy) / healthy)
    };
    format!("service: {}, {kind}", broken.service)
}

fn millis(ms: u128) -> String {
    if ms >= 1000 && ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::{SLOW, Shoppers, files};
    use std::path::Path;

    #[test]
    fn the_committed_scenarios_are_the_shop_that_runs() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/simulate/demo-shop");
        for (name, text) in files(SLOW, Shoppers::Alike) {
            let path = folder.join(&name);
            if std::env::var_os("SELVEDGE_WRITE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "{name} is out of date: SELVEDGE_WRITE=1 cargo nextest run -p selvedge rehearsal"
            );
        }
    }
}
