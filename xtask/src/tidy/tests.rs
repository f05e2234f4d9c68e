use super::{
    check, clippy_bans, codes, edges, error_codes, headings, link_targets, machine_paths,
    module_name,
};
use serde_json::json;

#[test]
fn the_repository_is_tidy() {
    let findings = check(&crate::root());
    assert!(
        findings.is_empty(),
        "{}",
        findings.iter().map(|f| format!("\n  {f}")).collect::<String>()
    );
}

fn package(name: &str, dependency: &str, kind: Option<&str>) -> serde_json::Value {
    json!({ "name": name, "dependencies": [{ "name": dependency, "kind": kind }] })
}

#[test]
fn an_edge_that_does_not_exist_is_found() {
    assert_eq!(edges(&package("selvedge-sim", "selvedge-durable", None)).len(), 1);
    assert_eq!(edges(&package("selvedge-patterns", "selvedge-sim", Some("dev"))).len(), 1);
    assert_eq!(edges(&package("selvedge-novel", "serde", None)).len(), 1);
}

#[test]
fn edges_that_exist_are_left_alone() {
    assert_eq!(edges(&package("selvedge-proxy", "selvedge-tower", None)), []);
    assert_eq!(edges(&package("selvedge-proxy", "selvedge-sim", Some("dev"))), []);
    assert_eq!(edges(&package("selvedge-patterns", "proptest", Some("dev"))), []);
}

#[test]
fn a_module_that_names_nothing_is_found() {
    for name in ["crates/a/src/util.rs", "crates/a/src/x/mod.rs", "crates/a/src/common/clock.rs"] {
        assert!(module_name(name).is_some(), "{name}");
    }
    assert!(module_name("crates/a/src/utilisation.rs").is_none());
}

#[test]
fn a_ban_that_patterns_forgot_is_found() {
    let root = r#"x = [{ path = "a::b", reason = "r" }, { path = "c", reason = "r" }]"#;
    assert_eq!(clippy_bans(root, r#"x = [{ path = "a::b" }]"#).len(), 1);
    assert_eq!(clippy_bans(root, root), []);
}

#[test]
fn codes_are_whole_words() {
    let found: Vec<&str> = codes("SV0101, `SV0202`. SVG, SV12, SV12345, xSV0101, SV03xx").collect();
    assert_eq!(found, ["SV0101", "SV0202"]);
}

#[test]
fn codes_and_pages_go_together() {
    let at = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let used = at("crates/a/src/lib.rs", "SV0101");
    let page = at("docs/errors/SV0101.md", "# SV0101");
    let index = at("docs/errors/README.md", "SV0101");
    assert_eq!(error_codes(&[used.clone(), page.clone(), index.clone()]), []);
    assert_eq!(error_codes(std::slice::from_ref(&used)).len(), 1, "no page");
    assert_eq!(error_codes(&[used, page.clone()]).len(), 1, "not in the index");
    assert_eq!(error_codes(&[page, index]).len(), 1, "not used");
}

#[test]
fn links_are_read_outside_code() {
    let found: Vec<&str> = link_targets("[a](b.md#c) `[x](y)` [`d`](e.md \"title\")").collect();
    assert_eq!(found, ["b.md#c", "e.md"]);
}

#[test]
fn headings_become_anchors() {
    let found: Vec<String> = headings("# A b\n\ntext\n## The `run` command (1.0)\n").collect();
    assert_eq!(found, ["a-b", "the-run-command-10"]);
}

#[test]
fn paths_of_one_machine_are_found() {
    let path = concat!("see /ro", "ot/x");
    assert_eq!(machine_paths("f", path).len(), 1);
    assert_eq!(machine_paths("f", concat!("GET http://a/ro", "ot/x")), []);
}
