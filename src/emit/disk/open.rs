//! What a target's folder holds at a start.

use super::format::{self, Broken, Entry, Extent, PARTITIONS, read_block, read_segment_header};
use super::look::told;
use super::{Acks, BlockRef, Disk, QueueDir, Segment, Segments};
use crate::state;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// What was there.
#[derive(Debug)]
pub struct Found {
    /// The queue.
    pub disk: Disk,
    /// Blocks to send, oldest first.
    pub blocks: Vec<Arc<BlockRef>>,
    /// By partition, the sequence up to which everything is settled.
    pub acked: BTreeMap<u16, u64>,
    /// By partition, the sequence up to which nothing is to be queued again.
    pub floors: BTreeMap<u16, u64>,
    /// The greatest sequence met, of whatever incarnation.
    pub newest: u64,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk's.
    #[error("{path}: {error}")]
    Io {
        /// What could not be used.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A later version of oddity has been here.
    #[error(
        "{path} was written by another version of oddity (format {version}; this one reads {}). \
         Use that version to send what is queued, or remove the folder",
        format::VERSION
    )]
    Version {
        /// The file.
        path: String,
        /// Its format.
        version: u32,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.display().to_string();
    move |error| OpenError::Io { path, error }
}

/// The folder of a target: what of its name is safe, and a hash of all of it.
fn folder_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let readable: String = name.chars().map(safe).take(60).collect();
    format!("{readable}-{:016x}", xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
}

/// Removes folders of targets that are not among `names`, and says what was in them.
///
/// # Errors
/// The folder of all queues cannot be made or read.
pub fn remove_foreign(dir: &QueueDir, names: &[&str]) -> Result<(), OpenError> {
    std::fs::create_dir_all(&dir.path).map_err(at(&dir.path))?;
    let known: Vec<String> = names.iter().map(|name| folder_name(name)).collect();
    for entry in std::fs::read_dir(&dir.path).map_err(at(&dir.path))? {
        let path = entry.map_err(at(&dir.path))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_string();
        let hash = name.rsplit_once('-').map_or("", |(_, hash)| hash);
        let ours = hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit());
        if !ours || known.contains(&name) || !path.is_dir() {
            continue;
        }
        let samples = waiting_in(&path, dir.incarnation)?;
        tracing::warn!(
            folder = %path.display(),
            samples,
            "remote_write has no target of this queue any more: it is removed, with what was not delivered"
        );
        std::fs::remove_dir_all(&path).map_err(at(&path))?;
    }
    Ok(())
}

/// Samples in a folder that were not delivered.
fn waiting_in(folder: &Path, incarnation: u128) -> Result<u64, OpenError> {
    let mut samples = 0;
    for file in segment_files(folder)?.into_values() {
        let bytes = std::fs::read(&file).map_err(at(&file))?;
        let walked = walk(&bytes);
        let path = folder.join("acks");
        let acks = Acks::open(&path, &walked.name, incarnation).map_err(at(&path))?.ok();
        let waits = |entry: &&Entry| {
            let acked = acks.as_ref().and_then(|(acks, _)| acks.of(usize::from(entry.partition)));
            walked.incarnation != Ok(incarnation) || acked.is_none_or(|acked| acked < entry.sequence)
        };
        let entries = walked.blocks.iter().flat_map(|(_, _, entries)| entries);
        samples += entries.filter(waits).map(|entry| u64::from(entry.samples)).sum::<u64>();
    }
    Ok(samples)
}

fn segment_files(folder: &Path) -> Result<BTreeMap<u64, PathBuf>, OpenError> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if let Some(number) = name.strip_suffix(".seg").and_then(|number| number.parse().ok()) {
            files.insert(number, path);
        }
    }
    Ok(files)
}

/// A walk over a segment's bytes.
struct Walked {
    /// Its incarnation, where the header is good.
    incarnation: Result<u128, Broken>,
    name: String,
    /// Good blocks that are not settled: offset, length, batches.
    blocks: Vec<(u64, u32, Vec<Entry>)>,
    /// The greatest sequence of each partition in all good blocks.
    reached: BTreeMap<u16, u64>,
    /// The header and the good blocks.
    good: Vec<Range<usize>>,
    /// Where something else begins, and what is wrong with it.
    broken: Option<(usize, Broken)>,
}

fn walk(bytes: &[u8]) -> Walked {
    let mut walked = Walked {
        incarnation: Err(Broken::Short),
        name: String::new(),
        blocks: Vec::new(),
        reached: BTreeMap::new(),
        good: Vec::new(),
        broken: None,
    };
    let mut end = match read_segment_header(bytes) {
        Ok((incarnation, name, len)) => {
            walked.incarnation = Ok(incarnation);
            walked.name = name.to_string();
            walked.good.push(0..len);
            len
        }
        Err(broken) => {
            walked.incarnation = Err(broken.clone());
            walked.broken = Some((0, broken));
            return walked;
        }
    };
    while let Some(rest) = bytes.get(end..).filter(|rest| !rest.is_empty()) {
        match read_block(rest) {
            Ok(block) => {
                for entry in &block.entries {
                    let reached = walked.reached.entry(entry.partition).or_default();
                    *reached = (*reached).max(entry.sequence);
                }
                let len = block.len;
                if !block.settled {
                    walked.blocks.push((end as u64, len as u32, block.entries));
                }
                walked.good.push(end..end + len);
                end += len;
            }
            Err(broken) => {
                walked.broken.get_or_insert((end, broken));
                // The next good block, if there is one: its checksum leaves no room for chance.
                match (1..rest.len()).find(|at| rest.get(*at..).is_some_and(|rest| read_block(rest).is_ok()))
                {
                    Some(next) => end += next,
                    None => break,
                }
            }
        }
    }
    walked
}

