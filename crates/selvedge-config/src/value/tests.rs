use proptest::prelude::*;

use super::*;

fn millis(text: &str) -> Option<u128> {
    duration(text).ok().map(|it| it.as_millis())
}

#[test]
fn durations_read_as_people_write_them() {
    for (text, expected) in [
        ("250ms", 250),
        ("1.5s", 1500),
        ("2m", 120_000),
        ("1h30m", 5_400_000),
        ("1d", 86_400_000),
        ("0", 0),
        ("0s", 0),
        ("2 s", 2000),
        ("1500us", 1),
    ] {
        assert_eq!(millis(text), Some(expected), "{text}");
    }
    for bad in [
        "",
        " ",
        "1",
        "1.5",
        "s",
        "ms",
        "1x",
        "-1s",
        "1.s",
        ".5s",
        "1s1s",
        "1s1m",
        "1e3s",
        "1,5s",
        "0.5ns",
        "4000d",
        "99999999999999999999s",
        "1s ",
        "½s",
    ] {
        assert!(duration(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn what_was_meant_is_said() {
    let help = |result: Result<Duration, Misread>| result.unwrap_err().help.unwrap();
    assert_eq!(help(duration("500")), "say in which unit: `500ms` or `500s`");
    assert_eq!(help(duration("5 seconds")), "write `5s`");
    assert_eq!(help(duration("10µs")), "write `10us`");
    assert_eq!(percent("0.2").unwrap_err().help.unwrap(), "write `20%`");
    assert_eq!(percent("20").unwrap_err().help.unwrap(), "write `20%`");
    assert_eq!(size("64k").unwrap_err().help.unwrap(), "write `64KiB`");
    assert_eq!(rate("100").unwrap_err().help.unwrap(), "say in which time: `100/s`");
    assert_eq!(
        address("https://pay.example.com/v1").unwrap_err().help.unwrap(),
        "write `pay.example.com:443`: an endpoint has no scheme and no path"
    );
    assert_eq!(
        bind("8080").unwrap_err().help.unwrap(),
        "write `127.0.0.1:8080` for this machine only, `:8080` for every address"
    );
}

#[test]
fn sizes_rates_and_addresses_read_as_people_write_them() {
    for (text, bytes) in [
        ("64KiB", 65_536),
        ("1.5MiB", 1_572_864),
        ("10MB", 10_000_000),
        ("512B", 512),
        ("0", 0),
        ("1 GiB", 1 << 30),
    ] {
        assert_eq!(size(text).unwrap(), Bytes(bytes), "{text}");
    }
    for bad in ["", "1", "KiB", "1.5B", "-1KiB", "1TiB", "99999999999GiB"] {
        assert!(size(bad).is_err(), "{bad:?}");
    }
    for (text, count, per) in [
        ("100/s", 100, 1000),
        ("100rps", 100, 1000),
        ("100/m", 100, 60_000),
        ("100/min", 100, 60_000),
        ("5/100ms", 5, 100),
        ("5 / 2s", 5, 2000),
        ("0/s", 0, 1000),
    ] {
        assert_eq!(rate(text).unwrap(), Rate { count, per: Duration::from_millis(per) }, "{text}");
    }
    for bad in ["", "/s", "1.5/s", "-1/s", "1/0s", "1/x", "5000000000/s", "1/s/s"] {
        assert!(rate(bad).is_err(), "{bad:?}");
    }
    for (text, address) in [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        (":8080", "0.0.0.0:8080"),
        ("*:80", "0.0.0.0:80"),
        ("localhost:0", "127.0.0.1:0"),
        ("[::1]:80", "[::1]:80"),
    ] {
        assert_eq!(bind(text).unwrap().to_string(), address, "{text}");
    }
    for bad in ["", "8080", "127.0.0.1", "::1", "a.b:80", "127.0.0.1:65536", ":"] {
        assert!(bind(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn percentages_are_exact() {
    for (text, millionths) in
        [("50%", 500_000), ("12.5%", 125_000), ("0%", 0), ("0.0001%", 1), ("1000%", 10_000_000)]
    {
        assert_eq!(percent(text).unwrap(), Percent(millionths), "{text}");
    }
    for bad in ["", "%", "0.5", "-1%", "1001%", "0.00001%", "1%%"] {
        assert!(percent(bad).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn durations_show_as_they_read(nanos in 0u64..315_360_000_000_000_000) {
        let it = Duration::from_nanos(nanos);
        prop_assert_eq!(duration(&show_duration(it)), Ok(it));
    }

    #[test]
    fn sizes_show_as_they_read(bytes: u64) {
        prop_assert_eq!(size(&Bytes(bytes).to_string()), Ok(Bytes(bytes)));
    }

    #[test]
    fn percentages_show_as_they_read(millionths in 0u32..=10_000_000) {
        prop_assert_eq!(percent(&Percent(millionths).to_string()), Ok(Percent(millionths)));
    }

    #[test]
    fn rates_show_as_they_read(count: u32, nanos in 1u64..315_360_000_000_000_000) {
        let it = Rate { count, per: Duration::from_nanos(nanos) };
        prop_assert_eq!(rate(&it.to_string()), Ok(it));
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,20}") {
        let _ = (duration(&text), size(&text), percent(&text), rate(&text), bind(&text), address(&text));
    }

    #[test]
    fn numbers_with_units_never_panic(text in "[0-9]{0,22}(\\.[0-9]{0,12})?[a-zA-Z%/µ]{0,4}") {
        let _ = (duration(&text), size(&text), percent(&text), rate(&text), bind(&text), address(&text));
    }
}
