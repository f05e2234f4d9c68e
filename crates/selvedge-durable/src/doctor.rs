//! What is stuck, how old it is, why, and what to do about it.
//!
//! [`examine`] decides, by a snapshot of the store and nothing else; where the
//! snapshot comes from is its caller's business. A thing that is stuck and says
//! nothing is the worst that a queue can do, so whatever waits is named with
//! its age, and each finding ends with something to do.

use std::time::Duration;

use selvedge_patterns::wall::Wall;

use crate::{Error, group, lease, observed::Consumers, schedule, topic, vitals};

/// A message that nobody settles for so long, though nobody asks for it, is stuck.
pub const UNATTENDED: Duration = Duration::from_secs(60);
/// A group whose oldest message is older falls behind, though it has consumers.
pub const BEHIND: Duration = Duration::from_secs(600);
/// A schedule that should have run so long ago was missed.
pub const MISSED: Duration = Duration::from_secs(60);
/// Deliveries of one message after which it is probably the message's fault.
pub const SUSPICIOUS: u32 = 3;
/// A store that has committed nothing for so long has stopped: it commits every minute.
pub const COMMITS_STOPPED: Duration = Duration::from_secs(180);
/// A lease that one holder has kept for so long is pointed out.
pub const LEASED: Duration = Duration::from_secs(86_400);
/// Share of a bound (queue, retention) at which it is pointed out.
const NEARLY: f64 = 0.8;
/// Checkpoint sizes that the write-ahead log may have before something holds it up.
const LOG_TIMES: u64 = 4;
/// Free space below which the disk is nearly full, and below which it is full
/// for all purposes.
const DISK_LOW: u64 = 1 << 30;
const DISK_OUT: u64 = 64 << 20;

/// A transaction that is open so long keeps others from being swept up.
pub const HELD: Duration = Duration::from_secs(300);
/// Dead rows below which a table is not worth a word.
const DEAD_MIN: u64 = 100_000;
/// A row of the inbox that waits so long shows that it is not drained.
pub const INBOX_LATE: Duration = Duration::from_secs(60);

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing moves any more until somebody does something.
    Stuck,
    /// It goes on, and somebody should look at it.
    Attention,
}

impl Weight {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stuck => "stuck",
            Self::Attention => "attention",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// Its kind, stable: `unattended`, `dead_letters`, `disk`, …
    pub kind: &'static str,
    /// What it is about: `group billing of orders`.
    pub subject: String,
    /// What is the matter, with numbers.
    pub what: String,
    /// For how long, if that is known.
    pub age: Option<Duration>,
    /// Why it is so.
    pub why: String,
    /// What to do.
    pub todo: String,
}

/// The store at one moment, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The moment.
    pub now: Wall,
    /// Every topic.
    pub topics: Vec<topic::Topic>,
    /// Every group.
    pub groups: Vec<Group>,
    /// Leases that one holder has kept for at least [`LEASED`], by resource: the first of them.
    pub leases: Vec<(String, lease::Holder)>,
    /// Every schedule.
    pub schedules: Vec<schedule::Schedule>,
    /// Since when consumers are counted: before that, nothing is known of them.
    pub watched_since: Wall,
    /// Why the last write failed.
    pub trouble: Option<Error>,
    /// How its commits go, if that is known.
    pub vitals: vitals::View,
    /// Requests that wait for the writer, and how many may.
    pub queue: (usize, usize),
    /// Bytes of the write-ahead log, and the size at which a checkpoint starts.
    pub log: (u64, u64),
    /// Bytes free on the store's disk, if that can be known.
    pub disk_free: Option<u64>,
    /// How the server fares, of a store in a database.
    pub database: Option<Database>,
}

