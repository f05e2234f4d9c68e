//! The scenario file: what `selvedge simulate` rehearses.
//!
//! It points at the production configuration and repeats nothing of it:
//! policies come from there, by the same loader. Nothing is guessed silently:
//! what was assumed is put down, and what the simulator does not model is an
//! error that names it.

mod cursor;
#[cfg(test)]
mod examples;
mod expect;
mod faults;
mod histogram;
mod services;

use std::path::{Path, PathBuf};

use selvedge_patterns::outcome::Safety;
use selvedge_patterns::time::Duration;
use selvedge_proxy::config::{self as proxy, PathMatch};
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{Arrivals, Client, Refused, Run, Scenario, Service, UserRetry};

use crate::diagnostic::{Code, Diagnostic, Report};
use crate::expand::Env;
use crate::load::{Loaded, load_text, load_with};
use crate::source::{Sources, Span};
use crate::tree::{self, Kind, Node};

use cursor::Cursor;

/// Where the files are that a scenario speaks of.
#[derive(Clone, Copy, Debug)]
pub enum Files<'a> {
    /// Beside the scenario, in a folder.
    Folder(&'a Path),
    /// In the program: (name, text).
    Embedded(&'a [(&'a str, &'a str)]),
}

impl Files<'_> {
    fn text(&self, name: &str) -> std::io::Result<String> {
        match self {
            Self::Folder(folder) => std::fs::read_to_string(folder.join(name)),
            Self::Embedded(files) => embedded(files, name).map(str::to_owned),
        }
    }

    fn config(&self, name: &str) -> Result<Loaded, Report> {
        match self {
            Self::Folder(folder) => load_with(&folder.join(name), &Env::Process),
            Self::Embedded(files) => {
                let text = embedded(files, name).unwrap_or_default();
                load_text(name, text, &Env::fixed([]))
            }
        }
    }
}

fn embedded<'a>(files: &[(&str, &'a str)], name: &str) -> std::io::Result<&'a str> {
    let name = name.trim_start_matches("./");
    let found = files.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    found.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
}

/// Reads the scenario at `path`. With `config`, that configuration takes the
/// place of the one it names.
///
/// # Errors
///
/// Everything that is wrong with it, or with the configuration it points at.
pub fn load_scenario(path: &Path, config: Option<&Path>) -> Result<Scenario, Report> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let folder = path.parent().unwrap_or_else(|| Path::new(""));
            read_scenario(&name, &text, Files::Folder(folder), config)
        }
        Err(error) => {
            let problem =
                Diagnostic::error(Code::UNREADABLE, format!("`{name}` cannot be read: {error}"))
                    .help("is the name right? A relative path begins at the current folder");
            Err(Report::new(vec![problem], Sources::default()))
        }
    }
}

/// Reads a scenario from `text`.
///
/// # Errors
///
/// As [`load_scenario`].
pub fn read_scenario(
    name: &str,
    text: &str,
    files: Files<'_>,
    config: Option<&Path>,
) -> Result<Scenario, Report> {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    let file = sources.add(name.to_owned(), text.to_owned());
    let Some(root) = tree::parse(&sources, file, &mut problems) else {
        return Err(Report::new(problems, sources));
    };
    let mut cursor = Cursor::new(Span::new(file, 0, 0));
    let loaded = production(&root, &files, config, &mut cursor)?;
    let scenario = read(name, &root, &files, loaded.as_ref(), &mut cursor);
    problems.append(&mut cursor.problems);
    if problems.is_empty()
        && let Some(scenario) = &scenario
        && let Err(refused) = scenario.validate()
    {
        problems.push(impossible(&root, &refused));
    }
    match scenario {
        Some(scenario) if problems.is_empty() => Ok(scenario),
        _ => Err(Report::new(problems, sources)),
    }
}

/// A refusal, at the place that it is most likely about.
fn impossible(root: &Node, refused: &Refused) -> Diagnostic {
    let code = match refused {
        Refused::Policy { .. } => Code::NOT_SIMULATED,
        _ => Code::IMPOSSIBLE_MODEL,
    };
    let section = match refused {
        Refused::Fault(_) => "faults",
        _ => "services",
    };
    let text = refused.to_string();
    let mut span = root.get(section).map_or(root.span, |entry| entry.key_span);
    if let Some(Kind::Mapping(entries)) = root.get("services").map(|entry| &entry.value.kind)
        && let Some(named) = entries.iter().find(|entry| text.contains(&entry.key))
    {
        span = named.key_span;
    }
    Diagnostic::error(code, text).at(span, "")
}

