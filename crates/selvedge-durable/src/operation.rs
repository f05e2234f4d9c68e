//! What can be asked of a store, as values.
//!
//! Operations are data so that several can be applied atomically, sent over a
//! wire, drawn at random by a test and recorded in a history.

pub mod group;
pub mod lease;
pub mod schedule;
pub mod state;
pub mod stream;
pub mod topic;

use std::{future::Future, time::Duration};

use crate::{Error, Subject, Watch};

/// How often an engine is looked at that does not tell what happens.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One kind of request: an [`Operation`] with the type of its answer.
pub trait Request: Sized + Send + 'static {
    /// What it is answered with.
    type Reply: Send + 'static;
    /// As one of many.
    fn into_operation(self) -> Operation;
    /// The answer to this kind of request, if it is one.
    fn from_answer(answer: Answer) -> Option<Self::Reply>;
}

/// A store, as its users see it. The conformance suite is written against
/// this, and it is the definition of the semantics.
///
/// A request is on its way as soon as a method is called, in the order of the
/// calls; the future is only its answer, and dropping it takes nothing back.
pub trait Engine: Clone + Send + Sync + 'static {
    /// Does one thing. The answer comes when it is on disk.
    fn execute<R: Request>(
        &self,
        request: R,
    ) -> impl Future<Output = Result<R::Reply, Error>> + Send + use<Self, R> {
        let answers = self.transact(vec![request.into_operation()]);
        async move { answers.await?.into_iter().next().and_then(R::from_answer).ok_or(Error::Closed) }
    }

    /// Does all of these or, if one fails, none; in this order.
    fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + 'static + use<Self>;

    /// Tells when something of `subject` may have changed, as soon as it can be
    /// read. Unless an engine says better: that 50 ms have passed.
    fn watch(&self, subject: Subject) -> Watch {
        let _ = subject;
        Watch::every(LOOK_EVERY)
    }
}

macro_rules! operations {
    (write { $($write:ident($wpath:ty) -> $wreply:ty,)* } read { $($read:ident($rpath:ty) -> $rreply:ty,)* }) => {
        /// Everything that can be asked of a store.
        #[derive(Clone, Debug)]
        #[expect(missing_docs, reason = "each variant holds the documented request of its name")]
        pub enum Operation { $($write($wpath),)* $($read($rpath),)* }

        /// Which of all operations one is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each variant names the documented request of its name")]
        pub enum Kind { $($write,)* $($read,)* }

        /// Everything a store answers.
        #[derive(Clone, Debug)]
        #[expect(missing_docs, reason = "each variant holds the documented reply to its request")]
        pub enum Answer { $($write($wreply),)* $($read($rreply),)* }

        impl Operation {
            /// Whether it changes nothing.
            #[must_use]
            pub const fn is_read(&self) -> bool {
                match self { $(Self::$write(_) => false,)* $(Self::$read(_) => true,)* }
            }

            /// Which of all operations it is.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$write(_) => Kind::$write,)* $(Self::$read(_) => Kind::$read,)* }
            }

            pub(crate) fn apply<D: crate::store::Db>(
                self,
                tx: &mut crate::store::Tx<D>,
            ) -> Result<Answer, Error> {
                match self {
                    $(Self::$write(request) => tx.apply(request).map(Answer::$write),)*
                    $(Self::$read(request) => tx.read(request).map(Answer::$read),)*
                }
            }

            pub(crate) fn look<D: crate::store::Db>(
                self,
                reader: &crate::store::Reader<'_, D>,
            ) -> Result<Answer, Error> {
                match self {
                    $(Self::$write(_) => Err(Error::invalid("operation", "writes")),)*
                    $(Self::$read(request) => reader.look(request).map(Answer::$read),)*
                }
            }
        }

        impl Answer {
            /// Which of all operations it answers.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$write(_) => Kind::$write,)* $(Self::$read(_) => Kind::$read,)* }
            }
        }

        $(operations!(@one $write $wpath, $wreply);)*
        $(operations!(@one $read $rpath, $rreply);)*
    };
    (@one $name:ident $path:ty, $reply:ty) => {
        impl Request for $path {
            type Reply = $reply;
            fn into_operation(self) -> Operation { Operation::$name(self) }
            fn from_answer(answer: Answer) -> Option<$reply> {
                match answer { Answer::$name(reply) => Some(reply), _ => None }
            }
        }
    };
}

operations! {
    write {
        PutTopic(topic::PutTopic) -> topic::Topic,
        DeleteTopic(topic::DeleteTopic) -> (),
        Publish(topic::Publish) -> Vec<topic::Published>,
        CancelDelayed(topic::CancelDelayed) -> (),
        PutGroup(group::PutGroup) -> group::Status,
        DeleteGroup(group::DeleteGroup) -> (),
        Receive(group::Receive) -> Vec<group::Delivery>,
        Settle(group::Settle) -> Vec<Result<selvedge_patterns::group::Settled, selvedge_patterns::group::Stale>>,
        Extend(group::Extend) -> Vec<Result<selvedge_patterns::wall::Wall, selvedge_patterns::group::Stale>>,
        Pause(group::Pause) -> (),
        Leave(group::Leave) -> bool,
        Seek(group::Seek) -> (),
        Redrive(group::Redrive) -> u64,
        Discard(group::Discard) -> u64,
        Append(stream::Append) -> stream::Appended,
        TruncateStream(stream::TruncateStream) -> (),
        DeleteStream(stream::DeleteStream) -> (),
        PutSnapshot(stream::PutSnapshot) -> (),
        PutState(state::PutState) -> u64,
        DeleteState(state::DeleteState) -> (),
        Acquire(lease::Acquire) -> lease::Grant,
        Renew(lease::Renew) -> selvedge_patterns::wall::Wall,
        Release(lease::Release) -> (),
        CheckFence(lease::CheckFence) -> (),
        PutSchedule(schedule::PutSchedule) -> schedule::Schedule,
        DeleteSchedule(schedule::DeleteSchedule) -> (),
    }
    read {
        GetTopic(topic::GetTopic) -> topic::Topic,
        ListTopics(topic::ListTopics) -> Vec<topic::Topic>,
        ReadTopic(topic::ReadTopic) -> Vec<topic::Message>,
        GetGroup(group::GetGroup) -> group::Status,
        ListGroups(group::ListGroups) -> Vec<group::Status>,
        ListDeadLetters(group::ListDeadLetters) -> Vec<group::DeadLetter>,
        ReadStream(stream::ReadStream) -> stream::Page,
        ReadEvents(stream::ReadEvents) -> Vec<stream::Event>,
        GetSnapshot(stream::GetSnapshot) -> Option<stream::Snapshot>,
        GetState(state::GetState) -> state::Value,
        ListState(state::ListState) -> Vec<(String, u64)>,
        GetLease(lease::GetLease) -> Vec<lease::Holder>,
        ListLeases(lease::ListLeases) -> Vec<(String, lease::Holder)>,
        ListSchedules(schedule::ListSchedules) -> Vec<schedule::Schedule>,
    }
}
