//! The real servers and clients that whole-system suites talk to.
//!
//! Programs come from Debian's packages where root and apt are there; Python
//! and JavaScript packages go into folders under `target/`. A suite is the
//! module of tests named after what it needs, in any crate, and finds its peer by
//! the environment variable that is named here.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// One thing that a suite needs.
pub(crate) struct Peer {
    /// For people.
    pub(crate) name: &'static str,
    /// The module of tests (`<suite>::…`) that cannot run without it.
    pub(crate) suite: &'static str,
    /// The variable in which tests find its path.
    pub(crate) variable: &'static str,
    /// The program's name, searched for on `PATH` and in `folders`.
    program: &'static str,
    /// Where else it may lie; `*` stands for one path segment.
    folders: &'static [&'static str],
    /// Debian packages that carry it.
    apt: &'static [&'static str],
    /// Python packages; when there are any, the path is the interpreter of a
    /// virtual environment that has them.
    pip: &'static [&'static str],
    /// Packages of npm; when there are any, the path is the folder that has them.
    npm: &'static [&'static str],
    /// A command of those packages: then it is the path, and they lie in a
    /// folder of their own, because old interpreters make no environments.
    command: Option<&'static str>,
    /// Found on few machines, and no package brings it: where it is missing,
    /// even a strict run only names its suite.
    pub(crate) rare: bool,
}

/// Every peer there is.
pub(crate) const ALL: &[Peer] = &[
    Peer {
        name: "nginx",
        suite: "nginx",
        variable: "SELVEDGE_NGINX",
        program: "nginx",
        folders: &["/usr/sbin"],
        apt: &["nginx-light"],
        pip: &[],
        npm: &[],
        command: None,
        rare: false,
    },
    Peer {
        name: "PostgreSQL",
        suite: "postgres",
        variable: "SELVEDGE_POSTGRES",
        program: "postgres",
        folders: &["/usr/lib/postgresql/*/bin"],
        apt: &["postgresql"],
        pip: &[],
        npm: &[],
        command: None,
        rare: false,
    },
    Peer {
        name: "PgBouncer",
        suite: "pgbouncer",
        variable: "SELVEDGE_PGBOUNCER",
        program: "pgbouncer",
        folders: &["/usr/sbin"],
        apt: &["pgbouncer"],
        pip: &[],
        npm: &[],
        command: None,
        rare: false,
    },
    Peer {
        name: "Python gRPC",
        suite: "grpcio",
        variable: "SELVEDGE_PYTHON",
        program: "python3",
        folders: &["/usr/bin"],
        apt: &["python3-venv"],
        pip: &["grpcio", "grpcio-health-checking"],
        npm: &[],
        command: None,
        rare: false,
    },
    Peer {
        name: "CloudEvents for Python",
        suite: "cloudevents_python",
        variable: "SELVEDGE_CLOUDEVENTS_PYTHON",
        program: "python3",
        folders: &["/usr/bin"],
        apt: &["python3-venv"],
        pip: &["cloudevents>=2,<3"],
        npm: &[],
        command: None,
        rare: false,
    },
    Peer {
        name: "CloudEvents for JavaScript",
        suite: "cloudevents_javascript",
        variable: "SELVEDGE_CLOUDEVENTS_JAVASCRIPT",
        program: "npm",
        folders: &["/usr/bin"],
        apt: &["nodejs", "npm"],
        pip: &[],
        npm: &["cloudevents@10"],
        command: None,
        rare: false,
    },
    Peer {
        name: "Autobahn (needs Python 2.7)",
        suite: "autobahn",
        variable: "SELVEDGE_AUTOBAHN",
        program: "python2.7",
        folders: &["~/.pyenv/versions/*/bin"],
        apt: &[],
        pip: &["autobahntestsuite==25.10.1"],
        npm: &[],
        command: Some("wstest"),
        rare: true,
    },
];

/// Where a peer was found.
pub(crate) struct Found {
    /// Its program.
    pub(crate) path: PathBuf,
}

/// A peer that is not here, and why.
pub(crate) struct Missing {
    /// Which.
    pub(crate) peer: &'static Peer,
    /// In words.
    pub(crate) why: String,
}

