//! Spreads calls over several services and leaves out those that fail.
//!
//! Each attempt goes to one endpoint, chosen by what is known of them all;
//! endpoints that do markedly worse than the others are ejected for a while.
//! Clones share what is known, so one clone per connection balances as one.
//! With more patterns than these two, see [`crate::policy::Builder::over`].
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use selvedge_patterns::{balance::{Algorithm, Config}, outlier};
//! use selvedge_tower::{balance, classify::Always};
//! use tower::{ServiceExt, service_fn};
//!
//! let endpoint = |name: &'static str| service_fn(move |()| async move { Ok::<_, std::io::Error>(name) });
//! let config = Config { algorithm: Algorithm::RoundRobin, ..Config::default() };
//! let outlier = Some(outlier::Config::default());
//! let service = balance::service(config, outlier, Always::SAFE, [endpoint("a"), endpoint("b")])?;
//! assert_eq!(service.clone().oneshot(()).await?, "a");
//! assert_eq!(service.clone().oneshot(()).await?, "b");
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use selvedge_patterns::balance::Config;
use selvedge_patterns::outlier;

use crate::policy::{self, BuildError, Many, Policy};

#[cfg(test)]
mod tests;

/// A service made of several. Clones share everything.
pub type Service<S, C> = policy::Service<Many<S>, C>;

/// Spreads calls evenly over `endpoints` and ejects those that `outlier` says.
///
/// # Errors
///
/// If a configuration makes no sense or there is no endpoint.
pub fn service<S, C>(
    config: Config,
    outlier: Option<outlier::Config>,
    classify: C,
    endpoints: impl IntoIterator<Item = S>,
) -> Result<Service<S, C>, BuildError> {
    let builder = Policy::builder(classify).timeout(policy::NO_TIMEOUT).balance(config);
    let builder = match outlier {
        Some(outlier) => builder.outlier(outlier),
        None => builder,
    };
    builder.over(endpoints.into_iter().map(|endpoint| (endpoint, 1)))
}
