//! Small upstreams, raw clients, and a proxy between them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use selvedge_proxy::config::{
    Ambassador, Config, Downstream, Endpoint, Listener, Match, PathMatch, Route, Service,
};
use selvedge_proxy::{Hooks, Proxy};

/// Long enough that only a hang exceeds it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A request as an upstream read it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    /// The value of a header, if it is there once or more; joined by `|`.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }
}

pub(crate) fn field(head: &str, name: &str) -> Option<String> {
    let values: Vec<&str> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect();
    (!values.is_empty()).then(|| values.join("|"))
}

/// A server of raw sockets that answers as `answer` says.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Upstream {
    /// `answer` writes what it likes; if it says `true`, the connection lives on.
    pub(crate) fn start(
        answer: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let (all, count) = (seen.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                count.fetch_add(1, Ordering::SeqCst);
                let (all, answer) = (all.clone(), answer.clone());
                std::thread::spawn(move || {
                    let mut early = Vec::new();
                    while let Some(request) = read_message(&mut stream, &mut early, false) {
                        all.lock().unwrap().push(request.clone());
                        if !answer(&request, &mut stream) {
                            let _ = stream.shutdown(Shutdown::Both);
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen, connections }
    }

    /// 200 with the request's head and body as its body.
    pub(crate) fn echo() -> Self {
        Self::start(|request, stream| {
            let mut body = request.head.clone().into_bytes();
            body.extend(&request.body);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_ok()
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().expect("a request was seen").clone()
    }
}

/// One whole message; `None` at the end of the stream. `until_close` reads a
/// body without length to its end.
pub(crate) fn read_message(
    stream: &mut TcpStream,
    early: &mut Vec<u8>,
    until_close: bool,
) -> Option<Seen> {
    let mut buffer = [0; 16 * 1024];
    let more = |early: &mut Vec<u8>, stream: &mut TcpStream, buffer: &mut [u8]| match stream
        .read(buffer)
    {
        Ok(read) if read > 0 => {
            early.extend_from_slice(&buffer[..read]);
            true
        }
        _ => false,
    };
    let end = loop {
        if let Some(at) = early.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if !more(early, stream, &mut buffer) {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&early[..end]).into_owned();
    early.drain(..end);
    let mut body = Vec::new();
    if let Some(length) = field(&head, "content-length") {
        let length: usize = length.parse().unwrap();
        while early.len() < length && more(early, stream, &mut buffer) {}
        body = early.drain(..length.min(early.len())).collect();
    } else if field(&head, "transfer-encoding").is_some() {
        while !early.windows(5).any(|five| five == b"0\r\n\r\n") && !chunked_trailers(early) {
            if !more(early, stream, &mut buffer) {
                break;
            }
        }
        body = std::mem::take(early);
    } else if until_close {
        while more(early, stream, &mut buffer) {}
        body = std::mem::take(early);
    }
    Some(Seen { head, body })
}

fn chunked_trailers(bytes: &[u8]) -> bool {
    bytes.windows(5).any(|five| five == b"\r\n0\r\n") && bytes.ends_with(b"\r\n\r\n")
}

/// A configuration with one service behind `/**` and the ambassador.
pub(crate) fn config(endpoints: &[SocketAddr]) -> Config {
    let endpoints = endpoints.iter().map(|a| Endpoint::new(a.ip().to_string(), a.port())).collect();
    Config {
        listeners: vec![Listener {
            name: "edge".into(),
            bind: ([127, 0, 0, 1], 0).into(),
            protocol: Downstream::Auto,
        }],
        ambassador: Some(Ambassador { bind: ([127, 0, 0, 1], 0).into() }),
        services: vec![Service { name: "s".into(), endpoints, ..Service::default() }],
        routes: vec![Route {
            name: "r".into(),
            to: "s".into(),
            matches: Match { path: PathMatch::Any, ..Match::default() },
            ..Route::default()
        }],
        workers: std::num::NonZeroUsize::new(1),
        ..Config::default()
    }
}

/// A running proxy.
pub(crate) struct Rig {
    pub(crate) proxy: Proxy,
    pub(crate) edge: SocketAddr,
    pub(crate) ambassador: SocketAddr,
}

impl Rig {
    pub(crate) fn new(config: Config) -> Self {
        Self::with(config, Hooks::default())
    }

    pub(crate) fn with(config: Config, hooks: Hooks) -> Self {
        let proxy = Proxy::start(config, hooks).unwrap();
        let listeners = proxy.handle().listeners();
        let edge = proxy.handle().address("edge").unwrap();
        let ambassador = listeners.iter().find(|l| l.name.is_none()).unwrap().address;
        Self { proxy, edge, ambassador }
    }

    /// In front of one upstream.
    pub(crate) fn before(upstream: &Upstream) -> Self {
        Self::new(config(&[upstream.address]))
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.edge)
    }

    /// Sends raw bytes on a new connection and reads one response.
    pub(crate) fn ask(&self, request: &str) -> Seen {
        self.connect().ask(request)
    }

    /// `GET path` on a new connection.
    pub(crate) fn get(&self, path: &str) -> Seen {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
    }
}

/// A raw client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    early: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, early: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn ask(&mut self, request: &str) -> Seen {
        self.send(request);
        self.response()
    }

    pub(crate) fn response(&mut self) -> Seen {
        let seen = read_message(&mut self.stream, &mut self.early, true);
        seen.expect("a response")
    }

    /// The next bytes, whatever they are.
    pub(crate) fn read_some(&mut self) -> Vec<u8> {
        if !self.early.is_empty() {
            return std::mem::take(&mut self.early);
        }
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer).unwrap();
        assert!(read > 0, "closed where more was expected");
        buffer[..read].to_vec()
    }

    /// All that comes until the other side closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.early);
        let mut buffer = [0; 4096];
        while let Ok(read) = self.stream.read(&mut buffer)
            && read > 0
        {
            all.extend_from_slice(&buffer[..read]);
        }
        all
    }

    /// Whether the other side closes before patience ends.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

/// The status of a response.
pub(crate) fn status(response: &Seen) -> u16 {
    response.line().split(' ').nth(1).unwrap().parse().unwrap()
}

pub(crate) fn text(response: &Seen) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

/// Waits until `holds`, looking every few milliseconds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
