//! Upstreams that answer, misbehave and die to order.

use crate::{ports, wait};
use socket2::SockRef;
use std::{
    fmt,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How many requests an upstream remembers in full; it counts all of them.
const REMEMBERED: usize = 20_000;

/// A server on a port of its own, a thread for each connection.
pub struct Upstream {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: String,
    /// Its target, as sent.
    pub target: String,
    /// Its fields in the order received, names as received.
    pub headers: Vec<(String, String)>,
    /// Its content, transfer coding removed.
    pub body: Vec<u8>,
    /// The head's bytes as they came.
    pub head: String,
    /// Which request of this upstream it is, from 0.
    pub nth: usize,
    /// Which connection to this upstream it came on, from 0.
    pub connection: usize,
    /// When.
    pub at: Instant,
}

/// What to do about a request.
pub struct Reply {
    after: Duration,
    act: Act,
}

enum Act {
    Full { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    Raw(Vec<u8>),
    RawThenClose(Vec<u8>),
    RawThenReset(Vec<u8>),
    Hang,
    Stream(Box<dyn FnOnce(&TcpStream) + Send>),
}

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;
type PerConnection = dyn Fn(&TcpStream, usize) + Send + Sync;

enum Kind {
    Http(Box<Handler>),
    Tcp(Box<PerConnection>),
}

struct Shared {
    kind: Kind,
    dead: AtomicBool,
    live: Mutex<Vec<Weak<TcpStream>>>,
    requests: Mutex<Vec<Received>>,
    answered: AtomicUsize,
    connections: AtomicUsize,
}

impl Reply {
    /// 200 with this content.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(body)
    }

    /// This status, without content.
    pub fn status(status: u16) -> Self {
        Self::new(Act::Full { status, headers: Vec::new(), body: Vec::new() })
    }

    /// These bytes; the connection stays open.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Act::Raw(bytes.into()))
    }

    /// These bytes, then an orderly end.
    pub fn raw_then_close(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Act::RawThenClose(bytes.into()))
    }

    /// These bytes, then a reset.
    pub fn raw_then_reset(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Act::RawThenReset(bytes.into()))
    }

    /// Nothing, until the other side gives up.
    pub fn hang() -> Self {
        Self::new(Act::Hang)
    }

    /// Whatever this does with the connection, which then ends.
    pub fn stream(act: impl FnOnce(&TcpStream) + Send + 'static) -> Self {
        Self::new(Act::Stream(Box::new(act)))
    }

    fn new(act: Act) -> Self {
        Self { after: Duration::ZERO, act }
    }

    /// With this content.
    #[must_use]
    pub fn body(mut self, content: impl Into<Vec<u8>>) -> Self {
        if let Act::Full { body, .. } = &mut self.act {
            *body = content.into();
        }
        self
    }

    /// With one more field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Act::Full { headers, .. } = &mut self.act {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Only after this while.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }
}

impl Received {
    /// The first field called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The target's path.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Whether it is one of the proxy's own health checks (tests configure `/healthz`).
    pub fn is_health_check(&self) -> bool {
        self.path() == "/healthz"
    }
}

impl Upstream {
    /// Answers each HTTP/1 request as `handler` says.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn http(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Kind::Http(Box::new(handler)))
    }

    /// Hands each connection to `handler`, with its number.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn tcp(handler: impl Fn(&TcpStream, usize) + Send + Sync + 'static) -> Self {
        Self::start(Kind::Tcp(Box::new(handler)))
    }

    /// Answers everything with 200 and its own name, so that a test sees who answered.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn named(name: &'static str) -> Self {
        Self::http(move |_| Reply::ok(name))
    }

    fn start(kind: Kind) -> Self {
        let shared = Arc::new(Shared {
            kind,
            dead: AtomicBool::new(false),
            live: Mutex::new(Vec::new()),
            requests: Mutex::new(Vec::new()),
            answered: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let mut upstream = Self { port: ports::free(), shared, accepting: None };
        upstream.listen();
        upstream
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address as a configuration writes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Every request so far that was not a health check, oldest first.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn requests(&self) -> Vec<Received> {
        self.everything().into_iter().filter(|request| !request.is_health_check()).collect()
    }

    /// Every request so far, health checks included.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn everything(&self) -> Vec<Received> {
        self.shared.requests.lock().expect("handlers do not panic").clone()
    }

    /// How many requests came that were not health checks.
    pub fn count(&self) -> usize {
        self.requests().len()
    }

    /// How many connections were accepted, ever.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Dies as a killed process does: every connection is reset and the port refuses.
    ///
    /// # Panics
    ///
    /// When its thread did.
    pub fn kill(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.dead.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        accepting.join().expect("accepting does not panic");
        let live = std::mem::take(&mut *self.shared.live.lock().expect("handlers do not panic"));
        for stream in live.iter().filter_map(Weak::upgrade) {
            let _ = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Comes back on the same port.
    ///
    /// # Panics
    ///
    /// When the port is gone.
    pub fn revive(&mut self) {
        if self.accepting.is_none() {
            self.listen();
        }
    }

    fn listen(&mut self) {
        let listener =
            wait::until("the upstream's port", || TcpListener::bind(("127.0.0.1", self.port)).ok());
        self.shared.dead.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.dead.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = stream.set_nodelay(true);
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                // The thread owns the socket alone, so that dropping it closes (or resets) it.
                let stream = Arc::new(stream);
                {
                    let mut live = shared.live.lock().expect("handlers do not panic");
                    live.retain(|stream| stream.strong_count() > 0);
                    live.push(Arc::downgrade(&stream));
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || match &shared.kind {
                    Kind::Tcp(handler) => handler(&stream, number),
                    Kind::Http(handler) => serve(&shared, handler, &stream, number),
                });
            }
        }));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Upstream").field("port", &self.port).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reply").field("after", &self.after).finish_non_exhaustive()
    }
}

