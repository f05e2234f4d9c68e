//! A small HTTP client for our own processes on this machine: one request, one
//! answer, both small.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{io, time::Duration};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: usize = 16 << 20;

/// A connection that can carry requests one after another.
pub(crate) type Sender = http1::SendRequest<Full<Bytes>>;

/// Opens a connection to `address` (`host:port`).
pub(crate) async fn connect(address: &str) -> io::Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends by itself when the sender is dropped or the peer goes away.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Sends one request on its own connection and reads the whole answer.
pub(crate) async fn send(
    method: &str,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> io::Result<(StatusCode, Bytes)> {
    let mut request = Request::builder().method(method).uri(path).header("host", address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).map_err(io::Error::other)?;
    let exchange = async {
        let mut sender = connect(address).await?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        read(response).await
    };
    tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Reads a whole answer, up to a bound.
pub(crate) async fn read(
    response: Response<hyper::body::Incoming>,
) -> io::Result<(StatusCode, Bytes)> {
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}
