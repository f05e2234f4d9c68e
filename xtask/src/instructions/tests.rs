use super::*;

#[test]
fn the_count_is_read_from_the_report() {
    let report = "==7== Cachegrind\n==7== \n==7== I refs:        1,234,567\n";
    assert_eq!(parse_total(report), Some(1_234_567));
    assert_eq!(parse_total("==7== I   refs:      89\n"), Some(89));
    assert_eq!(parse_total("no such line"), None);
}

#[test]
fn only_what_differs_enough_is_a_finding() {
    assert_eq!(judge(Some(100.0), 109.0), Verdict::Same);
    assert_eq!(judge(Some(100.0), 111.0), Verdict::More);
    assert_eq!(judge(Some(100.0), 89.0), Verdict::Less);
    assert_eq!(judge(Some(20.0), 23.5), Verdict::Same, "a few instructions are noise");
    assert_eq!(judge(None, 1.0), Verdict::Unknown);
}
