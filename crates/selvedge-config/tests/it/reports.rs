//! Wrong and questionable files, and what is said about them.
//!
//! Each file under `wrong/` and `lint/` has a snapshot. The texts are the
//! product: read them when they change.

use std::{collections::BTreeSet, fs, path::Path};

use selvedge_config::{Code, Report, Severity, Style};

fn report(text: &str) -> Report {
    crate::load(text).map_or_else(|report| report, |loaded| loaded.report)
}

/// Each file of a folder with its report.
fn each(folder: &str, check: impl Fn(&str, &str, &Report)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        check(name, &text, &report(&text));
    }
}

fn snapshot(folder: &str, name: &str, text: &str, report: &Report) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let shown = format!("{text}\n------\n{}", report.render(Style::Plain));
    settings.bind(|| insta::assert_snapshot!(format!("{folder}_{name}"), shown));
}

#[test]
fn wrong_files_are_refused() {
    each("wrong", |name, text, report| {
        assert!(report.has_errors(), "{name}");
        snapshot("wrong", name, text, report);
    });
}

#[test]
fn questionable_files_load_with_warnings() {
    each("lint", |name, text, report| {
        assert!(!report.has_errors(), "{name}: {report}");
        assert!(report.warnings() > 0, "{name}");
        snapshot("lint", name, text, report);
    });
}

/// Every code can be met, and has a page that says what it means.
#[test]
fn every_code_is_met_and_explained() {
    let mut met = BTreeSet::new();
    let gather = |report: &Report| report.diagnostics.iter().map(|it| it.code).collect::<Vec<_>>();
    let found = std::cell::RefCell::new(&mut met);
    each("wrong", |_, _, report| found.borrow_mut().extend(gather(report)));
    each("lint", |_, _, report| found.borrow_mut().extend(gather(report)));
    // Needs a file that is not there: see `files.rs`.
    met.insert(Code::UNREADABLE);
    // Those of scenarios have tests of their own.
    let own = |code: &&Code| code.as_str().starts_with("SV01");
    let missing: Vec<_> = Code::ALL.iter().filter(own).filter(|code| !met.contains(code)).collect();
    assert!(missing.is_empty(), "no file shows {missing:?}");
    for code in Code::ALL {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let page = page.join(format!("{}.md", code.as_str()));
        assert!(page.exists(), "{} has no page", page.display());
    }
}

#[test]
fn a_terminal_gets_colour_and_the_same_words() {
    let report = report("version: 1\nservices: { orders: { endpoint: \"127.0.0.1:1\" } }\n");
    let fancy = report.render(Style::Fancy);
    assert!(fancy.contains("\x1b[1;31merror[SV0101]\x1b[0m"), "{fancy}");
    let mut plain = String::new();
    let mut rest = fancy.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert!(plain.contains("did you mean `endpoints`?"), "{plain}");
}

#[test]
fn programs_get_lines_and_columns() {
    let json = report("version: 1\nservices:\n  orders: { endpoint: \"127.0.0.1:1\" }\n").to_json();
    let first = &json["diagnostics"][0];
    assert_eq!(json["errors"], 1);
    assert_eq!(first["code"], "SV0101");
    assert_eq!(first["severity"], "error");
    assert_eq!((first["at"]["line"].as_u64(), first["at"]["column"].as_u64()), (Some(3), Some(13)));
    assert_eq!(first["at"]["file"], "selvedge.yaml");
    assert_eq!(first["help"], "did you mean `endpoints`?");
}

#[test]
fn columns_count_characters() {
    let json = report("version: 1 # größer\nservices: { ü: { x: 1 } }\n").to_json();
    let first = &json["diagnostics"][0];
    assert_eq!((first["at"]["line"].as_u64(), first["at"]["column"].as_u64()), (Some(2), Some(13)));
}

#[test]
fn secrets_stay_out_of_reports() {
    let text = crate::with_service("    timeout: ${TOKEN}");
    let report = report(&text);
    assert!(report.has_errors());
    let said = format!("{report}{}", report.to_json());
    assert!(!said.contains("correct-horse"), "{said}");
}

#[test]
fn what_a_terminal_would_obey_is_not_passed_on() {
    let report = report("version: 1\nservices:\n  \"a\\e[2Jb\": {}\n\"x\u{202e}y\": 1\n");
    assert!(report.has_errors());
    let said = report.to_string();
    assert!(!said.contains('\x1b') && !said.contains('\u{202e}'), "{said:?}");
}

#[test]
fn severity_orders_as_people_do() {
    assert!(Severity::Error < Severity::Warning);
}
