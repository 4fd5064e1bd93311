//! What series have learnt, as a file of its own: taken out of one state, put into another.
//!
//! A file holds series with their labels and signals, as one image of a partition; no rules, no clocks.
//! In another state a series finds its rule anew at its next sample, and keeps the models whose
//! parameters are that rule's. Only the newest checkpoint is read and written: the log after it comes
//! on top.

use super::load;
use crate::codec::{Reader, Stored, restored};
use crate::engine::identify::{Sources, partition};
use crate::engine::{Engine, FORMAT, Image};
use crate::labels::{Interner, Selector};
use crate::registry::{Alone, PARTITIONS, Partition};
use crate::rules::RuleSet;
use crate::state::{
    CheckpointReader, CheckpointWriter, Folder, Section, SectionKind, StateError, Summary, VERSION,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// How a file of models begins.
const MAGIC: [u8; 8] = *b"oddity-M";
/// Bytes of its head.
const HEAD: usize = 48;

/// What was taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The file written.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// The sequence of the checkpoint it was taken from.
    pub sequence: u64,
    /// Series in it.
    pub series: usize,
    /// Their signals.
    pub signals: usize,
    /// Series that were left where they are.
    pub left: usize,
}

/// What was put in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The checkpoint written.
    pub checkpoint: PathBuf,
    /// Series that were not there.
    pub added: usize,
    /// Series that were there and have given way.
    pub replaced: usize,
    /// Series that were there and have stayed.
    pub kept: usize,
    /// Series that no rule takes there: left out.
    pub unmatched: usize,
    /// Series none of whose models has the parameters of its rule there: left out.
    pub unusable: usize,
    /// Series beyond `limits.max_series`: left out.
    pub over_limit: usize,
}

/// The newest checkpoint of a folder.
fn newest(folder: &Folder) -> Result<Option<Summary>, StateError> {
    Ok(folder.checkpoints()?.into_iter().next())
}

/// Writes the series that fit any of the selectors (all where there is none) to a new file, as the
/// newest checkpoint has them. The folder is not changed, and may be in use.
///
/// # Errors
/// There is no checkpoint, it cannot be read, none of its series is asked for, or the file exists already
/// or cannot be written.
pub fn export(path: &Path, selectors: &[Selector], out: &Path) -> Result<Exported, StateError> {
    let (folder, _) = Folder::look(path)?;
    let Some(summary) = newest(&folder)? else {
        return Err(StateError::failed(path, "there is no checkpoint yet to take models from"));
    };
    let incarnation = CheckpointReader::open(&summary.path)?.incarnation;
    let mut image = load(&folder, &summary, incarnation)?;
    let (mut models, mut left) = (Partition::default(), 0);
    for number in 0..PARTITIONS {
        let mut partition = image.take(number as u16);
        for slot in 0..partition.series.bound() {
            let Some(series) = partition.series.get(slot) else { continue };
            let fits = |selector: &Selector| selector.matches(|name| series.labels.get(name));
            if !selectors.is_empty() && !selectors.iter().any(fits) {
                left += 1;
            } else if let Some(alone) = partition.take(slot) {
                models.add(alone);
            }
        }
    }
    if models.series.is_empty() {
        let why = match left {
            0 => "there are no series in it yet".to_string(),
            left => format!("none of its {left} series fits --match"),
        };
        return Err(StateError::failed(path, why + "; nothing was written"));
    }
    models.sequence = image.sequence();
    let mut body = Vec::new();
    models.store(&mut body);
    let mut bytes = head(image.sequence(), &body);
    bytes.append(&mut body);
    let mut file = File::create_new(out).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => StateError::failed(out, "this file exists already; name another one"),
        _ => StateError::io(out)(error),
    })?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(StateError::io(out))?;
    Ok(Exported {
        file: out.to_path_buf(),
        bytes: bytes.len() as u64,
        sequence: image.sequence(),
        series: models.series.len(),
        signals: models.signals.len(),
        left,
    })
}

/// The head of a file: magic, version, format, sequence, bytes and checksum of what follows, checksum of
/// all that.
fn head(sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD + body.len());
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend(FORMAT.to_le_bytes());
    for number in [sequence, body.len() as u64, xxh3_64(body)] {
        head.extend(number.to_le_bytes());
    }
    let sum = xxh3_64(&head);
    head.extend(sum.to_le_bytes());
    head
}

