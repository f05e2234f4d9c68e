//! Values with units, as people write them: `250ms`, `64KiB`, `50%`, `100/s`, `:8080`.
//!
//! Each type reads its text exactly (no floating point on the way) and shows
//! itself in a form that reads back as the same value.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Why a text is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misread {
    /// What should be there: "a duration such as `250ms`".
    pub(crate) expected: &'static str,
    /// What to write instead, if that can be guessed.
    pub(crate) help: Option<String>,
}

impl Misread {
    const fn new(expected: &'static str) -> Self {
        Self { expected, help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A decimal number of at most nine places, exactly: `1.5` is 15 and 1 place.
fn decimal(text: &str) -> Option<(u64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    if text.ends_with('.') {
        return None;
    }
    let places = u32::try_from(fraction.len()).ok()?;
    let all: u64 = format!("{whole}{fraction}").parse().ok()?;
    Some((all, places))
}

/// `number` (with `places` decimal places) times `unit`, if that is a whole number.
fn scaled((number, places): (u64, u32), unit: u64) -> Option<u64> {
    let product = u128::from(number) * u128::from(unit);
    let divisor = 10u128.pow(places);
    (product % divisor == 0).then(|| u64::try_from(product / divisor).ok()).flatten()
}

/// Splits `250ms` into `250` and `ms`.
fn split_unit(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..at], text[at..].trim_start())
}

const DURATION: &str = "a duration such as `250ms`, `1.5s` or `2m`";

const DURATION_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Longest duration that is read: longer ones are mistakes, and sums of these cannot overflow.
const DURATION_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// Reads `250ms`, `1.5s`, `2m`, `1h30m`, `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, Misread> {
    let misread = || Misread::new(DURATION);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last = u64::MAX;
    if text.starts_with('-') {
        return Err(misread().help("a duration is not negative"));
    }
    while !rest.is_empty() {
        let (number, tail) = split_unit(rest);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        if unit.is_empty() && decimal(number).is_some() {
            return Err(misread().help(format!("say in which unit: `{text}ms` or `{text}s`")));
        }
        let Some(&(_, nanos)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(duration_unit(number, unit));
        };
        // `1h30m` counts down; `30m1h` and `1s1s` are slips.
        let part = decimal(number).and_then(|number| scaled(number, nanos));
        let sum = part.filter(|_| nanos < last).and_then(|part| total.checked_add(part));
        total = sum.ok_or_else(misread)?;
        last = nanos;
        rest = tail;
    }
    let duration = Duration::from_nanos(total);
    if text.is_empty() {
        return Err(misread());
    }
    if duration > DURATION_MAX {
        return Err(misread().help("at most ten years"));
    }
    Ok(duration)
}

fn duration_unit(number: &str, unit: &str) -> Misread {
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "sec" | "secs" | "second" | "seconds" => "s",
        "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => "ms",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hr" | "hrs" | "hour" | "hours" => "h",
        "day" | "days" => "d",
        "µs" | "μs" | "usec" | "micros" | "microseconds" => "us",
        _ => return Misread::new(DURATION).help("the units are ns, us, ms, s, m, h and d"),
    };
    Misread::new(DURATION).help(format!("write `{number}{meant}`"))
}

/// In the largest unit that leaves a whole number.
pub(crate) fn show_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    let whole = DURATION_UNITS.iter().filter(|(unit, _)| *unit != "d");
    let unit = whole.into_iter().find(|(_, unit)| nanos.is_multiple_of(*unit));
    let (name, unit) = unit.expect("nanoseconds divide everything");
    format!("{}{name}", nanos / unit)
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const SIZE: &str = "a size such as `64KiB`, `10MB` or `512B`";

