//! Schedules: any text is read or refused, and what is due next is later than now.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_patterns::{
    schedule::{Recurrence, Utc},
    wall::Wall,
};

fuzz_target!(|input: (u32, &str)| {
    let (seconds, text) = input;
    let Ok(recurrence) = Recurrence::parse(text) else { return };
    let now = Wall::from_secs(u64::from(seconds));
    let Some(next) = recurrence.next(now, Wall::ZERO, &Utc) else { return };
    assert!(next > now, "`{text}` after {seconds} s is due at {} us", next.as_micros());
    assert_eq!(Recurrence::parse(text).as_ref(), Ok(&recurrence));
});
