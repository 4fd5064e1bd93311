//! State on disk: the log of records, the checkpoints, and the folder that holds them.
//!
//! `docs/formats.md` draws the files. What is in a checkpoint's sections is the engine's affair; here
//! they are bytes with a checksum.

mod checkpoint;
mod direct;
mod folder;
mod head;
mod log;
mod read;
mod segment;

pub use checkpoint::{CheckpointReader, CheckpointWriter, Section, SectionKind};
pub use folder::{Folder, Summary};
pub use log::{Log, LogOptions, LogStats};
pub use read::{End, Hole, Replayed, SegmentInfo, replay, segments, verify};

use crate::time::Span;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The version of the files' frames; what partitions and heads hold has a version of its own.
pub const VERSION: u32 = 1;

/// What happens when the disk is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDiskFull {
    /// Scoring goes on without the log.
    #[default]
    Degrade,
    /// Writes are refused until there is room.
    Refuse,
}

/// When the log is synced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each answer: what was acknowledged survives a power cut.
    Always,
    /// This often: a power cut may cost as much; a crash of the process costs nothing.
    Every(Span),
    /// When the system sees fit.
    Never,
}

/// What is wrong with the state folder or a file in it.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// There is none.
    #[error("there is no saved state in {}: name the folder that state.dir names", .0.display())]
    Missing(PathBuf),
    /// Another process has it open.
    #[error("{} is in use by another oddity: give each its own state.dir", .0.display())]
    InUse(PathBuf),
    /// It is of another version.
    #[error(
        "{} is of format {found}, this version reads {wanted}: start the version that wrote it, or move the \
         folder away to begin anew",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What is read.
        wanted: u32,
    },
    /// What was asked for cannot be done.
    #[error("{}: {what}", path.display())]
    Failed {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// It is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How, and where.
        what: String,
    },
}

impl StateError {
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> StateError + '_ {
        |error| StateError::Io { path: path.to_path_buf(), error }
    }
    pub(crate) fn failed(path: &Path, what: impl Into<String>) -> StateError {
        StateError::Failed { path: path.to_path_buf(), what: what.into() }
    }
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> StateError {
        StateError::Damaged { path: path.to_path_buf(), what: what.into() }
    }
}

/// Where a damaged file is kept: beside where it was.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".corrupt");
    name.into()
}

/// Puts a file that cannot be used where it is in nobody's way; says where.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = aside(path);
    std::fs::rename(path, &aside).map(|()| aside)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    // Elsewhere folders cannot be opened, and need not be synced.
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// The files in a folder whose names are `<20 digits>.<extension>`, by number.
pub(crate) fn numbered(folder: &Path, extension: &str) -> Result<Vec<(u64, PathBuf)>, StateError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(StateError::io(folder))? {
        let path = entry.map_err(StateError::io(folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 20);
        if path.extension().is_some_and(|have| have == extension)
            && let Some(number) = stem.and_then(|stem| stem.parse().ok())
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}
