//! `selvedge run` from start to drain, over real sockets.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `ready`, or fails.
fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < until, "{what} did not happen");
        // A process is awaited: there is no event to wait for instead.
        let (_never, pause) = channel::<()>();
        let _ = pause.recv_timeout(Duration::from_millis(5));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An upstream that answers every request with its name; `/slow` waits until
/// it is told to go on.
struct Upstream {
    port: u16,
    slow: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    go_on: std::sync::mpsc::Sender<()>,
}

impl Upstream {
    fn named(name: &'static str) -> Self {
        use std::sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (go_on, wait) = channel();
        let wait = Arc::new(Mutex::new(wait));
        let slow = Arc::new(AtomicUsize::new(0));
        let slow_seen = Arc::clone(&slow);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (wait, slow_seen) = (Arc::clone(&wait), Arc::clone(&slow_seen));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = stream;
                    loop {
                        let mut head = String::new();
                        while !head.ends_with("\r\n\r\n") {
                            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                                return;
                            }
                        }
                        if head.starts_with("GET /slow") {
                            slow_seen.fetch_add(1, Ordering::SeqCst);
                            let _ = wait.lock().unwrap().recv();
                        }
                        let length = name.len();
                        let _ = write!(
                            stream,
                            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}"
                        );
                    }
                });
            }
        });
        Self { port, slow, go_on }
    }
}

/// The binary, serving a file.
struct Served {
    process: Child,
    folder: TempDir,
    edge: u16,
    operator: u16,
}

impl Served {
    fn file(&self) -> PathBuf {
        self.folder.path().join("selvedge.yaml")
    }

    fn text(edge: u16, operator: u16, upstream: &Upstream) -> String {
        format!(
            "version: 1\nlisteners:\n  edge: {{ bind: \"127.0.0.1:{edge}\" }}\noperator: {{ bind: \"127.0.0.1:{operator}\" }}\n\
             services:\n  shop:\n    endpoints: [\"127.0.0.1:{}\"]\n    timeout: {{ attempt: 30s, total: 30s }}\n    breaker: {{ open_for: 5s }}\n\
             routes:\n  - name: all\n    match: {{ path: /** }}\n    to: shop\n",
            upstream.port
        )
    }

    fn start(upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (edge, operator) = (free_port(), free_port());
        let file = folder.path().join("selvedge.yaml");
        std::fs::write(&file, Self::text(edge, operator, upstream)).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let access = std::fs::File::create(folder.path().join("access")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_selvedge"))
            .args(["run", "--log-format", "json"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(access)
            .stderr(log)
            .spawn()
            .unwrap();

        let mut served = Self { process, folder, edge, operator };
        eventually("ready", || {
            assert!(served.process.try_wait().unwrap().is_none(), "{}", served.log());
            (get(operator, "/health/ready")?.0 == 200).then_some(())
        });
        served
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&get(self.operator, "/api/v1/config/status").unwrap().1).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        eventually("the end", || self.process.try_wait().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln_log(&self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the process said")]
fn eprintln_log(log: &str) {
    eprintln!("{log}");
}

/// Status and body, on a connection of its own.
fn get(port: u16, path: &str) -> Option<(u16, String)> {
    send(port, "GET", path)
}

fn send(port: u16, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())?;
    Some((status, body))
}

#[test]
fn it_serves_reloads_refuses_and_drains() {
    let (one, two) = (Upstream::named("one"), Upstream::named("two"));
    let mut served = Served::start(&one);
    assert_eq!(get(served.edge, "/").unwrap(), (200, "one".to_owned()));
    assert_eq!(served.status()["generation"], 1);

    // An edit in place is taken.
    let text = Served::text(served.edge, served.operator, &two);
    std::fs::write(served.file(), &text).unwrap();
    eventually("the new file", || (served.status()["generation"] == 2).then_some(()));
    assert_eq!(get(served.edge, "/").unwrap(), (200, "two".to_owned()));

    // A broken one is refused, and what ran goes on.
    std::fs::write(served.file(), text.replace("timeout:", "timout:")).unwrap();
    let refused = eventually("the refusal", || {
        let status = served.status();
        status["last_error"].as_str().map(str::to_owned)
    });
    assert!(refused.contains("timout") && refused.contains("timeout"), "{refused}");
    assert_eq!(served.status()["generation"], 2);
    assert_eq!(get(served.edge, "/").unwrap(), (200, "two".to_owned()));
    assert!(
        get(served.operator, "/metrics")
            .unwrap()
            .1
            .contains("selvedge_config_last_reload_refused 1")
    );
    assert_eq!(send(served.operator, "POST", "/api/v1/config/reload").unwrap().0, 422);

    // Mended, and SIGHUP takes it at once.
    std::fs::write(served.file(), &text).unwrap();
    served.signal("HUP");
    eventually("the mended file", || served.status()["last_error"].is_null().then_some(()));

    // SIGTERM lets the call in flight end.
    let edge = served.edge;
    let slow = std::thread::spawn(move || get(edge, "/slow"));
    eventually("the slow call", || {
        (two.slow.load(std::sync::atomic::Ordering::SeqCst) == 1).then_some(())
    });
    served.signal("TERM");
    eventually("no new connection", || TcpStream::connect(("127.0.0.1", edge)).err());
    assert!(served.process.try_wait().unwrap().is_none(), "a call is still in flight");
    two.go_on.send(()).unwrap();
    assert_eq!(slow.join().unwrap().unwrap(), (200, "two".to_owned()));
    assert!(served.ended().success(), "{}", served.log());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::named("one");
    let mut served = Served::start(&upstream);
    let edge = served.edge;
    let slow = std::thread::spawn(move || get(edge, "/slow"));
    eventually("the slow call", || {
        (upstream.slow.load(std::sync::atomic::Ordering::SeqCst) == 1).then_some(())
    });
    served.signal("TERM");
    eventually("draining", || served.log().contains("draining").then_some(()));
    served.signal("INT");
    assert_eq!(served.ended().code(), Some(130));
    assert!(slow.join().unwrap().is_none(), "the call was cut");
    drop(upstream.go_on);
}

#[test]
fn a_taken_address_is_named() {
    let upstream = Upstream::named("one");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("selvedge.yaml");
    let port = taken.local_addr().unwrap().port();
    std::fs::write(&file, Served::text(port, free_port(), &upstream)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .arg("run")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("SV0604") && said.contains(&port.to_string()), "{said}");
}
