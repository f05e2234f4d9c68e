//! Selvedge itself, as its users have it: a process, a file, signals.

use crate::{
    binary,
    metrics::Metrics,
    ports,
    raw::{self, Answer},
    wait,
};
use serde_json::Value;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Where [`Selvedge::on_a_small_disk`] mounts it, beside the file.
const DISK: &str = "disk";
/// Mounts a file system for one process and what it starts, and becomes that.
const MOUNTED: &str = "mount -t tmpfs -o \"$1\" selvedge \"$2\" && shift 2 && exec \"$@\"";

/// A running `selvedge run`, killed when dropped.
#[derive(Debug)]
pub struct Selvedge {
    child: Child,
    folder: TempDir,
    /// The file it was started with.
    pub file: PathBuf,
    /// The port of the listener `edge`.
    pub port: u16,
    /// The port of the operator surface.
    pub operator: u16,
    /// The port of the ambassador.
    pub ambassador: u16,
    /// The port of the app API, if the file has a store.
    pub app: u16,
    ended: bool,
}

/// The ports a configuration of [`Selvedge::run`] speaks on.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Of the listener `edge`.
    pub edge: u16,
    /// Of the operator surface.
    pub operator: u16,
    /// Of the ambassador.
    pub ambassador: u16,
    /// Of the app API.
    pub app: u16,
}

impl Ports {
    /// Free ones.
    pub fn free() -> Self {
        let port = ports::free;
        Self { edge: port(), operator: port(), ambassador: port(), app: port() }
    }

    /// A file whose only role is the durable engine, with its store beside it.
    pub fn durable_file(self, rest: &str) -> String {
        format!(
            "version: 1\ndurable: store.db\napi: \"127.0.0.1:{}\"\noperator: {{ bind: \
             \"127.0.0.1:{}\" }}\n{rest}",
            self.app, self.operator
        )
    }

    /// What every configuration begins with, then `rest`. Unless `rest` has
    /// `defaults:` of its own, no pattern is on that it does not name.
    pub fn file(self, rest: &str) -> String {
        let defaults = if rest.contains("defaults:") {
            ""
        } else {
            "defaults: { retry: off, breaker: off, outlier: off }\n"
        };
        format!(
            "version: 1\nlisteners:\n  edge: {{ bind: \"127.0.0.1:{}\" }}\noperator: {{ bind: \
             \"127.0.0.1:{}\" }}\nambassador: {{ bind: \"127.0.0.1:{}\" }}\n{defaults}{rest}",
            self.edge, self.operator, self.ambassador
        )
    }
}

