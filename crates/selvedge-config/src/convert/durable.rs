//! From the file's words to what a store is opened with and must hold.

use std::{path::Path, sync::Arc, time::Duration};

use selvedge_durable::{
    group::{Config as GroupConfig, Full, Letters, PutGroup},
    schedule::{Missed, Overlap, PutSchedule},
    schema::{Compatibility, Schema},
    topic::{NewMessage, PutTopic, Settings},
};
use selvedge_patterns::{
    collect::Rule, config::ConfigError, filter::Wildcard, limit, schedule::Recurrence,
};

use super::{Convert, bytes};
use crate::{
    diagnostic::{Code, Diagnostic},
    load::{AppApi, Durable, Push},
    read::{Set, Text, list},
    schema,
    source::Span,
    suggest::nearest,
};

/// What the engine calls a key → what the file calls it.
const NAMES: &[(&str, &str)] = &[
    ("retention_age", "age"),
    ("retention_bytes", "size"),
    ("exclusive", "ttl"),
    ("dedupe_window", "window"),
    ("dedupe_max", "max"),
    ("dead_letters_max", "max"),
    ("dead_letters_age", "age"),
    ("retry_base", "base"),
    ("retry_cap", "cap"),
    ("cache_bytes", "cache"),
    ("checkpoint_bytes", "checkpoint"),
];

/// The longest that a pushed message may wait for its answer: it is leased meanwhile.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Whether a text is a secret as Standard Webhooks has them.
fn is_signing_secret(text: &str) -> bool {
    let Some(key) = text.strip_prefix("whsec_") else { return false };
    let key = key.trim_end_matches('=');
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
    (24..=64).contains(&(key.len() * 3 / 4)) && key.len() % 4 != 1 && key.bytes().all(known)
}

fn schema_of(it: &schema::TopicSchema) -> Result<Schema, selvedge_durable::Error> {
    let compatibility = match *it.compatibility {
        schema::Compatibility::None => Compatibility::None,
        schema::Compatibility::Backward => Compatibility::Backward,
        schema::Compatibility::Forward => Compatibility::Forward,
        schema::Compatibility::Full => Compatibility::Full,
    };
    Schema::parse(&it.document.0, compatibility)
}

/// What a topic takes of others.
fn rule(it: &schema::Collect) -> Rule {
    Rule { from: (*it.from).clone(), filter: (*it.wanted).clone() }
}

