//! The layers in an HTTP stack: classification, and axum's clone per connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, Request, StatusCode, header};
use selvedge_patterns::limit::{Config, Rate};
use selvedge_patterns::{budget, retry};
use selvedge_tower::classify::Http;
use selvedge_tower::{Error, limit};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

async fn refuse(error: Error) -> Response {
    let mut response = StatusCode::TOO_MANY_REQUESTS.into_response();
    if let Some(wait) = error.retry_after() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
    }
    response
}

/// axum makes a service per connection out of the router: a limit must hold over all of them.
#[tokio::test(start_paused = true)]
async fn a_limit_in_axum_holds_over_connections() {
    let config = Config { rate: Rate::per_second(1), burst: 2, ..Config::default() };
    let layer = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(refuse))
        .layer(limit::Layer::new(config).expect("valid"));
    let router = Router::new().route("/", get(|| async { "hello" })).layer(layer);
    let mut statuses = Vec::new();
    for _connection in 0..3 {
        let request = Request::get("/").body(Body::empty()).expect("valid");
        let response = router.clone().oneshot(request).await.expect("infallible");
        statuses.push(response.status().as_u16());
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        }
    }
    assert_eq!(statuses, [200, 200, 429]);
}

/// Answers with each status in turn and says how often it was asked.
async fn exchange(request: Request<String>, statuses: &[u16]) -> (u16, usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let service = service_fn({
        let asked = Arc::clone(&asked);
        let statuses = statuses.to_vec();
        move |request: Request<String>| {
            assert_eq!(request.body(), "body", "each attempt has the whole request");
            let status = statuses[asked.fetch_add(1, Ordering::Relaxed).min(statuses.len() - 1)];
            async move {
                Ok::<_, Infallible>(
                    http::Response::builder().status(status).body(()).expect("valid"),
                )
            }
        }
    });
    let layer = selvedge_tower::retry::Layer::new(
        retry::Config::default(),
        budget::Config::default(),
        Http,
    );
    let response = layer.expect("valid").layer(service).oneshot(request).await.expect("a response");
    (response.status().as_u16(), asked.load(Ordering::Relaxed))
}

fn request(method: &str) -> Request<String> {
    Request::builder().method(method).body("body".to_owned()).expect("valid")
}

#[tokio::test(start_paused = true)]
async fn http_is_retried_by_method_key_and_status() {
    assert_eq!(exchange(request("GET"), &[503, 502, 200]).await, (200, 3));
    assert_eq!(exchange(request("GET"), &[429, 200]).await, (200, 2));
    assert_eq!(exchange(request("GET"), &[404, 200]).await, (404, 1), "the caller's fault");
    assert_eq!(exchange(request("PUT"), &[500, 200]).await, (200, 2));
    assert_eq!(
        exchange(request("POST"), &[503, 200]).await,
        (503, 1),
        "it may have been processed"
    );
    let mut keyed = request("POST");
    keyed.headers_mut().insert("idempotency-key", HeaderValue::from_static("\"one\""));
    assert_eq!(exchange(keyed, &[503, 200]).await, (200, 2));
}
