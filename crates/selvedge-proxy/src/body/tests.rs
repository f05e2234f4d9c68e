use std::collections::VecDeque;

use super::*;

/// A body of these pieces; `None` fails.
#[derive(Debug)]
struct Pieces(VecDeque<Option<Bytes>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Polled {
        Poll::Ready(
            self.0.pop_front().map(|piece| piece.map(Frame::data).ok_or_else(|| "broken".into())),
        )
    }
}

fn memory(pieces: &[usize]) -> Memory<Pieces> {
    Memory::new(Pieces(pieces.iter().map(|n| Some(Bytes::from(vec![b'x'; *n]))).collect()))
}

/// Sizes of the next pieces until the end, or -1 for an error.
fn read(memory: &mut Memory<Pieces>, at: &mut usize, most: usize) -> Vec<i64> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut sizes = Vec::new();
    while sizes.len() < most {
        match memory.poll(at, &mut cx) {
            Poll::Ready(Some(Ok(frame))) => {
                sizes.push(frame.data_ref().map_or(0, |d| d.len() as i64))
            }
            Poll::Ready(Some(Err(_))) => return [sizes, vec![-1]].concat(),
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    sizes
}

#[test]
fn a_small_body_can_be_read_again() {
    let mut memory = memory(&[3, 4]);
    assert_eq!(read(&mut memory, &mut 0, 9), [3, 4]);
    assert_eq!(read(&mut memory, &mut 0, 9), [3, 4]);
}

#[test]
fn a_second_reader_takes_over_where_the_first_stopped() {
    let mut memory = memory(&[3, 4, 5]);
    assert_eq!(read(&mut memory, &mut 0, 2), [3, 4]);
    assert_eq!(read(&mut memory, &mut 0, 9), [3, 4, 5]);
}

#[test]
fn a_large_body_goes_on_and_is_forgotten() {
    let mut memory = memory(&[REPLAY_BYTES_MAX, 1, 2]);
    assert_eq!(read(&mut memory, &mut 0, 9), [REPLAY_BYTES_MAX as i64, 1, 2]);
    assert!(memory.forgotten && memory.chunks.is_empty());
    let mut memory = self::memory(&[REPLAY_BYTES_MAX, 1, 2]);
    let mut first = 0;
    assert_eq!(read(&mut memory, &mut first, 2), [REPLAY_BYTES_MAX as i64, 1]);
    assert_eq!(
        read(&mut memory, &mut 0, 9),
        [-1],
        "nobody else may read the rest as if it were all"
    );
    assert_eq!(read(&mut memory, &mut first, 9), [2]);
}

#[test]
fn a_broken_body_says_so() {
    let mut memory = Memory::new(Pieces([Some(Bytes::from_static(b"a")), None].into()));
    assert_eq!(read(&mut memory, &mut 0, 9), [1, -1]);
    assert!(memory.broken);
    assert_eq!(read(&mut memory, &mut 0, 9), [1, -1], "a second reader must not take it for whole");
}
