//! The shop's processes and the proxy before them.
//!
//! Every child holds the reading end of a pipe whose writing end is ours: when
//! this process ends, however it ends, the pipe closes and the child goes too.

use super::{
    scenario::SHOP,
    shop::{Counts, Fault},
};
use crate::client;
use http::StatusCode;
use serde_json::Value;
use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::Instant,
};

/// How long a child may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Stage {
    members: Vec<Running>,
    /// Where the members serve.
    addresses: Vec<String>,
    proxy: Child,
    /// Where shoppers go.
    pub(crate) edge: String,
    /// Where the operator API is.
    pub(crate) operator: String,
    file: PathBuf,
    folder: PathBuf,
}

#[derive(Debug)]
struct Running {
    // Killed when dropped, and by the pipe if nobody gets to drop it.
    _process: Child,
    main: String,
    control: String,
}

impl Stage {
    /// Starts the shop, writes a configuration without patterns, and starts the proxy.
    pub(crate) async fn open() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("selvedge-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("selvedge.yaml");
        // Found free a moment ago; a child that loses the race says so and the demo ends.
        let (edge, operator) = (free_address()?, free_address()?);
        let mut members = Vec::new();
        for member in SHOP {
            let mut command = child();
            command
                .args(["shop-service", "--name", member.service])
                .args(["--workers", &member.workers.to_string()])
                .args(["--work-ms", &member.work_ms.to_string()])
                .stdout(Stdio::piped());
            if let Some(path) = member.calls {
                command.args(["--calls", &format!("{edge}/{path}")]);
            }
            members.push(Running::start(command).await?);
        }
        let addresses: Vec<String> = members.iter().map(|member| member.main.clone()).collect();
        let text = configuration(&addresses, &edge, &operator, None);
        std::fs::write(&file, text)?;
        let log = std::fs::File::create(folder.join("proxy.log"))?;
        let mut command = child();
        command
            .args(["run", "--until-stdin-ends"])
            .arg(&file)
            .env("SELVEDGE_LOG", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::from(log));
        let mut proxy = command.spawn()?;
        wait_ready(&mut proxy, &operator, &folder.join("proxy.log")).await?;
        Ok(Self { members, addresses, proxy, edge, operator, file, folder })
    }

