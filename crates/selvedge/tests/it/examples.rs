//! The examples that are programs do what their pages say.

use std::{path::Path, process::Command};

/// What follows the first line of a page's console block that has `command`.
fn shown(page: &str, command: &str) -> String {
    let block =
        page.split("```").find(|block| block.starts_with("console") && block.contains(command));
    let block = block.expect("the page shows the command");
    let lines = block.lines().skip_while(|line| *line != format!("$ {command}")).skip(1);
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_bank_account_does_what_its_page_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bank-account/README.md");
    let page = std::fs::read_to_string(page).unwrap();
    // Examples are built beside the folder that this test is in.
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.pop();
    program.extend(["examples", "bank-account"]);
    for round in 0..3 {
        let output = Command::new(&program).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, shown(&page, "cargo run --example bank-account"), "round {round}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "nothing went wrong");
    }
}
