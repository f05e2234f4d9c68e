//! HTTP/2 in the clear, with prior knowledge: a client and a server.

use crate::{ports, wait};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, request::Parts};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2 as client,
    server::conn::http2 as server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

/// Content with trailers after it.
pub type Body = BoxBody<Bytes, Infallible>;

/// One connection, requests one after another or at once.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    sender: client::SendRequest<Body>,
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The fields.
    pub headers: HeaderMap,
    /// The content.
    pub body: Bytes,
    /// The trailer fields, where there were any.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// A field's value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A trailer field's value as text.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).and_then(|value| value.to_str().ok())
    }

    /// The gRPC status: from the trailers, or from the head of a trailers-only answer.
    pub fn grpc_status(&self) -> Option<&str> {
        self.trailer("grpc-status").or_else(|| self.header("grpc-status"))
    }
}

/// Content known beforehand.
pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed()
}

/// These pieces of content, then these trailers.
pub fn with_trailers(pieces: Vec<Bytes>, trailers: HeaderMap) -> Body {
    let frames: Vec<Result<Frame<Bytes>, Infallible>> =
        pieces.into_iter().map(Frame::data).chain([Frame::trailers(trailers)]).map(Ok).collect();
    BodyExt::boxed(StreamBody::new(Frames(frames.into_iter())))
}

struct Frames(std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>);

impl futures_core::Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

impl Client {
    /// Connects to a port of this machine.
    ///
    /// # Panics
    ///
    /// When nobody there speaks HTTP/2.
    pub fn open(port: u16) -> Self {
        let runtime = runtime();
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("somebody listens");
            stream.set_nodelay(true).expect("the socket is open");
            let (sender, connection) =
                client::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .expect("it speaks HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// One request and its whole answer.
    ///
    /// # Errors
    ///
    /// When the stream or the connection broke.
    ///
    /// # Panics
    ///
    /// When the answer does not come in time.
    pub fn send(&mut self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        let sending = self.sender.send_request(request);
        self.runtime.block_on(async {
            tokio::time::timeout(wait::PATIENCE, async { collect(sending.await?).await })
                .await
                .expect("an answer in time")
        })
    }

    /// Many requests at once; the answers in the order of the requests.
    ///
    /// # Panics
    ///
    /// When the answers do not come in time.
    pub fn send_all(&mut self, requests: Vec<Request<Body>>) -> Vec<Result<Answer, hyper::Error>> {
        let sendings: Vec<_> =
            requests.into_iter().map(|request| self.sender.send_request(request)).collect();
        self.runtime.block_on(async {
            let tasks: Vec<_> = sendings
                .into_iter()
                .map(|sending| tokio::spawn(async { collect(sending.await?).await }))
                .collect();
            let mut answers = Vec::new();
            for task in tasks {
                let answer = tokio::time::timeout(wait::PATIENCE, task).await;
                answers.push(answer.expect("an answer in time").expect("tasks do not panic"));
            }
            answers
        })
    }

    /// `GET` of a path.
    ///
    /// # Errors
    ///
    /// When the stream or the connection broke.
    ///
    /// # Panics
    ///
    /// When `target` is no path.
    pub fn get(&mut self, target: &str) -> Result<Answer, hyper::Error> {
        self.send(request("GET", target).body(full("")).expect("a path"))
    }
}

/// The start of a request to this path.
pub fn request(method: &str, target: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://test{target}"))
}

async fn collect(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: collected.to_bytes(),
        trailers,
    })
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

/// A server that reads each request whole, then answers it.
pub struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Server {
    /// Answers each request as `handler` says.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn start(
        handler: impl Fn(Parts, Bytes, Option<HeaderMap>) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let (port, runtime) = (ports::free(), runtime());
        let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (counted, connected) = (Arc::clone(&requests), Arc::clone(&connections));
        let handler = Arc::new(handler);
        let listener =
            runtime.block_on(TcpListener::bind(("127.0.0.1", port))).expect("the port is free");
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, counted) = (Arc::clone(&handler), Arc::clone(&counted));
                AtomicUsize::fetch_add(&connected, 1, Ordering::SeqCst);
                tokio::spawn(server::Builder::new(TokioExecutor::new()).serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request: Request<Incoming>| {
                        let (handler, counted) = (Arc::clone(&handler), Arc::clone(&counted));
                        async move {
                            let (parts, body) = request.into_parts();
                            let collected = body.collect().await?;
                            let trailers = collected.trailers().cloned();
                            counted.fetch_add(1, Ordering::SeqCst);
                            Ok::<_, hyper::Error>(handler(parts, collected.to_bytes(), trailers))
                        }
                    }),
                ));
            }
        });
        Self { port, requests, connections, _runtime: runtime }
    }

    /// The address as a configuration writes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many requests it has read.
    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("port", &self.port).finish_non_exhaustive()
    }
}
