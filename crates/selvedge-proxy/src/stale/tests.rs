use http::{HeaderName, HeaderValue, Request};

use super::*;

fn parts(path: &str, fields: &[(&'static str, &'static str)]) -> request::Parts {
    let mut request = Request::get(path).body(()).unwrap();
    for (name, value) in fields {
        request
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    request.into_parts().0
}

fn keeps(fields: &[(&'static str, &'static str)]) -> bool {
    let mut response = Response::new(());
    for (name, value) in fields {
        response
            .headers_mut()
            .append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Keeping::begin(&Arc::new(Store::new(1 << 20)), Box::from(*b"k"), &response).is_some()
}

#[test]
fn nobody_gets_what_was_made_for_another() {
    assert!(key(&parts("/a", &[("authorization", "x")])).is_none());
    assert!(key(&parts("/a", &[("cookie", "x")])).is_none());
    let plain = key(&parts("/a?b", &[("host", "a")])).unwrap();
    assert_ne!(plain, key(&parts("/a?c", &[("host", "a")])).unwrap());
    assert_ne!(plain, key(&parts("/a?b", &[("host", "b")])).unwrap());
    assert_ne!(plain, key(&parts("/a?b", &[("host", "a"), ("accept", "x")])).unwrap());
    assert!(keeps(&[("cache-control", "max-age=5"), ("vary", "Accept-Encoding")]));
    for field in [
        ("cache-control", "max-age=5, Private"),
        ("cache-control", "no-store"),
        ("vary", "origin"),
        ("vary", "*"),
        ("set-cookie", "a=b"),
    ] {
        assert!(!keeps(&[field]), "{field:?}");
    }
}

#[test]
fn the_store_is_bounded_and_the_first_goes_first() {
    let store = Store::new(10_000);
    let put = |n: u8| {
        let answer = Answer {
            made: Instant::ZERO,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: vec![n; 2000].into(),
        };
        store.put(Box::from([n]), answer);
    };
    (0..10).for_each(put);
    assert!(store.get(&[9]).is_some() && store.get(&[0]).is_none());
    assert!(store.kept().bytes <= 10_000);
    (0..10).for_each(|_| put(9));
    assert!(store.get(&[8]).is_some(), "the same answer again takes no more room");
}
