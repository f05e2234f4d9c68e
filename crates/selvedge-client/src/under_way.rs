//! What waits for an answer: which of it was sent, and what becomes of it when
//! the connection goes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use selvedge_durable::Error;
use selvedge_patterns::{
    budget::{Budget, Extra},
    outcome::{Failure, Outcome},
    retry::{self, Tried},
    time::Instant as Moment,
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{Config, repeat::Repeat};

/// Lines that go out together.
const TOGETHER_MAX: usize = 64 << 10;

/// An answer's line, and whether the operation was sent more than once.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) line: Bytes,
    pub(crate) repeated: bool,
}

pub(crate) type Reply = oneshot::Receiver<Result<Answered, Error>>;

/// One operation, or several that are done together.
struct One {
    line: Bytes,
    repeat: Repeat,
    /// Times that it was sent and may have been taken.
    attempts: u32,
    /// Which line of the connection it is, from 1, if it was sent on it.
    place: Option<u64>,
    deadline: Instant,
    /// Leave for a repeat.
    extra: Option<Extra>,
    reply: oneshot::Sender<Result<Answered, Error>>,
}

#[derive(Default)]
struct State {
    all: BTreeMap<u64, One>,
    /// Not sent on this connection, in order.
    queue: VecDeque<u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    bytes: usize,
    /// The number of the last.
    last: u64,
    /// Which connection, and lines sent on it.
    connection: u64,
    sent: u64,
    /// Whether lines may go out.
    open: bool,
    sender: Option<Waker>,
    /// Nobody asks any more.
    closing: bool,
}

/// Everything that waits for an answer, in order.
pub(crate) struct UnderWay {
    state: Mutex<State>,
    /// Something to do for whoever makes connections.
    pub(crate) changed: Notify,
    retry: retry::Config,
    budget: Budget,
    begun: Instant,
    under_way_max: usize,
    bytes_max: usize,
}

