//! Notices that the configuration changed on disk.
//!
//! By looking, not by being told: a look sees an edit in place, a rename over
//! the file, a swapped symlink (as Kubernetes mounts do) and a network file
//! system alike, where notifications each miss one of them. A look is a few
//! `stat` calls.

#[cfg(test)]
mod tests;

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What the files looked like.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look(Vec<(PathBuf, Option<Face>)>);

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Face {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Watches a configuration's files.
#[derive(Debug)]
pub(crate) struct Watch {
    root: PathBuf,
    files: Vec<PathBuf>,
    taken: Look,
    /// What the last look saw, when that was not what was taken: somebody may
    /// be writing still.
    unsettled: Option<Look>,
}

impl Watch {
    /// Watches `root` and what it is made of.
    pub(crate) fn new(root: &Path, files: Vec<PathBuf>) -> Self {
        let taken = look(root, &files);
        Self { root: root.to_path_buf(), files, taken, unsettled: None }
    }

    /// From now on the configuration is made of `files`, as they are now.
    pub(crate) fn follow(&mut self, files: Vec<PathBuf>) {
        self.files = files;
        self.taken = look(&self.root, &self.files);
        self.unsettled = None;
    }

    /// Whether the files changed and have been left alone since the last look.
    /// Says so once per change.
    pub(crate) fn changed(&mut self) -> bool {
        let now = look(&self.root, &self.files);
        if now == self.taken {
            self.unsettled = None;
            return false;
        }
        if self.unsettled.as_ref() == Some(&now) {
            self.unsettled = None;
            self.taken = now;
            return true;
        }
        self.unsettled = Some(now);
        false
    }
}

fn look(root: &Path, files: &[PathBuf]) -> Look {
    let mut paths = vec![root.to_path_buf()];
    // A folder's own time changes when a file comes or goes, so new files are seen.
    paths.extend(files.iter().cloned());
    paths.sort();
    paths.dedup();
    Look(
        paths
            .into_iter()
            .map(|path| (face(&path), path))
            .map(|(face, path)| (path, face))
            .collect(),
    )
}

fn face(path: &Path) -> Option<Face> {
    // Follows symlinks: a swapped link shows as another inode.
    let found = std::fs::metadata(path).ok()?;
    Some(Face {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}
