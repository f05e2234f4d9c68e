//! Consumers and acquirers that wait.
//!
//! They wait here and not at the callers', so that a message is leased to a
//! waiting consumer in the very commit that stores it: one sync from publish
//! to receipt. The first to wait is the first to be served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use selvedge_patterns::wall::Wall;

use super::{Reply, driver::Db, writer::Tx};
use crate::{Answer, Error, Operation};

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    /// Messages for a group: the topic's and the group's number.
    Group(i64, i64),
    /// A permit of a resource.
    Resource(String),
}

struct Waiter {
    operation: Operation,
    until: Wall,
    number: u64,
    reply: Reply,
}

impl Waiter {
    /// Its name, if it is a consumer that has one.
    fn consumer(&self) -> Option<&str> {
        match &self.operation {
            Operation::Receive(receive) => receive.consumer.as_deref(),
            _ => None,
        }
    }
}

/// Everyone who waits, by what for.
#[derive(Default)]
pub(super) struct Waiting {
    queues: BTreeMap<Door, VecDeque<Waiter>>,
    /// When waiters lose patience.
    deadlines: BTreeSet<(Wall, u64, Door)>,
    /// When something at a door is due by itself: a retry, the end of a lease.
    wakeups: BTreeMap<Door, Wall>,
    due: BTreeSet<(Wall, Door)>,
    count: usize,
    last_number: u64,
    /// Whether there may be something at any door.
    everybody: bool,
}

type Answers = Vec<(Reply, Result<Vec<Answer>, Error>)>;

impl Waiting {
    /// Whether nobody waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Answers, or lets the request wait if there was nothing for it.
    pub(super) fn or_wait<D: Db>(
        &mut self,
        tx: &mut Tx<D>,
        operation: Operation,
        patience: std::time::Duration,
        answer: Result<Vec<Answer>, Error>,
        reply: Reply,
        answers: &mut Answers,
    ) -> Result<(), Error> {
        if served(&answer) || patience.is_zero() {
            answers.push((reply, answer));
            return Ok(());
        }
        if self.count >= tx.config.waiting_max {
            answers.push((reply, Err(Error::Overloaded { waiting: self.count })));
            return Ok(());
        }
        let Some(door) = tx.door(&operation)? else {
            answers.push((reply, answer));
            return Ok(());
        };
        let until = tx.now + patience;
        self.last_number += 1;
        self.count += 1;
        let number = self.last_number;
        self.deadlines.insert((until, number, door.clone()));
        self.queues.entry(door.clone()).or_default().push_back(Waiter {
            operation,
            until,
            number,
            reply,
        });
        self.plan(tx, &door)
    }

    /// Something may have come for anybody.
    pub(super) const fn call_everybody(&mut self) {
        self.everybody = true;
    }

    /// When [`Self::stir`] has something to do with no further request.
    pub(super) fn next_wakeup(&self) -> Option<Wall> {
        let deadline = self.deadlines.first().map(|(at, ..)| *at);
        let due = self.due.first().map(|(at, _)| *at);
        deadline.into_iter().chain(due).min()
    }

    /// Serves those for whom something has come, and sends away those whose
    /// patience has ended.
    pub(super) fn stir<D: Db>(
        &mut self,
        tx: &mut Tx<D>,
        answers: &mut Answers,
    ) -> Result<(), Error> {
        if self.count == 0 {
            return Ok(());
        }
        let mut doors = BTreeSet::new();
        if std::mem::take(&mut self.everybody) {
            doors.extend(self.queues.keys().cloned());
        }
        for topic in std::mem::take(&mut tx.stirred) {
            let range = Door::Group(topic, i64::MIN)..=Door::Group(topic, i64::MAX);
            doors.extend(self.queues.range(range).map(|(door, _)| door.clone()));
        }
        let freed = std::mem::take(&mut tx.freed).into_iter();
        doors.extend(freed.map(|(topic, group)| Door::Group(topic, group)));
        doors.extend(std::mem::take(&mut tx.released).into_iter().map(Door::Resource));
        while let Some((at, door)) = self.due.first().cloned() {
            if at > tx.now {
                break;
            }
            self.due.remove(&(at, door.clone()));
            self.wakeups.remove(&door);
            doors.insert(door);
        }
        for door in doors {
            self.serve(tx, &door, answers)?;
            self.plan(tx, &door)?;
        }
        self.send_away(tx, answers);
        Ok(())
    }

