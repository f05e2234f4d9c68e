//! Finds the route of a request.
//!
//! The most specific match wins, whatever the order in the file: an exact host
//! before a wildcard (the longer suffix first) before any; then an exact path
//! before prefixes and patterns, of which the one with more literal characters
//! wins; then a route that names methods; then the one with more header
//! conditions, then with more query conditions; then the name that sorts
//! first. Two routes that differ in nothing but their name therefore never
//! swap. Exact and prefix paths are found by hashing, so a look-up does not
//! slow down with the number of routes; only patterns are tried in turn.

use std::collections::HashMap;

use http::{HeaderMap, Method};

use crate::config::{self, PathMatch, ValueMatch};

#[cfg(test)]
mod tests;

/// What of a request decides its route.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Index of the listener in the configuration; `None` matches only routes
    /// for all listeners.
    pub listener: Option<usize>,
    /// Host without port, as it came.
    pub host: &'a str,
    /// Path without query, as it came.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// All routes, ready to be searched.
#[derive(Debug, Default)]
pub struct Table {
    conditions: Vec<Conditions>,
    exact_hosts: HashMap<Box<str>, Paths>,
    /// `.example.com`, the longest first.
    wild_hosts: Vec<(Box<str>, Paths)>,
    any_host: Paths,
}

/// Routes of one host. Values are indices into [`Table::conditions`], best first.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Vec<u32>>,
    prefix: HashMap<Box<str>, Vec<u32>>,
    /// Whether a prefix of so many segments exists, so that most are never hashed.
    prefix_depths: u64,
    patterns: Vec<u32>,
}

#[derive(Debug)]
struct Conditions {
    /// Index in the configuration.
    route: usize,
    listeners: Option<Vec<usize>>,
    methods: Vec<Method>,
    headers: Vec<(http::HeaderName, ValueMatch)>,
    query: Vec<(String, ValueMatch)>,
    pattern: Option<Vec<Box<str>>>,
}

impl Table {
    /// Compiles `routes`, which must have been validated.
    #[must_use]
    pub fn new(routes: &[config::Route], listeners: &[config::Listener]) -> Self {
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by(|a, b| rank(&routes[*a]).cmp(&rank(&routes[*b])));
        let mut table = Self::default();
        let mut wild: HashMap<Box<str>, Paths> = HashMap::new();
        for index in order {
            let matches = &routes[index].matches;
            let id = table.conditions.len() as u32;
            table.conditions.push(Conditions::new(index, matches, listeners));
            if matches.hosts.is_empty() {
                table.any_host.add(&matches.path, id);
            }
            for host in &matches.hosts {
                let host = host.to_ascii_lowercase();
                match host.strip_prefix('*') {
                    Some(suffix) => wild.entry(suffix.into()).or_default(),
                    None => table.exact_hosts.entry(host.into()).or_default(),
                }
                .add(&matches.path, id);
            }
        }
        table.wild_hosts = wild.into_iter().collect();
        table.wild_hosts.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        table
    }

    /// The index, in the configuration, of the route for `asked`.
    #[must_use]
    pub fn find(&self, asked: &Asked<'_>) -> Option<usize> {
        if !self.exact_hosts.is_empty() || !self.wild_hosts.is_empty() {
            let mut buffer = [0; 255];
            if let Some(host) = lowercase(asked.host, &mut buffer) {
                let exact = self.exact_hosts.get(host).and_then(|paths| self.search(paths, asked));
                if exact.is_some() {
                    return exact;
                }
                for (suffix, paths) in &self.wild_hosts {
                    if host.len() > suffix.len()
                        && host.ends_with(&**suffix)
                        && let Some(found) = self.search(paths, asked)
                    {
                        return Some(found);
                    }
                }
            }
        }
        self.search(&self.any_host, asked)
    }

    fn search(&self, paths: &Paths, asked: &Asked<'_>) -> Option<usize> {
        let holds =
            |ids: &[u32]| ids.iter().copied().find(|id| self.conditions[*id as usize].hold(asked));
        if let Some(id) = paths.exact.get(asked.path).and_then(|ids| holds(ids)) {
            return Some(self.conditions[id as usize].route);
        }
        let prefix = paths.longest_prefix(asked.path, holds);
        let pattern = holds(&paths.patterns);
        let best = match (prefix, pattern) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        best.map(|id| self.conditions[id as usize].route)
    }
}

