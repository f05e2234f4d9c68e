use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(15);

fn at(seconds: u64) -> Wall {
    Wall::from_secs(1000 + seconds)
}

#[test]
fn a_lock_has_one_holder_until_it_ends() {
    let mut lock = Lease::default();
    lock.acquire(at(0), "a", 1, 1, TTL).unwrap();
    let held = lock.acquire(at(14), "b", 1, 2, TTL).unwrap_err();
    assert_eq!(held, Held { permits: 1, owner: "a".to_owned(), until: at(15) });
    assert_eq!(lock.acquire(at(15), "b", 1, 2, TTL).unwrap().token, 2);
    assert_eq!(lock.check(at(16), 1), Err(Lost { presented: 1, current: Some(2) }));
    assert_eq!(lock.renew(at(16), 1, TTL), Err(Lost { presented: 1, current: Some(2) }));
}

#[test]
fn an_ended_permit_is_lost_even_if_nobody_took_it() {
    let mut lock = Lease::default();
    lock.acquire(at(0), "a", 1, 1, TTL).unwrap();
    assert_eq!(lock.check(at(15), 1), Err(Lost { presented: 1, current: None }));
    assert_eq!(lock.renew(at(15), 1, TTL), Err(Lost { presented: 1, current: None }));
}

#[test]
fn renewing_counts_from_now_and_releasing_frees() {
    let mut lock = Lease::default();
    lock.acquire(at(0), "a", 1, 1, TTL).unwrap();
    assert_eq!(lock.renew(at(10), 1, TTL), Ok(at(25)));
    assert_eq!(lock.release(at(11), 1), Ok(()));
    assert!(lock.acquire(at(11), "b", 1, 2, TTL).is_ok());
}

proptest! {
    #[test]
    fn never_more_holders_than_permits(
        permits in 1u32..4,
        steps in prop::collection::vec((0u8..3, 0u64..20, 0usize..5), 1..200),
    ) {
        let mut lease = Lease::default();
        let (mut now, mut token) = (at(0), 0);
        let mut granted: Vec<u64> = Vec::new();
        for (action, dt, which) in steps {
            now = now + Duration::from_secs(dt);
            let mine = granted.get(granted.len().wrapping_sub(1 + which)).copied().unwrap_or(0);
            match action {
                0 => {
                    token += 1;
                    if lease.acquire(now, "x", permits, token, TTL).is_ok() { granted.push(token); }
                }
                1 => { let _ = lease.renew(now, mine, TTL); }
                _ => { let _ = lease.release(now, mine); }
            }
            let live: Vec<u64> = lease.view(now).map(|holder| holder.token).collect();
            prop_assert!(live.len() <= permits as usize);
            for token in &granted {
                prop_assert_eq!(lease.check(now, *token).is_ok(), live.contains(token));
            }
        }
    }
}
