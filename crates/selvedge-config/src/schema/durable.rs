//! The keys of the durable engine: the store, what it holds, and the app API.

use std::{net::SocketAddr, time::Duration};

use selvedge_durable::topic::From;
use selvedge_patterns::{
    filter::{Filter, Wildcard},
    wall::Wall,
};
use serde_json::{Value, json};

use super::{routing::Document, secs};
use crate::{
    read::{Definitions, Field, Named, Reader, Secret, Text, choice, section},
    show::Shown,
    tree::Node,
    value::{self, Bytes, Rate},
};

section! {
    /// The durable engine: topics, groups, event streams, state, leases and schedules in one file or one database.
    Durable: "the durable engine", short "path" {
        /// The store, a file; `-wal`, `-shm` and `.lock` stand beside it. A relative path begins at this file's folder.
        path: Option<Text> = None;
        /// The store, a PostgreSQL database (15 or later) that several processes may share: `postgres://user:password@host/database`. Take it from `${…}`. `?sslmode=verify-full` encrypts connections and checks who answers; `disable`, `prefer` (the default), `require`, `verify-ca`, `sslrootcert`, `sslcert` and `sslkey` mean what they mean to libpq. A pooler such as PgBouncer is refused.
        postgres: Option<Secret> = None;
        /// The schema in that database.
        schema: Text = Text::new("selvedge");
        /// Connections that read beside the one that writes.
        readers: usize = 2;
        /// Requests that wait for the writer; further ones are refused as overloaded.
        queue_max: usize = 16_384;
        /// Requests that one commit carries.
        batch_max: usize = 1024;
        /// Receives and acquires that wait at one time.
        waiting_max: usize = 65_536;
        /// The longest payload, event or value.
        payload_max: Bytes = Bytes(1 << 20);
        /// The headers of one message.
        headers_max: Bytes = Bytes(64 << 10);
        /// Messages, events or answers in one request.
        items_max: usize = 10_000;
        /// Messages that one receive passes over because the group's filter does not want them or their key is parked; the next goes on from there.
        filter_scan_max: usize = 1000;
        /// The longest payload that is read for a filter; a longer one has no fields.
        filter_payload_max: Bytes = Bytes(64 << 10);
        /// Topics that collect what is published to others.
        collectors_max: usize = 64;
        /// Memory for pages of the file.
        cache: Bytes = Bytes(64 << 20);
        /// Size of the write-ahead log at which it is copied into the file.
        checkpoint: Bytes = Bytes(16 << 20);
        /// The longest pause between two attempts to write again after the disk of the file failed to keep what was written.
        recover_every: Duration = secs(10);
    }
}

section! {
    /// The app API: topics, streams, state, leases and schedules for programs in any language.
    AppApi: "the app API", short "bind" {
        /// The address.
        bind: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9901));
        /// What a client must send as `Authorization: Bearer …`. Take it from `${…}`.
        token: Option<Secret> = None;
        /// Names under which it may be called besides the address itself.
        hosts: Vec<Text> = Vec::new();
        /// Says that this address may be reached by others though nobody has to authenticate.
        insecure: bool = false;
        /// Connections at once.
        connections_max: usize = 4096;
        /// The longest body of one request; streams of lines have no end and are not counted.
        body_max: Bytes = Bytes(16 << 20);
    }
}

section! {
    /// An append-only log of messages.
    Topic: "a topic" {
        /// What may go, and when; a bare duration is the age. `off` keeps everything for ever.
        retention: Option<Retention> = Some(Retention::by_default());
        /// Keeps the last message of each key only.
        compact: Option<Compact> = None;
        /// Lets messages carry a priority from 0 to 9.
        priorities: Option<Priorities> = None;
        /// Which dedupe ids are remembered; a bare duration is the window.
        dedupe: Dedupe = Dedupe::by_default();
        /// When a message is acknowledged.
        durability: Durability = Durability::Synced;
        /// What is published to other topics and appended to this one too, in the same transaction: so one subscription reads many topics. See [routing](routing.md).
        collect: Vec<Collect> = Vec::new();
        /// What the payloads must be; a message that is not is refused. See [routing](routing.md).
        schema: Option<TopicSchema> = None;
    }
}

section! {
    /// A JSON Schema, and how it may change.
    TopicSchema: "a schema", short "document" {
        /// The schema: as a mapping, or as JSON in a text, such as `${file:order.schema.json}`.
        document: Document;
        /// Which changes are taken, seen from the last schema of the topic.
        compatibility: Compatibility = Compatibility::None;
    }
}

choice! {
    /// Which changes of a schema are taken.
    Compatibility: "a compatibility" {
        /// Every one.
        None = "none",
        /// Those after which everything that was allowed still is.
        Backward = "backward",
        /// Those after which nothing is allowed that was not.
        Forward = "forward",
        /// Those that are both.
        Full = "full",
    }
}

