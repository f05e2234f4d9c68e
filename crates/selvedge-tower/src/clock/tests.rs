use std::time::Duration;

use super::*;

#[test]
fn one_reading_per_frame() {
    let clock = Clock::process();
    let outer = Frame::enter();
    let read = clock.now();
    let inner = Frame::enter();
    while clock.instant(tokio::time::Instant::now()) == read {}
    assert_eq!(clock.now(), read);
    drop(inner);
    assert_eq!(clock.now(), read, "the outer frame is still open");
    drop(outer);
    assert!(clock.now() > read);
}

#[test]
fn deadlines_only_shorten_and_end_with_their_frame() {
    let at = |nanos| Deadline::at(Instant::from_nanos(nanos));
    let outer = Frame::enter();
    outer.shorten(at(10));
    {
        let inner = Frame::enter();
        inner.shorten(at(20));
        assert_eq!(inner.deadline(), at(10));
        inner.shorten(at(5));
        assert_eq!(inner.deadline(), at(5));
    }
    assert_eq!(outer.deadline(), at(10));
    drop(outer);
    assert_eq!(Frame::enter().deadline(), Deadline::NONE);
}

#[tokio::test(start_paused = true)]
async fn follows_paused_time() {
    let clock = Clock::process();
    let before = clock.now();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(clock.now().since(before), Duration::from_secs(5));
    assert_eq!(clock.instant(clock.tokio(before)), before);
}
