//! What is counted of topics and groups, and how it is written for Prometheus.
//!
//! Where a topic or a group stands is read from the store at the scrape; what
//! passes through is counted in memory since the process started. At most
//! [`SERIES_MAX`] topics and as many groups have series; how many are left off
//! is a metric itself.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::RwLock;

use crate::{doctor::Snapshot, group, topic};

/// Topics that have series, and groups.
pub(crate) const SERIES_MAX: usize = 1000;

/// Upper bounds of the buckets of publish latency, in microseconds.
const BOUNDS_US: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000];

/// What passed through a topic.
#[derive(Debug, Default)]
pub(crate) struct TopicCounts {
    published: AtomicU64,
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl TopicCounts {
    pub(crate) fn published(&self, messages: u64, took: Duration) {
        self.published.fetch_add(messages, Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }
}

/// What passed through a group, and who asked it for messages.
#[derive(Debug, Default)]
pub(crate) struct GroupCounts {
    pub(crate) deliveries: AtomicU64,
    pub(crate) redeliveries: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) waiting: AtomicU64,
    /// Microseconds since the epoch, 0 for never.
    pub(crate) asked: AtomicU64,
}

/// Counters by name.
#[derive(Debug)]
pub(crate) struct Series<K, T>(RwLock<HashMap<K, Arc<T>>>);

impl<K, T> Default for Series<K, T> {
    fn default() -> Self {
        Self(RwLock::new(HashMap::new()))
    }
}

impl<K: std::hash::Hash + Eq, T: Default> Series<K, T> {
    /// The counters of `name`; none if there are too many already.
    pub(crate) fn of(&self, name: K) -> Option<Arc<T>> {
        if let Some(found) = self.0.read().get(&name) {
            return Some(Arc::clone(found));
        }
        let mut all = self.0.write();
        if all.len() >= SERIES_MAX && !all.contains_key(&name) {
            return None;
        }
        Some(Arc::clone(all.entry(name).or_default()))
    }

    pub(crate) fn get(&self, name: &K) -> Option<Arc<T>> {
        self.0.read().get(name).cloned()
    }
}

/// Everything that is counted while an engine is observed.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) topics: Series<String, TopicCounts>,
    pub(crate) groups: Series<(String, String), GroupCounts>,
}

/// Writes the metrics of a store.
pub(crate) fn write(out: &mut String, snapshot: &Snapshot, counts: &Counts) {
    let writable = u64::from(snapshot.trouble.is_none());
    gauge(out, "selvedge_store_writable", "1 while writes to the store succeed.", writable);
    let queued = snapshot.queue.0 as u64;
    gauge(out, "selvedge_store_queue", "Requests that wait for the writer.", queued);
    gauge(out, "selvedge_store_log_bytes", "Size of the write-ahead log.", snapshot.log.0);
    if let Some(free) = snapshot.disk_free {
        gauge(out, "selvedge_store_disk_free_bytes", "Free on the disk of the store.", free);
    }
    commits(out, snapshot);
    let left_off = snapshot.topics.len().saturating_sub(SERIES_MAX)
        + snapshot.groups.len().saturating_sub(SERIES_MAX);
    gauge(
        out,
        "selvedge_store_series_left_off",
        "Topics and groups that are too many to have series.",
        left_off as u64,
    );
    let oldest = |status: &group::Status| {
        status.oldest.map_or(0.0, |oldest| snapshot.now.since(oldest).as_secs_f64())
    };
    topics(out, snapshot, counts);
    groups(out, snapshot, counts, &oldest);
}

