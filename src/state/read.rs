//! The read side of the log: replay after a restart, and inspection.

use super::direct::DirectReader;
use super::head::{HEAD, Head};
use super::segment::{FRAME, Frame, SEGMENT};
use super::{StateError, aside, numbered, set_aside};
use crate::record::{Kept, Logged};
use bytes::Bytes;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole record.
    Clean,
    /// In the middle of a record, as a crash leaves it.
    Torn {
        /// Where the last whole record ends.
        at: u64,
        /// Bytes after that.
        bytes: u64,
    },
    /// With bytes that are no record.
    Damaged {
        /// Where.
        at: u64,
        /// Bytes after that.
        bytes: u64,
        /// What is wrong.
        what: String,
    },
}

/// Bytes in the middle of a segment that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins.
    pub at: u64,
    /// How long it is.
    pub bytes: u64,
    /// What is wrong.
    pub what: String,
}

/// What is in a segment.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// The file.
    pub path: PathBuf,
    /// The state that it belongs to; `None` where its head cannot be read.
    pub incarnation: Option<u128>,
    /// First and last record, if there is any.
    pub sequences: Option<(u64, u64)>,
    /// Whole records.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// What is damaged before the end.
    pub holes: Vec<Hole>,
    /// How it ends.
    pub end: End,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records given to be applied.
    pub records: u64,
    /// The last record there was, given or not.
    pub last: u64,
    /// What was wrong on the way, for people.
    pub trouble: Vec<String>,
}

/// Walks the records of a segment; `each` gets their payload. Reads nothing into memory but one record.
fn walk(
    path: &Path,
    mut each: impl FnMut(Frame, Bytes) -> Result<(), StateError>,
) -> Result<SegmentInfo, StateError> {
    let io = StateError::io(path);
    let mut file = DirectReader::open(path).map_err(&io)?;
    let bytes = file.length().map_err(&io)?;
    let mut info = SegmentInfo {
        path: path.to_path_buf(),
        incarnation: None,
        sequences: None,
        records: 0,
        bytes,
        holes: Vec::new(),
        end: End::Clean,
    };
    let mut head = [0; HEAD];
    match file.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            info.end = End::Torn { at: 0, bytes };
            return Ok(info);
        }
        Err(error) => return Err(io(error)),
    }
    match Head::read(&head, SEGMENT, path) {
        Ok(head) => info.incarnation = Some(head.incarnation),
        Err(StateError::Damaged { what, .. }) => {
            info.end = End::Damaged { at: 0, bytes, what };
            return Ok(info);
        }
        Err(error) => return Err(error),
    }
    let mut at = HEAD as u64;
    while at < bytes {
        let left = bytes - at;
        if left < FRAME as u64 {
            info.end = End::Torn { at, bytes: left };
            break;
        }
        let last = info.sequences.map_or(0, |(_, last)| last);
        match record(&mut file, left, last).map_err(&io)? {
            Found::Record(frame, payload) => {
                at += (FRAME + payload.len()) as u64;
                info.records += 1;
                info.sequences =
                    Some((info.sequences.map_or(frame.sequence, |(first, _)| first), frame.sequence));
                each(frame, payload)?;
            }
            Found::Torn => {
                info.end = End::Torn { at, bytes: left };
                break;
            }
            Found::Damaged(what, skip) => {
                let Some(next) = next_frame(&mut file, at + skip, bytes, last).map_err(&io)? else {
                    info.end = damaged(&mut file, at, left, what).map_err(&io)?;
                    break;
                };
                info.holes.push(Hole { at, bytes: next - at, what: what.into() });
                file.go_to(next).map_err(&io)?;
                at = next;
            }
        }
    }
    Ok(info)
}

