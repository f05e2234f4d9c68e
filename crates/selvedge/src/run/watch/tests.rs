use super::Watch;
use std::{fs, os::unix::fs::symlink, path::Path};

/// The look that notices, and the one that finds the file left alone.
fn noticed(watch: &mut Watch) -> bool {
    !watch.changed() && watch.changed()
}

fn watch(path: &Path) -> Watch {
    Watch::new(path, vec![path.to_path_buf()])
}

#[test]
fn an_edit_in_place_is_noticed_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "one").unwrap();
    let mut watch = watch(&file);
    assert!(!watch.changed());
    fs::write(&file, "three").unwrap();
    assert!(noticed(&mut watch));
    assert!(!watch.changed());
}

#[test]
fn a_rename_over_the_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, fresh) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
    fs::write(&file, "one").unwrap();
    let mut watch = watch(&file);
    fs::write(&fresh, "two").unwrap();
    fs::rename(&fresh, &file).unwrap();
    assert!(noticed(&mut watch));
}

#[test]
fn a_swapped_link_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, link, fresh] =
        ["one", "two", "link", "fresh"].map(|name| folder.path().join(name));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    fs::write(one.join("a.yaml"), "same").unwrap();
    fs::write(two.join("a.yaml"), "same").unwrap();
    symlink(&one, &link).unwrap();
    let mut watch = watch(&link.join("a.yaml"));
    symlink(&two, &fresh).unwrap();
    fs::rename(&fresh, &link).unwrap();
    assert!(noticed(&mut watch));
}

#[test]
fn a_file_that_is_still_written_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = watch(&file);
    for text in ["12", "123", "1234"] {
        fs::write(&file, text).unwrap();
        assert!(!watch.changed(), "{text}");
    }
    assert!(watch.changed());
}

#[test]
fn a_change_taken_back_is_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = watch(&file);
    fs::remove_file(&file).unwrap();
    assert!(!watch.changed());
    assert!(watch.changed(), "a file that went is a change");
}

#[test]
fn a_new_file_in_a_folder_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = Watch::new(folder.path(), vec![file]);
    fs::write(folder.path().join("b.yaml"), "2").unwrap();
    assert!(noticed(&mut watch));
    watch.follow(vec![folder.path().join("a.yaml"), folder.path().join("b.yaml")]);
    fs::write(folder.path().join("b.yaml"), "22").unwrap();
    assert!(noticed(&mut watch));
}