/// A database server at one moment, as far as the store depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// Whether it syncs at all.
    pub fsync: bool,
    /// Whether a torn page can be mended.
    pub full_page_writes: bool,
    /// Whether it sweeps up after itself.
    pub autovacuum: bool,
    /// The oldest transaction that keeps removed rows from being swept up: whose it
    /// is, and how old.
    pub oldest: Option<(String, Duration)>,
    /// The table with most dead rows, and how many.
    pub dead: (String, u64),
    /// Live rows of all tables.
    pub live: u64,
    /// Rows that wait in the inbox, at most 100,000, and the age of the first.
    pub inbox: (u64, Duration),
    /// Rows of the inbox that could not be published, and the age of the first.
    pub refused: (u64, Duration),
    /// Why the last of them could not.
    pub refused_why: String,
}

/// A group at one moment.
#[derive(Clone, Debug)]
pub struct Group {
    /// Where it stands.
    pub status: group::Status,
    /// Who asked for its messages.
    pub consumers: Consumers,
    /// The first of its dead letters, if it has one.
    pub letter: Option<group::DeadLetter>,
}

/// Everything that is not as it should be, the worst and oldest first.
#[must_use]
pub fn examine(snapshot: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(store(snapshot));
    found.extend(snapshot.database.iter().flat_map(database));
    found.extend(snapshot.groups.iter().flat_map(|it| group(snapshot, it)));
    found.extend(snapshot.topics.iter().filter_map(|it| topic(snapshot.now, it)));
    found.extend(snapshot.leases.iter().filter_map(|(of, it)| held(snapshot.now, of, it)));
    found.extend(snapshot.schedules.iter().filter_map(|it| schedule(snapshot.now, it)));
    found.sort_by(|a, b| (a.weight, b.age).cmp(&(b.weight, a.age)));
    found
}

fn store(snapshot: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |weight, kind, what: String, why: &str, todo: &str| {
        let (subject, why, todo) = ("the store".to_owned(), why.to_owned(), todo.to_owned());
        found.push(Finding { weight, kind, subject, what, age: None, why, todo });
    };
    if let Some(trouble) = &snapshot.trouble {
        let what = format!("writes are refused: {trouble} ({})", trouble.code());
        let todo = match trouble {
            Error::DiskFull => "free space on the disk of the store; writing goes on by itself",
            Error::Unsynced { .. } => {
                "look at the disk (`dmesg`, SMART); writing goes on by itself once it is proven that nothing is lost"
            }
            Error::Corrupt { .. } => "stop it, `selvedge store verify FILE`, and restore a backup",
            Error::Closed => {
                "restart the process: the thread that writes is gone, the log says why"
            }
            _ => "look at the log and at the page of the code; a restart may help",
        };
        say(Weight::Stuck, "writes", what, "the last write failed", todo);
    }
    match snapshot.disk_free {
        Some(free) if free < DISK_OUT => say(
            Weight::Stuck,
            "disk",
            format!("{} MiB are free on its disk", free >> 20),
            "topics, streams or something beside them have filled it",
            "free space, or lower `retention` of the largest topics",
        ),
        Some(free) if free < DISK_LOW => say(
            Weight::Attention,
            "disk",
            format!("{} MiB are free on its disk", free >> 20),
            "topics, streams or something beside them fill it",
            "free space, or lower `retention` of the largest topics",
        ),
        _ => {}
    }
    let syncs = snapshot.vitals.sync_failures;
    if syncs > 0 {
        let times = if syncs == 1 { "once".to_owned() } else { format!("{syncs} times") };
        say(
            Weight::Attention,
            "syncs",
            format!("its disk failed to keep what was written, {times} since the start"),
            "the disk, the connection to it, or a quota; what was acknowledged is kept",
            "look at the disk (`dmesg`, SMART) and have a backup: `selvedge store backup`",
        );
    }
    let since = snapshot.now.since(snapshot.vitals.committed);
    if snapshot.vitals.committed > Wall::ZERO && since >= COMMITS_STOPPED {
        say(
            Weight::Stuck,
            "commits",
            format!("nothing was committed for {}", show(since)),
            "a store that is well commits every minute, if only to look what is due",
            "look at the log; if a write hangs in the disk, nothing but the disk helps",
        );
    }
    let (queued, queue_max) = snapshot.queue;
    if queued as f64 >= queue_max as f64 * NEARLY {
        say(
            Weight::Attention,
            "queue",
            format!("{queued} of {queue_max} requests wait for the writer"),
            "more is written than the disk takes; further requests are refused",
            "batch what is published, or spread it over time; a faster disk helps",
        );
    }
    let (log, checkpoint) = snapshot.log;
    if log > checkpoint.saturating_mul(LOG_TIMES).max(DISK_OUT) {
        say(
            Weight::Attention,
            "log",
            format!("the write-ahead log has {} MiB", log >> 20),
            "it cannot be copied into the file while a long read goes on, or writes never pause",
            "end long reads (a backup, another program that has the file open)",
        );
    }
    found
}

