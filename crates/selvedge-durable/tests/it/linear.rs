//! Linearizability: does some order of the calls, that agrees with who came
//! before whom in time, explain every answer?
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried
//! ("Testing for linearizability", 2017). A call whose answer never came may
//! have happened at any time after it was made, or never.

use std::{collections::HashSet, fmt::Debug, hash::Hash};

/// What one thing must do, call by call.
pub(crate) trait Model {
    /// Where it stands.
    type State: Clone + Eq + Hash;
    /// What is asked.
    type Input: Clone + Debug;
    /// What is answered.
    type Output: Clone + Debug;

    /// Where it begins.
    fn start() -> Self::State;

    /// Where it stands afterwards, if it may answer so. Without an answer it is
    /// a change that nobody was told of; `None` if there was none to make.
    fn step(
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;
}

/// One call, in the ticks of a clock that all callers share.
#[derive(Clone, Debug)]
pub(crate) struct Call<M: Model> {
    pub(crate) input: M::Input,
    /// `None` if it never came.
    pub(crate) output: Option<M::Output>,
    pub(crate) invoked: u64,
    pub(crate) returned: u64,
}

/// Which calls are in the order already.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn has(&self, call: usize) -> bool {
        self.0[call / 64] & 1 << (call % 64) != 0
    }

    fn with(&self, call: usize) -> Self {
        let mut more = self.clone();
        more.0[call / 64] |= 1 << (call % 64);
        more
    }
}

/// Whether the calls on one thing can be put in an order that explains them.
pub(crate) fn linearizable<M: Model>(calls: &[Call<M>]) -> bool {
    let mut calls: Vec<&Call<M>> = calls.iter().collect();
    calls.sort_by_key(|call| call.invoked);
    let answered = calls.iter().filter(|call| call.output.is_some()).count();
    let start = (Taken(vec![0; calls.len().div_ceil(64)]), M::start(), 0);
    let mut tried = HashSet::new();
    let mut open = vec![start];
    while let Some((taken, state, done)) = open.pop() {
        if done == answered {
            return true;
        }
        // What was called after some call had returned comes after that call.
        let mut first_return = u64::MAX;
        let mut next = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            if call.invoked > first_return {
                break;
            }
            if taken.has(number) {
                continue;
            }
            if call.output.is_some() {
                first_return = first_return.min(call.returned);
            }
            if let Some(after) = M::step(&state, &call.input, call.output.as_ref()) {
                let taken = taken.with(number);
                next.push((taken, after, done + usize::from(call.output.is_some())));
            }
        }
        // The earliest is the likeliest: it is tried first.
        for (taken, state, done) in next.into_iter().rev() {
            if tried.insert((taken.clone(), state.clone())) {
                open.push((taken, state, done));
            }
        }
    }
    false
}

/// A value under a key. Values are never written twice.
#[derive(Clone, Debug)]
pub(crate) struct Register;

/// What a client can ask of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegisterInput {
    Get,
    Put(u64, Wanted),
    Delete(Wanted),
}

/// What must hold before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Anything,
    Nothing,
    Tag(u64),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegisterOutput {
    Got(Option<(u64, u64)>),
    Put(u64),
    Deleted,
    /// The condition did not hold.
    Refused,
}

/// The tag, once anybody knows it, and the value.
type Held = Option<(Option<u64>, u64)>;

impl Model for Register {
    type State = Held;
    type Input = RegisterInput;
    type Output = RegisterOutput;

    fn start() -> Held {
        None
    }

    fn step(state: &Held, input: &RegisterInput, output: Option<&RegisterOutput>) -> Option<Held> {
        use RegisterInput::{Delete, Get, Put};
        // A tag that nobody was told may be any.
        let holds = |wanted: &Wanted| match (wanted, state) {
            (Wanted::Anything, _) | (Wanted::Nothing, None) => true,
            (Wanted::Tag(tag), Some((known, _))) => known.is_none_or(|known| known == *tag),
            (Wanted::Nothing, Some(_)) | (Wanted::Tag(_), None) => false,
        };
        let fails = |wanted: &Wanted| match (wanted, state) {
            (Wanted::Tag(tag), Some((known, _))) => *known != Some(*tag),
            _ => !holds(wanted),
        };
        match (input, output) {
            (Get, None) => None,
            (Get, Some(RegisterOutput::Got(got))) => match (got, state) {
                (None, None) => Some(None),
                (Some((tag, value)), Some((known, held)))
                    if value == held && known.is_none_or(|known| known == *tag) =>
                {
                    Some(Some((Some(*tag), *value)))
                }
                _ => None,
            },
            (Put(value, wanted), None) => holds(wanted).then_some(Some((None, *value))),
            (Put(value, wanted), Some(RegisterOutput::Put(tag))) => {
                holds(wanted).then_some(Some((Some(*tag), *value)))
            }
            (Delete(wanted), None | Some(RegisterOutput::Deleted)) => {
                (state.is_some() && holds(wanted)).then_some(None)
            }
            (Put(_, wanted), Some(RegisterOutput::Refused)) => fails(wanted).then_some(*state),
            // Nothing to delete is refused as well.
            (Delete(wanted), Some(RegisterOutput::Refused)) => {
                (state.is_none() || fails(wanted)).then_some(*state)
            }
            _ => None,
        }
    }
}

