//! `selvedge top`: the dashboard in the terminal.

use crate::{
    cli, client,
    failure::Failure,
    terminal::{Paint, Screen, can_draw, cut, pad, pad_left},
};
use selvedge_api::operator::view::{ConfigStatus, Service};
use serde::de::DeserializeOwned;
use std::{
    collections::HashMap,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(1);
const SPARK_SLOTS: usize = 24;

/// What the operator API said, at once.
#[derive(Debug, serde::Serialize)]
struct Snapshot {
    status: ConfigStatus,
    services: Vec<Service>,
}

#[derive(serde::Deserialize)]
struct Services {
    services: Vec<Service>,
}

/// Runs until `q`, or once.
pub(crate) async fn run(options: cli::Top) -> Result<(), Failure> {
    let first = snapshot(&options.operator).await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&first).expect("views serialize"));
        return Ok(());
    }
    let mut rates = Rates::default();
    rates.take(&first, Instant::now());
    if options.once || !can_draw() || !std::io::stdin().is_terminal() {
        let lines = lines(&first, &rates, &options.operator.operator, Paint::for_stdout(), 100);
        println!("{}", lines.join("\n"));
        return Ok(());
    }
    live(&options.operator, first, rates).await
}

async fn live(
    operator: &cli::Operator,
    mut last: Snapshot,
    mut rates: Rates,
) -> Result<(), Failure> {
    let _keys = Keys::open();
    let mut screen = Screen::open();
    let paint = Paint::for_stderr();
    let mut due = Instant::now() + EVERY;
    let mut lost = None;
    loop {
        let columns = crossterm::terminal::size().map_or(100, |(columns, _)| usize::from(columns));
        let mut frame = lines(&last, &rates, &operator.operator, paint, columns.max(60));
        if let Some(why) = &lost {
            frame.push(paint.bad(&format!("  no answer: {why}")));
        }
        frame.push(paint.dim("  q quits"));
        screen.draw(&frame);
        while Instant::now() < due {
            if Keys::quit() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        due = Instant::now() + EVERY;
        match snapshot(operator).await {
            Ok(snapshot) => {
                rates.take(&snapshot, Instant::now());
                last = snapshot;
                lost = None;
            }
            Err(_) => lost = Some("the process may have ended; still asking"),
        }
    }
}

/// Single keys without Enter, for as long as it lives.
struct Keys;

impl Keys {
    fn open() -> Self {
        let _ = crossterm::terminal::enable_raw_mode();
        Self
    }

    /// Whether `q`, Escape or Ctrl-C was pressed since the last look.
    fn quit() -> bool {
        use crossterm::event::{Event, KeyCode, KeyModifiers, poll, read};
        while poll(Duration::ZERO).unwrap_or(false) {
            if let Ok(Event::Key(key)) = read() {
                let interrupt =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return true;
                }
            }
        }
        false
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

async fn snapshot(operator: &cli::Operator) -> Result<Snapshot, Failure> {
    let services: Services = get(operator, "/api/v1/services").await?;
    let status = get(operator, "/api/v1/config/status").await?;
    Ok(Snapshot { status, services: services.services })
}

/// Reads one document of the operator API.
pub(crate) async fn get<T: DeserializeOwned>(
    operator: &cli::Operator,
    path: &str,
) -> Result<T, Failure> {
    let bearer = operator.token.as_ref().map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> =
        bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    let (status, body) = client::send("GET", &operator.operator, path, &headers, "")
        .await
        .map_err(|error| Failure::unreachable(&operator.operator, &error))?;
    if !status.is_success() {
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let detail = body["detail"].as_str().unwrap_or("no reason given");
        return Err(Failure::refused(&operator.operator, format!("{status}: {detail}")));
    }
    serde_json::from_slice(&body).map_err(|error| {
        Failure::refused(&operator.operator, format!("an answer of another version: {error}"))
    })
}

/// Calls per second, from totals.
#[derive(Debug, Default)]
struct Rates {
    services: HashMap<String, Rate>,
}

#[derive(Debug)]
struct Rate {
    at: Instant,
    calls: u64,
    good: u64,
    /// (calls per second, share good), oldest first.
    slots: Vec<(f64, Option<f64>)>,
}

impl Rates {
    fn take(&mut self, snapshot: &Snapshot, now: Instant) {
        for service in &snapshot.services {
            let (calls, good) = (service.counts.calls, service.counts.good);
            let rate = self.services.entry(service.name.clone()).or_insert_with(|| Rate {
                at: now,
                calls,
                good,
                slots: Vec::new(),
            });
            let seconds = now.duration_since(rate.at).as_secs_f64();
            if seconds > 0.0 {
                let fresh = calls.saturating_sub(rate.calls);
                let share =
                    (fresh > 0).then(|| good.saturating_sub(rate.good) as f64 / fresh as f64);
                rate.slots.push((fresh as f64 / seconds, share));
                if rate.slots.len() > SPARK_SLOTS {
                    rate.slots.remove(0);
                }
            }
            (rate.at, rate.calls, rate.good) = (now, calls, good);
        }
    }

    fn of(&self, service: &str) -> &[(f64, Option<f64>)] {
        self.services.get(service).map_or(&[], |rate| &rate.slots)
    }
}

fn lines(
    snapshot: &Snapshot,
    rates: &Rates,
    operator: &str,
    paint: Paint,
    columns: usize,
) -> Vec<String> {
    let status = &snapshot.status;
    let mut lines = vec![format!(
        "  {}  {}",
        paint.bold("selvedge top"),
        paint.dim(&cut(
            &format!("{operator} · {} · generation {}", status.file, status.generation),
            columns.saturating_sub(18)
        )),
    )];
    if let Some(error) = &status.last_error {
        lines.push(paint.bad(&format!(
            "  the changed file was refused: {}",
            cut(error.lines().next().unwrap_or_default(), columns.saturating_sub(34))
        )));
    }
    lines.push(String::new());
    let heading = format!(
        "  {}{}{}{}{}{}  ",
        pad("service", 26),
        pad_left("calls/s", 9),
        pad_left("good", 9),
        pad_left("p99", 10),
        pad_left("in flight", 11),
        pad_left("retries", 10),
    );
    lines.push(paint.dim(&heading));
    for service in &snapshot.services {
        lines.push(service_line(service, rates.of(&service.name), paint));
        for endpoint in &service.endpoints {
            let breaker = service
                .breakers
                .iter()
                .find(|breaker| breaker.endpoint.as_deref() == Some(endpoint.address.as_str()))
                .or_else(|| service.breakers.iter().find(|breaker| breaker.endpoint.is_none()));
            let state = tone(paint, &endpoint.state);
            let breaker = breaker.map_or_else(String::new, |breaker| {
                format!("{}{}", paint.dim("breaker "), tone(paint, &breaker.state))
            });
            let latency =
                endpoint.latency_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1} ms"));
            lines.push(format!(
                "    {}{}{}{}  {breaker}",
                pad(&endpoint.address, 28),
                pad(&state, 11),
                pad_left(&latency, 10),
                pad_left(&endpoint.in_flight.to_string(), 11),
            ));
        }
    }
    if snapshot.services.is_empty() {
        lines.push(paint.dim("  no service is configured"));
    }
    lines.push(String::new());
    lines
}

fn service_line(service: &Service, slots: &[(f64, Option<f64>)], paint: Paint) -> String {
    let (rate, share) = slots.last().copied().unwrap_or((0.0, None));
    let share_text =
        share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let share_text = match share {
        Some(share) if share < 0.95 => paint.bad(&share_text),
        Some(_) => paint.good(&share_text),
        None => share_text,
    };
    let p99 = service.counts.p99_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0} ms"));
    format!(
        "  {}{}{}{}{}{}  {}",
        pad(&paint.bold(&cut(&service.name, 25)), 26),
        pad_left(&format!("{rate:.0}"), 9),
        pad_left(&share_text, 9),
        pad_left(&p99, 10),
        pad_left(&service.in_flight.to_string(), 11),
        pad_left(&service.counts.retries.to_string(), 10),
        spark(slots, paint),
    )
}

