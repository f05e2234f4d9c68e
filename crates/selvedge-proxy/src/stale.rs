//! Keeps the last good answers of a service, to be given again when it fails.
//!
//! Only answers to requests that have no effect and that carry no credentials
//! are kept, and only if the answer does not forbid it. Bounded in bytes; what
//! was kept first goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, RANGE,
    SET_COOKIE, VARY,
};
use http::{HeaderMap, Response, StatusCode, request};
use selvedge_patterns::time::Instant;

#[cfg(test)]
mod tests;

/// The last good answers of one service.
#[derive(Debug)]
pub(crate) struct Store {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Box<[u8]>, Arc<Answer>>,
    order: VecDeque<Box<[u8]>>,
    bytes: usize,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) made: Instant,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    fn size(&self) -> usize {
        // What a field costs beside its bytes, roughly.
        let fields = self.headers.iter().map(|(k, v)| k.as_str().len() + v.len() + 64);
        self.body.len() + fields.sum::<usize>() + 256
    }
}

impl Store {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<Answer>> {
        self.kept().by_key.get(key).cloned()
    }

    fn put(&self, key: Box<[u8]>, answer: Answer) {
        let mut kept = self.kept();
        kept.bytes += answer.size() + 2 * key.len();
        match kept.by_key.insert(key.clone(), Arc::new(answer)) {
            Some(before) => kept.bytes -= before.size() + 2 * key.len(),
            None => kept.order.push_back(key),
        }
        while kept.bytes > self.bytes_max
            && let Some(first) = kept.order.pop_front()
        {
            if let Some(gone) = kept.by_key.remove(&first) {
                kept.bytes -= gone.size() + 2 * first.len();
            }
        }
    }
}

/// What makes two requests the same; `None` if an answer to this one may not
/// be given to anybody else.
pub(crate) fn key(parts: &request::Parts) -> Option<Box<[u8]>> {
    let headers = &parts.headers;
    if [AUTHORIZATION, COOKIE, RANGE].iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    let mut key = Vec::with_capacity(128);
    key.extend_from_slice(parts.method.as_str().as_bytes());
    key.push(b' ');
    key.extend_from_slice(parts.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    for name in [HOST, ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE] {
        key.push(0);
        for value in headers.get_all(name) {
            key.extend_from_slice(value.as_bytes());
            key.push(b',');
        }
    }
    Some(key.into())
}

/// An answer that is being put together while it passes.
#[derive(Debug)]
pub(crate) struct Keeping {
    store: Arc<Store>,
    key: Box<[u8]>,
    status: StatusCode,
    headers: HeaderMap,
    body: BytesMut,
}

impl Keeping {
    /// `None` if the answer may not be kept.
    pub(crate) fn begin<B>(
        store: &Arc<Store>,
        key: Box<[u8]>,
        response: &Response<B>,
    ) -> Option<Self> {
        let headers = response.headers();
        let forbidden = headers.get_all(CACHE_CONTROL).iter().any(|value| {
            let value = value.to_str().unwrap_or("private").to_ascii_lowercase();
            ["no-store", "private", "no-cache", "must-revalidate"]
                .iter()
                .any(|word| value.contains(word))
        });
        let varies =
            headers.get_all(VARY).iter().flat_map(|v| v.to_str().unwrap_or("*").split(','));
        let known = ["accept", "accept-encoding", "accept-language"];
        let unknown =
            varies.map(str::trim).any(|name| !known.contains(&name.to_ascii_lowercase().as_str()));
        let whole = response.status() == StatusCode::OK;
        (whole && !forbidden && !unknown && !headers.contains_key(SET_COOKIE)).then(|| Self {
            store: store.clone(),
            key,
            status: response.status(),
            headers: headers.clone(),
            body: BytesMut::new(),
        })
    }

    /// One more piece; `false` if it has become too large to keep.
    pub(crate) fn add(&mut self, data: &Bytes) -> bool {
        self.body.extend_from_slice(data);
        self.body.len() <= self.store.bytes_max / 8
    }

    /// The answer is whole.
    pub(crate) fn done(self, now: Instant) {
        let Self { store, key, status, headers, body } = self;
        store.put(key, Answer { made: now, status, headers, body: body.freeze() });
    }
}
