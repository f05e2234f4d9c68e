//! Errors as RFC 9457 problem documents, each with a stable code and a page.

use super::{Answer, Refusal, Surface};
use http::{HeaderValue, Method, StatusCode, header};

/// One thing that went wrong with a request to the operator API.
#[derive(Clone, Debug)]
pub struct Problem {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    detail: String,
    header: Option<(&'static str, String)>,
}

impl Problem {
    fn new(code: &'static str, status: StatusCode, title: &'static str, detail: String) -> Self {
        Self { code, status, title, detail, header: None }
    }

    pub(super) fn no_such_path(path: &str) -> Self {
        let detail = format!("nothing at {path}; /openapi.json lists every path");
        Self::new("SV0301", StatusCode::NOT_FOUND, "no such path", detail)
    }

    pub(super) fn method(method: &Method, allowed: &[Method]) -> Self {
        let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let allowed = allowed.join(", ");
        let detail = format!("{method} is not possible here; {allowed} is");
        let mut problem =
            Self::new("SV0302", StatusCode::METHOD_NOT_ALLOWED, "method not allowed", detail);
        problem.header = Some(("allow", allowed));
        problem
    }

    pub(super) fn unauthorized(surface: Surface) -> Self {
        let (title, name, key, realm) = match surface {
            Surface::Operator => (
                "operator token needed",
                "operator API",
                "operator.token",
                "Bearer realm=\"selvedge operator\"",
            ),
            Surface::App => {
                ("app API token needed", "app API", "api.token", "Bearer realm=\"selvedge app\"")
            }
        };
        let detail = format!(
            "send `Authorization: Bearer <token>` with the token of the {name}, which is `{key}` in the file"
        );
        let mut problem = Self::new("SV0303", StatusCode::UNAUTHORIZED, title, detail);
        problem.header = Some(("www-authenticate", realm.to_owned()));
        problem
    }

    pub(super) fn host(host: &str) -> Self {
        let detail = format!(
            "without a token this surface answers to addresses and `localhost`, not to `{host}`"
        );
        Self::new("SV0304", StatusCode::MISDIRECTED_REQUEST, "unknown host name", detail)
    }

    pub(super) fn cross_site() -> Self {
        let detail = "a page of another origin may not act here".to_owned();
        Self::new("SV0305", StatusCode::FORBIDDEN, "cross-site request refused", detail)
    }

    pub(super) fn question(detail: String) -> Self {
        Self::new("SV0307", StatusCode::BAD_REQUEST, "cannot read the question", detail)
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown(detail) => {
                Self::new("SV0306", StatusCode::NOT_FOUND, "no such service or endpoint", detail)
            }
            Refusal::Conflict(detail) => {
                Self::new("SV0308", StatusCode::CONFLICT, "cannot be done", detail)
            }
            Refusal::Config(detail) => Self::new(
                "SV0309",
                StatusCode::UNPROCESSABLE_ENTITY,
                "configuration refused; the last good one stays",
                detail,
            ),
        }
    }

    /// The stable code, with a page in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn into_response(self, instance: &str) -> Answer {
        let body = serde_json::json!({
            "type": format!("urn:selvedge:error:{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
        });
        let mut answer = super::json(self.status, &body);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
        answer
    }
}
