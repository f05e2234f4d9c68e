use http::HeaderValue;

use super::*;

fn status(status: u16, after: Option<&'static str>, grpc: bool) -> Option<Outcome> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(after) = after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(after));
    }
    super::response(&response, grpc)
}

#[test]
fn statuses_mean_what_the_patterns_call_them() {
    let gateway = Some(Outcome::Failure(Failure::Gateway));
    let after =
        |seconds| Some(Outcome::Overload { retry_after: Some(Duration::from_secs(seconds)) });
    assert_eq!(status(200, None, false), Some(Outcome::Success));
    assert_eq!(status(304, None, false), Some(Outcome::Success));
    assert_eq!(status(404, None, false), Some(Outcome::ClientFault));
    assert_eq!(status(429, None, false), Some(Outcome::Overload { retry_after: None }));
    assert_eq!(status(429, Some("3"), false), after(3));
    assert_eq!(status(500, None, false), Some(Outcome::Failure(Failure::Server)));
    assert_eq!(status(502, None, false), gateway);
    assert_eq!(status(503, None, false), gateway);
    assert_eq!(status(503, Some("1"), false), after(1));
    assert_eq!(status(503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), false), gateway);
    assert_eq!(status(504, None, true), gateway);
    assert_eq!(status(200, None, true), None, "the trailers will say");
}

#[test]
fn grpc_statuses_do_too() {
    let ask = |status: &'static str| {
        let mut fields = HeaderMap::new();
        fields.insert(GRPC_STATUS, HeaderValue::from_static(status));
        grpc(&fields).unwrap()
    };
    assert_eq!(ask("0"), Outcome::Success);
    assert_eq!(ask("5"), Outcome::ClientFault);
    assert_eq!(ask("8"), Outcome::Overload { retry_after: None });
    assert_eq!(ask("14"), Outcome::Failure(Failure::Gateway));
    assert_eq!(ask("13"), Outcome::Failure(Failure::Server));
    assert_eq!(ask("what"), Outcome::Failure(Failure::Server));
    assert_eq!(grpc(&HeaderMap::new()), None);
}
