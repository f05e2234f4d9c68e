//! HTTP/2 on either side, and the four kinds of gRPC calls.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use selvedge_patterns::policy::Policy;
use selvedge_patterns::retry;
use selvedge_proxy::config;
use tokio::net::{TcpListener, TcpStream};

use crate::kit::{PATIENCE, Rig, Upstream, config as plain};

/// Runs `work` with patience.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(
        local.run_until(async { tokio::time::timeout(PATIENCE, work).await.expect("no hang") }),
    )
}

/// An HTTP/2 server that handles each stream with `answer`.
async fn server<F, W>(answer: F) -> SocketAddr
where
    F: Fn(Request<RecvStream>, h2::server::SendResponse<Bytes>) -> W + Clone + 'static,
    W: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(answer(request, respond));
                }
            });
        }
    });
    address
}

async fn connect(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

fn before(address: SocketAddr, policy: Policy) -> Rig {
    let mut config = plain(&[address]);
    config.services[0].protocol = config::Upstream::Http2;
    config.services[0].policy = policy;
    Rig::new(config)
}

fn call(path: &str) -> Request<()> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://shop{path}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// The next piece of a body; `None` at its end.
async fn piece(body: &mut RecvStream) -> Option<Bytes> {
    let data = body.data().await?.unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    Some(data)
}

fn ok() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn end(stream: &mut SendStream<Bytes>, status: &'static str) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    stream.send_trailers(trailers).unwrap();
}

/// Sends every piece back as it comes: one, or many, both ways.
async fn echo(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    assert_eq!(request.uri().authority().unwrap().as_str(), "shop");
    assert_eq!(request.headers()["te"], "trailers");
    assert!(request.headers().contains_key("traceparent"));
    assert!(!request.headers().contains_key("host"));
    let mut stream = respond.send_response(ok(), false).unwrap();
    let mut body = request.into_body();
    while let Some(data) = piece(&mut body).await {
        stream.send_data(data, false).unwrap();
    }
    end(&mut stream, "0");
}

#[test]
fn all_four_kinds_of_calls_pass() {
    run(async {
        let rig = before(server(echo).await, Policy::default());
        let mut client = connect(rig.edge).await;
        // One message each way.
        let (response, mut send) = client.send_request(call("/s.S/Unary"), false).unwrap();
        send.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        let mut body = response.into_body();
        assert_eq!(piece(&mut body).await.unwrap(), "hello");
        assert!(piece(&mut body).await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        // Both ways, each message answered before the next is sent.
        let (response, mut send) = client.send_request(call("/s.S/Both"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for message in ["one", "two", "three"] {
            send.send_data(Bytes::from(message), false).unwrap();
            assert_eq!(piece(&mut body).await.unwrap(), message);
        }
        send.send_data(Bytes::new(), true).unwrap();
        while piece(&mut body).await.is_some() {}
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        // Many up, and many back, larger than every window on the way.
        let (response, mut send) = client.send_request(call("/s.S/Large"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        let chunk = Bytes::from(vec![7; 16 * 1024]);
        let sending = async {
            for _ in 0..200 {
                send.reserve_capacity(chunk.len());
                while send.capacity() < chunk.len() {
                    std::future::poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                }
                send.send_data(chunk.clone(), false).unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
        };
        let receiving = async {
            let mut total = 0;
            while let Some(data) = piece(&mut body).await {
                total += data.len();
            }
            total
        };
        let ((), total) = tokio::join!(sending, receiving);
        assert_eq!(total, 200 * chunk.len());
    });
}

#[test]
fn many_streams_share_one_upstream_connection() {
    run(async {
        let rig = before(server(echo).await, Policy::default());
        let client = connect(rig.edge).await;
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..50 {
            let mut client = client.clone();
            calls.spawn_local(async move {
                let (response, mut send) = client.send_request(call("/s.S/Unary"), false).unwrap();
                let message = Bytes::from(n.to_string());
                send.send_data(message.clone(), true).unwrap();
                let mut body = response.await.unwrap().into_body();
                assert_eq!(piece(&mut body).await.unwrap(), message);
            });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
        assert_eq!(rig.proxy.handle().pools("s")[0].1, 1);
    });
}

#[test]
fn a_caller_that_cancels_cancels_upstream() {
    run(async {
        let (cancelled, seen) = tokio::sync::mpsc::unbounded_channel();
        let mut seen = seen;
        let address = server(move |request: Request<RecvStream>, mut respond| {
            let cancelled = cancelled.clone();
            async move {
                let stream = respond.send_response(ok(), false).unwrap();
                let _request = request;
                let mut stream = stream;
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
                cancelled.send(reason).unwrap();
            }
        })
        .await;
        let rig = before(address, Policy::default());
        let mut client = connect(rig.edge).await;
        let (response, mut send) = client.send_request(call("/s.S/Watch"), false).unwrap();
        let response = response.await.unwrap();
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        assert_eq!(seen.recv().await.unwrap(), h2::Reason::CANCEL);
    });
}

#[test]
fn a_refused_stream_is_tried_again_whatever_the_method() {
    run(async {
        let refused = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = refused.clone();
        let address = server(move |request, mut respond: h2::server::SendResponse<Bytes>| {
            let count = count.clone();
            async move {
                if count.replace(count.get() + 1) == 0 {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    echo(request, respond).await;
                }
            }
        })
        .await;
        let policy = Policy { retry: Some(retry::Config::default()), ..Policy::default() };
        let rig = before(address, policy);
        let mut client = connect(rig.edge).await;
        let (response, mut send) = client.send_request(call("/s.S/Unary"), false).unwrap();
        send.send_data(Bytes::from_static(b"hi"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(piece(&mut body).await.unwrap(), "hi");
        assert_eq!(refused.get(), 2);
    });
}

#[test]
fn http2_is_carried_over_http1_and_back() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    run(async {
        let mut client = connect(rig.edge).await;
        let request = Request::builder()
            .uri("http://shop/a?b=c")
            .header("cookie", "x=1")
            .header("cookie", "y=2")
            .body(())
            .unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        let seen = upstream.last();
        assert_eq!(seen.line(), "GET /a?b=c HTTP/1.1");
        assert_eq!(seen.field("host").as_deref(), Some("shop"));
        assert_eq!(seen.field("cookie").as_deref(), Some("x=1; y=2"));
        assert_eq!(seen.field("via").as_deref(), Some("2 selvedge"));
        // No route for it: gRPC callers are told in trailers.
        let mut config = (*rig.proxy.handle().config()).clone();
        config.routes.clear();
        rig.proxy.handle().apply(config).unwrap();
        let (response, _) = client.send_request(call("/x"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["grpc-status"]),
            (200, &HeaderValue::from_static("12"))
        );
    });
}

#[test]
fn a_shutdown_says_goodbye_and_lets_streams_end() {
    run(async {
        let address = server(|request, mut respond: h2::server::SendResponse<Bytes>| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = request;
            let mut stream = respond.send_response(ok(), false).unwrap();
            end(&mut stream, "0");
        })
        .await;
        let rig = before(address, Policy::default());
        let mut client = connect(rig.edge).await;
        let (response, _) = client.send_request(call("/s.S/Slow"), true).unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        rig.proxy.handle().drain();
        assert_eq!(response.await.unwrap().status(), 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let refused = async { client.ready().await?.send_request(call("/s.S/New"), true)?.0.await };
        assert!(refused.await.is_err(), "GOAWAY");
    });
}