/// A lock that nobody loses by time.
#[derive(Clone, Debug)]
pub(crate) struct Lock;

/// What a client can ask of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LockInput {
    Acquire,
    Release(u64),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LockOutput {
    Acquired(u64),
    Released,
    /// Somebody else holds it, or the token is not the holder's.
    Refused,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    Nobody,
    Token(u64),
    /// Somebody whose token nobody was told.
    Someone,
}

impl Model for Lock {
    type State = Holder;
    type Input = LockInput;
    type Output = LockOutput;

    fn start() -> Holder {
        Holder::Nobody
    }

    fn step(state: &Holder, input: &LockInput, output: Option<&LockOutput>) -> Option<Holder> {
        use LockInput::{Acquire, Release};
        let free = *state == Holder::Nobody;
        match (input, output) {
            (Acquire, None) => free.then_some(Holder::Someone),
            (Acquire, Some(LockOutput::Acquired(token))) => free.then_some(Holder::Token(*token)),
            (Acquire, Some(LockOutput::Refused)) => (!free).then_some(*state),
            (Release(token), None | Some(LockOutput::Released)) => {
                let held = *state == Holder::Token(*token) || *state == Holder::Someone;
                held.then_some(Holder::Nobody)
            }
            (Release(token), Some(LockOutput::Refused)) => {
                (*state != Holder::Token(*token)).then_some(*state)
            }
            _ => None,
        }
    }
}

/// A stream that is appended to, one event at a time.
#[derive(Clone, Debug)]
pub(crate) struct Stream;

/// What a client can ask of a stream; events have numbers of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamInput {
    /// The event, if the stream has so many, or whatever it has.
    Append(u64, Option<u64>),
    Last,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamOutput {
    /// The stream has so many now.
    Appended(u64),
    /// The stream has another number.
    Refused(u64),
    /// So many, and the number of the last one.
    Last(u64, u64),
}

impl Model for Stream {
    /// How many events, and the number of the last one.
    type State = (u64, u64);
    type Input = StreamInput;
    type Output = StreamOutput;

    fn start() -> (u64, u64) {
        (0, 0)
    }

    fn step(
        state: &(u64, u64),
        input: &StreamInput,
        output: Option<&StreamOutput>,
    ) -> Option<(u64, u64)> {
        use StreamInput::{Append, Last};
        let (count, _) = *state;
        let holds = |expected: &Option<u64>| expected.is_none_or(|expected| expected == count);
        match (input, output) {
            (Append(event, expected), None) => holds(expected).then_some((count + 1, *event)),
            (Append(event, expected), Some(StreamOutput::Appended(now))) => {
                (holds(expected) && *now == count + 1).then_some((count + 1, *event))
            }
            (Append(_, expected), Some(StreamOutput::Refused(actual))) => {
                (!holds(expected) && *actual == count).then_some(*state)
            }
            (Last, Some(StreamOutput::Last(n, event))) => {
                ((*n, *event) == *state).then_some(*state)
            }
            _ => None,
        }
    }
}

mod tests {
    use proptest::prelude::*;

    use super::{RegisterInput as In, RegisterOutput as Out, *};

    /// A call from `invoked` to `returned`, or without an answer.
    fn call<M: Model>(
        invoked: u64,
        returned: u64,
        input: M::Input,
        output: impl Into<Option<M::Output>>,
    ) -> Call<M> {
        Call { input, output: output.into(), invoked, returned }
    }

    #[test]
    fn reads_see_writes_that_have_returned() {
        let write = call::<Register>(1, 2, In::Put(7, Wanted::Anything), Out::Put(70));
        let stale = call(3, 4, In::Get, Out::Got(None));
        let fresh = call(3, 4, In::Get, Out::Got(Some((70, 7))));
        let early = call(1, 4, In::Get, Out::Got(None));
        assert!(linearizable(&[write.clone(), fresh]));
        assert!(linearizable(&[write.clone(), early]), "it may come first");
        assert!(!linearizable(&[write, stale]), "it came after");
    }