const KEYS: &[&str] =
    &["config", "name", "clients", "services", "gateways", "faults", "run", "expect", "ignore"];

fn production(
    root: &Node,
    files: &Files<'_>,
    instead: Option<&Path>,
    cursor: &mut Cursor,
) -> Result<Option<Loaded>, Report> {
    if let Some(path) = instead {
        return load_with(path, &Env::Process).map(Some);
    }
    let Some(entry) = root.get("config") else { return Ok(None) };
    let Some(path) = cursor.text(&entry.value, "the path of a configuration") else {
        return Ok(None);
    };
    files.config(&path).map(Some)
}

fn read(
    name: &str,
    root: &Node,
    files: &Files<'_>,
    loaded: Option<&Loaded>,
    cursor: &mut Cursor,
) -> Option<Scenario> {
    cursor.keys(root, "a scenario", KEYS);
    let stem = PathBuf::from(name)
        .file_stem()
        .map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned());
    let ignored = cursor.words(root, "ignore");
    let mut assumptions = Vec::new();
    let services = services::read(root, files, loaded, &ignored, &mut assumptions, cursor);
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    let clients = clients(root, files, &services, loaded, &ignored, &mut assumptions, cursor);
    let client_names: Vec<&str> = clients.iter().map(|client| client.name.as_str()).collect();
    let gateways = cursor
        .optional(root, "gateways", |value, cursor| cursor.count(value))
        .unwrap_or_else(|| {
            assumptions.push("One gateway replica.".to_owned());
            1
        });
    let faults = faults::read(root, &services, &client_names, cursor);
    let expect = expect::read(root, &names, &faults, cursor);
    let run = run(root, &faults, &mut assumptions, cursor);
    for word in &ignored {
        assumptions.push(format!("Left out on request: `{word}`."));
    }
    let name =
        cursor.optional(root, "name", |value, cursor| cursor.text(value, "a name")).unwrap_or(stem);
    Some(Scenario { name, clients, services, gateways, faults, run, expect, assumptions })
}

const CLIENT_KEYS: &[&str] = &[
    "name",
    "rate",
    "arrivals",
    "route",
    "to",
    "deadline",
    "user_retry",
    "safety",
    "users",
    "think",
    "dwell",
    "trace",
    "keys",
    "pages",
];

fn clients(
    root: &Node,
    files: &Files<'_>,
    services: &[Service],
    loaded: Option<&Loaded>,
    ignored: &[String],
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) -> Vec<Client> {
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    let Some(entry) = cursor.required(root, "clients", "a scenario") else { return Vec::new() };
    let mut clients = Vec::new();
    for (index, node) in cursor.list(&entry.value, "a list of clients").iter().enumerate() {
        cursor.within(node.span);
        cursor.keys(node, "a client", CLIENT_KEYS);
        let name = cursor.optional(node, "name", |value, cursor| cursor.text(value, "a name"));
        let name = name.unwrap_or_else(|| format!("client {}", index + 1));
        let Some(arrivals) = arrivals(node, files, &name, assumptions, cursor) else { continue };
        let (target, route) = target(node, &names, loaded, cursor);
        let Some(target) = target else { continue };
        let mut client = Client::new(&name, arrivals);
        client.target = target;
        client.deadline = cursor.optional(node, "deadline", |value, cursor| cursor.duration(value));
        client.user_retry = cursor.optional(node, "user_retry", user_retry);
        client.safety = safety(node, &name, assumptions, cursor);
        let keys = cursor.optional(node, "keys", |value, cursor| cursor.count(value));
        if let Some(route) = route {
            follow_route(&mut client, route, keys, node, ignored, assumptions, cursor);
        }
        client.pages = pages(node, &name, &services[target], assumptions, cursor);
        if client.deadline.is_none() {
            assumptions.push(format!("{name} waits for an answer as long as it takes."));
        }
        clients.push(client);
    }
    clients
}

/// How many different things a client asks for, which matters where stale answers are given.
fn pages(
    node: &Node,
    name: &str,
    service: &Service,
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) -> u32 {
    let given = cursor.optional(node, "pages", |value, cursor| cursor.count(value));
    given.unwrap_or_else(|| {
        let fallback = service.policy.as_ref().and_then(|policy| policy.fallback);
        if fallback.is_some_and(|fallback| fallback.stale_for.is_some()) {
            assumptions.push(format!(
                "All calls of {name} ask for the same page, so one good answer can stand in for any; `pages: N` says otherwise."
            ));
        }
        1
    })
}

