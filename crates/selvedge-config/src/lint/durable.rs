//! What is unwise about topics and the groups that read them.

use std::time::Duration;

use super::Lint;
use crate::{
    diagnostic::{Code, Diagnostic},
    value::show_duration as show,
};

/// A lease below this is over before a consumer on a busy machine has looked at its message.
const LEASE_SHORT: Duration = Duration::from_secs(1);

impl Lint<'_> {
    pub(super) fn durable(&mut self) {
        let file = self.file;
        self.readable_on_the_way();
        for (name, topic) in file.topics.iter() {
            let (age, size) = match topic.retention.as_ref() {
                Some(retention) => (*retention.age, *retention.size),
                None => (None, None),
            };
            if age.is_none() && size.is_none() && topic.compact.is_none() {
                self.warn(
                    Diagnostic::warning(
                        Code::UNBOUNDED,
                        format!("topic `{}` grows until the disk is full", name.as_str()),
                    )
                    .at(topic.retention.span(), "nothing ever leaves it")
                    .help("set `retention: { age: 30d }` or a `size`, or `compact: on`; what is to stay for ever belongs in an event stream"),
                );
            }
        }
        self.collects_nothing();
        for (name, subscription) in file.subscriptions.iter() {
            if *subscription.lease < LEASE_SHORT {
                self.warn(
                    Diagnostic::warning(
                        Code::INEFFECTIVE,
                        format!(
                            "`{}`: a lease of {} ends before most consumers are done",
                            name.as_str(),
                            show(*subscription.lease)
                        ),
                    )
                    .at(subscription.lease.span(), "then the message is handed out again")
                    .help("set it to several times what a message takes, such as `30s`"),
                );
            }
            self.outlives_topic(name.as_str(), subscription);
        }
    }

    /// A database on another machine, and what is said to it in the clear.
    fn readable_on_the_way(&mut self) {
        let file = self.file;
        let Some(durable) = file.durable.as_ref() else { return };
        let Some(url) = durable.postgres.as_ref() else { return };
        let config = selvedge_durable::Config::postgres(url.expose());
        let Ok(Some(host)) = config.unencrypted() else { return };
        self.warn(
            Diagnostic::warning(
                Code::UNENCRYPTED,
                format!("messages and the password may go to `{host}` in the clear"),
            )
            .at(durable.postgres.span(), "encrypted only if the server offers it, and whoever answers is believed")
            .help("add `?sslmode=verify-full` to it, with `&sslrootcert=FILE` for an authority of your own"),
        );
    }

    /// Rules that fit no topic of the file.
    fn collects_nothing(&mut self) {
        let file = self.file;
        for (name, topic) in file.topics.iter() {
            for rule in topic.collect.iter() {
                let fits = |other: &str| other != name.as_str() && rule.from.matches(other);
                if file.topics.names().into_iter().any(fits) {
                    continue;
                }
                let from = crate::tree::shorten(rule.from.as_str());
                self.warn(
                    Diagnostic::warning(
                        Code::INEFFECTIVE,
                        format!("`{}` collects from `{from}`, and no topic has such a name", name.as_str()),
                    )
                    .at(rule.from.span(), "none of those in this file")
                    .help("names have words with dots between them: `orders.*` fits `orders.eu`, `orders.#` also `orders`"),
                );
            }
        }
    }

    /// Retries that go on when the message has left the topic.
    fn outlives_topic(&mut self, name: &str, subscription: &crate::schema::Subscription) {
        let file = self.file;
        let Some(topic) = file.topics.get(subscription.topic.as_str()) else { return };
        let Some(retention) = topic.retention.as_ref().filter(|it| !*it.unconsumed) else { return };
        let Some(age) = *retention.age else { return };
        let tries = *subscription.retry.attempts;
        let held = subscription.lease.saturating_mul(tries);
        if held > age {
            self.warn(
                Diagnostic::warning(
                    Code::INEFFECTIVE,
                    format!(
                        "`{name}`: {tries} deliveries of {} last longer than the {} that `{}` keeps a message",
                        show(*subscription.lease),
                        show(age),
                        subscription.topic.as_str()
                    ),
                )
                .at(subscription.lease.span(), "")
                .and(retention.age.span(), "a message may be gone before its last delivery")
                .help("lengthen `age`, or set `retention: { unconsumed: true }`"),
            );
        }
    }
}
