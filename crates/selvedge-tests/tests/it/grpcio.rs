//! A stock gRPC client and a stock gRPC server (Python's `grpcio`) through Selvedge.

use crate::peer;
use selvedge_tests::{metrics::Metrics, ports, selvedge::Selvedge, upstream::Upstream};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let port = ports::free();
        let mut child = python("grpc_server.py", port).stdin(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python(script: &str, port: u16) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let mut command = Command::new(peer::path("SELVEDGE_PYTHON"));
    command.arg(script).arg(port.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn client(port: u16) -> Value {
    let output = python("grpc_client.py", port).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn before(port: u16, policy: &str) -> Selvedge {
    Selvedge::before(
        &[format!("127.0.0.1:{port}")],
        &format!("    protocol: h2c\n    timeout: {{ attempt: 30s, total: 60s }}\n{policy}"),
    )
}

#[test]
fn everything_a_client_does_ends_as_it_does_without_selvedge() {
    let server = Server::start();
    let direct = client(server.port);
    // The tool first: a client that raises everywhere would agree with itself.
    assert_eq!(direct["unary_call"], "echo:hello");
    assert_eq!(direct["deadline_passes"][0], "DEADLINE_EXCEEDED");
    assert_eq!(direct["cancellation_reaches_the_server"], serde_json::json!([true, true]));
    let selvedge =
        before(server.port, "    retry: { attempts: 3 }\n    breaker: { open_for: 5s }\n");
    let through = client(selvedge.port);
    for (case, expected) in direct.as_object().unwrap() {
        assert_eq!(&through[case], expected, "{case}\nlog:\n{}", selvedge.log());
    }
    let metrics: Metrics = selvedge.metrics();
    assert!(!metrics.samples().is_empty());
}

#[test]
fn a_dead_server_is_unavailable_and_a_missing_route_unimplemented_or_not_found() {
    let mut dead = Upstream::named("dead");
    dead.kill();
    let selvedge = before(dead.port(), "");
    let got = client(selvedge.port);
    assert_eq!(got["unknown_method"], "UNAVAILABLE", "{got}");
}
