//! A real nginx behind Selvedge.

use crate::peer;
use selvedge_tests::{
    h2c,
    load::Load,
    ports,
    raw::{self, Connection},
    selvedge::{Ports, Selvedge},
    wait,
};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

struct Nginx {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Nginx {
    fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), ports::free());
        let dir = folder.path().display().to_string();
        let www = folder.path().join("www");
        std::fs::create_dir_all(www.join("orders")).unwrap();
        std::fs::write(www.join("orders/1"), "order 1").unwrap();
        std::fs::write(www.join("large"), "0123456789abcdef".repeat(1 << 16)).unwrap();
        std::fs::write(
            folder.path().join("nginx.conf"),
            format!(
                "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log stderr warn;\nevents {{ }}\nhttp {{\n  \
                 access_log off;\n  client_body_temp_path {dir}/b;\n  proxy_temp_path {dir}/p;\n  \
                 fastcgi_temp_path {dir}/f;\n  uwsgi_temp_path {dir}/u;\n  scgi_temp_path {dir}/s;\n  gzip on;\n  gzip_proxied any;\n  \
                 gzip_types *;\n  server {{\n    listen 127.0.0.1:{port};\n    root {dir}/www;\n    location = \
                 /healthz {{ return 200; }}\n    location = /moved {{ return 302 /orders/1; }}\n    location = \
                 /head {{ return 200 \"$request_method $http_x_forwarded_for $http_via\"; }}\n    location = \
                 /close {{ return 444; }}\n    location = /missing {{ return 503; }}\n  }}\n}}\n"
            ),
        )
        .unwrap();
        let mut nginx = Self { child: Self::spawn(&folder), folder, port };
        nginx.wait();
        nginx
    }

    fn spawn(folder: &TempDir) -> Child {
        Command::new(peer::path("SELVEDGE_NGINX"))
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait(&mut self) {
        wait::until_true("nginx", || {
            assert!(self.child.try_wait().unwrap().is_none(), "nginx ended");
            Connection::try_open(self.port).is_ok()
        });
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn revive(&mut self) {
        self.child = Self::spawn(&self.folder);
        self.wait();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn files_ranges_conditions_and_redirects() {
    let nginx = Nginx::start();
    let selvedge = Selvedge::before(&[nginx.address()], "");
    assert_eq!(selvedge.get("/orders/1").text(), "order 1");
    assert_eq!(selvedge.get("/large").body.len(), 1 << 20);
    let part = selvedge.get_with("/large", "range: bytes=10-19\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, "abcdef0123"));
    let etag = selvedge.get("/orders/1").header("etag").unwrap().to_owned();
    let same = selvedge.get_with("/orders/1", &format!("if-none-match: {etag}\r\n"));
    assert_eq!((same.status, same.body.len()), (304, 0));
    let moved = selvedge.get("/moved");
    assert_eq!(moved.status, 302);
    assert_eq!(selvedge.get("/nothing").status, 404);
    let packed = selvedge.get_with("/large", "accept-encoding: gzip\r\n");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.len() < 1 << 18);
    assert!(selvedge.get("/head").text().starts_with("GET 127.0.0.1 1.1"));
    let gone = selvedge.get("/close");
    assert_eq!((gone.status, gone.code().is_some()), (502, true));
    let mut kept = Connection::open(selvedge.port);
    kept.send("HEAD /large HTTP/1.1\r\nhost: a\r\n\r\nGET /orders/1 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(kept.head().unwrap().header("content-length"), Some("1048576"));
    assert_eq!(kept.answer().unwrap().text(), "order 1");
    let mut http2 = h2c::Client::open(selvedge.port);
    assert_eq!(http2.get("/orders/1").unwrap().body, "order 1");
    assert_eq!(http2.get("/large").unwrap().body.len(), 1 << 20);
}

#[test]
fn one_of_two_is_killed_and_nobody_notices() {
    let (mut one, two) = (Nginx::start(), Nginx::start());
    let selvedge = Selvedge::before(
        &[one.address(), two.address()],
        "    health: { path: /healthz, every: 200ms }\n    retry: { attempts: 3, backoff: { base: 5ms, cap: \
         50ms }, budget: 20% }\n    breaker: { open_for: 1s }\n",
    );
    let load = Load::start(selvedge.port, "/orders/1", 500, 16);
    wait::until_true("traffic", || load.so_far().total() > 200);
    one.kill();
    wait::until_true("traffic after the kill", || load.so_far().total() > 700);
    one.revive();
    wait::until_true("traffic after the return", || load.so_far().total() > 1200);
    let counts = load.stop();
    assert_eq!(counts.good(), counts.total(), "{:?} {:?}", counts.statuses, counts.broken);
}

#[test]
fn the_sidecar_example_stands_before_it() {
    let nginx = Nginx::start();
    let ports = Ports::free();
    let text = adapted("sidecar", &nginx.address(), ports);
    let selvedge = Selvedge::run_file(&text, ports, &[]);
    let answer = raw::get(selvedge.port, "/orders/1").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "order 1"));
}

/// The example whose name has `word`, with our ports in place of its own and
/// every endpoint replaced by `upstream`.
fn adapted(word: &str, upstream: &str, ports: Ports) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "yaml")
                && path.display().to_string().contains(word)
            {
                found.push(path);
            }
        }
    }
    found.sort();
    let text = std::fs::read_to_string(found.first().expect("there is such an example")).unwrap();
    let mut lines = Vec::new();
    let mut section = String::new();
    for line in text.lines() {
        if !line.starts_with([' ', '#']) && line.contains(':') {
            line.split(':').next().unwrap_or_default().clone_into(&mut section);
        }
        if matches!(section.as_str(), "listeners" | "operator" | "ambassador" | "version") {
            continue;
        }
        match line.split_once("endpoints:") {
            Some((before, _)) if !line.trim_start().starts_with('#') => {
                lines.push(format!("{before}endpoints: [\"{upstream}\"]"));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    ports.file(&lines.join("\n"))
}
