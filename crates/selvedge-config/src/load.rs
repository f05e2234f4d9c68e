//! From a path to a configuration: files, `include:`, `${…}`, `defaults:`.
//!
//! All or nothing: the answer is a configuration without errors, or every
//! error there is.

use std::{
    collections::HashSet,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use selvedge_proxy::config as proxy;

use crate::{
    convert,
    diagnostic::{Code, Diagnostic, Report},
    expand::{Env, expand},
    lint,
    read::{Field as _, Reader, list},
    schema,
    source::{Sources, Span},
    tree::{self, BYTES_MAX, Entry, Kind, Node},
};

/// Keys whose names may be spread over files.
const BY_NAME: &[&str] = &["services", "listeners", "topics", "subscriptions", "schedules"];

/// Most files that make one configuration.
const FILES_MAX: usize = 256;

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the data plane is to do.
    pub proxy: proxy::Config,
    /// Where the operator API listens, if anywhere.
    pub operator: Option<Operator>,
    /// The store and what must be in it, if there is one.
    pub durable: Option<Durable>,
    /// How the app API is served, if there is a store.
    pub api: Option<AppApi>,
    /// What the process says about its work.
    pub telemetry: Telemetry,
    /// Every file and folder it was made of, those of `${file:…}` included: what to watch.
    pub files: Vec<PathBuf>,
    /// What the linter has to say; no errors.
    pub report: Report,
    /// The file as it was read, with the place of everything.
    pub file: schema::File,
}

/// The store, and what the file declares in it.
#[derive(Clone, Debug)]
pub struct Durable {
    /// What it is opened with.
    pub store: selvedge_durable::Config,
    /// Topics to create or change.
    pub topics: Vec<selvedge_durable::topic::PutTopic>,
    /// Groups to create or change.
    pub groups: Vec<selvedge_durable::group::PutGroup>,
    /// Schedules to create or replace.
    pub schedules: Vec<selvedge_durable::schedule::PutSchedule>,
    /// Groups whose messages are brought to services.
    pub pushes: Vec<Push>,
}

/// A group whose messages are brought to a service.
#[derive(Clone, PartialEq, Eq)]
pub struct Push {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// The service.
    pub service: String,
    /// Path and query of the requests.
    pub path: String,
    /// Whether events go as JSON, attributes and all.
    pub structured: bool,
    /// `whsec_…`, checked.
    pub secrets: Vec<String>,
    /// Requests at one time.
    pub concurrency: usize,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the secrets.
        f.debug_struct("Push")
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Durable {
    /// Everything declared, as one transaction.
    #[must_use]
    pub fn operations(&self) -> Vec<selvedge_durable::Operation> {
        use selvedge_durable::Operation as O;
        let topics = self.topics.iter().cloned().map(O::PutTopic);
        let groups = self.groups.iter().cloned().map(O::PutGroup);
        topics.chain(groups).chain(self.schedules.iter().cloned().map(O::PutSchedule)).collect()
    }
}

/// Where and how the app API listens.
#[derive(Clone, PartialEq, Eq)]
pub struct AppApi {
    /// The address. Default `127.0.0.1:9901`.
    pub bind: SocketAddr,
    /// What clients authenticate with. Default: nothing.
    pub token: Option<String>,
    /// Names under which it may be called besides the address itself.
    pub hosts: Vec<String>,
    /// Connections at once.
    pub connections_max: usize,
    /// Bytes of one request's body.
    pub body_max: usize,
}

impl std::fmt::Debug for AppApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppApi")
            .field("bind", &self.bind)
            .field("token", &self.token.as_ref().map(|_| crate::show::SECRET))
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// Where and how the operator API listens.
#[derive(Clone, PartialEq, Eq)]
pub struct Operator {
    /// The address. Default `127.0.0.1:9900`.
    pub bind: SocketAddr,
    /// What clients authenticate with. Default: nothing.
    pub token: Option<String>,
    /// Names under which it may be called besides the address itself.
    pub hosts: Vec<String>,
}

/// What the process says about its work, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Where one line for each call goes, if anywhere. Default standard output.
    pub access_log: Option<schema::Output>,
    /// The least that the log says: `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub log_level: &'static str,
    /// How lines of the log look. Default [`schema::LogFormat::Auto`].
    pub log_format: schema::LogFormat,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator")
            .field("bind", &self.bind)
            .field("token", &self.token.as_ref().map(|_| crate::show::SECRET))
            .field("hosts", &self.hosts)
            .finish()
    }
}

impl Loaded {
    /// Everything that holds, defaults included, as YAML that reads back as
    /// the same configuration. Secrets are shown as `***`.
    #[must_use]
    pub fn effective(&self) -> String {
        self.file.show().yaml()
    }

    /// The same as [`Loaded::effective`], for programs.
    #[must_use]
    pub fn effective_json(&self) -> serde_json::Value {
        self.file.show().json()
    }
}

