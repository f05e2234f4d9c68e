//! What went wrong, as an RFC 9457 problem document with a stable code.

use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{Either, Full};
use selvedge_durable::{
    Error,
    wire::{Facts, Malformed},
};
use serde_json::{Value, json};

use super::{Answer, openapi};

/// One thing that went wrong with a request to the app API.
#[derive(Clone, Debug)]
pub struct Problem {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    detail: String,
    /// The numbers the refusal was made on.
    facts: Value,
    retry_after: Option<u32>,
    /// Methods that the path takes.
    allowed: Option<Box<str>>,
}

impl Problem {
    fn new(code: &'static str, status: StatusCode, title: &'static str, detail: String) -> Self {
        Self { code, status, title, detail, facts: Value::Null, retry_after: None, allowed: None }
    }

    pub(super) fn malformed(detail: String) -> Self {
        Self::new("SV0440", StatusCode::BAD_REQUEST, "cannot read the request", detail)
    }

    pub(super) fn no_such_path(path: &str) -> Self {
        let detail = format!("nothing at {path}; /openapi.json lists every path");
        Self::new("SV0441", StatusCode::NOT_FOUND, "no such path or method", detail)
    }

    pub(super) fn not_here(method: &Method, path: &str) -> Self {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let allowed = openapi::methods(&segments);
        if allowed.is_empty() {
            return Self::no_such_path(path);
        }
        let detail = format!("no {method} at {path}, but {allowed}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut problem = Self::new("SV0441", status, "no such path or method", detail);
        problem.allowed = Some(allowed.into());
        problem
    }

    pub(super) fn body_too_large(max: usize) -> Self {
        let detail = format!("the body exceeds {max} bytes");
        Self::new("SV0412", StatusCode::PAYLOAD_TOO_LARGE, "too large", detail)
    }

    pub(super) fn not_yet(position: u64) -> Self {
        let detail = format!("position {position} is not there yet");
        let title = "not there in time";
        let mut problem = Self::new("SV0442", StatusCode::GATEWAY_TIMEOUT, title, detail);
        problem.retry_after = Some(1);
        problem
    }

    /// The stable code, with a page in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// As the value of a line or an entry that failed by itself.
    pub(super) fn value(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:selvedge:error:{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        if let (Value::Object(body), Value::Object(facts)) = (&mut body, &self.facts) {
            body.extend(facts.clone());
        }
        body
    }

    pub(super) fn into_response(self, instance: &str) -> Answer {
        let mut body = self.value();
        body["instance"] = instance.into();
        let mut answer = Response::new(Either::Left(Full::from(body.to_string())));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match &self.allowed {
            Some(methods) => super::allow(answer, methods),
            None => answer,
        }
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Form(detail) => Self::malformed(detail.into_owned()),
            Malformed::Value(error) => error.into(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let (status, title) = match &error {
            Error::NotFound { .. } => (S::NOT_FOUND, "not found"),
            Error::Exists { .. } => (S::CONFLICT, "exists with other settings"),
            Error::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "too large"),
            Error::Invalid { .. } => (S::UNPROCESSABLE_ENTITY, "a value makes no sense here"),
            Error::Mismatch { .. } => {
                (S::UNPROCESSABLE_ENTITY, "the message is not what the schema says")
            }
            Error::Incompatible { .. } => (S::CONFLICT, "the schema cannot follow the last one"),
            Error::Stale(_) => (S::CONFLICT, "the receipt is stale"),
            Error::WrongVersion { .. } => (S::CONFLICT, "the stream has another version"),
            Error::Precondition { .. } => {
                (S::PRECONDITION_FAILED, "the precondition does not hold")
            }
            Error::Held { .. } => (S::CONFLICT, "somebody else holds it"),
            Error::Lost { .. } => {
                (S::PRECONDITION_FAILED, "the fencing token is not held any more")
            }
            Error::DiskFull => (S::INSUFFICIENT_STORAGE, "no space left for the store"),
            Error::Overloaded { .. } => (S::SERVICE_UNAVAILABLE, "the store is overloaded"),
            Error::Unsynced { .. } => {
                (S::SERVICE_UNAVAILABLE, "the disk failed to keep what was written")
            }
            Error::Closed => (S::SERVICE_UNAVAILABLE, "the store is closed"),
            Error::Unreachable { .. } => (S::SERVICE_UNAVAILABLE, "the database cannot be reached"),
            Error::Insecure { .. } => {
                (S::SERVICE_UNAVAILABLE, "the connection to the database is not safe")
            }
            Error::Unfit { .. } => (S::SERVICE_UNAVAILABLE, "the database will not do"),
            Error::Unknown => (S::SERVICE_UNAVAILABLE, "whether a commit was done is not known"),
            Error::Refused { status, .. } => {
                let status = S::from_u16(*status).unwrap_or(S::BAD_GATEWAY);
                (status, "the server behind this one refused")
            }
            Error::Corrupt { .. } => (S::INTERNAL_SERVER_ERROR, "the store is damaged"),
            _ => (S::INTERNAL_SERVER_ERROR, "the store failed"),
        };
        let facts = serde_json::to_value(Facts::of(&error)).expect("facts serialize");
        let retry_after = matches!(
            error,
            Error::Overloaded { .. }
                | Error::DiskFull
                | Error::Unsynced { .. }
                | Error::Unreachable { .. }
        )
        .then_some(1);
        let detail = error.to_string();
        Self { code: error.code(), status, title, detail, facts, retry_after, allowed: None }
    }
}