    /// Puts `lines` under `service` (or nothing anywhere), and waits until the
    /// running proxy has taken the file.
    pub(crate) async fn configure(&self, lines: Option<(&str, &[&str])>) -> io::Result<()> {
        let before = self.generation().await?;
        let text = configuration(&self.addresses, &self.edge, &self.operator, lines);
        if std::fs::read_to_string(&self.file).is_ok_and(|now| now == text) {
            return Ok(());
        }
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, text)?;
        std::fs::rename(&fresh, &self.file)?;
        let until = Instant::now() + READY_WITHIN;
        while self.generation().await? == before {
            if let Some(error) = self.status().await?["last_error"].as_str() {
                return Err(io::Error::other(format!(
                    "the proxy refused the demo's file: {error}"
                )));
            }
            if Instant::now() > until {
                return Err(io::Error::other("the proxy did not take the changed file"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn status(&self) -> io::Result<Value> {
        let (_, body) =
            client::send("GET", &self.operator, "/api/v1/config/status", &[], "").await?;
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    /// The generation of the configuration that the proxy runs on.
    pub(crate) async fn generation(&self) -> io::Result<u64> {
        self.status().await?["generation"].as_u64().ok_or_else(|| io::Error::other("no generation"))
    }

    /// The breaker of `service` in a word, if it has one.
    pub(crate) async fn breaker(&self, service: &str) -> Option<String> {
        let path = format!("/api/v1/services/{service}/breakers");
        let (_, body) = client::send("GET", &self.operator, &path, &[], "").await.ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let breakers = body["breakers"].as_array()?;
        let state = |breaker: &Value| breaker["state"].as_str().map(str::to_owned);
        // The most telling one: any that is not closed.
        breakers
            .iter()
            .filter_map(state)
            .find(|state| state != "closed")
            .or_else(|| breakers.first().and_then(state))
    }

    /// Sets what is wrong with one member.
    pub(crate) async fn break_member(&self, member: usize, fault: Fault) -> io::Result<()> {
        let body = serde_json::to_vec(&fault).map_err(io::Error::other)?;
        let (status, _) =
            client::send("PUT", &self.members[member].control, "/fault", &[], body).await?;
        if status == StatusCode::OK {
            Ok(())
        } else {
            Err(io::Error::other("the fault was refused"))
        }
    }

    /// What one member has seen.
    pub(crate) async fn counts(&self, member: usize) -> io::Result<Counts> {
        let (_, body) =
            client::send("GET", &self.members[member].control, "/counts", &[], "").await?;
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    /// Waits until no member has work left, so that one run cannot harm the next.
    pub(crate) async fn settle(&self) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(15);
        for member in 0..self.members.len() {
            self.break_member(member, Fault::default()).await?;
        }
        for member in 0..self.members.len() {
            while self.counts(member).await?.pending > 0 {
                if Instant::now() > until {
                    return Err(io::Error::other("the shop did not come to rest"));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Whether the proxy still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.proxy.try_wait(), Ok(None))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Running {
    async fn start(mut command: Command) -> io::Result<Self> {
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().expect("the child's output is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY_WITHIN, lines.next_line())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??
            .unwrap_or_default();
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["ready", main, control] => Ok(Self {
                _process: process,
                main: (*main).to_owned(),
                control: (*control).to_owned(),
            }),
            _ => Err(io::Error::other(format!("a service of the shop did not start: {line:?}"))),
        }
    }
}

fn child() -> Command {
    // The running program even if its file was replaced meanwhile.
    let program = std::env::current_exe().unwrap_or_else(|_| "selvedge".into());
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).kill_on_drop(true);
    command
}

async fn wait_ready(proxy: &mut Child, operator: &str, log: &Path) -> io::Result<()> {
    let until = Instant::now() + READY_WITHIN;
    loop {
        let ready = client::send("GET", operator, "/health/ready", &[], "").await;
        if ready.is_ok_and(|(status, _)| status == StatusCode::OK) {
            return Ok(());
        }
        if proxy.try_wait()?.is_some() || Instant::now() > until {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            return Err(io::Error::other(format!("the proxy did not start:\n{log}")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn free_address() -> io::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

pub(super) fn configuration(
    addresses: &[String],
    edge: &str,
    operator: &str,
    extra: Option<(&str, &[&str])>,
) -> String {
    // What is on by default is off here, so that each run shows its own patterns only.
    let mut text = format!(
        "version: 1\nlisteners:\n  edge: {{ bind: \"{edge}\" }}\noperator: {{ bind: \"{operator}\" }}\n\
         defaults:\n  balance: round_robin\n  retry: off\n  outlier: off\n  breaker: off\n  timeout: {{ attempt: 10s, total: 10s }}\nservices:\n"
    );
    let mut routes = String::from("routes:\n");
    let mut names: Vec<&str> = SHOP.iter().map(|member| member.service).collect();
    names.dedup();
    for name in names {
        let endpoints: Vec<String> = SHOP
            .iter()
            .zip(addresses)
            .filter(|(member, _)| member.service == name)
            .map(|(_, address)| format!("\"{address}\""))
            .collect();
        let _ = writeln!(
            text,
            "  {name}:\n    endpoints: [{}]\n    balance: round_robin",
            endpoints.join(", ")
        );
        if let Some((service, lines)) = extra
            && service == name
        {
            for line in lines {
                let _ = writeln!(text, "    {line}");
            }
        }
        let _ = writeln!(routes, "  - match: {{ path: /{name}/** }}\n    to: {name}");
    }
    text + &routes
}