/// Finds `peer`, installing it if need be.
pub(crate) fn prepare(root: &Path, peer: &Peer) -> Result<Found, String> {
    if let Some(path) = std::env::var_os(peer.variable) {
        return Ok(Found { path: path.into() });
    }
    let program = match find(peer) {
        Some(path) => path,
        None => {
            install(peer)?;
            find(peer).ok_or_else(|| {
                format!("`{}` is not there even after installing it", peer.program)
            })?
        }
    };
    match peer.command {
        Some(command) => packages(root, peer, &program, command),
        None if !peer.npm.is_empty() => modules(root, peer, &program),
        None if peer.pip.is_empty() => Ok(Found { path: program }),
        None => environment(root, peer, &program),
    }
}

fn find(peer: &Peer) -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&on_path)
        .chain(peer.folders.iter().flat_map(|folder| expand(folder)))
        .map(|folder| folder.join(peer.program))
        // Version managers leave scripts on `PATH` for versions that are switched off.
        .find(|path| path.is_file() && (peer.command.is_none() || runs(path)))
}

fn runs(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// `/a/*/b` as every such folder, the last in name order (the newest version) first.
fn expand(folder: &str) -> Vec<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let folder = &folder.replace('~', &home);
    let Some((before, after)) = folder.split_once("/*/") else { return vec![folder.into()] };
    let mut found: Vec<PathBuf> = std::fs::read_dir(before)
        .map(|entries| entries.flatten().map(|entry| entry.path().join(after)).collect())
        .unwrap_or_default();
    found.sort();
    found.reverse();
    found
}

fn install(peer: &Peer) -> Result<(), String> {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if peer.apt.is_empty() {
        return Err(format!("there is no `{}` here, and no package to install", peer.program));
    }
    if !root || !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!(
            "not installed, and installing `{}` needs root and apt",
            peer.apt.join(" ")
        ));
    }
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Nothing that gets installed may start serving by itself.
            .env("RUNLEVEL", "1")
            .stdout(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(peer.apt);
    if apt(&arguments) || (apt(&["update"]) && apt(&arguments)) {
        Ok(())
    } else {
        Err(format!("`apt-get install {}` failed", peer.apt.join(" ")))
    }
}

fn environment(root: &Path, peer: &Peer, python: &Path) -> Result<Found, String> {
    let folder = root.join("target/peers").join(peer.suite);
    let interpreter = folder.join("bin/python");
    let marker = folder.join("installed");
    let wanted = peer.pip.join(" ");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(Found { path: interpreter });
    }
    let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    let create =
        |python: &Path| run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder));
    if !create(python) {
        install(peer)?;
        if !create(Path::new("/usr/bin/python3")) {
            return Err("a Python virtual environment cannot be made".to_owned());
        }
    }
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ];
    if !run(Command::new(&interpreter).args(pip).args(peer.pip)) {
        return Err(format!("`pip install {wanted}` failed"));
    }
    std::fs::write(&marker, &wanted).map_err(|error| error.to_string())?;
    Ok(Found { path: interpreter })
}

fn modules(root: &Path, peer: &Peer, npm: &Path) -> Result<Found, String> {
    let folder = root.join("target/peers").join(peer.suite);
    let path = folder.join("node_modules");
    let marker = folder.join("installed");
    let wanted = peer.npm.join(" ");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(Found { path });
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let installed = Command::new(npm)
        .args(["install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix"])
        .arg(&folder)
        .args(peer.npm)
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        return Err(format!("`npm install {wanted}` failed"));
    }
    std::fs::write(&marker, &wanted).map_err(|error| error.to_string())?;
    Ok(Found { path })
}

fn packages(root: &Path, peer: &Peer, python: &Path, command: &str) -> Result<Found, String> {
    let folder = root.join("target/peers").join(peer.suite);
    let path = folder.join("bin").join(command);
    let marker = folder.join("installed");
    let wanted = peer.pip.join(" ");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(Found { path });
    }
    let output = Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--user"])
        .args(peer.pip)
        // Whoever runs the command sets the same.
        .env("PYTHONUSERBASE", &folder)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() || !path.is_file() {
        return Err(format!("`pip install {wanted}` failed"));
    }
    std::fs::write(&marker, &wanted).map_err(|error| error.to_string())?;
    Ok(Found { path })
}
