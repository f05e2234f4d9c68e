use selvedge_patterns::random::SplitMix64;

use super::*;

const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn begin(header: &str) -> Trace {
    Trace::begin(Some(&HeaderValue::from_str(header).unwrap()), &mut SplitMix64::new(7))
}

#[test]
fn a_valid_trace_is_continued_with_our_span() {
    let trace = begin(GOOD);
    assert_eq!(trace.id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert_eq!((trace.parent, trace.flags), (Some(0x00f0_67aa_0ba9_02b7), 1));
    let (text, id) = Scribe::default().traceparent(&trace);
    assert_eq!(id, "4bf92f3577b34da6a3ce929d0e0e4736");
    let again = begin(text.to_str().unwrap());
    assert_eq!((again.id, again.parent, again.flags), (trace.id, Some(trace.span), 1));
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    assert!(begin(&GOOD.replacen("00", "cc", 1)).parent.is_some());
    assert!(begin(&format!("{}-what", GOOD.replacen("00", "cc", 1))).parent.is_some());
    assert!(begin(&format!("{}.what", GOOD.replacen("00", "cc", 1))).parent.is_none());
}

#[test]
fn anything_else_starts_a_new_trace() {
    let bad = [
        "",
        "00",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
    ];
    for header in bad {
        let trace = begin(header);
        assert_eq!((trace.parent, trace.flags), (None, 2), "{header}");
        assert!(trace.id != 0 && trace.span != 0);
    }
}

#[test]
fn a_block_holds_many_values() {
    let mut scribe = Scribe::default();
    let values: Vec<_> = (0..5000).map(|n| scribe.number(n)).collect();
    assert!(values.iter().enumerate().all(|(n, value)| *value == *n.to_string()));
}
