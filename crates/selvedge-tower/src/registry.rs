//! Layers by name: made when first asked for, shared by all who ask.
//!
//! Two parts of a program that call the same dependency must share its breaker
//! and its limits. They ask a registry for it by name instead of passing it
//! through everything in between.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use selvedge_patterns::breaker::Config;
//! use selvedge_tower::{Registry, breaker, classify::Always};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let breakers = Registry::new(100);
//! let make = || breaker::Layer::new(Config { consecutive: Some(1), ..Config::default() }, Always::UNSAFE);
//!
//! let here = breakers.get_or_make("payments", make)?;
//! let down = here.layer(service_fn(|()| async { Err::<(), _>(std::io::Error::other("down")) }));
//! assert!(down.oneshot(()).await.is_err());
//!
//! // Elsewhere, under the same name: the same breaker.
//! let there = breakers.get_or_make("payments", make)?;
//! let well = there.layer(service_fn(|()| async { Ok::<_, std::io::Error>(()) }));
//! assert_eq!(well.oneshot(()).await.unwrap_err().reason(), "circuit_open");
//!
//! for (name, breaker) in breakers.list() {
//!     println!("{name} is {}", breaker.view().state.word());
//! }
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```
//!
//! Source: the registries of resilience4j.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
mod tests;

/// Layers (or whatever shares its state among clones) by name. Clones of a
/// registry are the same registry.
#[derive(Clone, Debug)]
pub struct Registry<L> {
    entries: Arc<Mutex<BTreeMap<Arc<str>, L>>>,
    most: usize,
}

/// Why there is nothing under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError<E> {
    /// It could not be made.
    #[error(transparent)]
    Make(E),
    /// The registry holds as many as it may. Names that come from requests
    /// belong in a keyed limit, which forgets the oldest.
    #[error("the registry holds {most} names and takes no more")]
    Full {
        /// How many that are.
        most: usize,
    },
}

impl<L: Clone> Registry<L> {
    /// An empty registry for up to `most` names.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { entries: Arc::default(), most }
    }

    /// What is called `name`; if nothing is, what `make` gives is from now on.
    /// It is made once, whoever else asks at the same time. `make` must not
    /// ask this registry.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; then nothing is called so.
    pub fn get_or_make<E>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<L, E>,
    ) -> Result<L, RegistryError<E>> {
        let mut entries = self.entries();
        if let Some(known) = entries.get(name) {
            return Ok(known.clone());
        }
        if entries.len() >= self.most {
            return Err(RegistryError::Full { most: self.most });
        }
        let made = make().map_err(RegistryError::Make)?;
        entries.insert(name.into(), made.clone());
        Ok(made)
    }

    /// What is called `name`, if anything is.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<L> {
        self.entries().get(name).cloned()
    }

    /// Forgets `name`. Whoever holds what was called so keeps it.
    pub fn remove(&self, name: &str) -> Option<L> {
        self.entries().remove(name)
    }

    /// All there is, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(Arc<str>, L)> {
        self.entries().iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, L>> {
        // `make` may have panicked: then nothing was put in.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
