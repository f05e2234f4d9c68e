//! PostgreSQL servers for tests: one that all tests of a run share, and some
//! that a test has for itself and may do harm to.

use std::{
    fs::File,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, parent_id},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A server in a folder of its own, reached by a socket in it.
pub(crate) struct Server {
    folder: PathBuf,
    /// Whether it goes with this value.
    own: bool,
    network: Option<Network>,
}

/// A network namespace, with one cable to this one.
struct Network {
    name: String,
    /// Of the server, at the other end.
    address: String,
}

impl Network {
    /// Fails with the reason where the machine does not let us.
    fn lay() -> Result<Self, String> {
        let id = std::process::id();
        let name = format!("sv{id}");
        let subnet = format!("10.{}.{}", 200 + id % 50, (id / 50) % 256);
        let network = Self { name: name.clone(), address: format!("{subnet}.2") };
        let commands = [
            format!("netns add {name}"),
            format!("link add {name}h type veth peer name {name}n netns {name}"),
            format!("addr add {subnet}.1/30 dev {name}h"),
            format!("link set {name}h up"),
            format!("-n {name} addr add {subnet}.2/30 dev {name}n"),
            format!("-n {name} link set {name}n up"),
            format!("-n {name} link set lo up"),
        ];
        for command in commands {
            ip(&command)?;
        }
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}h", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn ip(command: &str) -> Result<(), String> {
    let output = Command::new("ip").args(command.split(' ')).output();
    let output = output.map_err(|error| format!("no `ip`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {command}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The folder of the server's programs.
fn programs() -> PathBuf {
    if let Some(program) = std::env::var_os("SELVEDGE_POSTGRES") {
        // Others know where their programs lie only by the real path.
        let program = std::fs::canonicalize(program).unwrap();
        return program.parent().unwrap().to_owned();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").map(|entries| {
        entries.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.is_dir()).max()
    });
    versions.ok().flatten().expect(
        "no PostgreSQL here: install it, name its program in SELVEDGE_POSTGRES, or let `cargo xtask test` do it",
    )
}

/// A program of the server, not as root, which it refuses.
fn command(program: &str) -> Command {
    let mut command = unprivileged(&programs().join(program));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command
}

fn unprivileged(path: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

fn run(command: &mut Command, folder: &Path) {
    let status = command.status().unwrap();
    let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert!(status.success(), "{command:?}: {status}\n{}", log());
}

impl Server {
    /// The one that the tests of a run share; it ends soon after the run.
    pub(super) fn shared() -> Self {
        let run = parent_id();
        let folder = std::env::temp_dir().join(format!("selvedge-postgres-{run}"));
        std::fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let server = Self { folder, own: false, network: None };
        if !server.folder.join("ready").exists() {
            server.make();
            server.start();
            let folder = server.folder.display();
            let wait = format!("while kill -0 {run} 2>/dev/null; do sleep 1; done");
            let end = format!(
                "kill -QUIT $(head -1 {folder}/data/postmaster.pid); sleep 1; rm -rf {folder}"
            );
            let mut reaper = Command::new("sh");
            reaper.args(["-c", &format!("{wait}; {end}")]).process_group(0);
            let null = Stdio::null;
            let reaper = reaper.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
            // It outlives this process, which is one of many in a run.
            std::mem::forget(reaper);
            File::create(server.folder.join("ready")).unwrap();
        }
        server
    }

    /// One for this test alone.
    pub(super) fn own() -> Self {
        let server = Self::folder();
        server.make();
        server.start();
        server
    }

    fn folder() -> Self {
        let folder = tempfile::Builder::new().prefix("selvedge-postgres-").tempdir().unwrap();
        Self { folder: folder.keep(), own: true, network: None }
    }

    /// One for this test alone, behind a cable that can be cut; the reason if
    /// that cannot be had here.
    pub(super) fn behind_a_cable() -> Result<Self, String> {
        let network = Network::lay()?;
        let mut server = Self::folder();
        server.network = Some(network);
        server.make();
        server.start();
        Ok(server)
    }

    /// Cuts the cable, or mends it.
    pub(super) fn cable(&self, state: &str) {
        let network = self.network.as_ref().unwrap();
        ip(&format!("link set {}h {state}", network.name)).unwrap();
    }

    /// A connection string that leads over the cable.
    pub(super) fn remote_url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.network.as_ref().unwrap().address)
    }

