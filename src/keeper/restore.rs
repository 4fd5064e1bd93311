//! From the folder back to an engine.

use crate::engine::{Engine, FORMAT, Image, OutputSink};
use crate::registry::Partition;
use crate::rules::RuleSet;
use crate::state::{Folder, Section, SectionKind, StateError, Summary, replay, set_aside};
use crossbeam_channel::bounded;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sections read ahead of those who decode them.
const READ_AHEAD: usize = 8;

/// What was found in the folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The sequence of the checkpoint; `None`: there was none.
    pub checkpoint: Option<u64>,
    /// Series known after all of it.
    pub series: usize,
    /// Records that were replayed.
    pub replayed: u64,
    /// How long all of it took.
    pub took: Duration,
    /// What was wrong, for people.
    pub trouble: Vec<String>,
}

/// Brings an engine back from the newest checkpoint that is whole, and the log after it. Without any it
/// begins with `rules` and applies what log there is. `body_bytes`: what one body may decompress to.
///
/// # Errors
/// The folder cannot be read, or is of another version: better to stop than to forget.
pub fn restore(
    folder: &Folder,
    incarnation: u128,
    rules: &Arc<RuleSet>,
    lanes: usize,
    sinks: Vec<Arc<dyn OutputSink>>,
    body_bytes: usize,
) -> Result<(Engine, Found), StateError> {
    let started = Instant::now();
    let mut found = Found::default();
    let mut image = None;
    for summary in folder.checkpoints()? {
        match load(folder, &summary, incarnation) {
            Ok(loaded) => {
                image = Some(loaded);
                break;
            }
            Err(error @ StateError::Damaged { .. }) => {
                let aside = set_aside(&summary.path).map_err(StateError::io(&summary.path))?;
                let what = format!("{error}; it is kept as {} and the one before is tried", aside.display());
                tracing::error!("{what}");
                found.trouble.push(what);
            }
            Err(error) => return Err(error),
        }
    }
    let mut newest = 0;
    let engine = match image {
        Some(image) => {
            found.checkpoint = Some(image.sequence());
            newest = image.partitions().iter().map(|partition| partition.sequence).max().unwrap_or(0);
            Engine::restored(image, lanes, sinks)
        }
        None => Engine::new(rules.clone(), lanes, sinks),
    };
    let after = found.checkpoint.unwrap_or(0);
    let mut again = engine.replay(body_bytes);
    let read = replay(&folder.log_folder(), incarnation, after, |kept| again.take(kept))?;
    let passed_over = again.finish();
    found.replayed = read.records.saturating_sub(passed_over.len() as u64);
    let trouble = read.trouble.into_iter().chain(passed_over);
    found.trouble.extend(trouble.inspect(|what| tracing::warn!("{what}")));
    // Partitions may be further than a log whose end was lost.
    engine.skip_to(newest.max(read.last));
    found.series = engine.kept();
    found.took = started.elapsed();
    Ok((engine, found))
}

/// Reads a checkpoint; partitions are decoded by several threads.
///
/// # Errors
/// It cannot be read, is damaged, or of another version or state.
pub fn load(folder: &Folder, summary: &Summary, incarnation: u128) -> Result<Image, StateError> {
    let mut reader = folder.open_checkpoint(summary, incarnation)?;
    let path = summary.path.as_path();
    if reader.content != FORMAT {
        return Err(StateError::Version { path: path.into(), found: reader.content, wanted: FORMAT });
    }
    let damaged = |what: String| StateError::damaged(path, what);
    let head = match reader.next_section()? {
        Some(Section { kind: SectionKind::Head, bytes, .. }) => bytes,
        _ => return Err(damaged("it does not begin with a head".into())),
    };
    let mut image = Image::new(&head).map_err(|error| damaged(format!("its head: {error}")))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut names = None;
    let partitions = {
        let image = &image;
        let (sections, work) = bounded::<Section>(READ_AHEAD);
        std::thread::scope(|scope| {
            let decoders: Vec<_> = (0..threads)
                .map(|_| {
                    let work = work.clone();
                    scope.spawn(move || work.iter().map(|section| decode(image, &section, path)).collect())
                })
                .collect();
            drop(work);
            let read = (|| {
                while let Some(section) = reader.next_section()? {
                    match section.kind {
                        // Fails only where all decoders have ended; they tell why.
                        SectionKind::Partition => drop(sections.send(section)),
                        SectionKind::Names => names = Some(section.bytes),
                        SectionKind::Head => return Err(damaged("it has two heads".into())),
                    }
                }
                Ok(())
            })();
            drop(sections);
            let mut partitions: Vec<(u16, Partition)> = Vec::new();
            for decoder in decoders {
                let decoded: Vec<Result<(u16, Partition), StateError>> =
                    decoder.join().map_err(|_| damaged("reading it has failed: a bug".into()))?;
                for partition in decoded {
                    partitions.push(partition?);
                }
            }
            read.map(|()| partitions)
        })?
    };
    for (number, partition) in partitions {
        image.put(number, partition);
    }
    let names = names.ok_or_else(|| damaged("it has no names".into()))?;
    image.names(&names).map_err(|error| damaged(format!("its names: {error}")))?;
    Ok(image)
}

fn decode(image: &Image, section: &Section, path: &Path) -> Result<(u16, Partition), StateError> {
    match image.read(&section.bytes) {
        Ok(partition) if partition.sequence == section.sequence => Ok((section.number, partition)),
        Ok(_) => {
            let what = format!("partition {} and its section are of different sequences", section.number);
            Err(StateError::damaged(path, what))
        }
        Err(error) => Err(StateError::damaged(path, format!("partition {}: {error}", section.number))),
    }
}