    #[test]
    fn two_cannot_both_find_nothing() {
        let first = call::<Register>(1, 4, In::Put(1, Wanted::Nothing), Out::Put(10));
        let second = call(2, 3, In::Put(2, Wanted::Nothing), Out::Put(11));
        let refused = call(2, 3, In::Put(2, Wanted::Nothing), Out::Refused);
        assert!(linearizable(&[first.clone(), refused]));
        assert!(!linearizable(&[first, second]));
    }

    #[test]
    fn a_value_does_not_come_back() {
        let calls = [
            call::<Register>(1, 2, In::Put(1, Wanted::Anything), Out::Put(10)),
            call(3, 4, In::Put(2, Wanted::Tag(10)), Out::Put(11)),
            call(5, 6, In::Get, Out::Got(Some((10, 1)))),
        ];
        assert!(linearizable(&calls[..2]) && !linearizable(&calls));
    }

    #[test]
    fn what_was_not_answered_may_have_happened_once_or_never() {
        let lost = call::<Register>(1, u64::MAX, In::Put(1, Wanted::Anything), None);
        let never = call(2, 3, In::Get, Out::Got(None));
        let late = call(4, 5, In::Get, Out::Got(Some((10, 1))));
        let gone = call(6, 7, In::Get, Out::Got(None));
        assert!(linearizable(&[lost.clone(), never.clone()]));
        assert!(linearizable(&[lost.clone(), never, late.clone()]));
        assert!(!linearizable(&[lost, late, gone]), "it cannot be undone");
    }

    #[test]
    fn a_lock_has_one_holder() {
        use {LockInput as In, LockOutput as Out};
        let first = call::<Lock>(1, 2, In::Acquire, Out::Acquired(1));
        let both = call(3, 4, In::Acquire, Out::Acquired(2));
        let release = call(3, 6, In::Release(1), Out::Released);
        assert!(!linearizable(&[first.clone(), both.clone()]));
        assert!(linearizable(&[first.clone(), both, release.clone()]));
        let free = call(7, 8, In::Acquire, Out::Refused);
        assert!(!linearizable(&[first, release, free]), "nobody holds it");
    }

    #[test]
    fn a_version_is_accepted_once() {
        use {StreamInput as In, StreamOutput as Out};
        let first = call::<Stream>(1, 4, In::Append(1, Some(0)), Out::Appended(1));
        let twice = call(2, 5, In::Append(2, Some(0)), Out::Appended(1));
        let refused = call(2, 5, In::Append(2, Some(0)), Out::Refused(1));
        let last = call(6, 7, In::Last, Out::Last(1, 1));
        assert!(!linearizable(&[first.clone(), twice]));
        assert!(linearizable(&[first.clone(), refused.clone(), last]));
        let other = call(6, 7, In::Last, Out::Last(1, 2));
        assert!(!linearizable(&[first, refused, other]));
    }

    /// Every order of the calls, one after the other.
    fn brute_force(calls: &[Call<Register>], state: Held) -> bool {
        if calls.iter().all(|call| call.output.is_none()) {
            return true;
        }
        (0..calls.len()).any(|next| {
            let mut rest = calls.to_vec();
            let call = rest.remove(next);
            let too_early =
                rest.iter().any(|other| other.output.is_some() && other.returned < call.invoked);
            !too_early
                && Register::step(&state, &call.input, call.output.as_ref())
                    .is_some_and(|state| brute_force(&rest, state))
        })
    }

    fn any_call() -> impl Strategy<Value = Call<Register>> {
        let wanted = prop_oneof![
            Just(Wanted::Anything),
            Just(Wanted::Nothing),
            (0..3u64).prop_map(Wanted::Tag),
        ];
        let tagged = (0..3u64, 0..3u64);
        let exchange = prop_oneof![
            proptest::option::of(tagged).prop_map(|got| (In::Get, Some(Out::Got(got)))),
            (0..3u64, wanted.clone(), 0..3u64)
                .prop_map(|(value, wanted, tag)| (In::Put(value, wanted), Some(Out::Put(tag)))),
            (0..3u64, wanted.clone())
                .prop_map(|(value, wanted)| (In::Put(value, wanted), Some(Out::Refused))),
            (0..3u64, wanted.clone()).prop_map(|(value, wanted)| (In::Put(value, wanted), None)),
            wanted.prop_map(|wanted| (In::Delete(wanted), Some(Out::Deleted))),
        ];
        (exchange, 0..20u64, 1..12u64).prop_map(|((input, output), invoked, took)| Call {
            input,
            output,
            invoked: invoked * 2,
            returned: invoked * 2 + took * 2 + 1,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_search_agrees_with_trying_every_order(
            calls in proptest::collection::vec(any_call(), 1..6),
        ) {
            prop_assert_eq!(linearizable(&calls), brute_force(&calls, None));
        }
    }
}
