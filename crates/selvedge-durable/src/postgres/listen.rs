//! Hears what other processes say, so that nobody waits for the next look.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::AsyncMessage;

use super::{failure, members::Heard, runtime, session::Address};
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
    let (spoken, mut hear) = mpsc::unbounded_channel();
    let serve = |mut connection: tokio_postgres::Connection<_, _>| {
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notification) = message
                    && spoken.send(notification).is_err()
                {
                    break;
                }
            }
        })
    };
    let (client, _serving) = address.connect(serve).await?;
    let sql = format!("LISTEN \"{}\"", address.schema);
    client.batch_execute(&sql).await.map_err(|error| failure(&error))?;
    // Whatever was said before, nobody heard.
    heard.said.lock().everybody();
    nudge.now();
    while let Some(notification) = hear.recv().await {
        if heard.said.lock().hear(me, notification.payload()) {
            nudge.now();
        }
    }
    drop(client);
    Ok(())
}