fn commits(out: &mut String, snapshot: &Snapshot) {
    let vitals = &snapshot.vitals;
    let name = "selvedge_store_commit_requests";
    head(out, name, "histogram", "Requests that a commit carries.");
    let mut total = 0;
    for (bound, count) in &vitals.batches.buckets {
        total += count;
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
        let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(out, "{name}_sum {}\n{name}_count {total}", vitals.batches.sum);
    let name = "selvedge_store_sync_failures_total";
    head(out, name, "counter", "Times that the disk failed to keep what was written.");
    let _ = writeln!(out, "{name} {}", vitals.sync_failures);
    let name = "selvedge_store_commit_age_seconds";
    head(out, name, "gauge", "Since a commit last succeeded.");
    let age = snapshot.now.since(vitals.committed).as_secs_f64();
    let _ = writeln!(out, "{name} {age}");
}

fn topics(out: &mut String, snapshot: &Snapshot, counts: &Counts) {
    let topics = &snapshot.topics[..snapshot.topics.len().min(SERIES_MAX)];
    let mut family = |name: &str, kind: &str, help: &str, of: &dyn Fn(&topic::Topic) -> u64| {
        head(out, name, kind, help);
        for topic in topics {
            let _ = writeln!(out, "{name}{{topic=\"{}\"}} {}", topic.name, of(topic));
        }
    };
    family("selvedge_topic_messages", "gauge", "Positions that are kept.", &|it| {
        it.next.saturating_sub(it.first)
    });
    family("selvedge_topic_bytes", "gauge", "Payloads, headers and keys that are kept.", &|it| {
        it.bytes
    });
    family("selvedge_topic_delayed", "gauge", "Messages that wait for their time.", &|it| {
        it.delayed
    });
    let count = |it: &topic::Topic| counts.topics.get(&it.name);
    family("selvedge_topic_published_total", "counter", "Messages published.", &|it| {
        count(it).map_or(0, |it| it.published.load(Relaxed))
    });
    let name = "selvedge_topic_publish_seconds";
    head(out, name, "histogram", "From a publish to its acknowledgement.");
    for topic in topics {
        let Some(counts) = count(topic) else { continue };
        let mut total = 0;
        for (at, bucket) in counts.buckets.iter().enumerate() {
            total += bucket.load(Relaxed);
            let bound = BOUNDS_US
                .get(at)
                .map_or_else(|| "+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
            let _ =
                writeln!(out, "{name}_bucket{{topic=\"{}\",le=\"{bound}\"}} {total}", topic.name);
        }
        let sum = counts.sum_us.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum{{topic=\"{}\"}} {sum}", topic.name);
        let _ = writeln!(out, "{name}_count{{topic=\"{}\"}} {total}", topic.name);
    }
}

fn groups(
    out: &mut String,
    snapshot: &Snapshot,
    counts: &Counts,
    oldest: &dyn Fn(&group::Status) -> f64,
) {
    let groups = &snapshot.groups[..snapshot.groups.len().min(SERIES_MAX)];
    let mut family = |name: &str, kind: &str, help: &str, of: &dyn Fn(&group::Status) -> f64| {
        head(out, name, kind, help);
        for it in groups {
            let (topic, group) = (&it.status.topic, &it.status.group);
            let value = of(&it.status);
            let _ = writeln!(out, "{name}{{topic=\"{topic}\",group=\"{group}\"}} {value}");
        }
    };
    family("selvedge_group_lag", "gauge", "Messages that nobody has settled.", &|it| it.lag as f64);
    family(
        "selvedge_group_oldest_seconds",
        "gauge",
        "Age of the oldest message that nobody has settled.",
        oldest,
    );
    family("selvedge_group_in_flight", "gauge", "Messages in the hands of consumers.", &|it| {
        it.in_flight as f64
    });
    family(
        "selvedge_group_delayed",
        "gauge",
        "Messages that wait for a retry or for their key.",
        &|it| it.waiting as f64,
    );
    family("selvedge_group_dead_letters", "gauge", "Messages given up.", &|it| it.dead as f64);
    family("selvedge_group_paused", "gauge", "1 while it stands still.", &|it| {
        f64::from(u8::from(it.paused))
    });
    family(
        "selvedge_group_throttled",
        "gauge",
        "1 while its rate lets no message through.",
        &|it| f64::from(u8::from(it.throttled.is_some())),
    );
    family(
        "selvedge_group_active_token",
        "gauge",
        "Token of the active consumer of an exclusive group, 0 if there is none: a change is a takeover.",
        &|it| it.active.as_ref().map_or(0.0, |active| active.token as f64),
    );
    family(
        "selvedge_group_dead_letters_full",
        "gauge",
        "1 while it holds, having as many dead letters as it keeps.",
        &|it| f64::from(u8::from(it.config.letters.hold(it.dead))),
    );
    family(
        "selvedge_group_dead_letters_dropped_total",
        "counter",
        "Dead letters dropped by number or age since the group was made.",
        &|it| it.dropped as f64,
    );
    type Counter = fn(&GroupCounts) -> &AtomicU64;
    let counted: [(&str, &str, &str, Counter); 5] = [
        (
            "selvedge_group_waiting",
            "gauge",
            "Consumers that wait for a message at this moment.",
            |it| &it.waiting,
        ),
        ("selvedge_group_deliveries_total", "counter", "Messages handed out.", |it| &it.deliveries),
        ("selvedge_group_redeliveries_total", "counter", "Of these, handed out before.", |it| {
            &it.redeliveries
        }),
        ("selvedge_group_acknowledged_total", "counter", "Deliveries that were done.", |it| {
            &it.acked
        }),
        (
            "selvedge_group_failed_total",
            "counter",
            "Deliveries that were given back or given up.",
            |it| &it.failed,
        ),
    ];
    for (name, kind, help, counter) in counted {
        family(name, kind, help, &|it| {
            let counts = counts.groups.get(&(it.topic.clone(), it.group.clone()));
            counts.map_or(0.0, |counts| counter(&counts).load(Relaxed) as f64)
        });
    }
}

/// Writes one number.
pub(crate) fn gauge(out: &mut String, name: &str, help: &str, value: u64) {
    head(out, name, "gauge", help);
    let _ = writeln!(out, "{name} {value}");
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