fn database(database: &Database) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |weight, kind, age, what: String, why: &str, todo: &str| {
        let (subject, why, todo) = ("the database".to_owned(), why.to_owned(), todo.to_owned());
        found.push(Finding { weight, kind, subject, what, age, why, todo });
    };
    let Database { inbox, refused, dead, .. } = database;
    if !database.fsync {
        say(
            Weight::Stuck,
            "fsync",
            None,
            "`fsync` is off: a crash of the machine may lose everything".to_owned(),
            "it was changed on the server after the store was opened",
            "`ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()`",
        );
    }
    if !database.full_page_writes {
        say(
            Weight::Attention,
            "full_page_writes",
            None,
            "`full_page_writes` is off: a power cut may damage pages".to_owned(),
            "a page that was half written cannot be mended then",
            "`ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()`, unless the file system never tears a page",
        );
    }
    if !database.autovacuum {
        say(
            Weight::Attention,
            "autovacuum",
            None,
            "`autovacuum` is off: tables grow for ever, though rows leave them".to_owned(),
            "nothing sweeps removed rows up",
            "`ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()`; once: `selvedge store compact`",
        );
    }
    if let Some((who, age)) = &database.oldest
        && *age >= HELD
    {
        say(
            Weight::Attention,
            "transaction",
            Some(*age),
            format!("a transaction of {who} stays open"),
            "what was removed since it began cannot be swept up, so everything grows and slows down",
            "end it (`SELECT pg_terminate_backend(…)`, `ROLLBACK PREPARED …`) and mend who left it open",
        );
    }
    let (table, rows) = dead;
    if *rows >= DEAD_MIN && *rows > database.live {
        say(
            Weight::Attention,
            "dead_rows",
            None,
            format!(
                "table `{table}` has {rows} dead rows, all tables have {} live ones",
                database.live
            ),
            "autovacuum does not keep up, or a long transaction holds it up",
            "`selvedge store compact` sweeps once; raise `autovacuum_max_workers`, or end long transactions",
        );
    }
    if inbox.0 > 0 && inbox.1 >= INBOX_LATE {
        say(
            Weight::Attention,
            "inbox",
            Some(inbox.1),
            format!("{} rows wait in the inbox", inbox.0),
            "more is put in than is taken out, or the process that leads cannot write",
            "put in less at a time, or publish by the app API; the log says why a commit fails",
        );
    }
    if refused.0 > 0 {
        say(
            Weight::Attention,
            "refused",
            Some(refused.1),
            format!("{} rows of the inbox could not be published", refused.0),
            &format!("the last: {}", database.refused_why),
            "look at the table `refused`, mend what is wrong, and put them into `inbox` again: docs/postgres.md",
        );
    }
    found
}

