//! What an account does: the write side.

use std::fmt;

use selvedge::durable::{aggregate::Aggregate, event::Events};
use serde::{Deserialize, Serialize};

/// What can happen to an account. What is here is for ever: a new idea is a new
/// variant, or an upcast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    Opened { owner: String },
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
    Sent { to: String, cents: u64 },
    Received { from: String, cents: u64 },
}

impl Events for Event {}

/// What an account can be asked to do.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Open { owner: String },
    Deposit { cents: u64 },
    Withdraw { cents: u64 },
    Send { to: String, cents: u64 },
    Receive { from: String, cents: u64 },
}

/// Why it says no.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rejection {
    OpenAlready,
    NotOpen,
    NothingToMove,
    NotEnough { balance: u64 },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenAlready => write!(f, "the account is open already"),
            Self::NotOpen => write!(f, "there is no such account"),
            Self::NothingToMove => write!(f, "an amount must be more than nothing"),
            Self::NotEnough { balance } => write!(f, "only {} there", euros(*balance)),
        }
    }
}

/// What its events amount to: no more than it takes to decide.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    open: bool,
    balance: u64,
}

impl Aggregate for Account {
    const KIND: &'static str = "account";
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let moves = match command {
            Command::Open { .. } if self.open => return Err(Rejection::OpenAlready),
            Command::Open { owner } => return Ok(vec![Event::Opened { owner: owner.clone() }]),
            Command::Deposit { cents } | Command::Receive { cents, .. } => *cents,
            Command::Withdraw { cents } | Command::Send { cents, .. } => {
                if self.open && *cents > self.balance {
                    return Err(Rejection::NotEnough { balance: self.balance });
                }
                *cents
            }
        };
        if !self.open {
            return Err(Rejection::NotOpen);
        }
        if moves == 0 {
            return Err(Rejection::NothingToMove);
        }
        Ok(match command.clone() {
            Command::Open { .. } => Vec::new(),
            Command::Deposit { cents } => vec![Event::Deposited { cents }],
            Command::Withdraw { cents } => vec![Event::Withdrawn { cents }],
            Command::Send { to, cents } => vec![Event::Sent { to, cents }],
            Command::Receive { from, cents } => vec![Event::Received { from, cents }],
        })
    }

    fn evolve(mut self, event: &Event) -> Self {
        match event {
            Event::Opened { .. } => self.open = true,
            Event::Deposited { cents } | Event::Received { cents, .. } => self.balance += cents,
            Event::Withdrawn { cents } | Event::Sent { cents, .. } => self.balance -= cents,
        }
        self
    }
}

/// An amount as people write it.
pub(crate) fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