/// Reads a file of models.
///
/// # Errors
/// It cannot be read, is damaged or of another version.
pub fn read(path: &Path) -> Result<Partition, StateError> {
    let bytes = std::fs::read(path).map_err(StateError::io(path))?;
    let damaged = |what: String| StateError::damaged(path, what);
    let mut from = Reader::new(&bytes);
    let short = |_| damaged("it ends too early".into());
    let magic: [u8; 8] = from.array().map_err(short)?;
    if magic != MAGIC {
        return Err(damaged("it does not begin as a file of models does".into()));
    }
    for wanted in [VERSION, FORMAT] {
        let found = u32::load(&mut from).map_err(short)?;
        if found != wanted {
            return Err(StateError::Version { path: path.into(), found, wanted });
        }
    }
    let [_, length, sum, own] = <[u64; 4]>::load(&mut from).map_err(short)?;
    if bytes.get(..HEAD - 8).map(xxh3_64) != Some(own) {
        return Err(damaged("the checksum of its head is wrong".into()));
    }
    let body = from.bytes(from.left()).map_err(short)?;
    if body.len() as u64 != length || xxh3_64(body) != sum {
        return Err(damaged("its length or its checksum is wrong".into()));
    }
    let mut from = Reader::new(body);
    let models = Partition::load(&mut from, &Interner::default());
    models.and_then(|models| from.finish().map(|()| models)).map_err(|error| damaged(error.to_string()))
}

/// Puts the series of a file into a state that nobody has open: its newest checkpoint is written anew
/// with them. Series that are there stay as they are, or give way where `replace` says so. Where there
/// is no checkpoint yet, one is made for `rules`.
///
/// # Errors
/// A file cannot be read or written, the folder is in use, or there is neither checkpoint nor rules.
pub fn import(
    models: Partition,
    path: &Path,
    rules: Option<Arc<RuleSet>>,
    replace: bool,
) -> Result<Imported, StateError> {
    if rules.is_none() {
        Folder::look(path)?;
    }
    let folder = Folder::open(path)?;
    if newest(&folder)?.is_none() {
        let Some(rules) = rules else {
            return Err(StateError::failed(
                path,
                "there is no checkpoint yet: say for which rules (--config)",
            ));
        };
        begin(&folder, rules)?;
    }
    let Some(summary) = newest(&folder)? else {
        return Err(StateError::failed(path, "the first checkpoint is gone"));
    };
    Import::new(&folder, &summary)?.run(models, replace)
}

/// The first checkpoint of a state in which nothing has happened.
fn begin(folder: &Folder, rules: Arc<RuleSet>) -> Result<(), StateError> {
    let incarnation = folder.incarnation_or_new()?;
    let engine = Engine::new(rules, 0, Vec::new());
    let (sequence, head) = engine.head();
    let mut writer = CheckpointWriter::begin(&folder.checkpoint_folder(), incarnation, sequence, FORMAT)?;
    writer.section(SectionKind::Head, 0, sequence, &head)?;
    writer.section(SectionKind::Names, 0, sequence, &engine.names())?;
    writer.finish()?;
    Ok(())
}

/// A checkpoint being written anew.
struct Import<'a> {
    folder: &'a Folder,
    summary: &'a Summary,
    head: Section,
    names: Section,
    image: Image,
    sources: Sources,
    series: usize,
}

