//! What is in a state folder, and whether it is whole. Nothing is changed.

use super::load;
use crate::emit::queues;
use crate::engine::{Image, check_models};
use crate::record::Logged;
use crate::state::{CheckpointReader, End, Folder, SegmentInfo, StateError, segments, verify};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is in a folder.
#[derive(Debug, Default, Serialize)]
pub struct Survey {
    /// The folder.
    pub folder: PathBuf,
    /// Whether an oddity has it open: its newest files may be half written.
    pub in_use: bool,
    /// The number of the state, in hexadecimal.
    pub incarnation: Option<String>,
    /// Checkpoints, the newest first.
    pub checkpoints: Vec<Checkpoint>,
    /// Segments of the log.
    pub log: Vec<Segment>,
    /// Records that a restart applies again.
    pub replay: u64,
    /// What targets have not yet accepted.
    pub queues: Vec<Queue>,
    /// Files that were set aside as damaged.
    pub set_aside: Vec<PathBuf>,
    /// What is worth a remark, and no damage.
    pub notes: Vec<String>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// A checkpoint.
#[derive(Debug, Serialize)]
pub struct Checkpoint {
    /// The file.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// The sequence of its head.
    pub sequence: u64,
    /// The version of what it holds.
    pub format: u32,
    /// What it holds, where that was read.
    pub content: Option<Content>,
}

/// What a checkpoint holds.
#[derive(Debug, Serialize)]
pub struct Content {
    /// The greatest sequence of a partition.
    pub newest: u64,
    /// Partitions that hold series.
    pub partitions: usize,
    /// Series.
    pub series: usize,
    /// Their signals, each with a model.
    pub signals: usize,
    /// Series by the rule that takes them, in the order of the rules.
    pub rules: Vec<(String, usize)>,
    /// Series that no rule takes.
    pub unmatched: usize,
}

/// A segment of the log.
#[derive(Debug, Serialize)]
pub struct Segment {
    /// The file.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Whole records.
    pub records: u64,
    /// First and last record.
    pub sequences: Option<(u64, u64)>,
}

/// A file of a target's queue.
#[derive(Debug, Serialize)]
pub struct Queue {
    /// The target.
    pub target: String,
    /// The file.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Batches in it that may have to be sent.
    pub batches: u64,
}

impl Content {
    fn of(image: &Image) -> Content {
        let partitions = image.partitions();
        let rules = image.rules();
        let mut by_rule: Vec<(String, usize)> =
            rules.rules.iter().map(|rule| (rule.name.clone(), 0)).collect();
        let mut unmatched = 0;
        for (_, series) in partitions.iter().flat_map(|partition| partition.series.iter()) {
            let rule = rules.select(|name| series.labels.get(name));
            match rule.and_then(|rule| by_rule.get_mut(rule)) {
                Some((_, count)) => *count += 1,
                None => unmatched += 1,
            }
        }
        Content {
            newest: partitions.iter().map(|partition| partition.sequence).max().unwrap_or(0),
            partitions: partitions.iter().filter(|partition| !partition.series.is_empty()).count(),
            series: partitions.iter().map(|partition| partition.series.len()).sum(),
            signals: partitions.iter().map(|partition| partition.signals.len()).sum(),
            rules: by_rule,
            unmatched,
        }
    }
}

/// Looks at a folder. `all`: every image and record is decoded, not only the newest checkpoint's.
/// `body_bytes`: what one body of the log may decompress to.
///
/// # Errors
/// There is no state in it, or the folder itself cannot be read.
pub fn survey(path: &Path, all: bool, body_bytes: usize) -> Result<Survey, StateError> {
    let (folder, in_use) = Folder::look(path)?;
    let mut survey = Survey { folder: path.to_path_buf(), in_use, ..Survey::default() };
    let incarnation = match folder.incarnation() {
        Ok(incarnation) => incarnation,
        Err(error) => {
            survey.problems.push(error.to_string());
            None
        }
    };
    survey.incarnation = incarnation.map(|number| format!("{number:032x}"));
    survey.checkpoints(&folder, incarnation, all)?;
    if incarnation.is_none() && !survey.checkpoints.is_empty() {
        survey.problems.push("the folder has no incarnation: a start would begin anew".into());
    }
    survey.log(&folder, incarnation, all, body_bytes);
    survey.queues(&folder);
    for place in [folder.checkpoint_folder(), folder.log_folder()] {
        survey.aside(&place);
    }
    Ok(survey)
}

impl Survey {
    fn checkpoints(
        &mut self,
        folder: &Folder,
        incarnation: Option<u128>,
        all: bool,
    ) -> Result<(), StateError> {
        for (number, summary) in folder.checkpoints()?.iter().enumerate() {
            let head = match CheckpointReader::open(&summary.path) {
                Ok(head) => head,
                Err(error) => {
                    self.problems.push(error.to_string());
                    continue;
                }
            };
            let mut checkpoint = Checkpoint {
                file: summary.path.clone(),
                bytes: head.bytes,
                sequence: head.sequence,
                format: head.content,
                content: None,
            };
            if all || number == 0 {
                match load(folder, summary, incarnation.unwrap_or(head.incarnation)) {
                    Ok(image) => checkpoint.content = Some(Content::of(&image)),
                    Err(error) => self.problems.push(error.to_string()),
                }
            }
            self.checkpoints.push(checkpoint);
        }
        if self.checkpoints.is_empty() && self.problems.is_empty() {
            self.notes.push("there is no checkpoint yet".into());
        }
        Ok(())
    }

