use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn ask(headers: &[(HeaderName, &'static str)]) -> Option<Duration> {
    let map: HeaderMap =
        headers.iter().map(|(k, v)| (k.clone(), HeaderValue::from_static(v))).collect();
    remaining(&map, || 1_000_000)
}

fn grpc(text: &'static str) -> Option<Duration> {
    ask(&[(GRPC_TIMEOUT, text)])
}

#[test]
fn grpc_timeout_is_read_strictly() {
    assert_eq!(grpc("5S"), Some(Duration::from_secs(5)));
    assert_eq!(grpc("2H"), Some(Duration::from_secs(7200)));
    assert_eq!(grpc("3M"), Some(Duration::from_secs(180)));
    assert_eq!(grpc("99999999n"), Some(Duration::from_nanos(99_999_999)));
    for bad in ["", "S", "5", "5s", "+5S", "5 S", "-5S", "100000000m", "5.5S", "0x5S"] {
        assert_eq!(grpc(bad), None, "{bad}");
    }
}

#[test]
fn the_earliest_counts() {
    let all = [(GRPC_TIMEOUT, "5S"), (ENVOY_TIMEOUT, "300"), (REQUEST_DEADLINE, "1000400")];
    assert_eq!(ask(&all), Some(Duration::from_millis(300)));
    assert_eq!(ask(&all[2..]), Some(Duration::from_millis(400)));
    assert_eq!(ask(&[(REQUEST_DEADLINE, "999")]), Some(Duration::ZERO), "it has passed");
    assert_eq!(ask(&[(ENVOY_TIMEOUT, "0")]), None, "zero means none there");
    assert_eq!(ask(&[]), None);
}

#[test]
fn grpc_timeout_is_written_in_the_finest_unit() {
    let write = |d| String::from_utf8(format_grpc(d, &mut [0; 9]).to_vec()).unwrap();
    assert_eq!(write(Duration::ZERO), "1n");
    assert_eq!(write(Duration::from_millis(20)), "20000000n");
    assert_eq!(write(Duration::from_secs(2)), "2000000u");
    assert_eq!(write(Duration::from_secs(3600)), "3600000m");
    assert_eq!(write(Duration::from_secs(1_000_000)), "1000000S");
    assert_eq!(write(Duration::MAX), "99999999S");
}

proptest! {
    /// What is read back is never more than was left, and less by under a part in a million.
    #[test]
    fn rounding_is_downwards(nanos in 1u64..90_000_000_000_000) {
        let mut out = [0; 9];
        let back = parse_grpc(format_grpc(Duration::from_nanos(nanos), &mut out)).unwrap();
        let back = back.as_nanos() as u64;
        prop_assert!(back <= nanos && nanos - back <= nanos / 90_000);
    }
}
