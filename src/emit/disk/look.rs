//! A look at the queues of a folder that changes nothing.

use super::format::{ACK_SLOT, AckSlot, Broken, read_block, read_segment_header};
use std::io;
use std::path::{Path, PathBuf};

/// A file of a queue.
#[derive(Clone, Debug)]
pub struct QueueFile {
    /// The file.
    pub path: PathBuf,
    /// The target; empty where that cannot be read.
    pub target: String,
    /// Its bytes.
    pub bytes: u64,
    /// Batches in it that are not settled, acknowledgements not looked at.
    pub batches: u64,
    /// Whether it ends in the middle of a block, as a crash leaves it.
    pub torn: bool,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

pub(super) fn told(broken: &Broken) -> String {
    match broken {
        Broken::Short => "it ends too early".into(),
        Broken::Corrupt(what) => format!("damaged: {what}"),
        Broken::Version(found) => format!("it is of format {found}, which this version does not read"),
    }
}

/// The files of all queues, by name.
///
/// # Errors
/// A folder or file cannot be read; no folder is no queues.
pub fn queues(folder: &Path) -> io::Result<Vec<QueueFile>> {
    let mut files = Vec::new();
    for target in listed(folder)?.into_iter().filter(|path| path.is_dir()) {
        // Only segments have the target's name in them.
        let mut name = String::new();
        for path in listed(&target)? {
            if path.extension().is_some_and(|ext| ext == "seg") {
                let bytes = std::fs::read(&path)?;
                let file = segment(path, &bytes);
                name.clone_from(&file.target);
                files.push(file);
            }
        }
        let path = target.join("acks");
        if path.is_file() && !name.is_empty() {
            let bytes = std::fs::read(&path)?;
            files.push(acks(path, name, &bytes));
        }
    }
    Ok(files)
}

fn listed(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn segment(path: PathBuf, bytes: &[u8]) -> QueueFile {
    let mut file = QueueFile {
        path,
        target: String::new(),
        bytes: bytes.len() as u64,
        batches: 0,
        torn: false,
        problems: Vec::new(),
    };
    let mut at = match read_segment_header(bytes) {
        Ok((_, name, length)) => {
            file.target = name.to_string();
            length
        }
        Err(broken) => {
            file.problems.push(told(&broken));
            return file;
        }
    };
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match read_block(rest) {
            Ok(block) => {
                if let Err(broken) = block.message() {
                    file.problems.push(format!("at byte {at}: {}", told(&broken)));
                }
                if !block.settled {
                    file.batches += block.entries.len() as u64;
                }
                at += block.len;
            }
            Err(Broken::Short) => {
                file.torn = true;
                break;
            }
            Err(broken) => {
                file.problems.push(format!("at byte {at}: {}", told(&broken)));
                break;
            }
        }
    }
    file
}

fn acks(path: PathBuf, target: String, bytes: &[u8]) -> QueueFile {
    let slots = [bytes.get(..ACK_SLOT), bytes.get(ACK_SLOT..)];
    let read: Vec<_> =
        slots.into_iter().flatten().map(|slot| AckSlot::read(slot, &target).map(|_| ())).collect();
    let mut problems = Vec::new();
    // Slots are written in turn: one may be half written, or not yet.
    if !bytes.is_empty() && !read.iter().any(Result::is_ok) {
        problems.extend(read.iter().filter_map(|slot| slot.as_ref().err()).map(told));
    }
    QueueFile { path, target, bytes: bytes.len() as u64, batches: 0, torn: false, problems }
}

#[cfg(test)]
mod tests {
    use super::super::acks::Acks;
    use super::*;

    #[test]
    fn a_target_without_segments_takes_no_other_ones_name() {
        let place = tempfile::tempdir().expect("a folder");
        let (dead, well) = (place.path().join("a-dead"), place.path().join("b-well"));
        for folder in [&dead, &well] {
            std::fs::create_dir(folder).expect("makes");
        }
        let header = super::super::format::segment_header(1, "dead");
        std::fs::write(dead.join("000000000001.seg"), header).expect("writes");
        let (mut acks, _) = Acks::open(&well.join("acks"), "well", 1).expect("opens").expect("this version");
        acks.write([(3, 10)]).expect("writes");
        let files = queues(place.path()).expect("looks");
        let problems: Vec<&String> = files.iter().flat_map(|file| &file.problems).collect();
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(files.iter().map(|file| file.target.as_str()).collect::<Vec<_>>(), ["dead"]);
    }
}
