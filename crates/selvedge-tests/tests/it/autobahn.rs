//! The Autobahn suite of WebSocket cases, with and without Selvedge in between.

use crate::peer;
use selvedge_tests::{ports, raw::Connection, selvedge::Selvedge, wait};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

struct EchoServer(Child);

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wstest() -> Command {
    let path = peer::path("SELVEDGE_AUTOBAHN");
    let base = path.parent().and_then(Path::parent).unwrap().to_owned();
    let mut command = Command::new(path);
    // Installed in a folder of its own, which its interpreter must be told.
    command
        .env("PYTHONUSERBASE", base)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn every_case_ends_as_it_does_without_selvedge() {
    let port = ports::free();
    let server = wstest()
        .args(["-m", "echoserver", "-w", &format!("ws://127.0.0.1:{port}")])
        .spawn()
        .unwrap();
    let _server = EchoServer(server);
    wait::until_true("the echo server", || Connection::try_open(port).is_ok());
    // The server insists on its own port in `Host`.
    let selvedge = Selvedge::before(&[format!("127.0.0.1:{port}")], "    host: endpoint\n");
    let folder = tempfile::tempdir().unwrap();
    let reports = folder.path().join("reports");
    let specification = folder.path().join("spec.json");
    let server =
        |agent: &str, port: u16| json!({"agent": agent, "url": format!("ws://127.0.0.1:{port}")});
    let document = json!({
        "outdir": reports,
        "servers": [server("direct", port), server("through", selvedge.port)],
        "cases": ["*"],
        // Throughput and compression of megabytes: minutes, and nothing about a tunnel.
        "exclude-cases": ["9.*", "12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    std::fs::write(&specification, document.to_string()).unwrap();
    let status = wstest().args(["-m", "fuzzingclient", "-s"]).arg(&specification).status().unwrap();
    assert!(status.success());
    let index: Value =
        serde_json::from_slice(&std::fs::read(reports.join("index.json")).unwrap()).unwrap();
    let outcomes = |agent: &str| -> Vec<(String, String)> {
        let cases = index[agent].as_object().unwrap();
        cases
            .iter()
            .map(|(case, end)| {
                (case.clone(), format!("{} {}", end["behavior"], end["behaviorClose"]))
            })
            // Both pass. Which of the two it is depends, direct or not, on whether an
            // echo overtakes the end of the connection that follows it.
            .map(|(case, end)| (case, end.replace("NON-STRICT", "OK")))
            .collect()
    };
    let (direct, through) = (outcomes("direct"), outcomes("through"));
    assert!(direct.len() >= 100, "{} cases", direct.len());
    let good = direct.iter().filter(|(_, end)| end.starts_with("\"OK\"")).count();
    assert!(good > direct.len() / 2, "the server itself passes {good} of {}", direct.len());
    for (without, with) in direct.iter().zip(&through) {
        assert_eq!(without, with, "without and with Selvedge");
    }
    assert_eq!(direct.len(), through.len());
}
