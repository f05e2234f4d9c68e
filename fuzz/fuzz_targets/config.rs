//! Any text is answered: by a configuration that reads back as itself, or by a report.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_config::{Env, Style, load_text};

fuzz_target!(|text: &str| {
    // Nothing outside the text: no files, no environment.
    if text.contains("include") || text.contains("file:") {
        return;
    }
    let env = Env::fixed([("NAME", "value")]);
    match load_text("fuzz.yaml", text, &env) {
        Err(report) => {
            assert!(report.has_errors());
            let _ = (report.render(Style::Fancy), report.to_json());
        }
        Ok(loaded) => {
            let shown = loaded.effective();
            if shown.contains("***") {
                return;
            }
            match load_text("again.yaml", &shown, &env) {
                Ok(again) => assert_eq!(format!("{:?}", loaded.proxy), format!("{:?}", again.proxy), "{shown}"),
                Err(report) => panic!("{report}\n{shown}"),
            }
        }
    }
});
