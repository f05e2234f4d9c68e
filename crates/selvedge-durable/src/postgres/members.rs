//! Several processes on one database.
//!
//! Whoever writes locks one row first, so commits happen one after another and
//! positions need no further care. In the row stands who leads, and until when:
//! the leader does what is due. It reads that in the transaction that does it,
//! under the lock, so a leader of before can do nothing any more; the epoch
//! tells leaders apart. Every process has a row with the version of the content
//! that its last commit made: by that a commit whose answer was lost is found.
//!
//! Source: the fencing token of Kleppmann, *How to do distributed locking*.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashSet},
    fmt::Write,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use selvedge_patterns::wall::Wall;

use super::driver::PostgresDb;
use crate::{
    Clock, Error, Subject,
    store::driver::{Begun, Db, Row, values},
    watch::Bells,
};

/// How often a process looks at the store when nobody asks it to.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often those who watch are told to look when a notification may have been lost.
const RING_EVERY: Duration = Duration::from_secs(5);
/// How long a leader leads without a word.
const LEASE: Duration = Duration::from_secs(10);
/// How long ago a process was seen that is believed to be there.
const SEEN: Duration = Duration::from_secs(30);
/// How long the row of a process is kept that nobody sees any more.
const FORGOTTEN: Duration = Duration::from_secs(86_400);
/// Bytes that a notification can carry.
const NOTIFICATION_BYTES: usize = 7_900;
/// The shortest and the longest time between two looks into the inbox.
const INBOX_MIN: Duration = Duration::from_millis(50);
const INBOX_MAX: Duration = LOOK_EVERY;

/// What other processes said, until the writer hears it.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) said: Mutex<Said>,
    /// Of those who watch in this process.
    pub(super) bells: Arc<Bells>,
}

impl Heard {
    /// Takes in a notification; whether it was news for the writer.
    pub(super) fn hear(&self, me: &str, payload: &str) -> bool {
        let Some(parts) = payload.split_once(';').filter(|(who, _)| *who != me) else {
            return false;
        };
        let (mut said, mut news) = (self.said.lock(), Vec::new());
        let mut for_writer = false;
        for part in parts.1.split(';') {
            let (kind, name) = part.split_at_checked(1).unwrap_or_default();
            let owned = || name.to_owned();
            for_writer |= !"nslevw".contains(kind);
            match kind {
                "t" => said.topics.extend(name.parse::<i64>()),
                "r" => drop(said.resources.insert(owned())),
                "n" => news.push(Subject::Topic(owned())),
                "s" => news.push(Subject::Stream(owned())),
                "l" => news.push(Subject::Lease(owned())),
                "e" => news.push(Subject::Events),
                "v" => self.bells.ring_where(|it| matches!(it, Subject::State(_))),
                "w" => self.bells.ring_where(|_| true),
                _ => {
                    said.everybody = true;
                    self.bells.ring_where(|_| true);
                }
            }
        }
        self.bells.ring(&news);
        for_writer
    }

    /// Whatever was said before, nobody heard.
    pub(super) fn missed(&self) {
        self.said.lock().everybody = true;
        self.bells.ring_where(|_| true);
    }
}

#[derive(Default)]
pub(super) struct Said {
    topics: BTreeSet<i64>,
    resources: BTreeSet<String>,
    everybody: bool,
}