    /// A standby that follows this server, which then waits for it with each commit.
    pub(super) fn standby(&self) -> Self {
        let standby = Self::folder();
        standby.give_away();
        let mut copy = command("pg_basebackup");
        copy.arg("-D").arg(standby.data()).arg("-h").arg(&self.folder);
        run(copy.args(["-U", "postgres", "-R", "-X", "stream", "-c", "fast"]), &standby.folder);
        let mut settings =
            std::fs::read_to_string(standby.data().join("postgresql.auto.conf")).unwrap();
        settings.push_str(&format!("unix_socket_directories = '{}'\n", standby.folder.display()));
        std::fs::write(standby.data().join("postgresql.auto.conf"), settings).unwrap();
        standby.start();
        self.psql("ALTER SYSTEM SET synchronous_standby_names = '*'; ");
        self.psql("SELECT pg_reload_conf()");
        standby
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn give_away(&self) {
        if is_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(&self.folder), &self.folder);
        }
    }

    fn make(&self) {
        self.give_away();
        let mut make = command("initdb");
        make.arg("-D").arg(self.data());
        make.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        run(&mut make, &self.folder);
        let settings = format!(
            "listen_addresses = '{}'\nunix_socket_directories = '{}'\nmax_connections = 300\n\
             shared_buffers = 32MB\n",
            self.network.as_ref().map_or("", |network| &network.address),
            self.folder.display()
        );
        std::fs::write(self.data().join("postgresql.auto.conf"), settings).unwrap();
        if self.network.is_some() {
            let mut rules = std::fs::read_to_string(self.data().join("pg_hba.conf")).unwrap();
            rules.push_str("host all all 10.0.0.0/8 trust\n");
            std::fs::write(self.data().join("pg_hba.conf"), rules).unwrap();
        }
    }

    /// A file in its folder, that only the server may read.
    pub(super) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(&path), &self.folder);
        }
        path
    }

    /// Makes it listen at a loopback address that nobody else has, which is the
    /// answer, with these rules before all others and these settings.
    pub(super) fn listen(&self, rules: &str, settings: &[(&str, &str)]) -> String {
        let id = std::process::id();
        let address = format!("127.{}.{}.{}", 1 + (id >> 16) % 250, id >> 8 & 255, 1 + id % 250);
        let hba = self.data().join("pg_hba.conf");
        let before = std::fs::read_to_string(&hba).unwrap();
        std::fs::write(&hba, format!("{rules}\n{before}")).unwrap();
        self.psql(&format!("ALTER SYSTEM SET listen_addresses = '{address}'"));
        for (name, value) in settings {
            self.psql(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        }
        self.crash();
        self.start();
        address
    }

    /// Changes a setting of the running server, and waits until it is taken in.
    pub(super) fn set(&self, name: &str, value: &str) {
        self.psql(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.reload();
        let begun = std::time::Instant::now();
        while self.psql(&format!("SHOW {name}")) != value {
            assert!(begun.elapsed().as_secs() < 60, "{name} is not taken in");
        }
    }

    /// Makes it read its settings and certificates again.
    pub(super) fn reload(&self) {
        self.psql("SELECT pg_reload_conf()");
    }

    pub(super) fn start(&self) {
        let mut start = command("pg_ctl");
        if let Some(network) = &self.network {
            let inside = start;
            start = Command::new("ip");
            start.args(["netns", "exec", &network.name]);
            start.arg(inside.get_program()).args(inside.get_args());
            start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        start.arg("-D").arg(self.data()).arg("-l").arg(self.folder.join("log"));
        run(start.args(["-w", "-t", "120", "start"]), &self.folder);
    }

    /// Ends it as a crash would.
    pub(super) fn crash(&self) {
        let mut stop = command("pg_ctl");
        stop.arg("-D").arg(self.data());
        run(stop.args(["-m", "immediate", "-w", "stop"]), &self.folder);
    }

    /// Makes a standby the one that writes.
    pub(super) fn promote(&self) {
        let mut promote = command("pg_ctl");
        promote.arg("-D").arg(self.data());
        run(promote.args(["-w", "promote"]), &self.folder);
    }

    /// Where its socket is.
    pub(super) fn socket_folder(&self) -> String {
        self.folder.display().to_string()
    }

    /// A folder in its own that it may write.
    pub(super) fn folder_for(&self, name: &str) -> String {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(&folder), &self.folder);
        }
        folder.display().to_string()
    }

    /// Runs a line of a person's, who has the server's programs at hand.
    pub(super) fn shell(&self, line: &str) {
        let mut shell = unprivileged(Path::new("/bin/sh"));
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", programs().display())).current_dir("/");
        let output = shell.args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A program of somebody else, run by the user that the server runs as.
    pub(super) fn as_its_user(&self, program: &Path) -> Command {
        let mut command = unprivileged(program);
        command.current_dir(&self.folder);
        command
    }

    /// A host of a connection string.
    pub(super) fn host(&self) -> String {
        self.folder.display().to_string().replace('/', "%2F")
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.host())
    }

    /// What a statement says, told beside the store.
    pub(super) fn psql(&self, sql: &str) -> String {
        let mut psql = command("psql");
        psql.arg("-h").arg(&self.folder).args(["-U", "postgres", "-At", "-c", sql]);
        let output = psql.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.own {
            let mut stop = command("pg_ctl");
            let _ = stop.arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]).status();
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
