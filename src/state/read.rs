//! The read side of the log: replay after a restart, and inspection.

use super::head::{HEAD, Head};
use super::segment::{FRAME, Frame, SEGMENT};
use super::{StateError, numbered};
use crate::record::Logged;
use bytes::Bytes;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
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
    /// How it ends.
    pub end: End,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records given.
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
    let file = File::open(path).map_err(&io)?;
    let bytes = file.metadata().map_err(&io)?.len();
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut info = SegmentInfo {
        path: path.to_path_buf(),
        incarnation: None,
        sequences: None,
        records: 0,
        bytes,
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
        let mut frame = [0; FRAME];
        if left < FRAME as u64 {
            info.end = End::Torn { at, bytes: left };
            break;
        }
        file.read_exact(&mut frame).map_err(&io)?;
        let Some(Frame { length, sequence, sum, kind }) = Frame::read(&frame) else {
            info.end = damaged(&frame, &mut file, at, left, "no record begins here");
            break;
        };
        if u64::from(length) > left - FRAME as u64 {
            info.end = End::Torn { at, bytes: left };
            break;
        }
        // Bounded by the file.
        let mut payload = vec![0; length as usize];
        file.read_exact(&mut payload).map_err(&io)?;
        if xxhash_rust::xxh3::xxh3_64(&payload) != sum {
            info.end = damaged(&payload, &mut file, at, left, "the checksum of a record is wrong");
            break;
        }
        if info.sequences.is_some_and(|(_, last)| sequence <= last) {
            info.end = End::Damaged { at, bytes: left, what: "records are out of order".into() };
            break;
        }
        each(Frame { length, sequence, sum, kind }, payload.into())?;
        at += FRAME as u64 + u64::from(length);
        info.records += 1;
        info.sequences = Some((info.sequences.map_or(sequence, |(first, _)| first), sequence));
    }
    Ok(info)
}

/// Where nothing but zeros follows, blocks were allocated and never written: that is a torn end.
fn damaged(read: &[u8], file: &mut impl Read, at: u64, left: u64, what: &str) -> End {
    let mut rest = Vec::new();
    match file.take(1 << 20).read_to_end(&mut rest) {
        Ok(_) if read.iter().chain(&rest).all(|byte| *byte == 0) && left < 2 << 20 => {
            End::Torn { at, bytes: left }
        }
        _ => End::Damaged { at, bytes: left, what: what.to_string() },
    }
}

/// Gives every record after `after` to `apply`, in order. Torn ends are cut, damaged ones set aside
/// beside the segment as `.corrupt`. `limit`: bytes that one body may decompress to.
///
/// # Errors
/// A file cannot be read or written, is of another version, or `apply` fails.
pub fn replay(
    folder: &Path,
    incarnation: u128,
    after: u64,
    limit: usize,
    mut apply: impl FnMut(u64, Logged) -> Result<(), String>,
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
            set_aside(path)?;
            continue;
        }
        let mut trouble = Vec::new();
        let info = walk(path, |frame, payload| {
            if frame.sequence <= replayed.last {
                return Ok(());
            }
            if frame.sequence != replayed.last + 1 {
                trouble.push(format!(
                    "records {} to {} were never written to the log: what they taught is lost",
                    replayed.last + 1,
                    frame.sequence - 1
                ));
            }
            replayed.last = frame.sequence;
            match Logged::read(frame.kind, payload, limit) {
                Ok(logged) => match apply(frame.sequence, logged) {
                    Ok(()) => replayed.records += 1,
                    Err(why) => trouble.push(format!("record {} was passed over: {why}", frame.sequence)),
                },
                Err(why) => trouble.push(format!("record {} was passed over: {why}", frame.sequence)),
            }
            Ok(())
        })?;
        replayed.trouble.append(&mut trouble);
        replayed.trouble.extend(cut(&info)?);
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

fn set_aside(path: &Path) -> Result<(), StateError> {
    let aside = path.with_extension("log.corrupt");
    std::fs::rename(path, aside).map_err(StateError::io(path))
}

/// Leaves only whole records in a segment; says what was wrong.
fn cut(info: &SegmentInfo) -> Result<Option<String>, StateError> {
    let (at, said) = match &info.end {
        End::Clean => return Ok(None),
        End::Torn { at, bytes } => {
            let at = *at;
            (
                at,
                format!(
                    "{}: {bytes} bytes of a record that was never finished were cut off",
                    info.path.display()
                ),
            )
        }
        End::Damaged { at, bytes, what } => {
            let aside = info.path.with_extension("log.corrupt");
            std::fs::copy(&info.path, &aside).map_err(StateError::io(&info.path))?;
            let what = format!(
                "{}: {what}, at byte {at}; the last {bytes} bytes are not read, the file is kept as {}",
                info.path.display(),
                aside.display()
            );
            (*at, what)
        }
    };
    if at < HEAD as u64 {
        std::fs::remove_file(&info.path).map_err(StateError::io(&info.path))?;
    } else {
        let file = File::options().write(true).open(&info.path).map_err(StateError::io(&info.path))?;
        file.set_len(at).and_then(|()| file.sync_all()).map_err(StateError::io(&info.path))?;
    }
    Ok(Some(said))
}

/// What is in the segments of a folder; changes nothing.
///
/// # Errors
/// A file cannot be read, or is of another version.
pub fn segments(folder: &Path) -> Result<Vec<SegmentInfo>, StateError> {
    numbered(folder, "log")?.iter().map(|(_, path)| walk(path, |_, _| Ok(()))).collect()
}

/// As [`segments`], and each record is read in full and shown to `check`; `limit` as in [`replay`].
/// Complaints by file.
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