impl UnderWay {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            retry: config.retry,
            budget: Budget::new(config.budget),
            begun: Instant::now(),
            under_way_max: config.under_way_max,
            bytes_max: config.queue_bytes_max,
        }
    }

    fn moment(&self) -> Moment {
        let nanos = self.begun.elapsed().as_nanos();
        Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Puts a line at the end; `line` makes it, given its number.
    pub(crate) fn push(
        &self,
        repeat: Repeat,
        deadline: Instant,
        line: impl FnOnce(u64) -> Result<Bytes, Error>,
    ) -> Result<Reply, Error> {
        let mut state = self.state.lock();
        if state.closing {
            return Err(Error::Closed);
        }
        if state.all.len() >= self.under_way_max {
            return Err(Error::Overloaded { waiting: state.all.len() });
        }
        let id = state.last + 1;
        let line = line(id)?;
        if state.bytes + line.len() > self.bytes_max {
            return Err(Error::Overloaded { waiting: state.all.len() });
        }
        state.last = id;
        state.bytes += line.len();
        let (reply, answer) = oneshot::channel();
        let first = state.deadlines.first().is_none_or(|first| deadline < first.0);
        state.deadlines.insert((deadline, id));
        let one = One { line, repeat, attempts: 0, place: None, deadline, extra: None, reply };
        state.all.insert(id, one);
        state.queue.push_back(id);
        let (open, sender) = (state.open, state.sender.take());
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        if first || !open {
            self.changed.notify_one();
        }
        Ok(answer)
    }

    fn remove(&self, state: &mut State, id: u64) -> Option<One> {
        let mut one = state.all.remove(&id)?;
        state.deadlines.remove(&(one.deadline, id));
        state.bytes -= one.line.len();
        if let Some(extra) = one.extra.take() {
            self.budget.settle(extra);
        }
        Some(one)
    }

    /// Whether there is anything to send or to wait for.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().all.is_empty()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Takes nothing more; what is there is still brought to its end.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        let sender = state.sender.take();
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        self.changed.notify_one();
    }

    /// A connection begins; lines go out once it is opened.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.state.lock();
        state.connection += 1;
        state.sent = 0;
        state.connection
    }

    /// The server takes lines.
    pub(crate) fn open(&self) {
        let mut state = self.state.lock();
        state.open = true;
        if let Some(sender) = state.sender.take() {
            sender.wake();
        }
    }

    /// The next lines for a connection; nothing when it is over.
    pub(crate) fn poll_lines(&self, connection: u64, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.state.lock();
        if state.connection != connection {
            return Poll::Ready(None);
        }
        let mut lines = BytesMut::new();
        while state.open
            && lines.len() < TOGETHER_MAX
            && let Some(id) = state.queue.pop_front()
        {
            state.sent += 1;
            let place = state.sent;
            // What has run out of time while it waited is not sent.
            let Some(one) = state.all.get_mut(&id) else {
                state.sent -= 1;
                continue;
            };
            one.place = Some(place);
            one.attempts += 1;
            if lines.is_empty() && one.line.len() >= TOGETHER_MAX {
                return Poll::Ready(Some(one.line.clone()));
            }
            lines.extend_from_slice(&one.line);
        }
        if !lines.is_empty() {
            return Poll::Ready(Some(lines.freeze()));
        }
        if state.closing && state.all.is_empty() {
            return Poll::Ready(None);
        }
        state.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The answer to a line. One that nobody waits for any more is passed over.
    pub(crate) fn answered(&self, id: u64, line: Bytes) {
        let mut state = self.state.lock();
        let Some(one) = self.remove(&mut state, id) else { return };
        let over = state.closing && state.all.is_empty();
        let sender = if over { state.sender.take() } else { None };
        drop(state);
        self.budget.success(self.moment());
        let repeated = one.attempts > 1;
        // Whoever asked may have gone away.
        let _ = one.reply.send(Ok(Answered { line, repeated }));
        if let Some(sender) = sender {
            sender.wake();
        }
        if over {
            self.changed.notify_one();
        }
    }

    /// The connection is over. The server took the first `taken` lines of it, as
    /// far as it said; of those without an answer nobody knows what became.
    pub(crate) fn lost(&self, taken: Option<u64>, why: &str) {
        let mut state = self.state.lock();
        state.open = false;
        state.connection += 1;
        state.sender = None;
        let sent: Vec<u64> =
            state.all.iter().filter(|(_, one)| one.place.is_some()).map(|(id, _)| *id).collect();
        let mut again = Vec::new();
        for id in sent {
            let in_flight = u32::try_from(state.all.len()).unwrap_or(u32::MAX);
            let Some(one) = state.all.get_mut(&id) else { continue };
            let place = one.place.take();
            if taken.is_some_and(|taken| place.is_some_and(|place| place > taken)) {
                // Said never to have been begun: as if it had not been sent.
                one.attempts -= 1;
                again.push(id);
                continue;
            }
            let tried =
                Tried { attempts: one.attempts, safety: one.repeat.safety(), replayable: true };
            let leave = self.retry.admit(&tried, Outcome::Failure(Failure::Reset)).is_ok();
            if leave {
                if one.extra.is_none() {
                    one.extra = self.budget.admit(self.moment(), in_flight).ok();
                }
                if one.extra.is_some() {
                    again.push(id);
                    continue;
                }
            }
            if let Some(one) = self.remove(&mut state, id) {
                let _ = one.reply.send(Err(unknown(one.repeat, why)));
            }
        }
        for id in again.into_iter().rev() {
            state.queue.push_front(id);
        }
    }

    /// The server will not have us: everything that waits fails with `error`.
    pub(crate) fn refused(&self, error: &Error) {
        let mut state = self.state.lock();
        let all: Vec<u64> = state.all.keys().copied().collect();
        state.queue.clear();
        for id in all {
            if let Some(one) = self.remove(&mut state, id) {
                // What was sent before on another connection may have been done.
                let before = one.attempts > 0;
                let error =
                    if before { unknown(one.repeat, &error.to_string()) } else { error.clone() };
                let _ = one.reply.send(Err(error));
            }
        }
    }

    /// When the next one runs out of time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.state.lock().deadlines.first().map(|first| first.0)
    }

    /// Ends what has run out of time. `why` says what stood in the way of what
    /// was never sent.
    pub(crate) fn expire(&self, now: Instant, why: &str) {
        let mut state = self.state.lock();
        while let Some((deadline, id)) = state.deadlines.first().copied()
            && deadline <= now
        {
            let Some(one) = self.remove(&mut state, id) else { break };
            let error = if one.attempts == 0 {
                Error::Unreachable { problem: format!("not sent in time: {why}") }
            } else {
                unknown(one.repeat, "no answer in time")
            };
            let _ = one.reply.send(Err(error));
        }
        let State { queue, all, .. } = &mut *state;
        queue.retain(|id| all.contains_key(id));
    }
}

/// What is said of an operation that was sent and not answered: a read did
/// nothing, of a write nobody knows.
pub(crate) fn unknown(repeat: Repeat, why: &str) -> Error {
    match repeat {
        Repeat::Freely(true) => Error::Unreachable { problem: why.to_owned() },
        _ => Error::Unknown,
    }
}
