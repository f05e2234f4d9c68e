use std::io::Read as _;
use std::pin::pin;

use tokio::net::{TcpListener, TcpStream};

use super::*;

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work);
}

async fn pair() -> (Cork, tokio::task::JoinHandle<()>, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let far = far.into_std().unwrap();
    far.set_nonblocking(false).unwrap();
    let (cork, flusher) = Cork::new(Io::upstream(near));
    (cork, tokio::task::spawn_local(flusher), far)
}

async fn write(cork: &mut Cork, bytes: &[u8]) -> io::Result<usize> {
    std::future::poll_fn(|cx| Pin::new(&mut *cork).poll_write(cx, bytes)).await
}

#[test]
fn all_arrives_in_order_however_slow_the_reader_is() {
    run(async {
        let (mut cork, _flusher, mut far) = pair().await;
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
        let expected = sent.clone();
        let reader = std::thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
            while let Ok(read) = far.read(&mut buffer)
                && read > 0
            {
                all.extend_from_slice(&buffer[..read]);
            }
            all
        });
        let mut at = 0;
        while at < sent.len() {
            at += write(&mut cork, &sent[at..sent.len().min(at + 20_000)]).await.unwrap();
            let waiting = cork.0.borrow().waiting.len();
            assert!(waiting <= 2 * WAITING_MAX, "{waiting} bytes wait");
        }
        std::future::poll_fn(|cx| Pin::new(&mut cork).poll_shutdown(cx)).await.unwrap();
        let read = tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
        assert!(read == expected, "{} of {} bytes", read.len(), expected.len());
    });
}

#[test]
fn the_flusher_ends_with_the_cork_even_if_nobody_reads() {
    run(async {
        let (mut cork, flusher, _far) = pair().await;
        let bytes = vec![0; WAITING_MAX];
        // Until neither the socket nor the buffer takes any more.
        loop {
            let full = std::future::poll_fn(|cx| {
                Poll::Ready(pin!(write(&mut cork, &bytes)).poll(cx).is_pending())
            });
            if full.await && cork.0.borrow().at > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(cork);
        flusher.await.unwrap();
    });
}

#[test]
fn a_broken_socket_is_told_to_the_writer() {
    run(async {
        let (mut cork, flusher, far) = pair().await;
        drop(far);
        while write(&mut cork, b"bytes").await.is_ok() {
            tokio::task::yield_now().await;
        }
        flusher.await.unwrap();
    });
}
