//! How a deadline is written on the wire.
//!
//! `grpc-timeout` and `x-envoy-expected-rq-timeout-ms` carry what is left,
//! `x-request-deadline` the moment itself in milliseconds since the Unix
//! epoch. A caller that sends several means the earliest. A value that does
//! not parse is ignored: a deadline is a favour, not a condition.
//!
//! Source: gRPC over HTTP/2, "Timeout".

use http::{HeaderMap, HeaderName};
use selvedge_patterns::time::Duration;

#[cfg(test)]
mod tests;

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(crate) const REQUEST_DEADLINE: HeaderName = HeaderName::from_static("x-request-deadline");
pub(crate) const ENVOY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// What the caller leaves us, by the strictest of its headers.
pub(crate) fn remaining(headers: &HeaderMap, unix_millis: impl Fn() -> u64) -> Option<Duration> {
    let bytes = |name: &HeaderName| headers.get(name).map(|value| value.as_bytes());
    let grpc = bytes(&GRPC_TIMEOUT).and_then(parse_grpc);
    let envoy = bytes(&ENVOY_TIMEOUT).and_then(decimal).filter(|ms| *ms > 0);
    let moment = bytes(&REQUEST_DEADLINE).and_then(decimal);
    let moment = moment.map(|at| Duration::from_millis(at.saturating_sub(unix_millis())));
    [grpc, envoy.map(Duration::from_millis), moment].into_iter().flatten().min()
}

/// Reads `grpc-timeout`: 1 to 8 digits and one of `H M S m u n`.
fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let number = decimal(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes `grpc-timeout` in the finest unit that fits: rounded down, never to zero.
pub(crate) fn format_grpc(remaining: Duration, out: &mut [u8; 9]) -> &[u8] {
    const MOST: u128 = 99_999_999;
    let nanos = remaining.as_nanos().max(1);
    let units = [(b'n', 1), (b'u', 1_000), (b'm', 1_000_000), (b'S', 1_000_000_000)];
    let fits = units.into_iter().find(|(_, size)| nanos / size <= MOST);
    let (unit, number) = fits.map_or((b'S', MOST), |(unit, size)| (unit, nanos / size));
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number as u64).as_bytes();
    out[..digits.len()].copy_from_slice(digits);
    out[digits.len()] = unit;
    &out[..=digits.len()]
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}