/// What is at a place of a segment.
enum Found {
    Record(Frame, Bytes),
    /// It goes on beyond the end of the file.
    Torn,
    /// What is wrong, and how many bytes on the next record may begin.
    Damaged(&'static str, u64),
}

/// Reads a record; `left`: bytes to the end of the file; `last`: the sequence before it.
fn record(file: &mut impl Read, left: u64, last: u64) -> std::io::Result<Found> {
    let mut frame = [0; FRAME];
    file.read_exact(&mut frame)?;
    let Some(frame) = Frame::read(&frame) else {
        return Ok(Found::Damaged("no record begins here", 1));
    };
    let whole = FRAME as u64 + u64::from(frame.length);
    if whole > left {
        return Ok(Found::Torn);
    }
    // Bounded by the file.
    let mut payload = vec![0; frame.length as usize];
    file.read_exact(&mut payload)?;
    Ok(if xxhash_rust::xxh3::xxh3_64(&payload) != frame.sum {
        Found::Damaged("the checksum of a record is wrong", whole)
    } else if frame.sequence <= last {
        Found::Damaged("a record is out of order", whole)
    } else {
        Found::Record(frame, payload.into())
    })
}

/// Where the next record after `last` begins, at `from` or later. A head has a checksum of its own,
/// so that it can be told from the bytes of a body.
fn next_frame(file: &mut DirectReader, from: u64, bytes: u64, last: u64) -> std::io::Result<Option<u64>> {
    const WINDOW: u64 = 1 << 20;
    let mut at = from;
    while at + FRAME as u64 <= bytes {
        file.go_to(at)?;
        let mut window = Vec::new();
        file.take(WINDOW).read_to_end(&mut window)?;
        let found = window.windows(FRAME).position(|bytes| {
            bytes.try_into().ok().and_then(Frame::read).is_some_and(|frame| frame.sequence > last)
        });
        if let Some(found) = found {
            return Ok(Some(at + found as u64));
        }
        at += WINDOW - FRAME as u64 + 1;
    }
    Ok(None)
}

/// Where nothing but zeros follows, blocks were allocated and never written: that is a torn end.
fn damaged(file: &mut DirectReader, at: u64, left: u64, what: &str) -> std::io::Result<End> {
    let mut rest = Vec::new();
    file.go_to(at)?;
    file.take(2 << 20).read_to_end(&mut rest)?;
    Ok(if left < 2 << 20 && rest.iter().all(|byte| *byte == 0) {
        End::Torn { at, bytes: left }
    } else {
        End::Damaged { at, bytes: left, what: what.to_string() }
    })
}

/// Gives every record after `after` to `apply`, in order. Torn ends are cut; a segment with damage is
/// kept beside itself as `.corrupt`, and what is whole in it is read.
///
/// # Errors
/// A file cannot be read or written, or is of another version.
pub fn replay(
    folder: &Path,
    incarnation: u128,
    after: u64,
    mut apply: impl FnMut(Kept),
) -> Result<Replayed, StateError> {
    let mut replayed = Replayed { last: after, ..Replayed::default() };
    let segments = numbered(folder, "log")?;
    for (number, (_, path)) in segments.iter().enumerate() {
        // A segment whose successor begins at or before the first record wanted has none of them.
        if segments.get(number + 1).is_some_and(|(next, _)| *next <= after.saturating_add(1)) {
            continue;
        }
        if incarnation_of(path)?.is_some_and(|of| of != incarnation) {
            replayed.trouble.push(format!("{} belongs to another state and is not read", path.display()));
            set_aside(path).map_err(StateError::io(path))?;
            continue;
        }
        let mut trouble = Vec::new();
        let info = walk(path, |frame, payload| {
            if frame.sequence <= replayed.last {
                return Ok(());
            }
            // It is greater than the last one: nothing overflows.
            let next = replayed.last + 1;
            if frame.sequence != next {
                trouble.push(format!(
                    "records {next} to {} are not in the log: what they taught is lost",
                    frame.sequence - 1
                ));
            }
            replayed.last = frame.sequence;
            replayed.records += 1;
            apply(Kept { sequence: frame.sequence, kind: frame.kind, payload });
            Ok(())
        })?;
        replayed.trouble.append(&mut trouble);
        replayed.trouble.append(&mut told(&info)?);
    }
    Ok(replayed)
}

/// The state that a segment belongs to; `None` where its head is damaged.
fn incarnation_of(path: &Path) -> Result<Option<u128>, StateError> {
    let mut head = [0; HEAD];
    let read = File::open(path).map_err(StateError::io(path))?.read_exact(&mut head);
    match read.map(|()| Head::read(&head, SEGMENT, path)) {
        Ok(Ok(head)) => Ok(Some(head.incarnation)),
        Ok(Err(StateError::Damaged { .. })) => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(StateError::io(path)(error)),
    }
}

/// Says what was wrong in a segment, keeps a copy where it was damaged, and cuts off an end that is no
/// record. Damage within stays where it is: the good records behind it may be wanted again.
fn told(info: &SegmentInfo) -> Result<Vec<String>, StateError> {
    let mut said = Vec::new();
    let path = &info.path;
    for Hole { at, bytes, what } in &info.holes {
        said.push(format!("{}: {what}, at byte {at}; {bytes} bytes were passed over", path.display()));
    }
    let cut = match &info.end {
        End::Clean => None,
        End::Torn { at, bytes } => {
            said.push(format!(
                "{}: {bytes} bytes of a record that was never finished were cut off",
                path.display()
            ));
            Some(*at)
        }
        End::Damaged { at, bytes, what } => {
            said.push(format!(
                "{}: {what}, at byte {at}; the last {bytes} bytes are not read",
                path.display()
            ));
            Some(*at)
        }
    };
    if !info.holes.is_empty() || matches!(info.end, End::Damaged { .. }) {
        let aside = aside(path);
        std::fs::copy(path, &aside).map_err(StateError::io(path))?;
        said.push(format!("the damaged file is kept as {}", aside.display()));
    }
    match cut {
        None => {}
        Some(at) if at < HEAD as u64 => std::fs::remove_file(path).map_err(StateError::io(path))?,
        Some(at) => {
            let file = File::options().write(true).open(path).map_err(StateError::io(path))?;
            file.set_len(at).and_then(|()| file.sync_all()).map_err(StateError::io(path))?;
        }
    }
    Ok(said)
}

/// What is in the segments of a folder; changes nothing.
///
/// # Errors
/// A file cannot be read, or is of another version.
pub fn segments(folder: &Path) -> Result<Vec<SegmentInfo>, StateError> {
    numbered(folder, "log")?.iter().map(|(_, path)| walk(path, |_, _| Ok(()))).collect()
}

/// As [`segments`], and each record is read in full and shown to `check`; `limit`: bytes that one body may
/// decompress to. Complaints by file.
///
/// # Errors
/// As [`segments`].
pub fn verify(
    folder: &Path,
    limit: usize,
    mut check: impl FnMut(u64, &Logged) -> Result<(), String>,
) -> Result<Vec<(SegmentInfo, Vec<String>)>, StateError> {
    let mut all = Vec::new();
    for (_, path) in numbered(folder, "log")? {
        let mut complaints = Vec::new();
        let info = walk(&path, |frame, payload| {
            let logged = Logged::read(frame.kind, payload, limit).map_err(|why| why.to_string());
            if let Err(why) = logged.and_then(|logged| check(frame.sequence, &logged)) {
                complaints.push(format!("record {}: {why}", frame.sequence));
            }
            Ok(())
        })?;
        all.push((info, complaints));
    }
    Ok(all)
}
