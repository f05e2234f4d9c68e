use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

type Made = Result<Arc<usize>, &'static str>;

#[test]
fn a_name_is_made_once_whoever_asks() {
    let registry = Registry::new(10);
    let made = AtomicUsize::new(0);
    let make = || -> Made { Ok(Arc::new(made.fetch_add(1, Ordering::SeqCst))) };
    let all: Vec<_> = std::thread::scope(|scope| {
        let ask = || registry.clone().get_or_make("a", make).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
    assert_eq!(made.load(Ordering::SeqCst), 1);
    let other = registry.get_or_make("b", make).unwrap();
    assert!(!Arc::ptr_eq(&other, &all[0]));
    let names: Vec<_> = registry.list().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn what_cannot_be_made_is_not_remembered_and_there_is_a_bound() {
    let registry = Registry::new(1);
    let wrong = registry.get_or_make("a", || -> Made { Err("no") });
    assert_eq!(wrong, Err(RegistryError::Make("no")));
    assert!(registry.get("a").is_none());
    assert!(registry.get_or_make("a", || -> Made { Ok(Arc::new(1)) }).is_ok());
    let full = registry.get_or_make("b", || -> Made { Ok(Arc::new(2)) });
    assert_eq!(full, Err(RegistryError::Full { most: 1 }));
    assert_eq!(registry.remove("a").as_deref(), Some(&1));
    assert!(registry.get_or_make("b", || -> Made { Ok(Arc::new(2)) }).is_ok());
}