/// Reads the configuration at `path`, a file or a folder of them, in this
/// process's environment.
///
/// # Errors
///
/// Everything that is wrong with it, lint included, with the texts it was read from.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    load_with(path, &Env::Process)
}

/// [`load`] in a given environment.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(path: &Path, env: &Env) -> Result<Loaded, Report> {
    let mut gather = Gather::new(env);
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    gather.folder = folder.unwrap_or_else(|| Path::new("")).to_path_buf();
    gather.path(path, None);
    gather.finish()
}

/// [`load_with`] for a text instead of a file; relative paths begin at the current folder.
///
/// # Errors
///
/// As [`load`].
pub fn load_text(name: &str, text: &str, env: &Env) -> Result<Loaded, Report> {
    let mut gather = Gather::new(env);
    gather.text(name.to_owned(), text.to_owned(), Path::new(""));
    gather.finish()
}

/// Everything there is to say about the configuration at `path`, errors and warnings.
#[must_use]
pub fn check(path: &Path) -> Report {
    load(path).map_or_else(|report| report, |loaded| loaded.report)
}

struct Gather<'a> {
    env: &'a Env,
    /// Where relative paths in the configuration begin.
    folder: PathBuf,
    sources: Sources,
    files: Vec<PathBuf>,
    seen: HashSet<PathBuf>,
    problems: Vec<Diagnostic>,
    root: Option<Node>,
    /// Whether some file could not be parsed, so that looking further would mislead.
    incomplete: bool,
}

impl<'a> Gather<'a> {
    fn new(env: &'a Env) -> Self {
        Self {
            env,
            folder: PathBuf::new(),
            sources: Sources::default(),
            files: Vec::new(),
            seen: HashSet::new(),
            problems: Vec::new(),
            root: None,
            incomplete: false,
        }
    }

    /// Reads a file or every file of a folder.
    fn path(&mut self, path: &Path, asked: Option<Span>) {
        self.files.push(path.to_path_buf());
        if !path.is_dir() {
            self.file(path, asked);
            return;
        }
        match files_in(path) {
            Ok(files) if files.is_empty() => {
                let help = "a folder is read as all its `*.yaml` and `*.yml` files";
                self.unreadable(path, "has no configuration in it", asked, help);
            }
            Ok(files) => {
                for file in files {
                    self.files.push(file.clone());
                    self.file(&file, asked);
                }
            }
            Err(error) => self.unreadable(
                path,
                &format!("cannot be read: {error}"),
                asked,
                "may it be read by this user?",
            ),
        }
    }

    fn unreadable(&mut self, path: &Path, why: &str, asked: Option<Span>, help: &str) {
        self.incomplete = true;
        let diagnostic =
            Diagnostic::error(Code::UNREADABLE, format!("`{}` {why}", path.display())).help(help);
        self.problems.push(match asked {
            Some(span) => diagnostic.at(span, "included here"),
            None => diagnostic,
        });
    }

    fn file(&mut self, path: &Path, asked: Option<Span>) {
        // The same file by two names is still the same file.
        let identity = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if !self.seen.insert(identity) {
            let message = format!("`{}` is part of this configuration already", path.display());
            let diagnostic = Diagnostic::error(Code::CONFLICT, message).help("include it once");
            self.problems.push(match asked {
                Some(span) => diagnostic.at(span, "again here"),
                None => diagnostic,
            });
            return;
        }
        if self.seen.len() > FILES_MAX {
            self.unreadable(
                path,
                &format!("is one file too many: at most {FILES_MAX} are read"),
                asked,
                "put more into each",
            );
            return;
        }
        match read_text(path) {
            Ok(text) => {
                let folder = path.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
                self.text(path.display().to_string(), text, &folder);
            }
            Err((why, help)) => self.unreadable(path, &why, asked, help),
        }
    }

    fn text(&mut self, name: String, text: String, folder: &Path) {
        let file = self.sources.add(name, text);
        let Some(mut root) = tree::parse(&self.sources, file, &mut self.problems) else {
            self.incomplete = true;
            return;
        };
        expand(&mut root, self.env, folder, &mut self.files, &mut self.problems);
        let included = includes(&root);
        self.root = Some(match self.root.take() {
            None => root,
            Some(first) => merge_roots(first, root, &mut self.problems),
        });
        for (path, span) in included {
            self.path(&folder.join(path), Some(span));
        }
    }