section! {
    /// What a topic takes of others.
    Collect: "a rule of `collect`", short "from" {
        /// Names of topics, by words with dots between them: `*` is one word, `#` any number.
        from: Wildcard;
        /// Which of their messages, as `filter` of a subscription has it.
        wanted ("where"): Option<Filter> = None;
    }
}

section! {
    /// Which dedupe ids are remembered. Whoever publishes more than `max` within the window has a shorter one: the oldest is forgotten first, and `selvedge doctor` says so.
    Dedupe: "a dedupe", short "window" {
        /// How long an id is remembered.
        window: Duration = secs(600);
        /// At most so many; `off` for no bound but the window.
        max: Option<u32> = Some(1_000_000);
    }
}

section! {
    /// What may leave a topic, and when.
    Retention: "a retention", short "age" {
        /// Messages older than this; `off` keeps them.
        age: Option<Duration> = Some(secs(7 * 86_400));
        /// The oldest messages beyond this size; `off` keeps them.
        size: Option<Bytes> = Some(Bytes(10 << 30));
        /// Nothing that a group has not settled yet, however old.
        unconsumed: bool = false;
    }
}

section! {
    /// Keeps the last message of each key only.
    Compact: "compaction", short "lag" {
        /// How long a message that has a successor of the same key stays.
        lag: Duration = secs(3600);
        /// How long a message without payload (a deletion) stays.
        tombstone_for: Duration = secs(86_400);
    }
}

section! {
    /// Lets messages carry a priority.
    Priorities: "priorities", short "ageing" {
        /// How long a message waits to be worth one priority more, so that low ones never starve.
        ageing: Duration = secs(60);
    }
}

choice! {
    /// When a message is acknowledged.
    Durability: "a durability" {
        /// When it is on disk.
        Synced = "synced",
        /// Before: a power cut may lose the last moments.
        Relaxed = "relaxed",
    }
}

section! {
    /// A group: consumers that share a topic's messages among them.
    Subscription: "a subscription", short "topic" {
        /// The topic, one of those under `topics`.
        topic: Text;
        /// The group's name; `off` takes the name it has here.
        group: Option<Text> = None;
        /// Where a new group begins: `first`, `next`, a position, or a time such as `2026-01-31T00:00:00Z`.
        from: Start = Start(From::First);
        /// Which messages it wants, by key, headers, CloudEvents attributes and fields of a JSON payload; the others are passed over. See [routing](routing.md).
        filter: Option<Filter> = None;
        /// How long a consumer may hold a message before it is offered again.
        lease: Duration = secs(30);
        /// When a failed message is offered again, and how often; a bare number is the attempts.
        retry: Redelivery = Redelivery::by_default();
        /// Messages of one key are delivered one after another; a failed one holds up its key and nothing else.
        ordered: bool = false;
        /// Messages in the hands of consumers at one time.
        in_flight_max: u32 = 10_000;
        /// Unsettled messages behind the newest delivered one; beyond it the group looks no further.
        exceptions_max: u32 = 100_000;
        /// How often a message is handed out, however many consumers ask; a burst is let through first. A repeat counts too, `push` obeys, and processes on one database share it.
        rate: Option<DeliveryRate> = None;
        /// How many dead letters are kept, and what happens when there are so many; a bare number is the most.
        dead_letters: DeadLetters = DeadLetters::by_default();
        /// Serves one consumer at a time, in the order of the topic; the others, each with a name of its own, stand by. A failing message holds the group until it succeeds or is a dead letter.
        exclusive: Option<Exclusive> = None;
        /// Brings the messages to a service, instead of waiting for consumers to ask.
        push: Option<Push> = None;
    }
}

section! {
    /// Brings a group's messages to a service, one CloudEvent a request, by the service's own
    /// policies. 2xx is done, 410 pauses the group, `Retry-After` is honoured, everything else is
    /// retried as the subscription says; while every breaker is open nothing is sent.
    Push: "a push", short "to" {
        /// The service, one of those under `services`.
        to: Text;
        /// Path and query of the requests.
        path: Text = Text::new("/");
        /// How an event is put into a request.
        mode: PushMode = PushMode::Binary;
        /// What each request is signed with, as Standard Webhooks has it: `whsec_` and base64 of 24 to 64 bytes. Several while they are exchanged.
        secrets: Vec<Secret> = Vec::new();
        /// Requests at one time, 1 to 10,000; 1 for an exclusive group, whose order more would not keep.
        concurrency: u32 = 16;
        /// How long an answer may take.
        timeout: Duration = secs(20);
    }
}

choice! {
    /// How an event is put into a request.
    PushMode: "a mode" {
        /// Attributes as `ce-…` headers, the payload as the body.
        Binary = "binary",
        /// All of it as JSON in the body, where a signature covers it.
        Structured = "structured",
    }
}

