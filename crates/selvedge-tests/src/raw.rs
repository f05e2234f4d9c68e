//! An HTTP/1 client that sends exactly the bytes it is given, and reads answers
//! strictly: what it cannot read is an error, never a guess.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The final status.
    pub status: u16,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// The statuses of interim answers that came before it.
    pub interim: Vec<u16>,
    /// Fields in the order received, names as received.
    pub headers: Vec<(String, String)>,
    /// The content, with transfer coding removed.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
}

/// Why there was no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The connection ended before the first byte of an answer.
    Closed,
    /// The peer reset it.
    Reset,
    /// It ended in the middle of an answer.
    CutShort,
    /// Nothing came for as long as the connection waits.
    TimedOut,
    /// What came is not HTTP.
    Garbage(String),
}

impl Answer {
    /// The first field called `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Every field called `name`.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The first trailer field called `name`.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        find(&self.trailers, name)
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The stable code of a problem document that Selvedge wrote, if it is one.
    pub fn code(&self) -> Option<String> {
        let problem = self.header("content-type")?.starts_with("application/problem+json");
        let document: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        problem.then(|| document["code"].as_str().map(str::to_owned))?
    }
}

fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// One `GET` on a connection of its own.
///
/// # Errors
///
/// Why there was no whole answer.
pub fn get(port: u16, target: &str) -> Result<Answer, Broken> {
    exchange(
        port,
        &format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"),
    )
}

/// One `GET` with further header lines (each ending in CRLF).
///
/// # Errors
///
/// Why there was no whole answer.
pub fn get_with(port: u16, target: &str, lines: &str) -> Result<Answer, Broken> {
    exchange(
        port,
        &format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{lines}\r\n"),
    )
}

/// One `POST` with further header lines.
///
/// # Errors
///
/// Why there was no whole answer.
pub fn post_with(port: u16, target: &str, lines: &str, body: &str) -> Result<Answer, Broken> {
    exchange(
        port,
        &format!(
            "POST {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: \
             {}\r\n{lines}\r\n{body}",
            body.len()
        ),
    )
}

/// One request's bytes on a connection of their own, and its answer.
///
/// # Errors
///
/// Why there was no whole answer.
pub fn exchange(port: u16, request: &str) -> Result<Answer, Broken> {
    let mut connection = Connection::try_open(port).map_err(|_| Broken::Closed)?;
    connection.send(request);
    connection.answer()
}

impl Connection {
    /// Connects to a port of this machine.
    ///
    /// # Panics
    ///
    /// When nobody listens there.
    pub fn open(port: u16) -> Self {
        Self::try_open(port).unwrap_or_else(|error| panic!("connect to {port}: {error}"))
    }

    /// Connects to a port of this machine.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn try_open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(crate::wait::PATIENCE))?;
        stream.set_write_timeout(Some(crate::wait::PATIENCE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends these bytes. A peer that has closed is no failure here: what
    /// counts is what it answers.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends these bytes.
    ///
    /// # Errors
    ///
    /// When the peer did not take them all in time.
    pub fn try_send(&mut self, bytes: &[u8], limit: Duration) -> std::io::Result<()> {
        self.stream.set_write_timeout(Some(limit))?;
        self.stream.write_all(bytes)
    }

    /// Waits at most this long for each read from here on.
    ///
    /// # Panics
    ///
    /// When the socket is gone.
    pub fn patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("the limit is not zero");
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset instead of a close.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Reads the answer to a request that was not `HEAD`.
    ///
    /// # Errors
    ///
    /// Why there was no whole answer.
    pub fn answer(&mut self) -> Result<Answer, Broken> {
        let mut answer = self.head()?;
        if matches!(answer.status, 101 | 204 | 304) {
            return Ok(answer);
        }
        let chunked = answer
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        if chunked {
            self.chunks(&mut answer)?;
        } else if let Some(length) = answer.header("content-length") {
            let length: usize =
                length.parse().map_err(|_| Broken::Garbage(format!("length {length}")))?;
            answer.body = self.exactly(length)?;
        } else {
            answer.body = self.to_end()?;
        }
        Ok(answer)
    }

    /// Reads the status line and the fields, and whatever interim answers come first.
    ///
    /// # Errors
    ///
    /// Why there was no whole head.
    pub fn head(&mut self) -> Result<Answer, Broken> {
        let mut interim = Vec::new();
        loop {
            let mut answer = self.one_head()?;
            if (100..200).contains(&answer.status) && answer.status != 101 {
                interim.push(answer.status);
                continue;
            }
            answer.interim = interim;
            return Ok(answer);
        }
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Errors
    ///
    /// When they do not come.
    pub fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        while self.unread.len() < count {
            self.more().map_err(cut)?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// Reads everything up to the end of the connection.
    ///
    /// # Errors
    ///
    /// When it is reset, or does not end.
    pub fn to_end(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            match self.more() {
                Ok(()) => {}
                Err(Broken::Closed) => return Ok(std::mem::take(&mut self.unread)),
                Err(other) => return Err(other),
            }
        }
    }

    /// Reads one line, without its ending.
    ///
    /// # Errors
    ///
    /// When none comes.
    pub fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
                return String::from_utf8(line)
                    .map_err(|error| Broken::Garbage(format!("{error}")));
            }
            let empty = self.unread.is_empty();
            self.more().map_err(|broken| if empty { broken } else { cut(broken) })?;
        }
    }

    /// Whether the peer ends this connection within `limit`, sending nothing more.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        self.patience(limit.max(Duration::from_millis(1)));
        while begun.elapsed() < limit {
            match self.more() {
                Ok(()) => return false,
                Err(Broken::Closed | Broken::Reset) => return self.unread.is_empty(),
                Err(_) => {}
            }
        }
        false
    }

    /// Whatever has come and has not been read.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    fn one_head(&mut self) -> Result<Answer, Broken> {
        let line = self.line()?;
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap_or_default().to_owned();
        let status = parts.next().and_then(|status| status.parse().ok());
        let Some(status) = status.filter(|_| version.starts_with("HTTP/1.")) else {
            return Err(Broken::Garbage(line));
        };
        let headers = self.fields()?;
        Ok(Answer {
            status,
            version,
            interim: Vec::new(),
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    fn fields(&mut self) -> Result<Vec<(String, String)>, Broken> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().map_err(cut)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(Broken::Garbage(line));
            };
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn chunks(&mut self, answer: &mut Answer) -> Result<(), Broken> {
        loop {
            let line = self.line().map_err(cut)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| Broken::Garbage(format!("chunk size {line:?}")))?;
            if size == 0 {
                answer.trailers = self.fields()?;
                return Ok(());
            }
            answer.body.extend(self.exactly(size)?);
            let end = self.exactly(2)?;
            if end != b"\r\n" {
                return Err(Broken::Garbage(format!("after a chunk: {end:?}")));
            }
        }
    }

    /// Reads something, at least a byte.
    fn more(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Broken::Closed),
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::TimedOut,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Broken::Reset,
                _ => Broken::Garbage(error.to_string()),
            }),
        }
    }
}

fn cut(broken: Broken) -> Broken {
    if broken == Broken::Closed { Broken::CutShort } else { broken }
}