/// One process among several.
pub(super) struct Member {
    pub(super) id: String,
    clock: Arc<dyn Clock>,
    heard: Arc<Heard>,
    channel: String,
    /// Version of the content that memory knows.
    known: Cell<Option<i64>>,
    /// That the transaction at hand makes.
    pub(super) writing: Cell<i64>,
    pub(super) wrote: Cell<bool>,
    now: Cell<Wall>,
    leads: Cell<bool>,
    row: RefCell<Leadership>,
    others: Cell<bool>,
    /// When the row of this process was written.
    seen: Cell<Wall>,
    looked: Cell<Instant>,
    stirred: Cell<Instant>,
    rung: Cell<Instant>,
    pub(super) inbox_at: Cell<Instant>,
    inbox_wait: Cell<Duration>,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Leadership {
    leader: Option<String>,
    epoch: i64,
    until: Wall,
}

impl Member {
    pub(super) fn new(clock: Arc<dyn Clock>, heard: Arc<Heard>, schema: &str) -> Self {
        let chance = RandomState::new().build_hasher().finish();
        let now = Instant::now();
        Self {
            id: format!("{}-{chance:016x}", std::process::id()),
            clock,
            heard,
            channel: schema.to_owned(),
            known: Cell::new(None),
            writing: Cell::new(0),
            wrote: Cell::new(false),
            now: Cell::new(Wall::ZERO),
            leads: Cell::new(false),
            row: RefCell::default(),
            others: Cell::new(false),
            seen: Cell::new(Wall::ZERO),
            looked: Cell::new(now),
            stirred: Cell::new(now),
            rung: Cell::new(now),
            inbox_at: Cell::new(now),
            inbox_wait: Cell::new(INBOX_MIN),
        }
    }

    /// Locks the row, and says what has changed since the last time.
    pub(super) fn begin(&self, db: &PostgresDb, relaxed: bool) -> Result<Begun, Error> {
        self.looked.set(Instant::now());
        let clock = self.clock.now();
        let sql = "SELECT version, at, leader, epoch, until,
             EXISTS (SELECT FROM members WHERE id <> ?1 AND seen > ?2)
             FROM store WHERE one FOR UPDATE OF store";
        let (version, at, found) = db.one(sql, &values![&self.id, clock - SEEN], |row| {
            let found = Leadership { leader: row.get(2)?, epoch: row.get(3)?, until: row.get(4)? };
            self.others.set(row.get(5)?);
            Ok((row.get::<i64>(0)?, row.get::<Wall>(1)?, found))
        })?;
        let now = clock.max(at);
        self.now.set(now);
        self.wrote.set(false);
        self.writing.set(version);
        let changed = self.known.replace(Some(version)) != Some(version);
        let mine = found.leader.as_deref() == Some(&*self.id);
        let led = self.leads.replace(mine || found.until <= now);
        let mut row = self.row.borrow_mut();
        *row = found;
        if self.leads.get() {
            if !mine {
                row.epoch += 1;
                row.leader = Some(self.id.clone());
                tracing::info!(epoch = row.epoch, "this process leads");
            }
            if !mine || row.until.since(now) < LEASE / 2 {
                row.until = now + LEASE;
                self.wrote_row();
            }
        } else if led {
            tracing::warn!(epoch = row.epoch, leader = ?row.leader, "another process leads");
        }
        drop(row);
        if relaxed && !changed {
            db.send("SET LOCAL synchronous_commit = off", &[])?;
        }
        let mut said = std::mem::take(&mut *self.heard.said.lock());
        let news = changed && self.others.get();
        if news && self.stirred.get().elapsed() >= LOOK_EVERY {
            said.everybody = true;
            if self.rung.get().elapsed() >= RING_EVERY {
                self.rung.set(Instant::now());
                self.heard.bells.ring_where(|_| true);
            }
        }
        if said.everybody {
            self.stirred.set(Instant::now());
        }
        Ok(Begun {
            changed,
            leads: self.leads.get(),
            at_least: now,
            topics: said.topics.into_iter().collect(),
            resources: said.resources.into_iter().collect(),
            everybody: said.everybody,
        })
    }

    /// The row of the leader is to be written with this transaction.
    fn wrote_row(&self) {
        self.seen.set(Wall::ZERO);
    }

