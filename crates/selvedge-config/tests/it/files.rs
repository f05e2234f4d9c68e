//! Folders, `include:`, secrets in files, and files that cannot be read.

use std::{fs, path::PathBuf};

use selvedge_config::{Loaded, Report, load_with};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn load(&self, name: &str) -> Result<Loaded, Report> {
        load_with(&self.path(name), &crate::env())
    }

    fn report(&self, name: &str) -> Report {
        self.load(name).expect_err("an error")
    }
}

const MAIN: &str =
    "version: 1\ninclude: [services, routes.yaml]\nlisteners: { edge: \"127.0.0.1:8080\" }\n";
const ORDERS: &str = "services: { orders: { endpoints: \"127.0.0.1:9001\" } }\n";
const PAY: &str = "services: { pay: { endpoints: \"127.0.0.1:9002\" } }\n";
const ROUTES: &str = "routes: [{ match: /o, to: orders }, { match: /p, to: pay }]\n";

#[test]
fn included_files_and_folders_are_one_configuration() {
    let folder = Folder::new(&[
        ("main.yaml", MAIN),
        ("services/a.yaml", ORDERS),
        ("services/b.yml", PAY),
        ("services/notes.txt", "not: [read"),
        ("services/.hidden.yaml", "not: [read"),
        ("routes.yaml", ROUTES),
    ]);
    let loaded = folder.load("main.yaml").unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.proxy.services.len(), 2);
    assert_eq!(loaded.proxy.routes.len(), 2);
    for watched in ["main.yaml", "services", "services/a.yaml", "services/b.yml", "routes.yaml"] {
        assert!(loaded.files.contains(&folder.path(watched)), "{watched}: {:?}", loaded.files);
    }
}

#[test]
fn a_folder_is_all_its_files() {
    let main = MAIN.replace("include: [services, routes.yaml]\n", "");
    let folder =
        Folder::new(&[("1.yaml", &main), ("2.yaml", ORDERS), ("3.yaml", PAY), ("4.yaml", ROUTES)]);
    assert_eq!(folder.load("").unwrap_or_else(|report| panic!("{report}")).proxy.services.len(), 2);
}

#[test]
fn what_two_files_say_differently_is_refused_with_both_places() {
    let folder = Folder::new(&[
        ("1.yaml", "version: 1\nambassador: on\nservices: { a: { endpoints: \"127.0.0.1:1\" } }\n"),
        (
            "2.yaml",
            "version: 1\nambassador: off\nservices: { a: { endpoints: \"127.0.0.1:2\" } }\n",
        ),
    ]);
    let report = folder.report("");
    assert_eq!(crate::codes(&report), ["SV0104", "SV0104"]);
    assert!(report.to_string().contains("2.yaml:2:1"), "{report}");
    assert!(report.to_string().contains("1.yaml:2:1"), "{report}");
}

#[test]
fn errors_of_every_file_are_told_at_once() {
    let folder = Folder::new(&[
        ("main.yaml", "version: 1\ninclude: [a.yaml, b.yaml, missing.yaml]\n"),
        ("a.yaml", "services: { a: [ }\n"),
        ("b.yaml", "b: 1\n  c: 2\n"),
    ]);
    let report = folder.report("main.yaml");
    let text = report.to_string();
    assert_eq!(crate::codes(&report), ["SV0107", "SV0105", "SV0105"], "{text}");
    for place in ["a.yaml:1:", "b.yaml:2:", "missing.yaml"] {
        assert!(text.contains(place), "{text}");
    }
}

#[test]
fn files_that_include_each_other_end() {
    let folder = Folder::new(&[
        ("a.yaml", "version: 1\ninclude: b.yaml\nservices: {}\n"),
        ("b.yaml", "include: ./a.yaml\n"),
    ]);
    assert!(crate::codes(&folder.report("a.yaml")).contains(&"SV0112"));
}

#[test]
fn unreadable_files_say_why() {
    let folder = Folder::new(&[("empty/x.txt", "")]);
    fs::write(folder.path("latin1.yaml"), b"version: 1\nname: caf\xe9\n").unwrap();
    fs::write(folder.path("huge.yaml"), " ".repeat((1 << 20) + 1)).unwrap();
    for (name, why) in [
        ("nowhere.yaml", "cannot be read: No such file"),
        ("empty", "has no configuration in it"),
        ("latin1.yaml", "is not UTF-8 (line 2)"),
        ("huge.yaml", "at most 1048576 are read"),
    ] {
        let report = folder.report(name);
        assert_eq!(crate::codes(&report), ["SV0107"], "{name}");
        assert!(report.to_string().contains(why), "{report}");
    }
}

#[test]
fn secrets_come_from_files_and_are_watched() {
    let text = crate::with_service("") + "operator: { token: \"${file:secret/token}\" }\n";
    let folder =
        Folder::new(&[("selvedge.yaml", &text), ("secret/token", "from-a-file-0123456\n")]);
    let loaded = folder.load("selvedge.yaml").unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.operator.unwrap().token.as_deref(), Some("from-a-file-0123456"));
    assert!(loaded.files.contains(&folder.path("secret/token")));
    fs::remove_file(folder.path("secret/token")).unwrap();
    let report = folder.report("selvedge.yaml");
    assert_eq!(crate::codes(&report), ["SV0108"]);
}

/// Kubernetes swaps a link to a folder under the files it shows.
#[test]
fn a_mounted_config_map_is_read() {
    let folder = Folder::new(&[("..v1/selvedge.yaml", &crate::with_service(""))]);
    std::os::unix::fs::symlink("..v1", folder.path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/selvedge.yaml", folder.path("selvedge.yaml")).unwrap();
    assert!(folder.load("").is_ok());
}

/// What the README, the examples and the design show is accepted without a word.
#[test]
fn the_examples_are_clean() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut seen = 0;
    for name in [
        "minimal.yaml",
        "sidecar/selvedge.yaml",
        "ambassador/selvedge.yaml",
        "protect/selvedge.yaml",
        "work-queue/selvedge.yaml",
        "leader-election/selvedge.yaml",
    ] {
        let loaded =
            load_with(&root.join(name), &crate::env()).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.report.diagnostics.is_empty(), "{name}: {}", loaded.report);
        seen += loaded.proxy.services.len();
    }
    assert!(seen >= 4);
}

#[test]
fn the_file_in_the_readme_is_clean() {
    let readme = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let mut files = 0;
    for block in readme.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let loaded = crate::load(text).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report);
        files += 1;
    }
    assert!(files > 0);
}