fn group(snapshot: &Snapshot, group: &Group) -> Vec<Finding> {
    let Group { status, consumers, letter } = group;
    let mut found = Vec::new();
    let age = status.oldest.map(|oldest| snapshot.now.since(oldest));
    let path = format!("/v1/topics/{}/groups/{}", status.topic, status.group);
    let active = status.active.as_ref().map_or_else(String::new, |active| {
        let since = show(snapshot.now.since(active.since));
        format!("; `{}` is the active one, for {since}", active.consumer)
    });
    let mut say = |weight, kind, age, what: String, why: String, todo: String| {
        let subject = format!("group {} of {}", status.group, status.topic);
        found.push(Finding { weight, kind, subject, what, age, why, todo });
    };
    let old = age.unwrap_or_default();
    let watched = snapshot.now.since(snapshot.watched_since);
    let asked = consumers.last.map(|last| snapshot.now.since(last));
    let attended = consumers.waiting > 0 || asked.is_some_and(|asked| asked < UNATTENDED);
    let letters = status.config.letters;
    if status.lag > 0 && !status.paused && letters.hold(status.dead) {
        say(
            Weight::Stuck,
            "dead_letters_full",
            age,
            format!("{} messages wait", status.lag),
            format!(
                "there are {} dead letters, as many as it keeps, and none may be lost: nothing is handed out",
                status.dead
            ),
            format!(
                "`GET {path}/dead-letters`, mend what failed, then `POST …/redrive` or `…/discard`"
            ),
        );
    } else if status.lag > 0 && status.paused {
        say(
            Weight::Stuck,
            "paused",
            age,
            format!("{} messages wait", status.lag),
            "the group is paused".to_owned(),
            format!("`POST {path}/resume` when what it was paused for is over"),
        );
    } else if status.lag > 0 && old >= UNATTENDED && !attended && watched >= UNATTENDED {
        let why = match asked {
            Some(asked) => format!("nobody has asked for one for {}", show(asked)),
            None => format!("nobody has asked for one in the {} that are known", show(watched)),
        };
        say(
            Weight::Stuck,
            "unattended",
            age,
            format!("{} messages wait", status.lag),
            why,
            format!("start its consumers, or `DELETE {path}` if nobody needs it"),
        );
    } else if let Some(rate) = status
        .config
        .rate
        .filter(|_| status.throttled.is_some() && old >= BEHIND && status.lag > status.in_flight)
    {
        say(
            Weight::Attention,
            "throttled",
            age,
            format!("{} messages wait, {} are in hand", status.lag, status.in_flight),
            format!("its `rate` of {} lets no more through", rate.rate),
            "wait if it is a peak; raise `rate` if what stands behind the group can bear more"
                .to_owned(),
        );
    } else if old >= BEHIND && status.lag > status.in_flight {
        say(
            Weight::Attention,
            "behind",
            age,
            format!("{} messages wait, {} are in hand", status.lag, status.in_flight),
            format!(
                "its consumers take less than what is published, or messages fail again and again{active}"
            ),
            "add consumers, or look why they fail: `attempts_most` says how often one was tried"
                .to_owned(),
        );
    } else if status.in_flight > 0 && old >= BEHIND {
        say(
            Weight::Attention,
            "held",
            age,
            format!("{} messages are in hand and not settled", status.in_flight),
            format!("a consumer extends its leases, or lets them run out again and again{active}"),
            "look at the consumers: do they hang, or is the lease shorter than the work?"
                .to_owned(),
        );
    }
    let tries = status.config.attempts;
    if status.attempts_most >= SUSPICIOUS.min(tries) && status.attempts_most > 1 && status.lag > 0 {
        say(
            Weight::Attention,
            "failing",
            age,
            format!("a message was delivered {} times, of {tries}", status.attempts_most),
            "its consumers answer `nack`, or let its lease run out".to_owned(),
            "look at their logs; after the last delivery it is a dead letter".to_owned(),
        );
    }
    if status.dead > 0 {
        let since = letter.as_ref().map(|letter| snapshot.now.since(letter.at));
        let why = match letter {
            Some(letter) => {
                let reason = letter.reason.as_deref().unwrap_or("no reason was given");
                format!(
                    "the first: {} after {} deliveries ({reason})",
                    cause(letter.cause),
                    letter.attempts
                )
            }
            None => "they failed for good".to_owned(),
        };
        let parked = if status.config.ordered { ", and their keys are parked" } else { "" };
        say(
            Weight::Attention,
            "dead_letters",
            since,
            format!("{} dead letters{parked}", status.dead),
            why,
            format!(
                "`GET {path}/dead-letters`, mend what failed, then `POST …/redrive` or `…/discard`"
            ),
        );
    }
    if status.dropped > 0 && letters.max.is_some_and(|max| status.dead >= max) {
        say(
            Weight::Attention,
            "dead_letters_dropped",
            None,
            format!("{} dead letters were dropped", status.dropped),
            "there are as many as it keeps: the oldest goes for each new one".to_owned(),
            format!("`GET {path}/dead-letters`, and mend what fails; or raise `dead_letters.max`"),
        );
    }
    let kept = snapshot.topics.iter().find(|topic| topic.name == status.topic);
    if let Some(topic) = kept.filter(|topic| !topic.settings.retain_unconsumed)
        && let Some(keep) = topic.settings.retention_age
        && status.lag > 0
        && old.as_secs_f64() >= keep.as_secs_f64() * NEARLY
    {
        say(
            Weight::Attention,
            "expiring",
            age,
            format!("messages that nobody has settled go after {}", show(keep)),
            "the group is nearly as far behind as the topic keeps messages".to_owned(),
            "speed its consumers up, lengthen `retention`, or set `unconsumed: true` in it"
                .to_owned(),
        );
    }
    found
}