impl Paths {
    fn add(&mut self, path: &PathMatch, id: u32) {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.as_str().into()).or_default().push(id),
            PathMatch::Any => self.add_prefix("", id),
            PathMatch::Prefix(path) => self.add_prefix(path.trim_end_matches('/'), id),
            PathMatch::Pattern(_) => self.patterns.push(id),
        }
    }

    fn add_prefix(&mut self, prefix: &str, id: u32) {
        self.prefix_depths |= 1 << depth(prefix).min(63);
        self.prefix.entry(prefix.into()).or_default().push(id);
    }

    fn longest_prefix(&self, path: &str, holds: impl Fn(&[u32]) -> Option<u32>) -> Option<u32> {
        if self.prefix.is_empty() {
            return None;
        }
        let mut end = path.len();
        let mut segments = depth(path);
        loop {
            if self.prefix_depths & (1 << segments.min(63)) != 0
                && let Some(ids) = self.prefix.get(&path[..end])
                && let Some(id) = holds(ids)
            {
                return Some(id);
            }
            end = memchr::memrchr(b'/', &path.as_bytes()[..end])?;
            segments -= 1;
        }
    }
}

/// Number of slashes.
fn depth(path: &str) -> usize {
    memchr::memchr_iter(b'/', path.as_bytes()).count()
}

impl Conditions {
    fn new(route: usize, matches: &config::Match, listeners: &[config::Listener]) -> Self {
        let named = |name: &String| listeners.iter().position(|listener| listener.name == *name);
        Self {
            route,
            listeners: (!matches.listeners.is_empty())
                .then(|| matches.listeners.iter().filter_map(named).collect()),
            methods: matches.methods.clone(),
            headers: matches.headers.clone(),
            query: matches.query.clone(),
            pattern: match &matches.path {
                PathMatch::Pattern(pattern) => Some(pattern.split('/').map(Into::into).collect()),
                PathMatch::Any | PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            },
        }
    }

    fn hold(&self, asked: &Asked<'_>) -> bool {
        let listener = |named: &Vec<usize>| asked.listener.is_some_and(|at| named.contains(&at));
        self.listeners.as_ref().is_none_or(listener)
            && (self.methods.is_empty() || self.methods.contains(asked.method))
            && self.headers.iter().all(|(name, value)| {
                asked.headers.get_all(name).iter().any(|found| value.holds(found.as_bytes()))
            })
            && self.query.iter().all(|(name, value)| {
                pairs(asked.query).any(|(key, found)| key == name && value.holds(found.as_bytes()))
            })
            && self.pattern.as_ref().is_none_or(|pattern| fits(pattern, asked.path))
    }
}

impl ValueMatch {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => value == exact.as_bytes(),
            Self::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
        }
    }
}

/// Smaller is more specific.
fn rank(route: &config::Route) -> impl Ord {
    let matches = &route.matches;
    let (kind, literal) = match &matches.path {
        PathMatch::Exact(path) => (0, path.len()),
        PathMatch::Prefix(path) => (1, path.trim_end_matches('/').len()),
        PathMatch::Pattern(path) => (1, path.bytes().filter(|b| *b != b'*').count()),
        PathMatch::Any => (1, 0),
    };
    (
        kind,
        usize::MAX - literal,
        matches.methods.is_empty(),
        usize::MAX - matches.headers.len(),
        usize::MAX - matches.query.len(),
        matches.listeners.is_empty(),
        route.name.clone(),
    )
}

fn fits(pattern: &[Box<str>], path: &str) -> bool {
    let mut segments = path.split('/');
    for part in pattern {
        match (&**part, segments.next()) {
            ("**", _) => return true,
            ("*", Some(segment)) if !segment.is_empty() => {}
            (literal, Some(segment)) if literal == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn lowercase<'a>(host: &str, buffer: &'a mut [u8; 255]) -> Option<&'a str> {
    let room = buffer.get_mut(..host.len())?;
    room.copy_from_slice(host.as_bytes());
    room.make_ascii_lowercase();
    std::str::from_utf8(room).ok()
}
