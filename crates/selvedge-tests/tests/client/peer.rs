//! What stands where the server should: a way that breaks, and a server that
//! says what it was told to say.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, channel::Channel};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Carries bytes to a server that may change, and breaks off when told to.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) target: Arc<Mutex<SocketAddr>>,
    /// Bytes of answers after which the next connection breaks off.
    pub(crate) cut: Arc<AtomicUsize>,
    _task: Task,
}

struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(target));
        let cut = Arc::new(AtomicUsize::new(usize::MAX));
        let (to, limit) = (target.clone(), cut.clone());
        let task = tokio::spawn(async move {
            let mut ways = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let to = *to.lock().unwrap();
                let left = limit.swap(usize::MAX, Ordering::SeqCst);
                ways.spawn(async move {
                    if let Ok(far) = TcpStream::connect(to).await {
                        carry(near, far, left).await;
                    }
                });
            }
        });
        Self { address, target, cut, _task: Task(task) }
    }
}

async fn carry(near: TcpStream, far: TcpStream, mut left: usize) {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
        (near.into_split(), far.into_split());
    let there = async {
        let _ = tokio::io::copy(&mut near_in, &mut far_out).await;
        let _ = far_out.shutdown().await;
        std::future::pending::<()>().await;
    };
    let back = async {
        let mut buffer = vec![0; 4096];
        while left > 0 {
            let Ok(read @ 1..) = far_in.read(&mut buffer).await else { return };
            let some = read.min(left);
            left -= some;
            if near_out.write_all(&buffer[..some]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = there => {}, () = back => {} }
}

/// A server that answers each line with what `says` makes of it; nothing ends
/// the request.
pub(crate) async fn saying(
    status: StatusCode,
    says: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let says = Arc::new(says);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let says = says.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let says = says.clone();
                async move { Ok::<_, Infallible>(talk(status, request, says)) }
            });
            let serve = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(async move { drop(serve.await) });
        }
    });
    address
}

type Talk = Response<Either<Full<Bytes>, Channel<Bytes>>>;

fn talk(
    status: StatusCode,
    request: Request<Incoming>,
    says: Arc<impl Fn(&str) -> Option<String> + Send + Sync + 'static>,
) -> Talk {
    if status != StatusCode::OK {
        let said = says("").unwrap_or_default();
        let mut answer = Response::new(Either::Left(Full::from(said)));
        *answer.status_mut() = status;
        return answer;
    }
    let (mut out, body) = Channel::<Bytes, Infallible>::new(16);
    tokio::spawn(async move {
        let (mut body, mut rest) = (request.into_body(), BytesMut::new());
        while let Some(Ok(frame)) = body.frame().await {
            rest.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.split_to(end + 1);
                match says(std::str::from_utf8(&line).unwrap()) {
                    Some(said) => out.send_data(Bytes::from(said)).await.unwrap(),
                    None => return,
                }
            }
        }
    });
    let mut answer = Response::new(Either::Right(body));
    let media_type = http::HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, media_type);
    answer
}
