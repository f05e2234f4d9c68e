//! Which operations may be sent again when nobody knows whether they were done.
//!
//! The bar is that of one effect: not only must a repeat after the first
//! attempt change nothing, it must not undo what others did in between. A plain
//! write of a value fails that (it would bring an old value back), a write with
//! a tag passes, since tags are never used twice.

use selvedge_durable::{
    Answer, Error, Operation,
    state::{Condition, DeleteState, PutState},
    stream::{Append, Expected, Write},
};
use selvedge_patterns::outcome::Safety;

/// What sending an operation a second time amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing: the answer is the same. The flag says that it only reads.
    Freely(bool),
    /// Nothing, but the answer may speak of the first attempt.
    Doubtful,
    /// If the first attempt was done, it fails and everything with it.
    Guarded,
    /// It may be done twice.
    Never,
}

impl Repeat {
    /// Of operations that are done together.
    pub(crate) fn of(operations: &[Operation]) -> Self {
        let each = || operations.iter().map(one);
        if each().any(|it| it == Self::Guarded) {
            Self::Guarded
        } else if each().any(|it| it == Self::Never) {
            Self::Never
        } else if each().any(|it| it == Self::Doubtful) {
            Self::Doubtful
        } else {
            Self::Freely(operations.iter().all(Operation::is_read))
        }
    }

    /// In the words of the patterns.
    pub(crate) const fn safety(self) -> Safety {
        match self {
            Self::Freely(true) => Safety::Safe,
            Self::Freely(false) | Self::Doubtful | Self::Guarded => Safety::Idempotent,
            Self::Never => Safety::Unsafe,
        }
    }

    /// Whether this answer to a repeat may be owed to the first attempt.
    pub(crate) fn ambiguous(self, answer: &Result<Vec<Answer>, Error>) -> bool {
        if !matches!(self, Self::Doubtful | Self::Guarded) {
            return false;
        }
        match answer {
            Err(error) => matches!(
                error,
                Error::Stale(_)
                    | Error::WrongVersion { .. }
                    | Error::Precondition { .. }
                    | Error::Lost { .. }
                    | Error::NotFound { .. }
            ),
            Ok(answers) => answers
                .iter()
                .any(|it| matches!(it, Answer::Settle(all) if all.iter().any(Result::is_err))),
        }
    }
}

fn one(operation: &Operation) -> Repeat {
    match operation {
        read if read.is_read() => Repeat::Freely(true),
        Operation::Publish(it) if it.messages.iter().all(|it| it.dedupe_id.is_some()) => {
            Repeat::Freely(false)
        }
        Operation::Append(it) => append(it),
        // Said of the whole, and by the same words again.
        Operation::PutTopic(_)
        | Operation::PutGroup(_)
        | Operation::PutSchedule(_)
        | Operation::Pause(_)
        | Operation::PutSnapshot(_)
        | Operation::TruncateStream(_)
        | Operation::Extend(_)
        | Operation::Renew(_)
        | Operation::CheckFence(_) => Repeat::Freely(false),
        // A receipt counts once, a tag, a token, a number too.
        Operation::Settle(it) if it.strict && !it.replies.is_empty() => Repeat::Guarded,
        Operation::Settle(_) => Repeat::Doubtful,
        Operation::PutState(PutState { condition: Condition::Tag(_), .. })
        | Operation::DeleteState(DeleteState { condition: Condition::Tag(_), .. })
        | Operation::Release(_)
        | Operation::CancelDelayed(_) => Repeat::Guarded,
        Operation::DeleteStream(it) if matches!(it.expected, Expected::Exact(_)) => Repeat::Guarded,
        // Receive hands out others, acquire asks beside its own grant, the rest
        // would take away what came since.
        _ => Repeat::Never,
    }
}

fn append(append: &Append) -> Repeat {
    let exact = |it: &Write| matches!(it.expected, Expected::Exact(_));
    let named = |it: &Write| !it.events.is_empty() && it.events.iter().all(|it| it.id.is_some());
    if append.writes.iter().all(|it| it.events.is_empty()) {
        Repeat::Freely(false)
    } else if append.writes.iter().all(|it| exact(it) && named(it)) {
        // Answered like the first.
        Repeat::Doubtful
    } else if append.writes.iter().any(|it| exact(it) && !it.events.is_empty()) {
        Repeat::Guarded
    } else {
        Repeat::Never
    }
}

#[cfg(test)]
mod tests {
    use selvedge_durable::{
        lease::Acquire,
        state::GetState,
        stream::NewEvent,
        topic::{NewMessage, Publish},
    };

    use super::*;

    fn publish(ids: &[Option<&str>]) -> Operation {
        let message =
            |id: &Option<&str>| NewMessage { dedupe_id: id.map(str::to_owned), ..<_>::default() };
        let messages = ids.iter().map(message).collect();
        Operation::Publish(Publish { topic: "t".to_owned(), messages })
    }

    fn put(condition: Condition) -> Operation {
        let (key, value) = ("k".to_owned(), bytes::Bytes::new());
        Operation::PutState(PutState { key, value, content_type: None, condition, ttl: None })
    }

    fn write(expected: Expected, id: Option<&str>) -> Operation {
        let event = NewEvent { id: id.map(str::to_owned), ..NewEvent::default() };
        let writes = vec![Write { stream: "s".to_owned(), expected, events: vec![event] }];
        Operation::Append(Append { writes })
    }

    #[test]
    fn only_what_changes_nothing_the_second_time_is_sent_again() {
        let read = || Operation::GetState(GetState { key: "k".to_owned() });
        let acquire = Operation::Acquire(Acquire {
            resource: "r".to_owned(),
            owner: "o".to_owned(),
            ttl: std::time::Duration::from_secs(1),
            permits: 1,
            wait: std::time::Duration::ZERO,
        });
        for (operations, repeat) in [
            (vec![read(), read()], Repeat::Freely(true)),
            (vec![publish(&[Some("a"), Some("b")])], Repeat::Freely(false)),
            (vec![publish(&[Some("a"), None])], Repeat::Never),
            (vec![publish(&[Some("a")]), read()], Repeat::Freely(false)),
            (vec![put(Condition::Any)], Repeat::Never),
            // Somebody may have removed it in between.
            (vec![put(Condition::Absent)], Repeat::Never),
            (vec![put(Condition::Tag(1))], Repeat::Guarded),
            (vec![acquire], Repeat::Never),
            (vec![write(Expected::Any, Some("a"))], Repeat::Never),
            (vec![write(Expected::None, None)], Repeat::Never),
            (vec![write(Expected::Exact(1), None)], Repeat::Guarded),
            (vec![write(Expected::Exact(1), Some("a"))], Repeat::Doubtful),
            // One guard keeps the rest from being done twice.
            (vec![publish(&[None]), put(Condition::Tag(1))], Repeat::Guarded),
            (vec![publish(&[None]), write(Expected::Exact(1), Some("a"))], Repeat::Never),
        ] {
            assert_eq!(Repeat::of(&operations), repeat, "{operations:?}");
        }
    }
}