/// In words.
#[must_use]
pub const fn cause(cause: group::Cause) -> &'static str {
    match cause {
        group::Cause::Attempts => "given up",
        group::Cause::LeaseExpired => "given up, the last lease ran out",
        group::Cause::Parked => "parked by its consumer",
        group::Cause::BehindKey => "behind a dead letter of its key",
    }
}

fn topic(now: Wall, topic: &topic::Topic) -> Option<Finding> {
    let since = topic.dedupe_since?;
    let max = topic.settings.dedupe_max.unwrap_or(u64::MAX);
    Some(Finding {
        weight: Weight::Attention,
        kind: "dedupe_short",
        subject: format!("topic {}", topic.name),
        what: format!(
            "dedupe ids are remembered for {}, not for {}",
            show(now.since(since)),
            show(topic.settings.dedupe_window)
        ),
        age: None,
        why: format!("more than {max} were published within the window"),
        todo: "raise `dedupe.max` of the topic, or let publishers repeat themselves sooner"
            .to_owned(),
    })
}

fn held(now: Wall, resource: &str, holder: &lease::Holder) -> Option<Finding> {
    let age = now.since(holder.since);
    (age >= LEASED).then(|| Finding {
        weight: Weight::Attention,
        kind: "lease_held",
        subject: format!("lease {resource}"),
        what: format!("`{}` holds it under token {}", holder.owner, holder.token),
        age: Some(age),
        why: "its holder renews it: a leader does so for as long as it leads, a job that hangs too"
            .to_owned(),
        todo: format!(
            "is `{}` a leader? Then all is well; else stop it, and the lease ends by itself, or `POST /v1/leases/{resource}/release` with its token",
            holder.owner
        ),
    })
}

fn schedule(now: Wall, schedule: &schedule::Schedule) -> Option<Finding> {
    let subject = format!("schedule {}", schedule.name);
    let weight = Weight::Stuck;
    match schedule.next {
        Some(next) if now.since(next) >= MISSED => Some(Finding {
            weight,
            kind: "missed",
            subject,
            what: "a run was due and did not happen".to_owned(),
            age: Some(now.since(next)),
            why: "the store could not write, or its topic is gone".to_owned(),
            todo: format!("is there a topic `{}`? The log says why a run failed", schedule.topic),
        }),
        None => Some(Finding {
            weight: Weight::Attention,
            kind: "ended",
            subject,
            what: "it will never run again".to_owned(),
            age: None,
            why: format!("`{}` names no time to come", schedule.spec),
            todo: format!("`DELETE /v1/schedules/{}`, or give it another `spec`", schedule.name),
        }),
        Some(_) => None,
    }
}

/// To the second, in the two largest units.
#[must_use]
pub fn show(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests;
