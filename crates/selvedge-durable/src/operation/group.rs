//! Groups: consumers that share a topic's messages among them.

use std::time::Duration;

pub use selvedge_patterns::group::{
    Active, Cause, Config, Full, Letters, Receipt, Settled, Stale, Verdict,
};
use selvedge_patterns::wall::Wall;

use super::topic::{From, Message};

/// Creates a group, or changes how one works.
#[derive(Clone, Debug)]
pub struct PutGroup {
    /// The topic.
    pub topic: String,
    /// 1 to 200 characters of `A-Z a-z 0-9 . _ - /`.
    pub group: String,
    /// How it hands out messages. `ordered` cannot be changed later; a change of
    /// whether it is `exclusive` makes all receipts stale.
    pub config: Config,
    /// Where a new group begins.
    pub from: From,
}

/// Removes a group and its dead letters.
#[derive(Clone, Debug)]
pub struct DeleteGroup {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
}

/// Takes messages to process.
#[derive(Clone, Debug)]
pub struct Receive {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// At most this many, and at most 4 MiB, but one if there is one.
    pub max: usize,
    /// Overrides the group's lease.
    pub lease: Option<Duration>,
    /// Who asks, 1 to 200 bytes, no two alike: needed in an exclusive group,
    /// where one is served and the others stand by.
    pub consumer: Option<String>,
    /// Waits this long if there is nothing; not inside a transaction.
    pub wait: Duration,
}

/// A message in the hands of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Names this delivery when it is answered.
    pub receipt: Receipt,
    /// When it is offered to somebody else.
    pub until: Wall,
    /// The message.
    pub message: Message,
}

/// A consumer's word on one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Which delivery.
    pub receipt: Receipt,
    /// What is to become of it.
    pub verdict: Verdict,
    /// Kept with the dead letter, if it becomes one; cut at 4 KiB.
    pub reason: Option<String>,
}

/// Answers deliveries.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Each is answered by itself.
    pub replies: Vec<Reply>,
    /// Fails as a whole if one receipt is stale: for transactions.
    pub strict: bool,
}

/// Holds deliveries for longer.
#[derive(Clone, Debug)]
pub struct Extend {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Each is answered by itself.
    pub receipts: Vec<Receipt>,
    /// From now on; default the group's lease, at most 12 h.
    pub lease: Option<Duration>,
}

/// Stops handing out messages, or goes on.
#[derive(Clone, Debug)]
pub struct Pause {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Whether it is to stand still.
    pub paused: bool,
}

/// A consumer of an exclusive group goes: what it holds is given back at no
/// cost, its receipts become stale, and another one may take over at once.
#[derive(Clone, Debug)]
pub struct Leave {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Who goes.
    pub consumer: String,
}

/// Moves a group to another place in the log. All receipts become stale; dead
/// letters stay.
#[derive(Clone, Debug)]
pub struct Seek {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Where it goes on.
    pub to: From,
}

/// Takes dead letters back into the group.
#[derive(Clone, Debug)]
pub struct Redrive {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Which; empty means all. In an ordered group a letter brings all letters
    /// of its key with it, since they come back in order or not at all.
    pub positions: Vec<u64>,
}

/// Throws dead letters away.
#[derive(Clone, Debug)]
pub struct Discard {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Which; empty means all.
    pub positions: Vec<u64>,
}

/// Asks where a group stands.
#[derive(Clone, Debug)]
pub struct GetGroup {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
}

/// All groups of a topic by name, or of all topics.
#[derive(Clone, Debug)]
pub struct ListGroups {
    /// The topic; `None` means every one.
    pub topic: Option<String>,
}

/// Dead letters of a group by position.
#[derive(Clone, Debug)]
pub struct ListDeadLetters {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Those at or after this position.
    pub from: u64,
    /// At most this many, and at most 4 MiB, but one if there is one.
    pub max: usize,
}

/// Where a group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its topic.
    pub topic: String,
    /// Its name.
    pub group: String,
    /// How it hands out messages.
    pub config: Config,
    /// Whether it stands still.
    pub paused: bool,
    /// The consumer that is served, in an exclusive group that has one.
    pub active: Option<Active>,
    /// When its rate lets the next message through, if not now.
    pub throttled: Option<Wall>,
    /// Messages that nobody has settled: unseen ones and exceptions.
    pub lag: u64,
    /// Of these, leased at the moment.
    pub in_flight: u64,
    /// Of these, waiting for a retry or for their key.
    pub waiting: u64,
    /// Dead letters.
    pub dead: u64,
    /// Dead letters that were dropped since the group was made, by number or age.
    pub dropped: u64,
    /// When the oldest message that nobody has settled entered the log.
    pub oldest: Option<Wall>,
    /// Most deliveries that any unsettled message had.
    pub attempts_most: u32,
}

/// A message that the group gave up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message as it was, kept even if the log expires it.
    pub message: Message,
    /// Why.
    pub cause: Cause,
    /// What the consumer said about it.
    pub reason: Option<String>,
    /// Deliveries it had.
    pub attempts: u32,
    /// When it was given up.
    pub at: Wall,
}