impl Disk {
    /// Opens the queue of a target, and makes it where there is none.
    ///
    /// # Errors
    /// The disk's, or files of another version. What is merely broken is cut or set aside, and told.
    pub fn open(dir: &QueueDir, name: &str) -> Result<Found, OpenError> {
        let folder = dir.path.join(folder_name(name));
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
        let path = folder.join("acks");
        let (acks, mut newest) = Acks::open(&path, name, dir.incarnation)
            .map_err(at(&path))?
            .map_err(|version| OpenError::Version { path: path.display().to_string(), version })?;
        let acked: BTreeMap<u16, u64> =
            (0..PARTITIONS).filter_map(|p| Some((p as u16, acks.of(p)?))).collect();
        let mut floors = acked.clone();
        let (mut segments, mut blocks, mut bytes) = (Segments::default(), Vec::new(), 0);
        let files = segment_files(&folder)?;
        segments.next = files.keys().next_back().map_or(1, |last| last.saturating_add(1));
        let newest_file = files.keys().next_back().copied();
        for (number, path) in files {
            let mut content = std::fs::read(&path).map_err(at(&path))?;
            let mut walked = walk(&content);
            if let Err(Broken::Version(version)) = walked.incarnation {
                return Err(OpenError::Version { path: path.display().to_string(), version });
            }
            if walked.incarnation.is_ok() && walked.name != name {
                walked.incarnation = Err(Broken::Corrupt("it belongs to another target"));
                walked.broken = Some((0, Broken::Corrupt("it belongs to another target")));
            }
            if let Some((place, broken)) = &walked.broken {
                mend(&path, &content, &walked, (*place, broken), Some(number) == newest_file)?;
                if walked.incarnation.is_ok() {
                    content = std::fs::read(&path).map_err(at(&path))?;
                    walked = walk(&content);
                }
            }
            let Ok(incarnation) = walked.incarnation else { continue };
            let len = content.len() as u64;
            let foreign = incarnation != dir.incarnation;
            for (partition, sequence) in &walked.reached {
                newest = newest.max(*sequence);
                if !foreign {
                    let floor = floors.entry(*partition).or_default();
                    *floor = (*floor).max(*sequence);
                }
            }
            let pending = |entry: &&Entry| {
                foreign || acked.get(&entry.partition).is_none_or(|acked| *acked < entry.sequence)
            };
            walked.blocks.retain(|(_, _, entries)| entries.iter().any(|entry| pending(&entry)));
            if walked.blocks.is_empty() {
                std::fs::remove_file(&path).map_err(at(&path))?;
                continue;
            }
            let file = File::options().read(true).write(true).open(&path).map_err(at(&path))?;
            let segment = Arc::new(Segment {
                number,
                path,
                file: Mutex::new(file),
                len: AtomicU64::new(len),
                live: AtomicUsize::new(walked.blocks.len()),
                sealed: AtomicBool::new(true),
                gone: AtomicBool::new(false),
                foreign,
            });
            bytes += len;
            for (offset, len, entries) in walked.blocks {
                let Extent { samples, queued, partitions } = Extent::of(entries.iter().filter(pending));
                blocks.push(Arc::new(BlockRef {
                    segment: segment.clone(),
                    offset,
                    len,
                    owners: Arc::new(AtomicUsize::new(1)),
                    samples,
                    queued,
                    partitions,
                }));
            }
            segments.all.insert(number, segment);
        }
        newest = newest.max(floors.values().max().copied().unwrap_or(0));
        let disk = Disk {
            folder,
            name: name.to_string(),
            incarnation: dir.incarnation,
            fsync: dir.fsync,
            segments: Mutex::new(segments),
            acks: Mutex::new(acks),
            bytes: AtomicU64::new(bytes),
            failing: AtomicBool::new(false),
        };
        Ok(Found { disk, blocks, acked, floors, newest })
    }
}

/// Cuts a torn tail, as a crash leaves one; sets anything else aside, and keeps the good blocks.
fn mend(
    path: &Path,
    content: &[u8],
    walked: &Walked,
    (place, broken): (usize, &Broken),
    newest: bool,
) -> Result<(), OpenError> {
    let good: usize = walked.good.iter().map(|range| range.len()).sum();
    if newest && *broken == Broken::Short && good == place {
        tracing::info!(
            file = %path.display(),
            bytes = content.len() - place,
            "cut the end of the output queue, where a write broke off"
        );
        if walked.incarnation.is_err() {
            return std::fs::remove_file(path).map_err(at(path));
        }
        let file = File::options().write(true).open(path).map_err(at(path))?;
        return file.set_len(place as u64).map_err(at(path));
    }
    let aside = state::set_aside(path).map_err(at(path))?;
    tracing::error!(
        file = %aside.display(),
        at = place,
        lost_bytes = content.len() - good,
        "a segment of the output queue is broken and set aside, its other blocks are sent: {}",
        told(broken)
    );
    if walked.incarnation.is_ok() {
        let mut file = File::create(path).map_err(at(path))?;
        for range in &walked.good {
            file.write_all(content.get(range.clone()).unwrap_or(&[])).map_err(at(path))?;
        }
        file.sync_all().map_err(at(path))?;
    }
    Ok(())
}