    /// Tells the others for whom there may be something, all in one notification.
    pub(super) fn announce(
        &self,
        db: &PostgresDb,
        topics: &[i64],
        resources: &[String],
        news: &[Subject],
    ) -> Result<(), Error> {
        let nothing = topics.is_empty() && resources.is_empty() && news.is_empty();
        if !self.others.get() || nothing {
            return Ok(());
        }
        let mut payload = self.id.clone();
        for topic in topics.iter().collect::<BTreeSet<_>>() {
            let _ = write!(payload, ";t{topic}");
        }
        for resource in resources.iter().collect::<BTreeSet<_>>() {
            let _ = write!(payload, ";r{resource}");
        }
        let waiting = payload.len();
        for subject in news.iter().collect::<HashSet<_>>() {
            let _ = match subject {
                Subject::Topic(name) => write!(payload, ";n{name}"),
                Subject::Stream(name) => write!(payload, ";s{name}"),
                Subject::Lease(name) => write!(payload, ";l{name}"),
                Subject::Events => write!(payload, ";e"),
                // A key can be anything, so it is not named.
                Subject::State(_) if payload.ends_with(";v") => Ok(()),
                Subject::State(_) => write!(payload, ";v"),
            };
        }
        if payload.len() > NOTIFICATION_BYTES {
            payload.truncate(waiting);
            payload.push_str(";w");
        }
        if payload.len() > NOTIFICATION_BYTES {
            payload = format!("{};*", self.id);
        }
        db.send("SELECT pg_notify(?1, ?2)", &values![&self.channel, &payload])
    }

    /// The last writes of a transaction; whether it has any.
    pub(super) fn finish(&self, db: &PostgresDb) -> Result<bool, Error> {
        let wrote = self.wrote.get();
        let now = self.now.get();
        if !wrote && now.since(self.seen.get()) < SEEN / 3 {
            // It only looked: nothing has to be on disk.
            db.send("SET LOCAL synchronous_commit = off", &[])?;
            return Ok(false);
        }
        self.writing.set(self.writing.get() + i64::from(wrote));
        let row = self.row.borrow();
        db.send(
            "UPDATE store SET version = ?1, at = ?2, leader = ?3, epoch = ?4, until = ?5 WHERE one",
            &values![self.writing.get(), now, row.leader.as_deref(), row.epoch, row.until],
        )?;
        db.send(
            "INSERT INTO members (id, version, seen) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET version = excluded.version, seen = excluded.seen",
            &values![&self.id, self.writing.get(), now],
        )?;
        if self.leads.get() && now.since(self.seen.get()) >= SEEN / 3 {
            db.send("DELETE FROM members WHERE seen < ?1", &values![now - FORGOTTEN])?;
        }
        Ok(true)
    }

    /// The transaction lasts.
    pub(super) fn committed(&self) {
        self.known.set(Some(self.writing.get()));
        self.seen.set(self.now.get());
    }

    /// When the writer should look although nobody asked.
    pub(super) fn next_look(&self) -> Duration {
        let look = LOOK_EVERY.saturating_sub(self.looked.get().elapsed());
        if !self.leads.get() {
            return look;
        }
        look.min(self.inbox_at.get().saturating_duration_since(Instant::now()))
    }

    pub(super) const fn leads(&self) -> &Cell<bool> {
        &self.leads
    }

    /// Plans the next look into the inbox, after one that found `more` or not.
    pub(super) fn inbox_looked(&self, more: bool) {
        let wait = if more { INBOX_MIN } else { (self.inbox_wait.get() * 2).min(INBOX_MAX) };
        self.inbox_wait.set(wait);
        self.inbox_at.set(Instant::now() + wait);
    }

    /// Gives the lead to whoever comes next.
    pub(super) fn leave(&self, db: &PostgresDb) {
        let left = db
            .send("UPDATE store SET until = 0 WHERE leader = ?1", &values![&self.id])
            .and_then(|()| db.send("DELETE FROM members WHERE id = ?1", &values![&self.id]));
        if let Err(error) = left {
            tracing::debug!(%error, "the others will find out that this process has left");
        }
    }
}