fn serve(shared: &Shared, handler: &Handler, stream: &TcpStream, connection: usize) {
    let mut unread = Vec::new();
    while let Some(mut received) = receive(stream, &mut unread) {
        received.connection = connection;
        received.nth = shared.answered.fetch_add(1, Ordering::SeqCst);
        {
            let mut requests = shared.requests.lock().expect("handlers do not panic");
            if requests.len() < REMEMBERED {
                requests.push(received.clone());
            }
        }
        let head = received.method == "HEAD";
        let reply = handler(&received);
        if !reply.after.is_zero() {
            wait::pause(reply.after);
        }
        if !perform(reply.act, stream, head) {
            return;
        }
    }
}

/// Does it, and says whether the connection goes on.
fn perform(act: Act, mut stream: &TcpStream, head: bool) -> bool {
    match act {
        Act::Full { status, headers, body } => {
            let mut bytes = format!("HTTP/1.1 {status} Test\r\n").into_bytes();
            for (name, value) in headers {
                bytes.extend(format!("{name}: {value}\r\n").into_bytes());
            }
            if !matches!(status, 100..=199 | 204 | 304) {
                bytes.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
            }
            bytes.extend(b"\r\n");
            if !head {
                bytes.extend(body);
            }
            stream.write_all(&bytes).is_ok()
        }
        Act::Raw(bytes) => stream.write_all(&bytes).is_ok(),
        Act::RawThenClose(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Both);
            false
        }
        Act::RawThenReset(bytes) => {
            let _ = stream.write_all(&bytes);
            // The bytes must be on their way before the reset overtakes them.
            wait::pause(Duration::from_millis(20));
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            false
        }
        Act::Hang => {
            let mut sink = [0; 1024];
            while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
            false
        }
        Act::Stream(act) => {
            act(stream);
            let _ = stream.shutdown(Shutdown::Both);
            false
        }
    }
}

fn receive(mut stream: &TcpStream, unread: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, unread)?;
    };
    let head = String::from_utf8_lossy(&unread[..end]).into_owned();
    unread.drain(..end);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let field = |name: &str| {
        headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    if field("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let body = if field("transfer-encoding").is_some() {
        chunks(stream, unread)?
    } else {
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while unread.len() < length {
            more(stream, unread)?;
        }
        unread.drain(..length).collect()
    };
    Some(Received {
        method,
        target,
        headers,
        body,
        head,
        nth: 0,
        connection: 0,
        at: Instant::now(),
    })
}

fn chunks(stream: &TcpStream, unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = unread.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            more(stream, unread)?;
        };
        let line: Vec<u8> = unread.drain(..end + 2).take(end).collect();
        let line = String::from_utf8(line).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            // Trailer fields, up to the empty line.
            loop {
                let end = loop {
                    if let Some(end) = unread.windows(2).position(|two| two == b"\r\n") {
                        break end;
                    }
                    more(stream, unread)?;
                };
                unread.drain(..end + 2);
                if end == 0 {
                    return Some(body);
                }
            }
        }
        while unread.len() < size + 2 {
            more(stream, unread)?;
        }
        body.extend(unread.drain(..size));
        unread.drain(..2);
    }
}

fn more(mut stream: &TcpStream, unread: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(count) if count > 0 => {
            unread.extend_from_slice(&buffer[..count]);
            Some(())
        }
        _ => None,
    }
}