fn spark(slots: &[(f64, Option<f64>)], paint: Paint) -> String {
    const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let most = slots.iter().map(|(rate, _)| *rate).fold(1.0, f64::max);
    slots
        .iter()
        .map(|(rate, share)| {
            let bar = BARS[((rate / most * 7.0).round() as usize).min(7)];
            match share {
                Some(share) if *share < 0.95 => paint.bad(bar),
                Some(_) => paint.good(bar),
                None => paint.dim(bar),
            }
        })
        .collect()
}

fn tone(paint: Paint, state: &str) -> String {
    match state {
        "up" | "closed" => paint.good(state),
        "half_open" | "draining" | "disabled" | "forced_closed" => paint.warn(state),
        _ => paint.bad(state),
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigStatus, Paint, Rates, Service, Snapshot, lines};
    use selvedge_api::operator::view::{Breaker, Counts, Endpoint};
    use std::time::{Duration, Instant};

    fn snapshot(calls: u64, good: u64) -> Snapshot {
        let service = Service {
            name: "orders".to_owned(),
            endpoints: vec![Endpoint {
                address: "127.0.0.1:9001".to_owned(),
                state: "up".to_owned(),
                latency_ms: Some(3.25),
                ..Endpoint::default()
            }],
            breakers: vec![Breaker { state: "open".to_owned(), ..Breaker::default() }],
            counts: Counts { calls, good, ..Counts::default() },
            ..Service::default()
        };
        Snapshot { status: ConfigStatus::default(), services: vec![service] }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let mut rates = Rates::default();
        let begun = Instant::now();
        rates.take(&snapshot(100, 100), begun);
        assert_eq!(rates.of("orders"), []);
        rates.take(&snapshot(300, 200), begun + Duration::from_secs(2));
        assert_eq!(rates.of("orders"), [(100.0, Some(0.5))]);
        rates.take(&snapshot(300, 200), begun + Duration::from_secs(3));
        assert_eq!(rates.of("orders")[1], (0.0, None));
    }

    #[test]
    fn a_frame_shows_what_matters() {
        let text = lines(&snapshot(1, 1), &Rates::default(), "here", Paint::off(), 100).join("\n");
        for part in ["orders", "127.0.0.1:9001", "up", "breaker open", "3.2 ms"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