    /// The store closes: nobody will come any more.
    pub(super) fn close(self) {
        for waiter in self.queues.into_values().flatten() {
            let _ = waiter.reply.send(Err(Error::Closed));
        }
    }

    fn serve<D: Db>(
        &mut self,
        tx: &mut Tx<D>,
        door: &Door,
        answers: &mut Answers,
    ) -> Result<(), Error> {
        let Some(queue) = self.queues.get_mut(door) else { return Ok(()) };
        let (mut passed_over, mut ended) = (Vec::new(), Ok(()));
        while let Some(waiter) = queue.pop_front() {
            // A lease given to somebody who left would hold the message for nothing.
            if waiter.reply.is_closed() {
                self.count -= 1;
                self.deadlines.remove(&(waiter.until, waiter.number, door.clone()));
                continue;
            }
            let answer = tx.alone_one(waiter.operation.clone());
            if !served(&answer) {
                // Of consumers with names one may be served and the others not.
                let named = waiter.consumer().is_some();
                passed_over.push(waiter);
                if named {
                    continue;
                }
                break;
            }
            self.count -= 1;
            self.deadlines.remove(&(waiter.until, waiter.number, door.clone()));
            ended = tx.intact(&answer);
            answers.push((waiter.reply, answer));
            if ended.is_err() {
                break;
            }
        }
        for waiter in passed_over.into_iter().rev() {
            queue.push_front(waiter);
        }
        if queue.is_empty() {
            self.queues.remove(door);
        }
        ended
    }

    fn plan<D: Db>(&mut self, tx: &mut Tx<D>, door: &Door) -> Result<(), Error> {
        if let Some(at) = self.wakeups.remove(door) {
            self.due.remove(&(at, door.clone()));
        }
        let Some(queue) = self.queues.get(door) else { return Ok(()) };
        let waits = |name: &str| {
            queue.iter().any(|it| it.consumer() == Some(name) && !it.reply.is_closed())
        };
        if let Some(at) = tx.door_wakeup(door, waits)? {
            self.wakeups.insert(door.clone(), at);
            self.due.insert((at, door.clone()));
        }
        Ok(())
    }

    fn send_away<D: Db>(&mut self, tx: &mut Tx<D>, answers: &mut Answers) {
        while let Some((at, number, door)) = self.deadlines.first().cloned() {
            if at > tx.now {
                break;
            }
            self.deadlines.remove(&(at, number, door.clone()));
            let Some(queue) = self.queues.get_mut(&door) else { continue };
            if let Some(place) = queue.iter().position(|waiter| waiter.number == number)
                && let Some(waiter) = queue.remove(place)
            {
                self.count -= 1;
                let answer = tx.alone_one(waiter.operation);
                answers.push((waiter.reply, answer));
            }
            if queue.is_empty() {
                self.queues.remove(&door);
                if let Some(at) = self.wakeups.remove(&door) {
                    self.due.remove(&(at, door));
                }
            }
        }
    }
}

/// Whether the answer is worth giving before patience ends.
fn served(answer: &Result<Vec<Answer>, Error>) -> bool {
    match answer.as_deref() {
        Ok([Answer::Receive(deliveries)]) => !deliveries.is_empty(),
        Err(Error::Held { .. }) => false,
        _ => true,
    }
}

impl Operation {
    /// How long it is ready to wait, if it is of a kind that waits.
    pub(super) const fn patience(&self) -> Option<std::time::Duration> {
        match self {
            Self::Receive(receive) if !receive.wait.is_zero() => Some(receive.wait),
            Self::Acquire(acquire) if !acquire.wait.is_zero() => Some(acquire.wait),
            _ => None,
        }
    }
}

impl<D: Db> Tx<D> {
    fn door(&mut self, operation: &Operation) -> Result<Option<Door>, Error> {
        match operation {
            Operation::Receive(receive) => {
                let (topic, group) = self.group_numbers(&receive.topic, &receive.group)?;
                Ok(Some(Door::Group(topic, group)))
            }
            Operation::Acquire(acquire) => Ok(Some(Door::Resource(acquire.resource.clone()))),
            _ => Ok(None),
        }
    }

    fn door_wakeup(
        &mut self,
        door: &Door,
        waits: impl Fn(&str) -> bool,
    ) -> Result<Option<Wall>, Error> {
        match door {
            Door::Group(_, group) => self.group_wakeup(*group, waits),
            Door::Resource(resource) => self.lease_wakeup(resource),
        }
    }
}
