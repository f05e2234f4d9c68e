//! Feeds a read model with what happens.

use std::{future::Future, pin::pin, time::Duration};

use super::source::{POLL, Record, Source, Subscription};
use crate::{Engine, Error};

/// A read model: a view together with the position up to which it is made.
///
/// Whoever keeps a view in a database of their own implements this. The one
/// thing to get right is that view and position change in one transaction.
pub trait ReadModel: Send {
    /// Why it could not be read or changed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The position of the last record that is in the view, 0 if none is: as it
    /// is kept, not as it is remembered. Asked at the start and after a failure.
    fn position(&mut self) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Takes in these records and the position of the last of them, in one
    /// transaction: all or nothing.
    fn apply(&mut self, records: &[Record])
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether the same may succeed in a moment. Default no: following ends.
    fn passing(error: &Self::Error) -> bool {
        let _ = error;
        false
    }
}

/// The pause after a failure that may pass.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Why following ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError<M> {
    /// The source could not be read.
    #[error(transparent)]
    Source(Error),
    /// The read model failed.
    #[error(transparent)]
    Model(M),
}

/// Takes records from a source into a read model.
#[derive(Clone, Debug)]
pub struct Follower<E> {
    engine: E,
    source: Source,
    batch: usize,
    poll: Duration,
}

impl<E: Engine> Follower<E> {
    /// Follows `source`, at most 256 records at a time.
    #[must_use]
    pub const fn new(engine: E, source: Source) -> Self {
        Self { engine, source, batch: 256, poll: POLL }
    }

    /// Takes at most this many records at a time. Default 256, at least 1.
    #[must_use]
    pub fn batch(self, batch: usize) -> Self {
        Self { batch: batch.max(1), ..self }
    }

    /// Looks this often even though the engine tells of no news. Default 30 s.
    #[must_use]
    pub fn polling(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    /// Takes in what there is, and answers with the position reached.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub async fn catch_up<M: ReadModel>(
        &self,
        model: &mut M,
    ) -> Result<u64, FollowError<M::Error>> {
        let mut news = self.subscribe(model).await?;
        while self.round(model, &mut news).await? {}
        Ok(news.position())
    }

    /// Takes in what there is and what comes, until `shutdown` resolves. It may
    /// be dropped at any moment, and several may follow for one model: each
    /// record has its effect once.
    ///
    /// # Errors
    ///
    /// The first failure that does not pass.
    pub async fn run<M: ReadModel>(
        &self,
        model: &mut M,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), FollowError<M::Error>> {
        let mut shutdown = pin!(shutdown);
        tokio::select! {
            biased;
            () = &mut shutdown => Ok(()),
            ended = self.follow(model) => ended,
        }
    }

    async fn follow<M: ReadModel>(&self, model: &mut M) -> Result<(), FollowError<M::Error>> {
        let mut news = None;
        let mut watch = self.engine.watch(self.source.subject());
        loop {
            watch.look();
            let moved = match &mut news {
                Some(news) => self.round(model, news).await,
                None => self.subscribe(model).await.map(|fresh| {
                    news = Some(fresh);
                    true
                }),
            };
            match moved {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) if passing::<M>(&error) => {
                    tracing::debug!(%error, "following goes on in a moment");
                    news = None;
                    tokio::time::sleep(AFTER_FAILURE).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let _ = tokio::time::timeout(self.poll, watch.changed()).await;
        }
    }

    async fn subscribe<M: ReadModel>(
        &self,
        model: &mut M,
    ) -> Result<Subscription<E>, FollowError<M::Error>> {
        let position = model.position().await.map_err(FollowError::Model)?;
        Ok(Subscription::new(self.engine.clone(), self.source.clone(), position))
    }

    /// Takes in what comes next, if there is something.
    async fn round<M: ReadModel>(
        &self,
        model: &mut M,
        news: &mut Subscription<E>,
    ) -> Result<bool, FollowError<M::Error>> {
        let records = news.ready(self.batch).await.map_err(FollowError::Source)?;
        if records.is_empty() {
            return Ok(false);
        }
        model.apply(&records).await.map_err(FollowError::Model)?;
        Ok(true)
    }
}

fn passing<M: ReadModel>(error: &FollowError<M::Error>) -> bool {
    match error {
        FollowError::Source(error) => matches!(error, Error::Overloaded { .. } | Error::DiskFull),
        FollowError::Model(error) => M::passing(error),
    }
}
