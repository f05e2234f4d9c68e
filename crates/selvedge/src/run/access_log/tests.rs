use super::{AccessLog, WAITING_MAX, timestamp};
use http::{Method, StatusCode};
use selvedge_patterns::{
    call::Kind,
    outcome::{Failure, Outcome},
    time::Duration,
};
use selvedge_proxy::access::{Record, Sink as _, Tried};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex, mpsc},
};

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn record(path: &str) -> Record {
    let tried = |outcome| Tried {
        endpoint: "10.0.0.1:80".into(),
        kind: Kind::First,
        outcome: Some(outcome),
        began_after: Duration::from_micros(20),
        took: Some(Duration::from_micros(1500)),
    };
    Record {
        began_unix_ms: 1_700_000_000_123,
        route: Some("all".into()),
        service: Some("orders".into()),
        method: Some(Method::GET),
        host: "shop.example".to_owned(),
        path: path.to_owned(),
        status: Some(StatusCode::OK),
        reason: "answered",
        code: None,
        attempts: 2,
        tried: [
            Some(tried(Outcome::Failure(Failure::Timeout))),
            Some(tried(Outcome::Success)),
            None,
            None,
        ],
        head_after: Duration::from_millis(3),
        total: Duration::from_micros(3250),
        bytes: 512,
        whole: true,
        trace: None,
        request_id: Some(http::HeaderValue::from_static("id-1")),
        client: [127, 0, 0, 1].into(),
    }
}

#[test]
fn a_call_is_a_line() {
    let paper = Paper::default();
    let log = AccessLog::open(paper.clone()).unwrap();
    assert!(log.offer(record("/a\n\"b\"")));
    log.flush();
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    insta::assert_snapshot!(text.trim_end());
    assert_eq!(text.lines().count(), 1, "whatever a path holds");
}

#[test]
fn lines_are_written_in_order_and_to_the_last() {
    let paper = Paper::default();
    let log = AccessLog::open(paper.clone()).unwrap();
    for number in 0..100 {
        assert!(log.offer(record(&format!("/{number}/"))));
    }
    log.flush();
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 100);
    for (number, line) in text.lines().enumerate() {
        assert!(line.contains(&format!("/{number}/")), "{line}");
    }
}

/// Takes nothing until it is told to.
struct Stuck(mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_reader_costs_lines_and_nothing_else() {
    let (go_on, stuck) = mpsc::channel();
    let log = AccessLog::open(Stuck(stuck)).unwrap();
    let refused = (0..2 * WAITING_MAX).filter(|_| !log.offer(record("/"))).count();
    assert!(refused > 0, "the channel is bounded");
    drop(go_on);
    log.flush();
}

#[test]
fn timestamps_are_those_of_the_calendar() {
    assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    assert_eq!(timestamp(1_709_164_799_999), "2024-02-28T23:59:59.999Z");
    assert_eq!(timestamp(1_709_164_800_000), "2024-02-29T00:00:00.000Z");
    assert_eq!(timestamp(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
}
