use super::{distance, nearest};

#[test]
fn distances_count_edits_and_swaps() {
    for (a, b, edits) in [
        ("timeout", "timeout", 0),
        ("timout", "timeout", 1),
        ("itmeout", "timeout", 1),
        ("retires", "retries", 1),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(distance(a, b), edits, "{a} {b}");
        assert_eq!(distance(b, a), edits, "{b} {a}");
    }
}

#[test]
fn the_nearest_word_is_found_by_spelling_meaning_and_part() {
    let keys = ["timeout", "retry", "breaker", "endpoints", "balance", "health"];
    for (written, meant) in [
        ("timout", Some("timeout")),
        ("Retry", Some("retry")),
        ("circuit_breaker", Some("breaker")),
        ("circuit-breaker", Some("breaker")),
        ("hosts", Some("endpoints")),
        ("lb", Some("balance")),
        ("retry_policy", Some("retry")),
        ("zebra", None),
        ("", None),
        ("x", None),
    ] {
        assert_eq!(nearest(written, keys), meant, "{written}");
    }
}

#[test]
fn a_word_of_another_meaning_is_not_taken_for_a_misspelling() {
    assert_eq!(nearest("http2", ["http1", "h2c"]), Some("h2c"));
}