section! {
    /// How many dead letters a group keeps.
    DeadLetters: "a bound of dead letters", short "max" {
        /// The most there may be; `off` for no bound. What is in hand when it is reached may still become one.
        max: Option<u32> = Some(100_000);
        /// What happens when there are so many.
        full: WhenFull = WhenFull::Hold;
        /// Letters older than this are dropped, whatever `full` says; `off` keeps them.
        age: Option<Duration> = None;
    }
}

choice! {
    /// What happens when there are as many dead letters as there may be.
    WhenFull: "a way to be full" {
        /// The group hands out nothing until some are redriven or discarded: nothing is lost.
        Hold = "hold",
        /// The oldest is lost for each new one.
        DropOldest = "drop_oldest",
    }
}

section! {
    /// Serves one consumer at a time.
    Exclusive: "an exclusive consumer", short "ttl" {
        /// How long the active one may be silent (neither ask nor extend nor answer) before another one takes over and its receipts are stale; 1 s to 1 h.
        ttl: Duration = secs(30);
    }
}

section! {
    /// How often a group hands out a message.
    DeliveryRate: "a rate", short "rate" {
        /// In the long run.
        rate: Rate;
        /// At once after a pause; by default the number in `rate`.
        burst: Option<u32> = None;
    }
}

section! {
    /// When a failed message is offered again.
    Redelivery: "a redelivery", short "attempts" {
        /// Deliveries after which a message becomes a dead letter of the group.
        attempts: u32 = 10;
        /// Upper bound of the wait before the second delivery; the wait is drawn from zero to it.
        base: Duration = secs(1);
        /// What that bound grows to, doubling.
        cap: Duration = secs(300);
    }
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start(pub From);

impl Field for Start {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let expected = "`first`, `next`, a position, or a time such as `2026-01-31T00:00:00Z`";
        reader.text(node, expected, |text| match text {
            "first" => Some(Self(From::First)),
            "next" => Some(Self(From::Next)),
            _ => {
                let time = || {
                    let stamp: jiff::Timestamp = text.parse().ok()?;
                    let micros = u64::try_from(stamp.as_microsecond()).ok()?;
                    Some(Self(From::Time(Wall::from_micros(micros))))
                };
                text.parse().map(|position| Self(From::Position(position))).ok().or_else(time)
            }
        })
    }

    fn show(&self) -> Shown {
        match self.0 {
            From::First => Shown::Word("first".to_owned()),
            From::Next => Shown::Word("next".to_owned()),
            From::Position(position) => Shown::Word(position.to_string()),
            From::Time(at) => {
                let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
                let stamp = jiff::Timestamp::from_microsecond(micros);
                Shown::Text(stamp.unwrap_or(jiff::Timestamp::MAX).to_string())
            }
        }
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": ["string", "integer"], "examples": ["first", "next", 17, "2026-01-31T00:00:00Z"] })
    }
}

section! {
    /// Publishes a message when its time comes, again and again.
    Schedule: "a schedule" {
        /// When: five or six cron fields, `@hourly`, `@daily`, `@every 90s`, …
        spec: Text;
        /// The time zone in which the fields are meant, by its IANA name.
        zone: Text = Text::new("UTC");
        /// What to do while the run before is not settled by every group of the topic.
        overlap: Overlap = Overlap::Skip;
        /// What to do about runs that fell due while nobody was there: `skip`, `all:<how many>`, or how late one of them may still happen.
        missed: Missed = Missed::Once(secs(3600));
        /// Where each run is published, one of those under `topics`.
        topic: Text;
        /// The key of the message; `off` has none.
        key: Option<Text> = None;
        /// The headers of the message.
        headers: Named<Text> = Named::default();
        /// The payload of the message.
        data: Text = Text::new("");
    }
}

choice! {
    /// What to do while the run before is not finished.
    Overlap: "a way to overlap" {
        /// Leave this run out.
        Skip = "skip",
        /// Let it wait for the one before.
        Queue = "queue",
        /// Start it beside the one before.
        Allow = "allow",
    }
}

/// What to do about runs that were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Leave them out.
    Skip,
    /// Run the last of them if it is at most so late.
    Once(Duration),
    /// Run the latest so many.
    All(u32),
}

impl Field for Missed {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let expected = "`skip`, `all:<1 to 1000>`, or a duration such as `1h`";
        reader.text(node, expected, |text| match text.split_once(':') {
            None if text == "skip" => Some(Self::Skip),
            None => value::duration(text).ok().map(Self::Once),
            Some(("all", limit)) => {
                let limit = limit.trim().parse().ok();
                limit.filter(|limit| (1..=1000).contains(limit)).map(Self::All)
            }
            Some(_) => None,
        })
    }

    fn show(&self) -> Shown {
        Shown::Word(match self {
            Self::Skip => "skip".to_owned(),
            Self::Once(grace) => value::show_duration(*grace),
            Self::All(limit) => return Shown::Text(format!("all:{limit}")),
        })
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "examples": ["1h", "skip", "all:10"] })
    }
}