const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `64KiB`, `1.5MiB`, `10MB`, `512B`, `0`.
pub(crate) fn size(text: &str) -> Result<Bytes, Misread> {
    if text == "0" {
        return Ok(Bytes(0));
    }
    let (number, unit) = split_unit(text);
    let Some(&(_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let misread = Misread::new(SIZE);
        return Err(match (decimal(number), unit.to_ascii_lowercase().as_str()) {
            (Some(_), "") => {
                misread.help(format!("say in which unit: `{number}B` or `{number}KiB`"))
            }
            (Some(_), "k" | "ki" | "kib" | "kb") => misread.help(format!("write `{number}KiB`")),
            (Some(_), "m" | "mi" | "mib" | "mb") => misread.help(format!("write `{number}MiB`")),
            (Some(_), "g" | "gi" | "gib" | "gb") => misread.help(format!("write `{number}GiB`")),
            _ => misread.help("the units are B, KiB, MiB, GiB (1024) and kB, MB, GB (1000)"),
        });
    };
    let bytes = decimal(number).and_then(|number| scaled(number, bytes));
    bytes.map(Bytes).ok_or_else(|| Misread::new(SIZE).help("a whole number of bytes"))
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: u64| self.0 != 0 && self.0.is_multiple_of(unit);
        let unit = SIZE_UNITS.iter().find(|(_, unit)| fits(*unit));
        let (name, unit) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

/// A share of something, in millionths: `12.5%` is 125,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

const PERCENT: &str = "a percentage such as `50%`";

impl Percent {
    /// `percent` hundredths.
    #[must_use]
    pub const fn of(percent: u32) -> Self {
        Self(percent * 10_000)
    }

    /// The share as a number: `50%` is 0.5.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

/// Reads `50%`, `12.5%`; at most four places.
pub(crate) fn percent(text: &str) -> Result<Percent, Misread> {
    let misread = || Misread::new(PERCENT);
    let Some(number) = text.strip_suffix('%') else {
        return Err(match decimal(text) {
            Some((0, _)) => misread().help("write `0%`"),
            Some(number) => match scaled(number, 1_000_000) {
                Some(millionths) if millionths < 1_000_000 => {
                    let meant = Percent(u32::try_from(millionths).expect("below a million"));
                    misread().help(format!("write `{meant}`"))
                }
                _ => misread().help(format!("write `{text}%`")),
            },
            None => misread(),
        });
    };
    let millionths = decimal(number.trim_end()).and_then(|number| scaled(number, 10_000));
    let millionths =
        millionths.and_then(|it| u32::try_from(it).ok()).filter(|it| *it <= 10_000_000);
    millionths.map(Percent).ok_or_else(misread)
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 10_000, self.0 % 10_000);
        if part == 0 {
            return write!(f, "{whole}%");
        }
        let part = format!("{part:04}");
        write!(f, "{whole}.{}%", part.trim_end_matches('0'))
    }
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In this time; longer than zero.
    pub per: Duration,
}

const RATE: &str = "a rate such as `100/s`, `100rps` or `6000/m`";

impl Rate {
    /// `count` each second.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }

    /// As a number per second.
    #[must_use]
    pub fn each_second(self) -> f64 {
        f64::from(self.count) / self.per.as_secs_f64()
    }
}

/// Reads `100/s`, `100rps`, `100/m`, `5/100ms`.
pub(crate) fn rate(text: &str) -> Result<Rate, Misread> {
    let misread = || Misread::new(RATE);
    let (count, per) = match text.split_once('/') {
        Some((count, per)) => (count.trim(), per.trim()),
        None => match split_unit(text) {
            (count, "rps" | "qps") => (count, "s"),
            (count, "rpm") => (count, "m"),
            (count, "") if decimal(count).is_some() => {
                return Err(misread().help(format!("say in which time: `{count}/s`")));
            }
            _ => return Err(misread()),
        },
    };
    if count.contains('.') && decimal(count).is_some() {
        return Err(misread().help("whole numbers only: `3/2s` is 1.5 a second"));
    }
    let count: u32 = count.parse().map_err(|_| misread())?;
    let per = match per {
        "sec" | "second" => "s",
        "min" | "minute" => "m",
        "hour" => "h",
        "day" => "d",
        per => per,
    };
    let bare = per.starts_with(|c: char| c.is_ascii_alphabetic());
    let per =
        duration(&if bare { format!("1{per}") } else { per.to_owned() }).map_err(|_| misread())?;
    if per.is_zero() {
        return Err(misread());
    }
    Ok(Rate { count, per })
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = show_duration(self.per);
        let bare = per
            .strip_prefix('1')
            .filter(|unit| unit.starts_with(|c: char| c.is_ascii_alphabetic()));
        write!(f, "{}/{}", self.count, bare.unwrap_or(&per))
    }
}

const BIND: &str = "an address to listen on such as `127.0.0.1:8080` or `:8080`";

/// Reads `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, and `:8080` for every IPv4 address.
pub(crate) fn bind(text: &str) -> Result<SocketAddr, Misread> {
    let misread = || Misread::new(BIND);
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<u16>().is_ok() {
        return Err(misread().help(format!(
            "write `127.0.0.1:{text}` for this machine only, `:{text}` for every address"
        )));
    }
    if text.parse::<IpAddr>().is_ok() {
        let example =
            if text.contains(':') { format!("[{text}]:8080") } else { format!("{text}:8080") };
        return Err(misread().help(format!("add a port: `{example}`")));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(misread)?;
    let port: u16 = port.parse().map_err(|_| misread())?;
    match host {
        "" | "*" => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        "localhost" => Ok((Ipv4Addr::LOCALHOST, port).into()),
        _ => Err(misread().help("a listener needs an IP address; names are for endpoints")),
    }
}

const ENDPOINT: &str = "an endpoint such as `127.0.0.1:9001` or `orders.internal:9001`";

/// The parts of `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

/// Reads `host:port`, `ip:port`, `[ipv6]:port`.
pub(crate) fn address(text: &str) -> Result<Address, Misread> {
    let misread = || Misread::new(ENDPOINT);
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or("");
        let port = match (scheme, rest.contains(':')) {
            (_, true) => "",
            ("https", false) => ":443",
            _ => ":80",
        };
        return Err(
            misread().help(format!("write `{rest}{port}`: an endpoint has no scheme and no path"))
        );
    }
    if text.contains('/') {
        return Err(
            misread().help("an endpoint has no path; a path is changed by `rewrite:` of a route")
        );
    }
    match selvedge_proxy::config::Endpoint::parse(text) {
        Ok(endpoint) => Ok(Address { host: endpoint.host, port: endpoint.port }),
        Err(_) if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => {
            Err(misread().help(format!("write `[{text}]:9001`")))
        }
        Err(_) if !text.contains(':') && !text.is_empty() => {
            Err(misread().help(format!("add a port: `{text}:80`")))
        }
        Err(_) => Err(misread()),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests;