fn safety(node: &Node, name: &str, assumptions: &mut Vec<String>, cursor: &mut Cursor) -> Safety {
    let words =
        [("safe", Safety::Safe), ("idempotent", Safety::Idempotent), ("unsafe", Safety::Unsafe)];
    cursor.optional(node, "safety", |value, cursor| cursor.word(value, &words)).unwrap_or_else(
        || {
            assumptions
                .push(format!("The calls of {name} are reads: they may be repeated and hedged."));
            Safety::Safe
        },
    )
}

fn arrivals(
    node: &Node,
    files: &Files<'_>,
    name: &str,
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) -> Option<Arrivals> {
    #[derive(Clone, Copy, PartialEq)]
    enum Law {
        Poisson,
        Paced,
        Mmpp,
        Trace,
        Closed,
    }
    let words = [
        ("poisson", Law::Poisson),
        ("paced", Law::Paced),
        ("mmpp", Law::Mmpp),
        ("trace", Law::Trace),
        ("closed", Law::Closed),
    ];
    let law = cursor
        .optional(node, "arrivals", |value, cursor| cursor.word(value, &words))
        .unwrap_or_else(|| {
            let law = if node.get("users").is_some() { Law::Closed } else { Law::Poisson };
            if law == Law::Poisson {
                assumptions.push(format!(
                    "The calls of {name} come independently of each other (Poisson)."
                ));
            }
            law
        });
    match law {
        Law::Poisson | Law::Paced => {
            let rate = cursor.required(node, "rate", "a client")?;
            let rate = cursor.rate(&rate.value)?;
            Some(if law == Law::Poisson {
                Arrivals::Poisson { rate }
            } else {
                Arrivals::Paced { rate }
            })
        }
        Law::Mmpp => {
            let rates = cursor.required(node, "rate", "mmpp arrivals")?;
            let rates = cursor.pair(
                &rates.value,
                "two rates, such as `[100/s, 500/s]`",
                |value, cursor| cursor.rate(value),
            )?;
            let dwell = cursor.required(node, "dwell", "mmpp arrivals")?;
            let dwell = cursor.pair(
                &dwell.value,
                "two durations, such as `[30s, 5s]`",
                |value, cursor| cursor.duration(value),
            )?;
            Some(Arrivals::Mmpp { rates, dwell })
        }
        Law::Closed => {
            let users = cursor.required(node, "users", "closed arrivals")?;
            let users = cursor.count(&users.value)?;
            let think = cursor.required(node, "think", "closed arrivals")?;
            Some(Arrivals::Closed {
                users,
                think: services::distribution(&think.value, files, assumptions, cursor)?,
            })
        }
        Law::Trace => {
            let path = cursor.required(node, "trace", "trace arrivals")?;
            let name = cursor.text(&path.value, "the path of a trace")?;
            let text = cursor.file(&path.value, files, &name)?;
            match histogram::trace(&text) {
                Ok(times) => Some(Arrivals::Trace(times)),
                Err(why) => {
                    cursor.problem(
                        Code::IMPOSSIBLE_MODEL,
                        path.value.span,
                        format!("{name}: {why}"),
                    );
                    None
                }
            }
        }
    }
}

fn user_retry(node: &Node, cursor: &mut Cursor) -> Option<UserRetry> {
    cursor.keys(node, "user_retry", &["p", "after", "attempts"]);
    let probability =
        cursor.optional(node, "p", |value, cursor| cursor.share(value)).unwrap_or(1.0);
    let after = cursor
        .optional(node, "after", |value, cursor| cursor.duration(value))
        .unwrap_or(Duration::from_secs(1));
    let attempts =
        cursor.optional(node, "attempts", |value, cursor| cursor.count(value)).unwrap_or(1);
    Some(UserRetry { probability, after: Distribution::Constant(after), attempts })
}