    fn finish(mut self) -> Result<Loaded, Report> {
        let Some(mut root) = self.root.take().filter(|_| !self.incomplete) else {
            return Err(Report::new(self.problems, self.sources));
        };
        lay_over_defaults(&mut root);
        let mut reader = Reader::new(Span::new(root.span.file(), 0, 0));
        let file = schema::File::read(&root, &mut reader);
        let readable = reader.problems.is_empty();
        self.problems.append(&mut reader.problems);
        let Some(mut file) = file else {
            return Err(Report::new(self.problems, self.sources));
        };
        file.complete();
        let proxy = convert::convert(&file, &root, &mut self.problems);
        let (durable, api) = convert::convert_durable(&file, &self.folder, &mut self.problems);
        // The linter's numbers would be defaults in the place of what was meant.
        if readable {
            lint::lint(&file, &mut self.problems);
        }
        let operator = file.operator.as_ref().map(|operator| Operator {
            bind: *operator.bind,
            token: operator.token.as_ref().map(|token| token.expose().to_owned()),
            hosts: operator.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
        });
        let telemetry = Telemetry {
            access_log: *file.telemetry.access_log,
            log_level: (*file.telemetry.log_level).word(),
            log_format: *file.telemetry.log_format,
        };
        let report = Report::new(self.problems, self.sources);
        if report.has_errors() {
            return Err(report);
        }
        let mut files = self.files;
        files.sort();
        files.dedup();
        Ok(Loaded { proxy, operator, telemetry, durable, api, files, report, file })
    }
}

/// The configuration files of a folder by name; hidden ones, such as the
/// links inside a mounted Kubernetes ConfigMap, are not looked at.
fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
        if yaml && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(path: &Path) -> Result<String, (String, &'static str)> {
    let unreadable = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => {
                "is the name right? A relative path begins at the current folder; one under `include:` at its own file's"
            }
            _ => "may it be read by this user?",
        };
        (format!("cannot be read: {error}"), help)
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > BYTES_MAX as u64 {
        return Err((
            format!("has {} bytes; at most {BYTES_MAX} are read", metadata.len()),
            "split it and name the parts under `include:`",
        ));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        (format!("is not UTF-8 (line {line})"), "save it as UTF-8")
    })
}

/// The paths under `include:` that are texts; whatever else stands there the schema complains about.
fn includes(root: &Node) -> Vec<(PathBuf, Span)> {
    let text = |node: &Node| match &node.kind {
        Kind::Scalar(scalar) => Some((PathBuf::from(&scalar.text), node.span)),
        _ => None,
    };
    match root.get("include").map(|entry| &entry.value) {
        Some(Node { kind: Kind::Sequence(items), .. }) => items.iter().filter_map(text).collect(),
        Some(node) => text(node).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Puts the keys of a further file beside those of the files before it: names
/// under `listeners` and `services` are collected, routes are appended, and
/// anything else may be said once.
fn merge_roots(mut first: Node, second: Node, problems: &mut Vec<Diagnostic>) -> Node {
    let Kind::Mapping(second) = second.kind else {
        problems.push(
            Diagnostic::error(Code::WRONG_VALUE, "expected the configuration (a mapping)")
                .at(second.span, ""),
        );
        return first;
    };
    let Kind::Mapping(entries) = &mut first.kind else { return first };
    for entry in second {
        let Some(own) = entries.iter_mut().find(|own| own.key == entry.key) else {
            entries.push(entry);
            continue;
        };
        match (&mut own.value.kind, entry.value.kind) {
            _ if entry.key == "include" => {}
            (Kind::Mapping(all), Kind::Mapping(more)) if BY_NAME.contains(&entry.key.as_str()) => {
                for named in more {
                    add_name(all, named, &entry.key, problems);
                }
            }
            (Kind::Sequence(all), Kind::Sequence(more)) if entry.key == "routes" => {
                all.extend(more)
            }
            (Kind::Scalar(one), Kind::Scalar(other))
                if entry.key == "version" && one.text == other.text => {}
            _ => problems.push(
                Diagnostic::error(
                    Code::DUPLICATE_KEY,
                    format!("`{}` is said in two files", entry.key),
                )
                .at(entry.key_span, "again here")
                .and(own.key_span, "first here")
                .help(format!(
                    "keep one; {} may be spread over files",
                    list(&[BY_NAME, &["routes"]].concat())
                )),
            ),
        }
    }
    first
}

fn add_name(all: &mut Vec<Entry>, named: Entry, under: &str, problems: &mut Vec<Diagnostic>) {
    match all.iter().find(|own| own.key == named.key) {
        None => all.push(named),
        Some(own) => problems.push(
            Diagnostic::error(
                Code::DUPLICATE_KEY,
                format!("`{}` is there twice under `{under}`", named.key),
            )
            .at(named.key_span, "again here")
            .and(own.key_span, "first here")
            .help("rename one of them"),
        ),
    }
}

/// Lays each service over `defaults:`.
fn lay_over_defaults(root: &mut Node) {
    let Some(Entry { value: defaults @ Node { kind: Kind::Mapping(_), .. }, .. }) =
        root.get("defaults")
    else {
        return;
    };
    let defaults = defaults.clone();
    let Kind::Mapping(entries) = &mut root.kind else { return };
    let services = entries.iter_mut().find(|entry| entry.key == "services");
    if let Some(Entry { value: Node { kind: Kind::Mapping(services), .. }, .. }) = services {
        for service in services {
            service.value = schema::Service::merge(&defaults, &service.value);
        }
    }
}