impl Selvedge {
    /// Runs a file of `services:` and `routes:` (whatever `rest` has) behind a
    /// listener `edge`, an operator surface and an ambassador, and waits until
    /// it is ready.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn run(rest: &str) -> Self {
        let ports = Ports::free();
        Self::run_file(&ports.file(rest), ports, &[])
    }

    /// Runs `rest` as [`Selvedge::run`] does, with these variables set.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn run_with(rest: &str, variables: &[(&str, &str)]) -> Self {
        let ports = Ports::free();
        Self::run_file(&ports.file(rest), ports, variables)
    }

    /// One service `up` with these endpoints and this policy (YAML lines, each
    /// indented by four), all paths routed to it.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn before(endpoints: &[String], policy: &str) -> Self {
        Self::run(&Self::one_service(endpoints, policy))
    }

    /// The file body of [`Selvedge::before`].
    pub fn one_service(endpoints: &[String], policy: &str) -> String {
        format!(
            "services:\n  up:\n    endpoints: [{}]\n{policy}\nroutes:\n  - match: {{ path: /** \
             }}\n    to: up\n",
            endpoints.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ")
        )
    }

    /// Runs a store and the app API, with `rest` (topics, subscriptions, …).
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn durable(rest: &str) -> Self {
        let ports = Ports::free();
        Self::run_file(&ports.durable_file(rest), ports, &[])
    }

    /// Runs this very text, with these variables set.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn run_file(text: &str, ports: Ports, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("selvedge.yaml");
        std::fs::write(&file, text).expect("the folder can be written");
        Self::run_path(folder, file, ports, variables)
    }

    /// Runs a file that lies in `folder`, or is reached from it.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn run_path(
        folder: TempDir,
        file: PathBuf,
        ports: Ports,
        variables: &[(&str, &str)],
    ) -> Self {
        let binary = Command::new(binary::path());
        Self::run_by(binary, folder, file, ports, variables)
    }

    /// Runs a store on a file system of its own that has `size` bytes, and is gone
    /// with the process: [`Selvedge::small_disk`]. The store is `store.db` there.
    ///
    /// # Panics
    ///
    /// When it does not get ready, or where nobody may mount anything: it takes Linux
    /// with `unshare` and `mount`, and root or user namespaces.
    pub fn on_a_small_disk(size: u64, rest: &str) -> Self {
        let ports = Ports::free();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let disk = folder.path().join(DISK);
        std::fs::create_dir(&disk).expect("the folder can be written");
        let file = folder.path().join("selvedge.yaml");
        let text = ports.durable_file(rest).replace("store.db", &format!("{DISK}/store.db"));
        std::fs::write(&file, text).expect("the folder can be written");
        let may = |how: &&str| {
            let tried = Command::new("unshare").args([how, "true"]).output();
            tried.is_ok_and(|output| output.status.success())
        };
        let how = ["-m", "-Urm"].into_iter().find(may);
        let how = how.expect("a mount namespace: be root, or allow user namespaces");
        let mut mounted = Command::new("unshare");
        mounted.arg(how).args(["sh", "-c", MOUNTED, "sh"]);
        mounted.arg(format!("size={size}")).arg(disk).arg(binary::path());
        Self::run_by(mounted, folder, file, ports, &[])
    }

    /// The folder of [`Selvedge::on_a_small_disk`], as this process can reach it.
    pub fn small_disk(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        let disk = self.folder.path().join(DISK);
        root.join(disk.strip_prefix("/").unwrap_or(&disk))
    }

    fn run_by(
        binary: Command,
        folder: TempDir,
        file: PathBuf,
        ports: Ports,
        variables: &[(&str, &str)],
    ) -> Self {
        let child = Self::spawn(binary, folder.path(), &file, variables);
        let mut selvedge = Self {
            child,
            folder,
            file,
            port: ports.edge,
            operator: ports.operator,
            ambassador: ports.ambassador,
            app: ports.app,
            ended: false,
        };
        selvedge.wait_until_ready();
        selvedge
    }

    /// Kills the process without warning and starts it again on the same files.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn kill_and_restart(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        self.restart();
    }

    /// Starts the process, which has ended, again on the same files.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn restart(&mut self) {
        self.child = Self::spawn(Command::new(binary::path()), self.folder.path(), &self.file, &[]);
        self.ended = false;
        self.wait_until_ready();
    }

    fn spawn(mut binary: Command, folder: &Path, file: &Path, variables: &[(&str, &str)]) -> Child {
        let open = |name: &str| {
            let file = File::options().create(true).append(true).open(folder.join(name));
            file.expect("the folder can be written")
        };
        binary
            .arg("run")
            .arg(file)
            // Should this process be killed, the pipe ends and so does the child.
            .arg("--until-stdin-ends")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(open("access"))
            .stderr(open("log"))
            .spawn()
            .expect("the binary starts")
    }

    fn wait_until_ready(&mut self) {
        let begun = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.ended = true;
                panic!("selvedge ended with {status}:\n{}", self.log());
            }
            if raw::get(self.operator, "/health/ready").is_ok_and(|answer| answer.status == 200) {
                return;
            }
            assert!(
                begun.elapsed() < wait::PATIENCE,
                "selvedge did not get ready:\n{}",
                self.log()
            );
            wait::pause(Duration::from_millis(5));
        }
    }

    /// `GET` on a connection of its own.
    ///
    /// # Panics
    ///
    /// When there is no whole answer.
    pub fn get(&self, target: &str) -> Answer {
        self.get_with(target, "")
    }

    /// `GET` with further header lines, each ending in CRLF.
    ///
    /// # Panics
    ///
    /// When there is no whole answer.
    pub fn get_with(&self, target: &str, lines: &str) -> Answer {
        raw::get_with(self.port, target, lines)
            .unwrap_or_else(|broken| panic!("GET {target}: {broken:?}\n{}", self.log()))
    }

    /// `POST` with further header lines, each ending in CRLF.
    ///
    /// # Panics
    ///
    /// When there is no whole answer.
    pub fn post_with(&self, target: &str, lines: &str, body: &str) -> Answer {
        raw::post_with(self.port, target, lines, body)
            .unwrap_or_else(|broken| panic!("POST {target}: {broken:?}\n{}", self.log()))
    }

    /// `GET` of the operator API, as JSON.
    ///
    /// # Panics
    ///
    /// When it does not answer 200 with JSON.
    pub fn api(&self, target: &str) -> Value {
        let answer = raw::get(self.operator, target).expect("the operator surface answers");
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        answer.json()
    }

    /// `POST` to the operator API.
    ///
    /// # Panics
    ///
    /// When it does not answer 2xx.
    pub fn act(&self, target: &str, body: &str) -> Answer {
        let answer =
            raw::post_with(self.operator, target, "content-type: application/json\r\n", body)
                .expect("the operator surface answers");
        assert!(
            (200..300).contains(&answer.status),
            "{target}: {} {}",
            answer.status,
            answer.text()
        );
        answer
    }

    /// Asks the app API, with JSON unless the body is empty.
    ///
    /// # Panics
    ///
    /// When there is no whole answer.
    pub fn app(&self, method: &str, target: &str, body: &str) -> Answer {
        self.app_with(method, target, "content-type: application/json\r\n", body)
    }

    /// Asks the app API with these header lines, each ending in CRLF.
    ///
    /// # Panics
    ///
    /// When there is no whole answer.
    pub fn app_with(&self, method: &str, target: &str, lines: &str, body: &str) -> Answer {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: \
             close\r\n{lines}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        raw::exchange(self.app, &request)
            .unwrap_or_else(|broken| panic!("{method} {target}: {broken:?}\n{}", self.log()))
    }

    /// A scrape of its metrics.
    pub fn metrics(&self) -> Metrics {
        Metrics::scrape(self.operator)
    }

    /// The access log so far, a JSON object for each call.
    ///
    /// # Panics
    ///
    /// When a line is none.
    pub fn access_log(&self) -> Vec<Value> {
        std::fs::read_to_string(self.folder.path().join("access"))
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect()
    }

    /// Everything it has logged so far, the access log apart.
    pub fn log(&self) -> String {
        std::fs::read(self.folder.path().join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The log's lines that are JSON objects.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The generation of the configuration that runs, and why the last change was refused.
    pub fn generation(&self) -> (u64, Option<String>) {
        let status = self.api("/api/v1/config/status");
        let error = status["last_error"].as_str().map(str::to_owned);
        (status["generation"].as_u64().unwrap_or_default(), error)
    }

    /// The folder that the file and the log are in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the file anew, in place, with `rest` after what [`Selvedge::run`] puts first.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn rewrite(&self, rest: &str) {
        std::fs::write(&self.file, self.text(rest)).expect("the folder can be written");
    }

    /// The ports of this process.
    pub fn ports(&self) -> Ports {
        Ports {
            edge: self.port,
            operator: self.operator,
            ambassador: self.ambassador,
            app: self.app,
        }
    }

    /// What a file of this process with `rest` in it says.
    pub fn text(&self, rest: &str) -> String {
        self.ports().file(rest)
    }

    /// Sends a signal, named as `kill` names it.
    ///
    /// # Panics
    ///
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .expect("kill can be run");
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = wait::until("selvedge to end", || child.try_wait().expect("it is our child"));
        self.ended = true;
        status
    }

    /// Whether it still runs.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Its resident memory, in bytes.
    ///
    /// # Panics
    ///
    /// Where there is no `/proc`.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the process runs, on Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|number| number.parse().ok())
            .expect("the kernel writes a number");
        kib * 1024
    }
}

impl Drop for Selvedge {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(4000);
            let tail = log.char_indices().map(|(at, _)| at).find(|at| *at >= tail).unwrap_or(0);
            report(&log[tail..]);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the process said")]
fn report(log: &str) {
    eprintln!("── the end of selvedge's log\n{log}──");
}

/// Runs another command of the binary to its end, on a file with this text
/// (named by `{}` among the arguments).
///
/// # Panics
///
/// When it cannot be run.
pub fn command(arguments: &[&str], text: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("selvedge.yaml");
    std::fs::write(&file, text).expect("the folder can be written");
    let path = file.to_str().expect("temporary folders have plain names");
    Command::new(binary::path())
        .args(arguments.iter().map(|one| if *one == "{}" { path } else { *one }))
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}
