//! The state folder: one process at a time, one incarnation, its checkpoints and where the rest is.

use super::checkpoint::SPARE;
use super::log::PROBE;
use super::{CheckpointReader, StateError, numbered, sync_folder};
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Checkpoints kept.
const KEPT: usize = 2;

/// An open state folder. Nobody else may open it before this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: Option<File>,
}

/// A checkpoint in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its sequence.
    pub sequence: u64,
    /// The file.
    pub path: PathBuf,
}

impl Folder {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// It cannot be made, or is in use.
    pub fn open(path: &Path) -> Result<Folder, StateError> {
        for path in [path.to_path_buf(), path.join("log"), path.join("checkpoints")] {
            std::fs::create_dir_all(&path).map_err(StateError::io(&path))?;
        }
        let lock_path = path.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(StateError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse(path.to_path_buf())),
            Err(TryLockError::Error(error)) => return Err(StateError::io(&lock_path)(error)),
        }
        let folder = Folder { path: path.to_path_buf(), _lock: Some(lock) };
        folder.sweep()?;
        Ok(folder)
    }

    /// Looks at a folder, and changes nothing; says as well whether an oddity has it open.
    ///
    /// # Errors
    /// There is no state.
    pub fn look(path: &Path) -> Result<(Folder, bool), StateError> {
        let checkpoints = path.join("checkpoints");
        match std::fs::read_dir(&checkpoints) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StateError::Missing(path.to_path_buf()));
            }
            read => read.map_err(StateError::io(&checkpoints))?,
        };
        let in_use = match File::open(path.join("lock")).map(|lock| lock.try_lock_shared()) {
            Ok(Err(TryLockError::WouldBlock)) => true,
            // Unlocked as soon as it was locked; or there is no such file, or no such thing as locks.
            Ok(Ok(()) | Err(TryLockError::Error(_))) | Err(_) => false,
        };
        Ok((Folder { path: path.to_path_buf(), _lock: None }, in_use))
    }

    /// What a crash left half done.
    fn sweep(&self) -> Result<(), StateError> {
        let checkpoints = self.checkpoint_folder();
        for (_, path) in numbered(&checkpoints, "tmp")? {
            std::fs::remove_file(&path).map_err(StateError::io(&path))?;
        }
        let probe = self.log_folder().join(PROBE);
        match std::fs::remove_file(&probe) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(StateError::io(&probe)(error)),
            _ => Ok(()),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log's segments are.
    pub fn log_folder(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the checkpoints are.
    pub fn checkpoint_folder(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Where targets keep what they could not yet send.
    pub fn queue_folder(&self) -> PathBuf {
        self.path.join("queue")
    }

    /// The number of this state: sequences of another mean nothing to it. `None`: it is new.
    ///
    /// # Errors
    /// The file cannot be read or is no number.
    pub fn incarnation(&self) -> Result<Option<u128>, StateError> {
        let path = self.path.join("incarnation");
        match std::fs::read_to_string(&path) {
            Ok(text) => u128::from_str_radix(text.trim(), 16).map(Some).map_err(|_| {
                StateError::damaged(&path, "it does not hold a number of 32 hexadecimal digits")
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::io(&path)(error)),
        }
    }

    /// As [`Folder::incarnation`]; a new state is begun.
    ///
    /// # Errors
    /// The file cannot be read or written, or is no number.
    pub fn incarnation_or_new(&self) -> Result<u128, StateError> {
        if let Some(incarnation) = self.incarnation()? {
            return Ok(incarnation);
        }
        for checkpoint in self.checkpoints()? {
            if let Ok(reader) = CheckpointReader::open(&checkpoint.path) {
                tracing::warn!(
                    folder = %self.path.display(),
                    "the file `incarnation` is missing; it is made again from the newest checkpoint"
                );
                self.begin(reader.incarnation)?;
                return Ok(reader.incarnation);
            }
        }
        let random = || u128::from(RandomState::new().hash_one(0));
        let incarnation = random() << 64 | random();
        self.begin(incarnation)?;
        Ok(incarnation)
    }

    /// Begins a new state: nothing there before belongs to it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&self, incarnation: u128) -> Result<(), StateError> {
        let (path, aside) = (self.path.join("incarnation"), self.path.join("incarnation.tmp"));
        let io = StateError::io(&path);
        let mut file = File::create(&aside).map_err(&io)?;
        file.write_all(format!("{incarnation:032x}\n").as_bytes()).map_err(&io)?;
        file.sync_all().map_err(&io)?;
        std::fs::rename(&aside, &path).map_err(&io)?;
        sync_folder(&self.path).map_err(StateError::io(&self.path))
    }

    /// The checkpoints, the newest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<Summary>, StateError> {
        let found = numbered(&self.checkpoint_folder(), "checkpoint")?;
        Ok(found.into_iter().rev().map(|(sequence, path)| Summary { sequence, path }).collect())
    }

    /// Opens a checkpoint of this incarnation.
    ///
    /// # Errors
    /// As [`CheckpointReader::open`]; and one of another state counts as damaged.
    pub fn open_checkpoint(&self, of: &Summary, incarnation: u128) -> Result<CheckpointReader, StateError> {
        let reader = CheckpointReader::open(&of.path)?;
        match reader.incarnation == incarnation {
            true => Ok(reader),
            false => Err(StateError::damaged(&of.path, "it belongs to another state")),
        }
    }

    /// Takes away all but the last two checkpoints; says from which sequence on the log is still needed.
    /// The newest of the others is left for the next checkpoint to write over.
    ///
    /// # Errors
    /// A file cannot be renamed or removed.
    pub fn prune(&self) -> Result<u64, StateError> {
        let checkpoints = self.checkpoints()?;
        for (number, old) in checkpoints.iter().skip(KEPT).enumerate() {
            match number {
                0 => std::fs::rename(&old.path, self.checkpoint_folder().join(SPARE)),
                _ => std::fs::remove_file(&old.path),
            }
            .map_err(StateError::io(&old.path))?;
        }
        Ok(checkpoints.iter().take(KEPT).map(|kept| kept.sequence).min().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CheckpointWriter, set_aside};
    use super::*;

    #[test]
    fn a_folder_is_for_one_process() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("opens");
        assert!(matches!(Folder::open(place.path()), Err(StateError::InUse(_))));
        drop(folder);
        Folder::open(place.path()).expect("opens again");
    }

    #[test]
    fn an_incarnation_is_begun_once() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("opens");
        assert_eq!(folder.incarnation().expect("reads"), None);
        folder.begin(u128::MAX - 5).expect("writes");
        assert_eq!(folder.incarnation().expect("reads"), Some(u128::MAX - 5));
        std::fs::write(place.path().join("incarnation"), "hello").expect("writes");
        assert!(folder.incarnation().expect_err("refused").to_string().contains("32 hexadecimal digits"));
    }

    #[test]
    fn a_lost_incarnation_is_made_again_from_a_checkpoint() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("opens");
        let first = folder.incarnation_or_new().expect("begins");
        assert_eq!(folder.incarnation_or_new().expect("reads"), first);
        let path = place.path().join("incarnation");
        std::fs::remove_file(&path).expect("removes");
        assert_ne!(folder.incarnation_or_new().expect("begins"), first, "nothing says what it was");
        let writer = CheckpointWriter::begin(&folder.checkpoint_folder(), first, 10, 1).expect("begins");
        writer.finish().expect("finishes");
        std::fs::remove_file(&path).expect("removes");
        assert_eq!(folder.incarnation_or_new().expect("begins"), first);
        assert_eq!(folder.incarnation().expect("reads"), Some(first));
    }

    #[test]
    fn two_checkpoints_are_kept_and_leftovers_removed() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("opens");
        for sequence in [10, 20, 30] {
            let writer =
                CheckpointWriter::begin(&folder.checkpoint_folder(), 5, sequence, 1).expect("begins");
            writer.finish().expect("finishes");
        }
        std::fs::write(folder.checkpoint_folder().join(format!("{:020}.tmp", 40)), "half").expect("writes");
        assert_eq!(folder.prune().expect("prunes"), 20);
        assert!(folder.checkpoint_folder().join(SPARE).exists());
        drop(folder);
        let folder = Folder::open(place.path()).expect("opens");
        let sequences: Vec<u64> = folder.checkpoints().expect("lists").iter().map(|c| c.sequence).collect();
        assert_eq!(sequences, [30, 20]);
        assert_eq!(std::fs::read_dir(folder.checkpoint_folder()).expect("lists").count(), 3, "and the spare");
        let newest = &folder.checkpoints().expect("lists")[0];
        assert!(folder.open_checkpoint(newest, 5).is_ok());
        assert!(folder.open_checkpoint(newest, 6).is_err());
        let aside = set_aside(&newest.path).expect("renames");
        assert!(aside.exists() && folder.checkpoints().expect("lists").len() == 1);
    }
}