impl Convert<'_> {
    /// The store and what the file declares in it; paths begin at `folder`.
    pub(super) fn durable(&mut self, folder: &Path) -> Option<Durable> {
        let file = self.file;
        let topics = file.topics.iter().map(|(name, it)| self.topic(name, it)).collect();
        let (mut groups, mut pushes) = (Vec::new(), Vec::new());
        for (name, it) in file.subscriptions.iter() {
            let group = self.subscription(name, it);
            self.one_at_a_time(it);
            pushes.extend(it.push.as_ref().map(|push| self.push(push, &group)));
            groups.push(group);
        }
        self.groups_differ();
        let schedules = file.schedules.iter().map(|(name, it)| self.schedule(name, it)).collect();
        let Some(it) = file.durable.as_ref() else {
            self.needs_a_store();
            return None;
        };
        let place = match (it.path.as_ref(), it.postgres.as_ref()) {
            (Some(path), None) if !path.as_str().is_empty() => {
                selvedge_durable::Config::new(folder.join(path.as_str()))
            }
            (None, Some(url)) => {
                let config = selvedge_durable::Config::postgres(url.expose());
                if let Err(selvedge_durable::Error::Open { problem, .. }) = config.unencrypted() {
                    let help = "it looks like `postgres://user:password@host/database?sslmode=verify-full`";
                    self.wrong(it.postgres.span(), problem, help);
                }
                config
            }
            (Some(_), Some(_)) => {
                let both = "a store is a file or in a database, not both".to_owned();
                self.wrong(it.postgres.span(), both, "leave `path` or `postgres` out");
                selvedge_durable::Config::new(folder)
            }
            _ => {
                let none = "the store has no place to be in".to_owned();
                let help = "write `path: selvedge.db`, or `postgres: ${DATABASE_URL}`";
                self.wrong(it.path.span(), none, help);
                selvedge_durable::Config::new(folder)
            }
        };
        let store = selvedge_durable::Config {
            readers: *it.readers,
            queue_max: *it.queue_max,
            batch_max: *it.batch_max,
            waiting_max: *it.waiting_max,
            payload_max: bytes(*it.payload_max),
            headers_max: bytes(*it.headers_max),
            items_max: *it.items_max,
            filter_scan_max: *it.filter_scan_max,
            filter_payload_max: bytes(*it.filter_payload_max),
            collectors_max: *it.collectors_max,
            cache_bytes: bytes(*it.cache),
            checkpoint_bytes: it.checkpoint.0,
            recover_every: *it.recover_every,
            schema: it.schema.as_str().to_owned(),
            ..place
        };
        self.sound(store.validate(), |key| it.span_of(key).unwrap_or_else(|| it.path.span()));
        Some(Durable { store, topics, groups, schedules, pushes })
    }

    pub(super) fn api(&mut self) -> Option<AppApi> {
        let it = self.file.api.as_ref()?;
        let token = it.token.as_ref().map(|token| token.expose().to_owned());
        if token.as_ref().is_some_and(|token| token.len() < 16) {
            self.wrong(
                it.token.span(),
                "`token` is shorter than 16 characters".to_owned(),
                "make one with `openssl rand -hex 24` and take it from `${…}`",
            );
        }
        if *it.connections_max == 0 {
            let span = it.connections_max.span();
            self.wrong(span, "`connections_max` must be at least 1".to_owned(), "");
        }
        Some(AppApi {
            bind: *it.bind,
            token,
            hosts: it.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
            connections_max: *it.connections_max,
            body_max: bytes(*it.body_max),
        })
    }

    /// What only a store can hold stands in a file without one.
    fn needs_a_store(&mut self) {
        let file = self.file;
        let first = |what: &'static str, span: Span, empty: bool| (!empty).then_some((what, span));
        let found = [
            first("topics", file.topics.span(), file.topics.is_empty()),
            first("subscriptions", file.subscriptions.span(), file.subscriptions.is_empty()),
            first("schedules", file.schedules.span(), file.schedules.is_empty()),
        ];
        if let Some((what, span)) = found.into_iter().flatten().next() {
            self.problems.push(
                Diagnostic::error(Code::MISSING_KEY, format!("`{what}` need a store to be in"))
                    .at(span, "`durable` is missing")
                    .help("add `durable: selvedge.db`, the file that everything is kept in"),
            );
        } else if let Some(api) = file.api.as_ref().filter(|_| file.api.given()) {
            self.problems.push(
                Diagnostic::error(Code::MISSING_KEY, "the app API needs a store to speak for")
                    .at(api.bind.span(), "`durable` is missing")
                    .help("add `durable: selvedge.db`, the file that everything is kept in"),
            );
        }
    }

    /// The rule that is broken, where the key is written and as the file calls it.
    fn sound(&mut self, checked: Result<(), ConfigError>, span: impl Fn(&str) -> Span) {
        if let Err(error) = checked {
            let key = NAMES.iter().find(|(theirs, _)| *theirs == error.key);
            let key = key.map_or(error.key, |(_, ours)| ours);
            self.wrong(span(key), format!("`{key}` {}", error.problem), "");
        }
    }

    fn name(&mut self, what: &str, name: &str, span: Span) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if name.is_empty() || name.len() > 200 || !name.chars().all(plain) {
            self.wrong(
                span,
                format!("`{}` cannot be the name of {what}", crate::tree::shorten(name)),
                "a name has 1 to 200 letters, digits, `.`, `_`, `-` and `/`",
            );
        }
    }

    fn known_topic(&mut self, topic: &Set<Text>) {
        let names = self.file.topics.names();
        if names.contains(&topic.as_str()) {
            return;
        }
        if Wildcard::is_meant(topic.as_str()) {
            let pattern = crate::tree::shorten(topic.as_str());
            let message = format!("a group reads one topic, and `{pattern}` names several");
            let help = format!(
                "let a topic collect them, `topics: {{ everything: {{ collect: \"{pattern}\" }} }}`, \
                 and take `everything` here"
            );
            let diagnostic = Diagnostic::error(Code::UNKNOWN_NAME, message).at(topic.span(), "");
            self.problems.push(diagnostic.help(help));
            return;
        }
        let message = format!("there is no topic `{}`", crate::tree::shorten(topic.as_str()));
        let diagnostic = Diagnostic::error(Code::UNKNOWN_NAME, message).at(topic.span(), "");
        let diagnostic = match names.len() {
            0 => diagnostic.note("no topic is declared"),
            1..=12 => diagnostic.note(format!("declared: {}", list(&names))),
            many => diagnostic.note(format!("{many} are declared")),
        };
        let help = match nearest(topic.as_str(), names.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("add `topics: {{ {}: on }}`", topic.as_str()),
        };
        self.problems.push(diagnostic.help(help));
    }

    fn topic(&mut self, name: &Set<String>, it: &schema::Topic) -> PutTopic {
        self.name("a topic", name, name.span());
        let default = Settings::default();
        let retention = it.retention.as_ref();
        let settings = Settings {
            retention_age: retention.and_then(|it| *it.age),
            retention_bytes: retention.and_then(|it| it.size.map(|size| size.0)),
            retain_unconsumed: retention.is_some_and(|it| *it.unconsumed),
            compact: it.compact.is_some(),
            compact_lag: it.compact.as_ref().map_or(default.compact_lag, |it| *it.lag),
            tombstone_for: it
                .compact
                .as_ref()
                .map_or(default.tombstone_for, |it| *it.tombstone_for),
            priorities: it.priorities.is_some(),
            ageing: it.priorities.as_ref().map_or(default.ageing, |it| *it.ageing),
            dedupe_window: *it.dedupe.window,
            dedupe_max: it.dedupe.max.map(u64::from),
            relaxed: *it.durability == schema::Durability::Relaxed,
            collect: it.collect.iter().map(rule).collect(),
            // Read before, so it can be read again.
            schema: it.schema.as_ref().and_then(|it| schema_of(it).ok()).map(Arc::new),
        };
        self.sound(settings.validate(), |key| match (key, retention, it.priorities.as_ref()) {
            ("age", Some(retention), _) => retention.age.span(),
            ("size", Some(retention), _) => retention.size.span(),
            ("window", ..) => it.dedupe.window.span(),
            ("max", ..) => it.dedupe.max.span(),
            ("ageing", _, Some(priorities)) => priorities.ageing.span(),
            (key, ..) => it.span_of(key).unwrap_or_else(|| name.span()),
        });
        PutTopic { name: name.to_string(), settings }
    }

    fn subscription(&mut self, name: &Set<String>, it: &schema::Subscription) -> PutGroup {
        self.known_topic(&it.topic);
        let group = it.group.as_ref().map_or_else(|| name.to_string(), |it| it.as_str().to_owned());
        let span = if it.group.is_some() { it.group.span() } else { name.span() };
        self.name("a group", &group, span);
        let config = GroupConfig {
            lease: *it.lease,
            attempts: *it.retry.attempts,
            ordered: *it.ordered,
            in_flight_max: *it.in_flight_max,
            exceptions_max: *it.exceptions_max,
            retry_base: *it.retry.base,
            retry_cap: *it.retry.cap,
            letters: Letters {
                max: it.dead_letters.max.map(u64::from),
                full: match *it.dead_letters.full {
                    schema::WhenFull::Hold => Full::Hold,
                    schema::WhenFull::DropOldest => Full::DropOldest,
                },
                age: *it.dead_letters.age,
            },
            exclusive: it.exclusive.as_ref().map(|it| *it.ttl),
            rate: it.rate.as_ref().map(|it| limit::Config {
                rate: limit::Rate { count: it.rate.count, per: it.rate.per },
                burst: it.burst.unwrap_or(it.rate.count),
                ..limit::Config::default()
            }),
            filter: (*it.filter).clone(),
        };
        self.sound(config.validate(), |key| {
            if let (Some(exclusive), "ttl") = (it.exclusive.as_ref(), key) {
                return exclusive.ttl.span();
            }
            if let Some(span) = it.dead_letters.span_of(key) {
                return span;
            }
            let rate = it.rate.as_ref().and_then(|rate| rate.span_of(key));
            rate.or_else(|| it.retry.span_of(key))
                .or_else(|| it.span_of(key))
                .unwrap_or_else(|| name.span())
        });
        PutGroup { topic: it.topic.as_str().to_owned(), group, config, from: it.from.0 }
    }

    /// What only one order can keep.
    fn one_at_a_time(&mut self, it: &schema::Subscription) {
        if it.exclusive.is_none() {
            return;
        }
        if let Some(push) = it.push.as_ref().filter(|push| *push.concurrency > 1) {
            let problem = "`concurrency` above 1 does not go with `exclusive`".to_owned();
            let help = "leave it out: an exclusive group is pushed one message at a time";
            self.wrong(push.concurrency.span(), problem, help);
        }
        let topic = self.file.topics.get(it.topic.as_str());
        if topic.is_some_and(|topic| topic.priorities.is_some()) {
            let problem = "`exclusive` does not go with a topic that has `priorities`".to_owned();
            self.wrong(
                it.exclusive.span(),
                problem,
                "it keeps the order of the topic: take one out",
            );
        }
    }

    fn push(&mut self, it: &schema::Push, group: &PutGroup) -> Push {
        self.known_service(&it.to, it.to.span());
        let path = it.path.as_str();
        let target = path.parse::<http::uri::PathAndQuery>();
        if !path.starts_with('/') || target.is_err() {
            let problem = "`path` is no path".to_owned();
            self.wrong(it.path.span(), problem, "write one such as `/hooks/orders`");
        }
        if !it.secrets.iter().all(|secret| is_signing_secret(secret.expose())) {
            self.wrong(
                it.secrets.span(),
                "a secret is not `whsec_` and base64 of 24 to 64 bytes".to_owned(),
                "make one with `echo whsec_$(openssl rand -base64 32)` and take it from `${…}`",
            );
        }
        if !(1..=10_000).contains(&*it.concurrency) {
            let problem = "`concurrency` must be between 1 and 10,000".to_owned();
            self.wrong(it.concurrency.span(), problem, "");
        }
        if it.timeout.is_zero() || *it.timeout > TIMEOUT_MAX {
            let problem = "`timeout` must be longer than zero and at most 1 h".to_owned();
            self.wrong(it.timeout.span(), problem, "");
        }
        Push {
            topic: group.topic.clone(),
            group: group.group.clone(),
            service: it.to.as_str().to_owned(),
            path: path.to_owned(),
            structured: *it.mode == schema::PushMode::Structured,
            secrets: it.secrets.iter().map(|secret| secret.expose().to_owned()).collect(),
            concurrency: *it.concurrency as usize,
            timeout: *it.timeout,
        }
    }

    /// Two subscriptions must not mean the same group of the same topic.
    fn groups_differ(&mut self) {
        let file = self.file;
        let identity = |name: &Set<String>, it: &schema::Subscription| {
            let group = it.group.as_ref().map_or(name.as_str(), Text::as_str).to_owned();
            (it.topic.as_str().to_owned(), group)
        };
        let mut seen: Vec<((String, String), Span)> = Vec::new();
        for (name, it) in file.subscriptions.iter() {
            let own = identity(name, it);
            match seen.iter().find(|(other, _)| *other == own) {
                Some((_, first)) => {
                    let message = format!("two subscriptions are group `{}` of `{}`", own.1, own.0);
                    self.problems.push(
                        Diagnostic::error(Code::CONFLICT, message)
                            .at(name.span(), "again here")
                            .and(*first, "first here")
                            .help("give one of them another `group`"),
                    );
                }
                None => seen.push((own, name.span())),
            }
        }
    }

    fn schedule(&mut self, name: &Set<String>, it: &schema::Schedule) -> PutSchedule {
        self.name("a schedule", name, name.span());
        self.known_topic(&it.topic);
        if let Err(error) = Recurrence::parse(it.spec.as_str()) {
            let help = "write five cron fields such as `0 3 * * *`, or `@every 90s`";
            self.wrong(it.spec.span(), error.to_string(), help);
        }
        if jiff::tz::TimeZone::get(it.zone.as_str()).is_err() {
            let zone = crate::tree::shorten(it.zone.as_str());
            let help = "write a name such as `Europe/Lisbon` or `UTC`";
            self.wrong(it.zone.span(), format!("there is no time zone `{zone}`"), help);
        }
        let overlap = match *it.overlap {
            schema::Overlap::Skip => Overlap::Skip,
            schema::Overlap::Queue => Overlap::Queue,
            schema::Overlap::Allow => Overlap::Allow,
        };
        if overlap == Overlap::Queue && it.key.is_some() {
            let help =
                "take one of them out: runs that queue have the schedule's name as their key";
            self.wrong(it.key.span(), "`key` does not go with `overlap: queue`".to_owned(), help);
        }
        let headers = it.headers.iter();
        let message = NewMessage {
            key: it.key.as_ref().map(|key| key.as_str().to_owned()),
            headers: headers
                .map(|(name, text)| (name.to_ascii_lowercase(), text.as_str().to_owned()))
                .collect(),
            payload: Some(it.data.as_str().to_owned().into()),
            ..NewMessage::default()
        };
        PutSchedule {
            name: name.to_string(),
            spec: it.spec.as_str().to_owned(),
            zone: it.zone.as_str().to_owned(),
            overlap,
            missed: match *it.missed {
                schema::Missed::Skip => Missed::Skip,
                schema::Missed::Once(grace) => Missed::Once { grace },
                schema::Missed::All(limit) => Missed::All { limit },
            },
            topic: it.topic.as_str().to_owned(),
            message,
        }
    }
}
