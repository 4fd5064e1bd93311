//! Files written and read in blocks, past the system's page cache where the file system allows it.
//!
//! A checkpoint is written once and read after a crash. In the cache it would push out what others on the
//! machine read often, count as memory of the container, and cost a fresh page for every 4 KiB.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// What addresses, offsets and lengths are multiples of: as much as any common disk asks for.
const BLOCK: usize = 4096;
/// Bytes that are written or read at once.
const ROOM: usize = 2 << 20;

/// Opens a file past the cache, or through it where the file system knows no other way.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        match options.custom_flags(direct).open(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => options.custom_flags(0).open(path),
            opened => opened,
        }
    }
    #[cfg(not(target_os = "linux"))]
    options.open(path)
}

/// From here on through the cache. `Err`: it already is, so something else was refused.
fn through_cache(file: &File, error: io::Error) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if error.kind() == io::ErrorKind::InvalidInput {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        let flags = fcntl_getfl(file)?;
        if flags.contains(OFlags::DIRECT) {
            return Ok(fcntl_setfl(file, flags - OFlags::DIRECT)?);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Err(error)
}

/// Takes the first `bytes` of a file that is written through the cache out of it, as far as they are on disk:
/// nobody reads them again while all goes well, and what is written next takes the same pages.
pub fn uncache(file: &File, bytes: u64) {
    #[cfg(target_os = "linux")]
    if let Some(whole) = std::num::NonZero::new(bytes - bytes % BLOCK as u64) {
        // The block at the end stays: who appends would have to read it first. Only advice, no harm if refused.
        let _ = rustix::fs::fadvise(file, 0, Some(whole), rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, bytes);
}

/// Memory that begins at a multiple of [`BLOCK`].
struct Room {
    memory: Vec<u8>,
    start: usize,
}

impl Room {
    fn new() -> Room {
        let memory = vec![0; ROOM + BLOCK];
        let start = (memory.as_ptr() as usize).wrapping_neg() % BLOCK;
        Room { memory, start }
    }
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + ROOM]
    }
}

/// A file being written from its beginning.
pub struct DirectWriter {
    file: File,
    room: Room,
    /// Bytes in `room` that are not in the file.
    filled: usize,
    /// Bytes in the file, a multiple of [`BLOCK`].
    written: u64,
}

impl DirectWriter {
    /// A new file, or one that is there and is written over: see [`DirectWriter::finish`].
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> io::Result<DirectWriter> {
        let file = open(File::options().write(true).create(true).truncate(false), path)?;
        Ok(DirectWriter { file, room: Room::new(), filled: 0, written: 0 })
    }

