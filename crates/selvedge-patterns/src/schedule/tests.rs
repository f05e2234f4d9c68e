use proptest::prelude::*;

use super::*;

fn civil(text: &str) -> Civil {
    let n: Vec<i32> = text.split(['-', ' ', ':', 'T']).map(|part| part.parse().unwrap()).collect();
    Civil {
        year: n[0],
        month: n[1] as u8,
        day: n[2] as u8,
        hour: n[3] as u8,
        minute: n[4] as u8,
        second: n[5] as u8,
    }
}

fn utc(text: &str) -> Wall {
    match Utc.moment(civil(text)) {
        Moment::One(wall) => wall,
        other => panic!("{other:?}"),
    }
}

fn show(wall: Wall) -> String {
    let c = Utc.civil(wall);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// The next times of `cron` after `from`, in UTC.
fn check(cron: &str, from: &str, expected: &[&str]) {
    let recurrence = Recurrence::parse(cron).unwrap();
    let mut at = utc(from);
    for want in expected {
        at = recurrence.next(at, Wall::ZERO, &Utc).unwrap();
        assert_eq!(show(at), *want, "{cron} after {from}");
    }
}

/// Central Europe in 2026: +1, and +2 from 29 March 01:00 UTC to 25 October 01:00 UTC.
struct Europe;

impl Europe {
    fn offset(now: Wall) -> Duration {
        let summer = utc("2026-03-29 01:00:00") <= now && now < utc("2026-10-25 01:00:00");
        Duration::from_secs(if summer { 7200 } else { 3600 })
    }
}

impl Zone for Europe {
    fn civil(&self, now: Wall) -> Civil {
        Utc.civil(now + Self::offset(now))
    }

    fn moment(&self, civil: Civil) -> Moment {
        let Moment::One(local) = Utc.moment(civil) else { panic!("UTC has no gaps") };
        let summer = local - Duration::from_secs(7200);
        let winter = local - Duration::from_secs(3600);
        let fits = |at: Wall| at + Self::offset(at) == local;
        match (fits(summer), fits(winter)) {
            (true, true) => Moment::Repeated { first: summer, second: winter },
            (true, false) => Moment::One(summer),
            (false, true) => Moment::One(winter),
            (false, false) => Moment::Skipped { next: utc("2026-03-29 01:00:00") },
        }
    }
}

#[test]
fn fields_are_matched_in_order() {
    check(
        "*/15 9-10 * * mon-fri",
        "2026-11-20 10:31:00",
        &["2026-11-20 10:45:00", "2026-11-23 09:00:00"],
    );
    check(
        "30 4 1,15 * 5",
        "2026-11-01 04:30:00",
        &["2026-11-06 04:30:00", "2026-11-13 04:30:00", "2026-11-15 04:30:00"],
    );
    check("0 0 29 2 *", "2026-01-01 00:00:00", &["2028-02-29 00:00:00", "2032-02-29 00:00:00"]);
    check(
        "10,20 * * * * *",
        "2026-12-31 23:59:15",
        &["2026-12-31 23:59:20", "2027-01-01 00:00:10"],
    );
    check("0 0 * * 7", "2026-11-21 12:00:00", &["2026-11-22 00:00:00"]);
    check("@yearly", "2026-11-21 12:00:00", &["2027-01-01 00:00:00"]);
    check(
        "5/20 0 * jan *",
        "2026-11-21 12:00:00",
        &[
            "2027-01-01 00:05:00",
            "2027-01-01 00:25:00",
            "2027-01-01 00:45:00",
            "2027-01-02 00:05:00",
        ],
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    for (text, part) in [
        ("* * * *", "* * * *"),
        ("61 * * * *", "61"),
        ("*/0 * * * *", "*/0"),
        ("5-1 * * * *", "5-1"),
        ("* * * foo *", "foo"),
        ("0 0 30 2 *", "0 0 30 2 *"),
        ("@every 5", "5"),
        ("@every 0s", "0s"),
    ] {
        assert_eq!(Recurrence::parse(text).unwrap_err().part, part, "{text}");
    }
}

#[test]
fn an_interval_counts_from_its_anchor() {
    let every = Recurrence::parse("@every 90s").unwrap();
    let anchor = utc("2026-01-01 00:00:10");
    assert_eq!(every.next(anchor, anchor, &Utc), Some(anchor + Duration::from_secs(90)));
    let later = anchor + Duration::from_secs(100);
    assert_eq!(every.next(later, anchor, &Utc), Some(anchor + Duration::from_secs(180)));
}

#[test]
fn a_skipped_hour_runs_at_the_first_valid_moment() {
    let cron = Cron::parse("30 2 * * *").unwrap();
    let first = cron.next(utc("2026-03-28 12:00:00"), &Europe).unwrap();
    assert_eq!(show(first), "2026-03-29 01:00:00", "03:00 summer time");
    let second = cron.next(first, &Europe).unwrap();
    assert_eq!(show(second), "2026-03-30 00:30:00");
}

#[test]
fn a_repeated_hour_runs_once_unless_every_hour_runs() {
    let daily = Cron::parse("30 2 * * *").unwrap();
    let first = daily.next(utc("2026-10-24 12:00:00"), &Europe).unwrap();
    assert_eq!(show(first), "2026-10-25 00:30:00");
    assert_eq!(show(daily.next(first, &Europe).unwrap()), "2026-10-26 01:30:00");

    let hourly = Cron::parse("30 * * * *").unwrap();
    let mut at = utc("2026-10-24 23:45:00");
    for want in ["2026-10-25 00:30:00", "2026-10-25 01:30:00", "2026-10-25 02:30:00"] {
        at = hourly.next(at, &Europe).unwrap();
        assert_eq!(show(at), want);
    }
    let mut at = utc("2026-03-29 00:15:00");
    for want in ["2026-03-29 00:30:00", "2026-03-29 01:30:00"] {
        at = hourly.next(at, &Europe).unwrap();
        assert_eq!(show(at), want);
    }
}

#[test]
fn missed_runs_follow_their_policy() {
    let due = utc("2026-01-01 00:00:00");
    let every = Recurrence::parse("@every 10m").unwrap();
    let next = |after: Wall| every.next(after, due, &Utc);
    let now = utc("2026-01-01 00:35:00");
    let run = |missed| {
        let (runs, next) = catch_up(now, due, missed, next);
        (
            runs.into_iter().map(|at| show(at)[14..16].to_owned()).collect::<Vec<_>>(),
            show(next.unwrap())[14..16].to_owned(),
        )
    };
    let once = Missed::default();
    assert_eq!(run(once), (vec!["30".to_owned()], "40".to_owned()));
    assert_eq!(run(Missed::Skip), (vec![], "40".to_owned()));
    assert_eq!(run(Missed::Once { grace: Duration::from_secs(60) }), (vec![], "40".to_owned()));
    assert_eq!(
        run(Missed::All { limit: 3 }),
        (vec!["10".to_owned(), "20".to_owned(), "30".to_owned()], "40".to_owned())
    );
}

#[test]
fn a_year_of_missed_seconds_is_caught_up_quickly() {
    let now = utc("2026-06-01 00:00:00");
    let (runs, next) = catch_up(now, utc("2025-06-01 00:00:00"), Missed::default(), |after| {
        Some(after + Duration::from_secs(1))
    });
    assert_eq!(runs, [now]);
    assert_eq!(next, Some(now + Duration::from_secs(1)));
}

#[test]
fn the_last_runs_of_a_long_sleep_are_all_there() {
    let (due, now) = (utc("2025-06-01 00:00:00"), utc("2026-06-01 00:05:00"));
    let every = Recurrence::parse("@every 10m").unwrap();
    let next = |after: Wall| every.next(after, due, &Utc);
    let (runs, _) = catch_up(now, due, Missed::All { limit: 100 }, next);
    assert_eq!(runs.len(), 100);
    assert_eq!(show(runs[99]), "2026-06-01 00:00:00");
    assert_eq!(show(runs[0]), "2026-05-31 07:30:00");
}

proptest! {
    #[test]
    fn catching_up_agrees_with_counting_every_run(
        step in 1u64..200, slept in 0u64..20_000, limit in 1u32..40, kind in 0u8..3,
    ) {
        let due = utc("2026-01-01 00:00:00");
        let now = due + Duration::from_secs(slept);
        let every = Recurrence::Every(Duration::from_secs(step));
        let next = |after: Wall| every.next(after, due, &Utc);
        let missed = match kind {
            0 => Missed::All { limit },
            1 => Missed::Once { grace: Duration::from_secs(u64::from(limit) * 10) },
            _ => Missed::Skip,
        };
        let all: Vec<Wall> =
            (0..=slept / step).map(|run| due + Duration::from_secs(run * step)).collect();
        let last = all[all.len() - 1];
        let late = now.since(last);
        let want = match missed {
            Missed::All { limit } => &all[all.len().saturating_sub(limit as usize)..],
            Missed::Once { grace } if late <= grace.max(ON_TIME) => &all[all.len() - 1..],
            Missed::Skip if late <= ON_TIME => &all[all.len() - 1..],
            Missed::Once { .. } | Missed::Skip => &[],
        };
        let (runs, then) = catch_up(now, due, missed, next);
        prop_assert_eq!(&runs[..], want);
        prop_assert_eq!(then, Some(last + Duration::from_secs(step)));
    }

    #[test]
    fn an_hour_of_seconds_is_found_as_in_the_slow_way(
        second in 0u8..60, start in 1_770_000_000u64..1_800_000_000,
    ) {
        // Every moment of the year, through both changes of the clocks.
        let cron = Cron::parse(&format!("{second} * * * * *")).unwrap();
        let after = Wall::from_secs(start);
        let next = cron.next(after, &Europe).unwrap();
        prop_assert!(next > after && next.since(after) <= Duration::from_secs(60));
        prop_assert_eq!(Europe.civil(next).second, second);
    }

    #[test]
    fn the_next_time_is_later_matches_and_none_lies_between(
        minute in 0u8..60, hour in 0u8..24, start in 1_700_000_000u64..1_900_000_000,
    ) {
        let cron = Cron::parse(&format!("{minute} {hour} * * *")).unwrap();
        let after = Wall::from_secs(start);
        let next = cron.next(after, &Utc).unwrap();
        let shown = Utc.civil(next);
        prop_assert!(next > after && next.since(after) <= Duration::from_secs(86_400));
        prop_assert_eq!((shown.minute, shown.hour, shown.second), (minute, hour, 0));
    }

    #[test]
    fn dates_survive_the_round_trip(days in 0i64..2_900_000) {
        let (year, month, day) = civil_from_days(days);
        prop_assert_eq!(days_from_civil(year, month, day), days);
    }
}
