//! The access log: one JSON line a call, to standard output.
//!
//! A worker never waits for the log. Lines go through a bounded channel to a
//! thread that writes them in batches; when the reader of the log is too slow,
//! lines are dropped and counted, and the count is a metric.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

/// Lines that may wait for the writer. At some 400 bytes each: 1.6 MB at worst.
const WAITING_MAX: usize = 4096;
/// Bytes written at once.
const BATCH_BYTES: usize = 64 << 10;

/// Where workers leave their lines.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer. It ends when every [`AccessLog`] is gone, after
    /// writing what is left.
    pub(crate) fn open(to: impl Write + Send + 'static) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&waiting, to))?;
        Ok((Self { lines, dropped: Arc::default() }, writer))
    }

    /// Leaves a line (without its end), or drops it.
    pub(crate) fn write(&self, line: Vec<u8>) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lines dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn write(waiting: &Receiver<Vec<u8>>, mut to: impl Write) {
    let mut batch = Vec::with_capacity(1024);
    while let Ok(line) = waiting.recv() {
        batch.extend_from_slice(&line);
        batch.push(b'\n');
        while batch.len() < BATCH_BYTES
            && let Ok(line) = waiting.try_recv()
        {
            batch.extend_from_slice(&line);
            batch.push(b'\n');
        }
        // A log that nobody reads any more must not end the proxy.
        let _ = to.write_all(&batch);
        let _ = to.flush();
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{AccessLog, WAITING_MAX};
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex, mpsc},
    };

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_to_the_last() {
        let sink = Sink::default();
        let (log, writer) = AccessLog::open(sink.clone()).unwrap();
        for number in 0..100 {
            log.write(number.to_string().into_bytes());
        }
        drop(log);
        writer.join().unwrap();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(sink.0.lock().unwrap().clone()).unwrap(), expected);
    }

    /// Takes nothing until it is told to.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_nothing_else() {
        let (go_on, stuck) = mpsc::channel();
        let (log, writer) = AccessLog::open(Stuck(stuck)).unwrap();
        for _ in 0..2 * WAITING_MAX + 200 {
            log.write(vec![b'x'; 100]);
        }
        assert!(log.dropped() > 0);
        drop(go_on);
        drop(log);
        writer.join().unwrap();
    }
}