/// The service that a client calls, by `to:` or by the route that its path takes.
fn target<'a>(
    node: &Node,
    services: &[&str],
    loaded: Option<&'a Loaded>,
    cursor: &mut Cursor,
) -> (Option<usize>, Option<&'a proxy::Route>) {
    if let Some(entry) = node.get("to") {
        return (cursor.name(&entry.value, "service", services), None);
    }
    let Some(entry) = node.get("route") else {
        if services.len() == 1 {
            return (Some(0), None);
        }
        cursor.problem(
            Code::MISSING_KEY,
            node.span,
            "a client needs `to` (a service) or `route` (a path)".to_owned(),
        );
        return (None, None);
    };
    let Some(path) = cursor.text(&entry.value, "a path such as `/checkout`") else {
        return (None, None);
    };
    let routes = loaded.map_or(&[][..], |loaded| &loaded.proxy.routes);
    let Some(route) = routes.iter().find(|route| takes(&route.matches, &path)) else {
        cursor.problem(
            Code::UNKNOWN_NAME,
            entry.value.span,
            format!("no route of the configuration takes `{path}`"),
        );
        return (None, None);
    };
    let found = services.iter().position(|name| *name == route.to);
    if found.is_none() {
        let message = format!(
            "`{path}` goes to the service `{}`, which is not under `services` here",
            route.to
        );
        cursor.problem(Code::UNKNOWN_NAME, entry.value.span, message);
    }
    (found, Some(route))
}

fn takes(matches: &proxy::Match, path: &str) -> bool {
    let below = |prefix: &str| {
        path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    };
    match &matches.path {
        PathMatch::Any => true,
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => below(prefix),
        PathMatch::Pattern(pattern) => {
            let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
            loop {
                match (wanted.next(), given.next()) {
                    (Some("**"), _) | (None, None) => return true,
                    (Some("*"), Some(_)) => {}
                    (Some(one), Some(other)) if one == other => {}
                    _ => return false,
                }
            }
        }
    }
}

/// Takes over what the route says about the call.
fn follow_route(
    client: &mut Client,
    route: &proxy::Route,
    keys: Option<u32>,
    node: &Node,
    ignored: &[String],
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) {
    if let Some(timeout) = route.timeout {
        client.deadline = Some(client.deadline.map_or(timeout, |deadline| deadline.min(timeout)));
    }
    let ignores = |word: &str| ignored.iter().any(|it| it == word);
    if route.fallback.is_some() && !ignores("fallback") {
        cursor.not_simulated(
            node.span,
            &format!("`fallback` of the route `{}`", route.name),
            "fallback",
        );
    }
    if let Some(limit) = &route.limit
        && !ignores("limit")
    {
        let keys = match (&limit.per, keys) {
            (proxy::Key::Route, _) => 1,
            (_, Some(keys)) => keys,
            (_, None) => {
                assumptions.push(format!(
                    "All calls of {} share one key of the limit on route {}; `keys: N` says otherwise.",
                    client.name, route.name
                ));
                1
            }
        };
        client.limit = Some((limit.limit, keys));
    }
}

const RUN_KEYS: &[&str] =
    &["duration", "warm_up", "seeds", "seed", "bin", "alive_max", "recovery_limit", "healthy"];

fn run(
    root: &Node,
    faults: &[selvedge_sim::model::Fault],
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) -> Run {
    let usual = Run::default();
    let empty = Node::new(root.span, Kind::Mapping(Vec::new()));
    let node = root.get("run").map_or(&empty, |entry| &entry.value);
    cursor.keys(node, "run", RUN_KEYS);
    let duration = cursor
        .optional(node, "duration", |value, cursor| cursor.duration(value))
        .unwrap_or_else(|| {
            assumptions.push(format!("{} s are simulated.", usual.duration.as_secs()));
            usual.duration
        });
    let first = faults.iter().map(|fault| fault.at).min().unwrap_or(duration);
    let warm_up = cursor
        .optional(node, "warm_up", |value, cursor| cursor.duration(value))
        .unwrap_or_else(|| {
            let warm_up = (duration / 10).min(first / 2);
            assumptions.push(format!("The first {:.1} s count as warm-up.", warm_up.as_secs_f64()));
            warm_up
        });
    Run {
        duration,
        warm_up,
        seeds: cursor
            .optional(node, "seeds", |value, cursor| cursor.count(value))
            .unwrap_or(usual.seeds),
        seed: cursor
            .optional(node, "seed", |value, cursor| cursor.count(value))
            .map_or(usual.seed, u64::from),
        bin: cursor
            .optional(node, "bin", |value, cursor| cursor.duration(value))
            .unwrap_or(usual.bin),
        alive_max: cursor
            .optional(node, "alive_max", |value, cursor| cursor.count(value))
            .map_or(usual.alive_max, |count| count as usize),
        recovery_limit: cursor
            .optional(node, "recovery_limit", |value, cursor| cursor.duration(value))
            .unwrap_or(usual.recovery_limit),
        healthy: cursor
            .optional(node, "healthy", |value, cursor| cursor.share(value))
            .unwrap_or(usual.healthy),
    }
}

#[cfg(test)]
mod tests;
