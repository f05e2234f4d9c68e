//! Tells those who wait that something has happened, so that nobody asks again
//! and again.
//!
//! The writer notes what a transaction touches and rings after the commit; who
//! watches something has a bell of its own for it, made when the first one
//! watches and gone with the last. What rang while nobody listened is heard at
//! the next [`Watch::changed`], so nothing is lost between a look and the wait
//! after it; many commits that nobody listened to are heard as one.

use std::{collections::HashMap, future::pending, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

/// How long a watch is silent at most. Nothing depends on it while the store
/// works as it should: one process rings for everything that it commits, and of
/// other processes it hears through the database.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// What can be watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A topic: messages come to its end, or it is made or deleted.
    Topic(String),
    /// All events of all streams.
    Events,
    /// One stream: events come, or some are removed.
    Stream(String),
    /// Who holds a resource. That a lease runs out is no news: its end is known.
    Lease(String),
    /// The value of a key. That it expires is no news.
    State(String),
}

/// Hears of one [`Subject`]. Get it before the first look.
#[derive(Debug)]
pub struct Watch(Ear);

#[derive(Debug)]
enum Ear {
    /// There is nothing to hear: time passes, and that is all.
    Deaf(Duration),
    Bell {
        subject: Subject,
        rings: watch::Receiver<()>,
        bells: Arc<Bells>,
    },
}

impl Watch {
    /// For an engine that does not tell what happens: look again after `pause`.
    #[must_use]
    pub const fn every(pause: Duration) -> Self {
        Self(Ear::Deaf(pause))
    }

    /// What has happened until now will be seen by the look that follows.
    pub fn look(&mut self) {
        if let Ear::Bell { rings, .. } = &mut self.0 {
            rings.mark_unchanged();
        }
    }

    /// Waits until something has happened since the last [`Self::look`] or
    /// `changed`, or since the watch began. It may wake for nothing, and does so
    /// after a minute. Safe to drop.
    pub async fn changed(&mut self) {
        match &mut self.0 {
            Ear::Deaf(pause) => sleep(*pause).await,
            Ear::Bell { rings, .. } => {
                let rung = async {
                    if rings.changed().await.is_err() {
                        // Unreachable while this holds the bells.
                        pending().await
                    }
                };
                tokio::select! {
                    biased;
                    () = rung => {}
                    () = sleep(SILENT_MAX) => {}
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Ear::Bell { subject, bells, .. } = &self.0 {
            let mut bells = bells.0.lock();
            // This one still counts.
            if bells.get(subject).is_some_and(|bell| bell.receiver_count() <= 1) {
                bells.remove(subject);
            }
        }
    }
}

/// The bells of all who watch: as many as there are different things watched.
#[derive(Debug, Default)]
pub(crate) struct Bells(Mutex<HashMap<Subject, watch::Sender<()>>>);

impl Bells {
    pub(crate) fn watch(self: &Arc<Self>, subject: Subject) -> Watch {
        let rings = {
            let mut bells = self.0.lock();
            let bell = bells.entry(subject.clone()).or_insert_with(|| watch::Sender::new(()));
            bell.subscribe()
        };
        Watch(Ear::Bell { subject, rings, bells: Arc::clone(self) })
    }

    /// Rings for what has happened.
    pub(crate) fn ring<'s>(&self, news: impl IntoIterator<Item = &'s Subject>) {
        let bells = self.0.lock();
        if bells.is_empty() {
            return;
        }
        for subject in news {
            if let Some(bell) = bells.get(subject) {
                bell.send_replace(());
            }
        }
    }

    /// Rings for everything of which `about` says so.
    pub(crate) fn ring_where(&self, about: impl Fn(&Subject) -> bool) {
        for (subject, bell) in &*self.0.lock() {
            if about(subject) {
                bell.send_replace(());
            }
        }
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.0.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn topic(name: &str) -> Subject {
        Subject::Topic(name.to_owned())
    }

    async fn rang(watch: &mut Watch) -> bool {
        timeout(Duration::ZERO, watch.changed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_rang_before_the_wait_is_heard_and_many_rings_are_one() {
        let bells = Arc::new(Bells::default());
        let mut watch = bells.watch(topic("t"));
        assert!(!rang(&mut watch).await);
        for _ in 0..5 {
            bells.ring(&[topic("t"), topic("other")]);
        }
        assert!(rang(&mut watch).await);
        assert!(!rang(&mut watch).await);
        bells.ring(&[topic("t")]);
        watch.look();
        assert!(!rang(&mut watch).await, "the look sees it");
        bells.ring(&[topic("other")]);
        assert!(!rang(&mut watch).await);
        bells.ring_where(|_| true);
        assert!(rang(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let bells = Arc::new(Bells::default());
        let mut watch = bells.watch(Subject::Events);
        let begun = tokio::time::Instant::now();
        watch.changed().await;
        assert_eq!(begun.elapsed(), SILENT_MAX);
    }

    #[test]
    fn a_bell_goes_with_the_last_who_hears_it() {
        let bells = Arc::new(Bells::default());
        let (one, two) = (bells.watch(topic("t")), bells.watch(topic("t")));
        let other = bells.watch(topic("o"));
        assert_eq!(bells.count(), 2);
        drop(one);
        assert_eq!(bells.count(), 2);
        drop((two, other));
        assert_eq!(bells.count(), 0);
    }
}
