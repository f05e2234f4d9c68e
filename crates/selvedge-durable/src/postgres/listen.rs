//! Hears what other processes say, so that nobody waits for the next look.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::oneshot;
use tokio_postgres::AsyncMessage;

use super::{address::Address, failure, members::Heard, runtime};
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
    nudge: Nudge,
    stop: oneshot::Receiver<()>,
) -> Result<JoinHandle<()>, Error> {
    let runtime = runtime()?;
    spawn("selvedge-listen", move || {
        runtime.block_on(async {
            let listen = async {
                loop {
                    if let Err(error) = listen(&address, &me, &heard, &nudge).await {
                        tracing::debug!(%error, "not listening, so looking has to do");
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

async fn listen(address: &Address, me: &str, heard: &Heard, nudge: &Nudge) -> Result<(), Error> {
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
        std::future::pending().await
    };
    tokio::select! {
        ended = hear => ended,
        failed = ask => failed,
    }
}
