//! Takes connections in, with a bound.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tracing::debug;

/// Serves each connection of `listener` in a task of its own, at most `most` at
/// once, until `shutdown` resolves. Connections that are open then may end by
/// themselves for as long as `linger`; what is left is cut.
pub(crate) async fn connections<F>(
    listener: TcpListener,
    most: usize,
    shutdown: impl Future<Output = ()>,
    linger: Duration,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(most.max(1)));
    let mut connections = tokio::task::JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let accept = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let served = serve(stream);
                connections.spawn(async move {
                    let _place = place;
                    served.await;
                });
            }
            Err(error) => {
                debug!(%error, "connection not accepted");
                // Out of file descriptors: the next attempt would fail at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(linger, ended).await;
}
