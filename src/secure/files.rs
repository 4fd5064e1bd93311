//! Whether files have changed, told without reading them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Device, inode, length and time of change; `None` where there is no file. Links are followed: a
/// Kubernetes secret is renewed by turning a link.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

/// How files were when they were last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<(PathBuf, Stamp)>);

impl Stamps {
    /// Of these files, as they are now.
    pub(super) fn of(files: Vec<PathBuf>) -> Stamps {
        Stamps(
            files.into_iter().map(|path| (stamp(&path), path)).map(|(stamp, path)| (path, stamp)).collect(),
        )
    }

    /// Of the same files, as they are now.
    pub(super) fn again(&self) -> Stamps {
        Stamps::of(self.0.iter().map(|(path, _)| path.clone()).collect())
    }
}
