//! An engine that is watched while it works: whether it can write.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{Answer, Engine, Error, Operation, state};

/// An [`Engine`] that remembers how its last write went.
#[derive(Clone, Debug)]
pub struct Observed<E> {
    engine: E,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Kept beside `trouble` so that a good write costs one load.
    troubled: AtomicBool,
    trouble: Mutex<Option<Error>>,
    waiting: AtomicUsize,
}

/// One who waits, until the answer is there or nobody wants it.
struct Waiting(Arc<Seen>);

impl Waiting {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(seen))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seen {
    fn note<T>(&self, result: &Result<T, Error>) {
        match result {
            Err(error) if is_trouble(error) => {
                *self.trouble.lock() = Some(error.clone());
                self.troubled.store(true, Ordering::Relaxed);
            }
            // Refused by a rule: the store is well and said no.
            _ => {
                if self.troubled.load(Ordering::Relaxed) {
                    *self.trouble.lock() = None;
                    self.troubled.store(false, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Whether the store failed, and not the request.
const fn is_trouble(error: &Error) -> bool {
    matches!(error, Error::DiskFull | Error::Corrupt { .. } | Error::Closed | Error::Storage(_))
}

/// The key that [`Observed::probe`] writes and removes.
const PROBE: &str = "selvedge/probe";

impl<E: Engine> Observed<E> {
    /// `engine`, watched from now on.
    #[must_use]
    pub fn new(engine: E) -> Self {
        Self { engine, seen: Arc::default() }
    }

    /// The engine itself.
    #[must_use]
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// Why the last write failed, if that was the store's fault: until a write
    /// succeeds again it cannot be relied on.
    #[must_use]
    pub fn trouble(&self) -> Option<Error> {
        self.seen.trouble.lock().clone()
    }

    /// Receives and acquires that wait for something to come at this moment.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.seen.waiting.load(Ordering::Relaxed)
    }

    /// Writes something and takes it back, to find out whether a trouble is over.
    ///
    /// # Errors
    ///
    /// Those of a write.
    pub fn probe(&self) -> impl Future<Output = Result<(), Error>> + Send + use<E> {
        let key = PROBE.to_owned();
        let condition = state::Condition::Any;
        let put = state::PutState {
            key: key.clone(),
            value: bytes::Bytes::new(),
            content_type: None,
            condition,
            ttl: None,
        };
        let write = self.transact(vec![
            Operation::PutState(put),
            Operation::DeleteState(state::DeleteState { key, condition }),
        ]);
        async move { write.await.map(drop) }
    }
}

impl<E: Engine> Engine for Observed<E> {
    fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + 'static + use<E> {
        let writes = operations.iter().any(|operation| !operation.is_read());
        let seen = Arc::clone(&self.seen);
        let waits = match &operations[..] {
            [Operation::Receive(receive)] => !receive.wait.is_zero(),
            [Operation::Acquire(acquire)] => !acquire.wait.is_zero(),
            _ => false,
        };
        let waiting = waits.then(|| Waiting::new(&seen));
        let answer = self.engine.transact(operations);
        async move {
            let answer = answer.await;
            drop(waiting);
            if writes {
                seen.note(&answer);
            }
            answer
        }
    }
}
