use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::limit::{Config, Rate};

/// However two threads interleave, exactly the burst passes.
#[test]
fn two_threads_share_one_burst() {
    loom::model(|| {
        let pace =
            Pace::new(Config { rate: Rate::per_second(1), burst: 3, ..Config::default() }).unwrap();
        let tat = Arc::new(Tat::new());
        let take =
            move |tat: &Tat| (0..2).filter(|_| tat.admit(Instant::ZERO, &pace, 1).is_ok()).count();
        let other = thread::spawn({
            let tat = Arc::clone(&tat);
            move || take(&tat)
        });
        let mine = take(&tat);
        assert_eq!(mine + other.join().unwrap(), 3);
    });
}
