//! Carries bytes both ways after a switch of protocols (WebSocket).

use std::rc::Rc;

use hyper::upgrade::{OnUpgrade, Upgraded};
use selvedge_patterns::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http1::Conn;
use crate::io::Io;

/// Waits for the client's side to switch, then carries bytes until one side
/// has ended both ways, or nothing has moved for `idle_for`.
pub(crate) async fn carry(down: OnUpgrade, up: Box<Conn>, idle_for: Duration) {
    let Ok(down) = down.await else { return };
    let Some((mut down, from_down)) = socket(down) else { return };
    let (mut up, from_up, _open) = up.into_parts();
    if down.write_all(&from_up).await.is_err() || up.write_all(&from_down).await.is_err() {
        return;
    }
    let moved = Rc::new(std::cell::Cell::new(false));
    let (up_read, up_write) = up.split();
    let (down_read, down_write) = down.split();
    let both = async {
        tokio::join!(copy(up_read, down_write, &moved), copy(down_read, up_write, &moved))
    };
    let watch = async {
        loop {
            tokio::time::sleep(idle_for).await;
            if !moved.replace(false) {
                return;
            }
        }
    };
    tokio::select! {
        _ = both => {}
        () = watch => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::ReadHalf<'_>,
    mut to: tokio::net::tcp::WriteHalf<'_>,
    moved: &std::cell::Cell<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                moved.set(true);
                if to.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown().await;
}

/// The socket under an upgraded connection, and what was read ahead.
fn socket(upgraded: Upgraded) -> Option<(TcpStream, Vec<u8>)> {
    let parts = upgraded.downcast::<Io>().ok()?;
    let (stream, early) = parts.io.into_parts();
    let mut ahead = parts.read_buf.to_vec();
    ahead.extend(early);
    Some((stream, ahead))
}
