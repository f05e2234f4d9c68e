//! What goes wrong at three in the morning, around the process and not in it.

use selvedge_tests::{
    binary,
    raw::{self, Connection},
    selvedge::{Ports, Selvedge, command},
    upstream::{Reply, Upstream},
    wait,
};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A process started by `sh`, with its own idea of where output goes.
struct Started {
    child: Child,
    folder: tempfile::TempDir,
    ports: Ports,
}

impl Started {
    fn with(shell: &str, upstream: &Upstream, stdout: Stdio, stderr: Stdio) -> Self {
        let ports = Ports::free();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("selvedge.yaml");
        let rest = Selvedge::one_service(&[upstream.address()], "");
        std::fs::write(&file, ports.file(&rest)).unwrap();
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{shell} exec \"$0\" run \"$1\" --until-stdin-ends"))
            .args([binary::path(), &file])
            .env("SELVEDGE_LOG", "debug")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut started = Self { child, folder, ports };
        wait::until_true("it to be ready", || {
            assert_eq!(started.child.try_wait().unwrap(), None, "it ended");
            raw::get(started.ports.operator, "/health/ready").is_ok_and(|it| it.status == 200)
        });
        started
    }

    fn get(&self, target: &str) -> u16 {
        raw::get(self.ports.edge, target).unwrap().status
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_full_disk_under_its_logs_stops_nothing() {
    let upstream = Upstream::named("up");
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mut started = Started::with("", &upstream, full(), full());
    for _ in 0..50 {
        assert_eq!(started.get("/"), 200);
    }
    // Something to log: a file that is refused, then one that is taken.
    let file = started.folder.path().join("selvedge.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    for text in ["nonsense: [", good.as_str()] {
        std::fs::write(&file, text).unwrap();
        let refused = text != good;
        wait::until_true("the change to be seen", || {
            let status = raw::get(started.ports.operator, "/api/v1/config/status").unwrap();
            status.json()["last_error"].is_string() == refused
        });
    }
    assert_eq!(started.get("/"), 200);
    assert!(started.is_running());
}

#[test]
fn readers_of_its_logs_that_go_away_stop_nothing() {
    let upstream = Upstream::named("up");
    let mut started = Started::with("", &upstream, Stdio::piped(), Stdio::piped());
    drop((started.child.stdout.take(), started.child.stderr.take()));
    for _ in 0..50 {
        assert_eq!(started.get("/"), 200);
    }
    std::fs::write(started.folder.path().join("selvedge.yaml"), "nonsense: [").unwrap();
    wait::until_true("the change to be seen", || {
        let status = raw::get(started.ports.operator, "/api/v1/config/status").unwrap();
        status.json()["last_error"].is_string()
    });
    assert_eq!(started.get("/"), 200);
    assert!(started.is_running());
}

#[test]
fn more_connections_than_descriptors_are_survived() {
    let upstream = Upstream::named("up");
    let log = tempfile::NamedTempFile::new().unwrap();
    let stderr = Stdio::from(File::create(log.path()).unwrap());
    let mut started = Started::with("ulimit -n 80;", &upstream, Stdio::null(), stderr);
    assert_eq!(started.get("/"), 200);
    let mut held: Vec<Connection> =
        (0..200).filter_map(|_| Connection::try_open(started.ports.edge).ok()).collect();
    for connection in &mut held {
        let _ = connection.try_send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Duration::from_secs(1));
    }
    wait::pause(Duration::from_millis(500));
    assert!(started.is_running());
    drop(held);
    wait::until_true("it to serve again", || {
        raw::get(started.ports.edge, "/").is_ok_and(|answer| answer.status == 200)
    });
    let lines = std::fs::read_to_string(log.path()).unwrap();
    let complaints = lines.lines().filter(|line| line.contains("cannot accept")).count();
    assert!((1..=40).contains(&complaints), "{complaints} lines about the same thing");
}

#[test]
fn a_stuck_stream_does_not_hold_up_the_end() {
    let upstream = Upstream::http(|request| match request.path() {
        "/stuck" => Reply::stream(|mut stream| {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";
            let _ = stream.write_all(head);
            let mut sink = [0; 16];
            while std::io::Read::read(&mut stream, &mut sink).is_ok_and(|read| read > 0) {}
        }),
        _ => Reply::ok("fine").after(Duration::from_millis(300)),
    });
    let rest = Selvedge::one_service(&[upstream.address()], "");
    let mut selvedge = Selvedge::run(&format!("{rest}runtime: {{ drain: 1s }}\n"));
    let mut stuck = Connection::open(selvedge.port);
    stuck.send("GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(stuck.head().unwrap().status, 200);
    let mut others: Vec<Connection> = (0..20)
        .map(|_| {
            let mut one = Connection::open(selvedge.port);
            one.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            one
        })
        .collect();
    wait::until_true("all to be out", || upstream.count() == 21);
    let begun = Instant::now();
    selvedge.signal("TERM");
    assert!(others.iter_mut().all(|one| one.answer().unwrap().status == 200));
    assert!(selvedge.ended().success());
    assert!(begun.elapsed() < wait::PATIENCE / 2, "{:?}", begun.elapsed());
}

#[test]
fn a_taken_operator_port_is_said_and_nothing_listens() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = Ports { operator: taken.local_addr().unwrap().port(), ..Ports::free() };
    let text = ports.file(&Selvedge::one_service(&["127.0.0.1:1".to_owned()], ""));
    let output = command(&["run", "{}"], &text);
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&ports.operator.to_string()) && said.contains("operator"), "{said}");
    assert!(Connection::try_open(ports.edge).is_err());
}

#[test]
fn a_file_that_is_deleted_changes_nothing_until_it_is_back() {
    let (before, after) = (Upstream::named("before"), Upstream::named("after"));
    let selvedge = Selvedge::before(&[before.address()], "");
    std::fs::remove_file(&selvedge.file).unwrap();
    wait::pause(Duration::from_secs(1));
    assert_eq!(selvedge.get("/").text(), "before");
    selvedge.signal("HUP");
    wait::until_true("the refusal", || selvedge.generation().1.is_some());
    assert_eq!((selvedge.get("/").text().as_str(), selvedge.generation().0), ("before", 1));
    selvedge.rewrite(&Selvedge::one_service(&[after.address()], ""));
    wait::until_true("the new file to be taken", || selvedge.get("/").text() == "after");
}