    /// Writes what is left, cuts the file at its end and makes it durable. Returns its bytes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(&mut self) -> io::Result<u64> {
        let bytes = self.written + self.filled as u64;
        let whole = self.filled.next_multiple_of(BLOCK);
        let filled = self.filled;
        self.room.bytes()[filled..whole].fill(0);
        self.filled = whole;
        self.put()?;
        // The last block goes on beyond the end; a file that was written over may have been longer.
        self.file.set_len(bytes)?;
        self.file.sync_all()?;
        Ok(bytes)
    }

    fn put(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.filled {
            let filled = self.filled;
            match (&self.file).write(&self.room.bytes()[at..filled]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => at += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => through_cache(&self.file, error)?,
            }
        }
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

impl Write for DirectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.filled == ROOM {
            self.put()?;
        }
        let (at, taken) = (self.filled, bytes.len().min(ROOM - self.filled));
        self.room.bytes()[at..at + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        Ok(taken)
    }

    /// Does nothing: only whole blocks can be written. See [`DirectWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file being read.
pub struct DirectReader {
    file: File,
    room: Room,
    /// What of `room` was read from the file and not asked for yet.
    at: usize,
    filled: usize,
    /// Bytes to pass over in what is read next.
    skip: usize,
    /// The last read found nothing more.
    ended: bool,
}

impl DirectReader {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<DirectReader> {
        let file = open(File::options().read(true), path)?;
        Ok(DirectReader { file, room: Room::new(), at: 0, filled: 0, skip: 0, ended: false })
    }

    /// Bytes of the file.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Goes on reading at a byte of the file.
    ///
    /// # Errors
    /// The file cannot be read at any place.
    pub fn go_to(&mut self, to: u64) -> io::Result<()> {
        let skip = to % BLOCK as u64;
        self.file.seek(SeekFrom::Start(to - skip))?;
        (self.at, self.filled, self.skip, self.ended) = (0, 0, skip as usize, false);
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        loop {
            match (&self.file).read(self.room.bytes()) {
                Ok(read) => {
                    // Less than was asked for is not the end everywhere. Where it is, the next read begins
                    // within a block: nothing is there, or it is refused and tried through the cache.
                    self.ended = read == 0;
                    (self.at, self.filled) = (self.skip.min(read), read);
                    self.skip -= self.at;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => through_cache(&self.file, error)?,
            }
        }
    }
}

impl Read for DirectReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.filled && !self.ended {
            self.fill()?;
        }
        let taken = to.len().min(self.filled - self.at);
        let at = self.at;
        to[..taken].copy_from_slice(&self.room.bytes()[at..at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that differ from place to place.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    /// A folder on a disk, and one in memory, where older systems know no way past the cache.
    fn folders() -> Vec<tempfile::TempDir> {
        let shared = Path::new("/dev/shm");
        let memory = shared.is_dir().then(|| tempfile::tempdir_in(shared).expect("a folder"));
        let program = std::env::current_exe().expect("a path");
        let disk = tempfile::tempdir_in(program.parent().expect("a folder")).expect("a folder");
        std::iter::once(disk).chain(memory).collect()
    }

    #[cfg(target_os = "linux")]
    fn is_direct(file: &File) -> bool {
        rustix::fs::fcntl_getfl(file).expect("flags").contains(rustix::fs::OFlags::DIRECT)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_the_file_system_refuses_goes_through_the_cache() {
        use std::os::unix::fs::OpenOptionsExt;
        let whole = bytes(ROOM + 3 * BLOCK + 5);
        for folder in folders() {
            let path = folder.path().join("file");
            let mut writer = DirectWriter::create(&path).expect("creates");
            let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
            let can = File::options().read(true).custom_flags(direct).open(&path).is_ok();
            assert_eq!(is_direct(&writer.file), can);
            // From memory that begins at no block.
            writer.room.start += 1;
            writer.write_all(&whole).expect("writes");
            assert_eq!(writer.finish().expect("finishes"), whole.len() as u64);
            assert!(std::fs::read(&path).expect("reads") == whole);
            let mut reader = DirectReader::open(&path).expect("opens");
            reader.room.start += 1;
            let mut again = Vec::new();
            reader.read_to_end(&mut again).expect("reads");
            assert!(again == whole);
        }
        // A device that refuses to be opened so, and is always full.
        let mut writer = DirectWriter::create(Path::new("/dev/full")).expect("opens");
        assert!(!is_direct(&writer.file));
        writer.write_all(&whole[..10]).expect("kept");
        assert_eq!(writer.finish().expect_err("full").kind(), io::ErrorKind::StorageFull);
        // A file that is read in pieces of any length.
        let mut reader = DirectReader::open(Path::new("/proc/self/smaps")).expect("opens");
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("reads");
        assert!(
            read.len() > BLOCK && read.trim_end().lines().last().is_some_and(|line| line.contains("VmFlags"))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_written_in_any_pieces_is_read_in_any(
            length in prop_oneof![0usize..3 * BLOCK, ROOM - BLOCK..2 * ROOM + BLOCK],
            (written, read) in (1usize..100_000, 1usize..100_000),
            before in 0usize..ROOM,
            places in proptest::collection::vec(0usize..2 * ROOM, 3),
        ) {
            let whole = bytes(length);
            for folder in folders() {
                let path = folder.path().join("file");
                std::fs::write(&path, vec![7; before]).expect("writes");
                let mut writer = DirectWriter::create(&path).expect("creates");
                for piece in whole.chunks(written) {
                    writer.write_all(piece).expect("writes");
                }
                prop_assert_eq!(writer.finish().expect("finishes"), length as u64);
                prop_assert!(std::fs::read(&path).expect("reads") == whole);

                let mut reader = DirectReader::open(&path).expect("opens");
                prop_assert_eq!(reader.length().expect("tells"), length as u64);
                let mut again = Vec::new();
                let mut piece = vec![0; read];
                loop {
                    let read = reader.read(&mut piece).expect("reads");
                    again.extend_from_slice(&piece[..read]);
                    if read == 0 {
                        break;
                    }
                }
                prop_assert!(again == whole);
                for place in &places {
                    reader.go_to(*place as u64).expect("goes");
                    let mut rest = Vec::new();
                    reader.read_to_end(&mut rest).expect("reads");
                    prop_assert!(rest == whole[length.min(*place)..]);
                }
            }
        }
    }
}