    fn log(&mut self, folder: &Folder, incarnation: Option<u128>, all: bool, body_bytes: usize) {
        let after = self.checkpoints.first().map_or(0, |checkpoint| checkpoint.sequence);
        let mut last = None;
        let mut missing = Vec::new();
        let path = folder.log_folder();
        let read = match all {
            false => segments(&path).map(|all| all.into_iter().map(|info| (info, Vec::new())).collect()),
            true => verify(&path, body_bytes, |sequence, logged| {
                let wanted = after.saturating_add(1);
                let expected = last.map_or(wanted.min(sequence), |last: u64| last.saturating_add(1));
                if sequence > expected && sequence > after {
                    missing.push((expected.max(wanted), sequence - 1));
                }
                last = Some(sequence);
                match logged {
                    Logged::Record(_) => Ok(()),
                    Logged::Published { models, .. } => {
                        check_models(models).map_err(|error| format!("its models: {error}"))
                    }
                }
            }),
        };
        let read: Vec<(SegmentInfo, Vec<String>)> = match read {
            Ok(read) => read,
            Err(error) => return self.problems.push(error.to_string()),
        };
        for (from, to) in missing.into_iter().filter(|(from, to)| from <= to) {
            self.problems
                .push(format!("records {from} to {to} are not in the log: what they taught is lost"));
        }
        let count = read.len();
        for (number, (info, complaints)) in read.into_iter().enumerate() {
            let name = info.path.display().to_string();
            self.problems.extend(complaints.into_iter().map(|what| format!("{name}: {what}")));
            self.problems.extend(info.holes.iter().map(|hole| {
                format!(
                    "{name} is damaged: {}, at byte {}; {} bytes are lost",
                    hole.what, hole.at, hole.bytes
                )
            }));
            match &info.end {
                End::Clean => {}
                End::Torn { at, bytes } => self.notes.push(format!(
                    "{name}: the last {bytes} bytes, from byte {at}, are of a record that was not finished{}",
                    if self.in_use && number + 1 == count {
                        ": it may be just being written"
                    } else {
                        "; the next start cuts them off"
                    }
                )),
                End::Damaged { at, bytes, what } => self
                    .problems
                    .push(format!("{name} is damaged: {what}, at byte {at}; {bytes} bytes are lost")),
            }
            let ours = incarnation.is_none() || info.incarnation.is_none() || info.incarnation == incarnation;
            if !ours {
                self.notes.push(format!("{name} belongs to another state and is not read"));
            } else if let Some((first, last)) = info.sequences {
                self.replay += last.saturating_sub(first.saturating_sub(1).max(after));
            }
            self.log.push(Segment {
                file: info.path,
                bytes: info.bytes,
                records: info.records,
                sequences: info.sequences,
            });
        }
    }

    fn queues(&mut self, folder: &Folder) {
        let files = match queues(&folder.queue_folder()) {
            Ok(files) => files,
            Err(error) => {
                return self.problems.push(format!("{}: {error}", folder.queue_folder().display()));
            }
        };
        for file in files {
            let name = file.path.display();
            self.problems.extend(file.problems.iter().map(|what| format!("{name}: {what}")));
            if file.torn {
                self.notes.push(format!("{name} ends in the middle of a block: the next start cuts it off"));
            }
            self.queues.push(Queue {
                target: file.target,
                bytes: file.bytes,
                batches: file.batches,
                file: file.path,
            });
        }
    }

    fn aside(&mut self, place: &Path) {
        let entries = match std::fs::read_dir(place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return self.problems.push(format!("{}: {error}", place.display())),
        };
        let paths = entries.flatten().map(|entry| entry.path());
        self.set_aside.extend(paths.filter(|path| path.extension().is_some_and(|ext| ext == "corrupt")));
        self.set_aside.sort();
    }
}
