//! Hears what other processes say, so that nobody waits for the next look.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::oneshot;
use tokio_postgres::AsyncMessage;

use super::{address::Address, failure, health, members::Heard, runtime, sentence};
use crate::{
    Error,
    store::{Nudge, spawn},
};

/// How long to wait before listening again after the connection was lost.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts the thread; it ends with `stop`.
pub(super) fn start(
    address: Address,
    me: String,
    heard: Arc<Heard>,
    health: health::Seen,
    nudge: Nudge,
    stop: oneshot::Receiver<()>,
) -> Result<JoinHandle<()>, Error> {
    let runtime = runtime()?;
    spawn("selvedge-listen", move || {
        runtime.block_on(async {
            let listen = async {
                loop {
                    if let Err(error) = listen(&address, &me, &heard, &health, &nudge).await {
                        tracing::debug!(%error, "not listening, so looking has to do");
                        // Nobody knows how it fares now.
                        *health.lock() = None;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            };
            tokio::select! {
                () = listen => {}
                _ = stop => {}
            }
        });
    })
}

async fn listen(
    address: &Address,
    me: &str,
    heard: &Heard,
    health: &health::Seen,
    nudge: &Nudge,
) -> Result<(), Error> {
    let (client, mut connection) = address.connect(|connection| connection).await?;
    let hear = async {
        loop {
            match std::future::poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    if heard.hear(me, notification.payload()) {
                        nudge.now();
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(failure(&error)),
                None => return Ok(()),
            }
        }
    };
    let ask = async {
        let sql = format!("LISTEN \"{}\"", address.schema);
        client.batch_execute(&sql).await.map_err(|error| failure(&error))?;
        heard.missed();
        nudge.now();
        let mut looks = tokio::time::interval(health::EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            // A look that fails says nothing of what is heard.
            let seen = health::look(&client, address).await;
            if let Err(error) = &seen
                && address.news("health")
            {
                let error = sentence(error);
                tracing::warn!(error, "how the database fares cannot be seen");
            }
            *health.lock() = seen.ok();
        }
    };
    tokio::select! {
        ended = hear => ended,
        failed = ask => failed,
    }
}