impl Import<'_> {
    fn new<'a>(folder: &'a Folder, summary: &'a Summary) -> Result<Import<'a>, StateError> {
        let damaged = |what: String| StateError::damaged(&summary.path, what);
        let incarnation = folder.incarnation_or_new()?;
        // All of it has to be whole before it is replaced.
        let loaded = load(folder, summary, incarnation)?;
        let series = loaded.partitions().iter().map(|partition| partition.series.len()).sum();
        drop(loaded);
        let (mut head, mut names) = (None, None);
        let mut reader = folder.open_checkpoint(summary, incarnation)?;
        while let Some(section) = reader.next_section()? {
            match section.kind {
                SectionKind::Head => head = Some(section),
                SectionKind::Names => names = Some(section),
                SectionKind::Partition => {}
            }
        }
        let (Some(head), Some(names)) = (head, names) else {
            return Err(damaged("it has no head or no names".into()));
        };
        let image = Image::new(&head.bytes).map_err(|error| damaged(format!("its head: {error}")))?;
        let sources: Sources =
            restored(&names.bytes).map_err(|error| damaged(format!("its names: {error}")))?;
        Ok(Import { folder, summary, head, names, image, sources, series })
    }

    fn run(mut self, models: Partition, replace: bool) -> Result<Imported, StateError> {
        let mut imported = Imported { checkpoint: self.summary.path.clone(), ..Imported::default() };
        let mut placed = self.place(models, &mut imported);
        let damaged = |what: String| StateError::damaged(&self.summary.path, what);
        let mut reader = self.folder.open_checkpoint(self.summary, self.folder.incarnation_or_new()?)?;
        let checkpoints = self.folder.checkpoint_folder();
        let (incarnation, sequence) = (reader.incarnation, self.head.sequence);
        let mut writer = CheckpointWriter::begin(&checkpoints, incarnation, sequence, FORMAT)?;
        writer.section(SectionKind::Head, 0, sequence, &self.head.bytes)?;
        while let Some(section) = reader.next_section()? {
            if section.kind != SectionKind::Partition {
                continue;
            }
            let Section { number, sequence, bytes, .. } = &section;
            match placed.remove(number) {
                None => writer.section(SectionKind::Partition, *number, *sequence, bytes)?,
                Some(series) => {
                    let read = self.image.read(bytes);
                    let partition = read.map_err(|error| damaged(format!("partition {number}: {error}")))?;
                    let bytes = self.merged(partition, series, replace, &mut imported);
                    writer.section(SectionKind::Partition, *number, *sequence, &bytes)?;
                }
            }
        }
        for (number, series) in placed {
            let bytes = self.merged(Partition::default(), series, replace, &mut imported);
            writer.section(SectionKind::Partition, number, 0, &bytes)?;
        }
        let names = crate::codec::image(&self.sources);
        writer.section(SectionKind::Names, 0, self.names.sequence, &names)?;
        writer.finish()?;
        Ok(imported)
    }

    /// The series that are of use here, by partition.
    fn place(&mut self, mut models: Partition, imported: &mut Imported) -> BTreeMap<u16, Vec<Alone>> {
        let rules = self.image.rules().clone();
        let mut placed: BTreeMap<u16, Vec<Alone>> = BTreeMap::new();
        for slot in 0..models.series.bound() {
            let Some(mut alone) = models.take(slot) else { continue };
            let labels = alone.series.labels.clone();
            let rule = rules.select(|name| labels.get(name)).and_then(|rule| rules.rules.get(rule));
            let Some(rule) = rule else {
                imported.unmatched += 1;
                continue;
            };
            let key = rule.params.key();
            if !alone.signals.iter().any(|signal| signal.params == key) {
                imported.unusable += 1;
                continue;
            }
            // A generation that never was: it finds its rule at its next sample.
            (alone.series.generation, alone.series.rule) = (0, None);
            let cluster = labels.get(&rules.identity.cluster_label).unwrap_or_default();
            alone.series.group = self.sources.group(cluster);
            let canonical: Vec<(&str, &str)> = labels.iter().collect();
            let number = partition(alone.series.id, &canonical, &rules.identity);
            placed.entry(u16::from(number)).or_default().push(alone);
        }
        placed
    }

    fn merged(
        &mut self,
        mut partition: Partition,
        series: Vec<Alone>,
        replace: bool,
        imported: &mut Imported,
    ) -> Vec<u8> {
        let most = self.image.rules().limits.max_series;
        for alone in series {
            match partition.find(alone.series.id) {
                Some(_) if !replace => imported.kept += 1,
                Some(slot) => {
                    partition.remove(slot);
                    partition.add(alone);
                    imported.replaced += 1;
                }
                None if self.series >= most => imported.over_limit += 1,
                None => {
                    partition.add(alone);
                    self.series += 1;
                    imported.added += 1;
                }
            }
        }
        let mut bytes = Vec::new();
        partition.store(&mut bytes);
        bytes
    }
}
