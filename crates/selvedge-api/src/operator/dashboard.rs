//! The dashboard: one page, nothing loaded from anywhere else.

use super::{Answer, plain};
use http::{HeaderValue, header};

const PAGE: &str = include_str!("dashboard/page.html");

/// The page; a strict policy keeps it from loading or sending anything elsewhere.
pub(super) fn page() -> Answer {
    let mut answer = plain("text/html; charset=utf-8", PAGE);
    answer.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
             connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    );
    answer
}
