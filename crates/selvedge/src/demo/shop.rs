//! One service of the demo's shop, in a process of its own.
//!
//! It behaves as services do in the field: a fixed number of workers, a queue
//! without a bound before them, and no idea that a caller has given up. What
//! goes wrong with it is set over HTTP on a second port. It ends when its
//! standard input does, so it cannot outlive whoever started it.

use crate::client;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use selvedge_patterns::random::{Rng as _, SplitMix64};
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot, watch},
};

/// What a service is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Its name, given in every answer.
    #[arg(long)]
    pub(crate) name: String,
    /// Requests it works on at once.
    #[arg(long, default_value_t = 16)]
    pub(crate) workers: usize,
    /// What one request takes, in milliseconds.
    #[arg(long, default_value_t = 5)]
    pub(crate) work_ms: u64,
    /// What a POST calls before it answers: `host:port/path`.
    #[arg(long)]
    pub(crate) calls: Option<String>,
}

/// What is wrong with a service just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fault {
    /// Milliseconds that every request takes longer.
    pub(crate) latency_ms: u64,
    /// Share of requests answered with 500, from 0 to 1.
    pub(crate) error_rate: f64,
    /// Requests are accepted, and nothing happens until this ends.
    pub(crate) hang: bool,
    /// Nothing listens: connections are refused and cut.
    pub(crate) down: bool,
}

/// What a service has seen.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Requests received since it started.
    pub(crate) received: u64,
    /// Requests waiting or worked on.
    pub(crate) pending: u64,
}

struct Service {
    options: Options,
    fault: watch::Sender<Fault>,
    workers: Semaphore,
    received: AtomicU64,
    pending: AtomicU64,
    luck: Mutex<SplitMix64>,
}

/// Serves until standard input ends.
pub(crate) async fn serve(options: Options) -> io::Result<()> {
    let seed = options.name.bytes().fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
    let service = Arc::new(Service {
        workers: Semaphore::new(options.workers),
        options,
        fault: watch::Sender::new(Fault::default()),
        received: AtomicU64::new(0),
        pending: AtomicU64::new(0),
        luck: Mutex::new(SplitMix64::new(seed)),
    });
    let main = TcpListener::bind("127.0.0.1:0").await?;
    let control = TcpListener::bind("127.0.0.1:0").await?;
    announce(main.local_addr()?, control.local_addr()?);
    tokio::join!(accept(&service, main), accept_control(&service, control));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "whoever started the process reads the ports here")]
fn announce(main: SocketAddr, control: SocketAddr) {
    println!("ready {main} {control}");
}

async fn accept(service: &Arc<Service>, listener: TcpListener) {
    let mut fault = service.fault.subscribe();
    let address = listener.local_addr().expect("a bound listener has an address");
    let mut listener = Some(listener);
    loop {
        if fault.borrow_and_update().down {
            listener = None;
            let _ = fault.wait_for(|fault| !fault.down).await;
        }
        if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(listening) = &listener else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        tokio::select! {
            _ = fault.changed() => {}
            accepted = listening.accept() => if let Ok((stream, _)) = accepted {
                let service = Arc::clone(service);
                tokio::spawn(async move {
                    let mut fault = service.fault.subscribe();
                    tokio::select! {
                        () = carry(&service, stream) => {}
                        _ = fault.wait_for(|fault| fault.down) => {}
                    }
                });
            }
        }
    }
}

async fn carry(service: &Arc<Service>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request: Request<Incoming>| {
        let service = Arc::clone(service);
        async move { Ok::<_, Infallible>(answer(service, request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    service.received.fetch_add(1, Ordering::Relaxed);
    service.pending.fetch_add(1, Ordering::Relaxed);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // The work goes on when the caller has gone: that is how threads behave,
    // and why a backlog outlives an outage.
    let (done, answered) = oneshot::channel();
    let worker = Arc::clone(&service);
    tokio::spawn(async move {
        let status = work(&worker, &method).await;
        worker.pending.fetch_sub(1, Ordering::Relaxed);
        let _ = done.send(status);
    });
    let status = answered.await.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(
        status,
        &serde_json::json!({ "service": service.options.name, "path": path, "status": status.as_u16() }),
    )
}

async fn work(service: &Service, method: &Method) -> StatusCode {
    let _worker = service.workers.acquire().await;
    let mut fault = service.fault.subscribe();
    let fault = fault.wait_for(|fault| !fault.hang).await.map(|fault| *fault).unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(service.options.work_ms + fault.latency_ms)).await;
    if service.luck.lock().expect("no one panics while drawing").unit() < fault.error_rate {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    match (&service.options.calls, method) {
        (Some(dependency), &Method::POST) => {
            let (address, path) = dependency.split_once('/').unwrap_or((dependency, ""));
            let path = format!("/{path}");
            match client::send("POST", address, &path, &[], "{}").await {
                Ok((status, _)) if status.is_success() => StatusCode::CREATED,
                // The order is kept and charged later: a shop can live with that,
                // if only it learns of the failure while the shopper still waits.
                _ => StatusCode::ACCEPTED,
            }
        }
        _ => StatusCode::OK,
    }
}

async fn accept_control(service: &Arc<Service>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = Arc::clone(service);
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(control(&service, request).await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// `PUT /fault` sets what is wrong, `GET /fault` and `GET /counts` read.
async fn control(service: &Service, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/counts") => json(
            StatusCode::OK,
            &Counts {
                received: service.received.load(Ordering::Relaxed),
                pending: service.pending.load(Ordering::Relaxed),
            },
        ),
        (&Method::GET, "/fault") => json(StatusCode::OK, &*service.fault.borrow()),
        (&Method::PUT, "/fault") => {
            let body = Limited::new(request.into_body(), 4096).collect().await;
            let parsed = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
            match parsed {
                Some(fault) => {
                    service.fault.send_replace(fault);
                    json(StatusCode::OK, &fault)
                }
                None => json(
                    StatusCode::BAD_REQUEST,
                    &serde_json::json!({ "allowed": ["latency_ms", "error_rate", "hang", "down"] }),
                ),
            }
        }
        _ => json(StatusCode::NOT_FOUND, &serde_json::json!({ "paths": ["/fault", "/counts"] })),
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).expect("our own values serialize");
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("static headers are valid")
}
