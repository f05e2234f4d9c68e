//! Who waits for a place in a bulkhead, by ticket.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use selvedge_patterns::bulkhead::Ticket;

/// The tasks that wait; as many as the bulkhead's queue holds.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Mutex<HashMap<Ticket, Waker>>);

impl Wakers {
    /// Wakes the holder of each ticket that `granted` names until it names none.
    pub(crate) fn wake(&self, granted: impl Fn() -> Option<Ticket>) {
        while let Some(ticket) = granted() {
            // Whoever has not registered yet asks once more after registering.
            let waker = self.tasks().remove(&ticket);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// `waker` waits for `ticket`. Ask once more after this: the ticket may
    /// have been granted meanwhile.
    pub(crate) fn register(&self, ticket: Ticket, waker: &Waker) {
        self.tasks()
            .entry(ticket)
            .and_modify(|known| known.clone_from(waker))
            .or_insert_with(|| waker.clone());
    }

    /// Nobody waits for `ticket` any more.
    pub(crate) fn forget(&self, ticket: Ticket) {
        self.tasks().remove(&ticket);
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<Ticket, Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
