//! Whatever the bytes: an answer, never a panic, never without a place.

use proptest::prelude::*;

fn survives(text: &str) {
    if let Err(report) = crate::load(text) {
        assert!(report.has_errors());
        let _ =
            (report.to_string(), report.to_json(), report.render(selvedge_config::Style::Fancy));
    }
}

/// Pieces that meet in ways nobody would write.
const PIECES: &[&str] = &[
    "version: 1\n",
    "services:\n",
    "  a:\n",
    "    endpoints: [\"127.0.0.1:1\"]\n",
    "routes:\n",
    "  - match: /**\n",
    "    to: a\n",
    "    timeout: ",
    "500ms",
    "0",
    "-1",
    "off",
    "on",
    "~",
    "\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    ": ",
    "- ",
    "&x ",
    "*x",
    "!!str ",
    "\"",
    "'",
    "|\n",
    ">\n",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "${",
    "}",
    "${PORT}",
    "${EMPTY:-}",
    "$${",
    "<<: *x\n",
    "\t",
    "  ",
    "    ",
    "ü",
    "\u{feff}",
    "\u{2028}",
    "99999999999999999999",
    "100%",
    "1e9",
    "100/s",
    ":8080",
    "retry: ",
    "breaker: { window: 3 calls }\n",
    "defaults: { timeout: 1s }\n",
    "calls: [a]\n",
    "include: x\n",
    "load: { rate: 1/s, capacity: 1/s }\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_arrangement_of_pieces_is_answered(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)
    ) {
        survives(&pieces.concat());
    }

    #[test]
    fn a_sound_file_with_a_piece_put_in_is_answered(
        at in any::<proptest::sample::Index>(),
        cut in 0usize..12,
        piece in proptest::sample::select(PIECES),
    ) {
        let sound = crate::with_service(
            "    timeout: { attempt: 1s, total: 3s }\n    retry: { attempts: 3, budget: 20% }\n    calls: []",
        );
        let at = at.index(sound.len());
        let end = (at + cut).min(sound.len());
        survives(&format!("{}{piece}{}", &sound[..at], &sound[end..]));
    }
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let before = level - 1;
        text += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", "));
    }
    let report = crate::load(&text).unwrap_err();
    assert!(crate::codes(&report).contains(&"SV0106"), "{report}");
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = open.repeat(10_000) + &close.repeat(10_000);
        let report = crate::load(&text).unwrap_err();
        assert!(report.has_errors());
    }
    let block: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(crate::codes(&crate::load(&block).unwrap_err()).contains(&"SV0106"));
}

#[test]
fn aliases_within_bounds_work() {
    let text = "
version: 1
ambassador: on
services:
  a: { endpoints: \"127.0.0.1:1\", timeout: &t { attempt: 1s, total: 3s } }
  b: { endpoints: \"127.0.0.1:2\", timeout: *t }
";
    let loaded = crate::load(text).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.proxy.services[0].policy, loaded.proxy.services[1].policy);
}

/// A very wide file costs time in proportion.
#[test]
fn many_services_load_quickly() {
    let mut text = String::from("version: 1\nambassador: on\nservices:\n");
    for number in 0..1000 {
        text += &format!("  s{number}: {{ endpoints: \"127.0.0.1:{}\" }}\n", 1000 + number);
    }
    let loaded = crate::load(&text).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.proxy.services.len(), 1000);
}
