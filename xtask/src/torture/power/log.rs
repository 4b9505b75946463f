//! What a disk was told to write, in order, and the disks that a power cut could have left of it.
//!
//! The log is that of the kernel's `dm-log-writes`, which QEMU's `blklogwrites` writes too: a head, then for each request its place and
//! its bytes, all of it in sectors.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::super::scene::next;
use crate::run::{self, Message, Result};

/// The unit of the log, as the recorder is told.
const SECTOR: usize = 512;

/// What a disk writes whole or not at all.
const BLOCK: usize = 4096;

const MAGIC: u64 = 0x006a_7366_7773_6872;

const FLUSH: u64 = 1;
const FORCED: u64 = 2;
const DISCARD: u64 = 4;

/// One request: a write, a flush, or a flush before a write.
struct Request {
    place: u64,
    /// Where its bytes are in the log.
    bytes: std::ops::Range<usize>,
    flush: bool,
    /// It reached the disk before it was answered.
    forced: bool,
}

/// A log that is complete.
pub(super) struct Log {
    text: Vec<u8>,
    requests: Vec<Request>,
}

/// Which of the writes after the last flush reached the disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kept {
    /// None of them.
    Flushed,
    /// All of them.
    All,
    /// Of every block one in two, by this seed.
    Some(u64),
}

/// How many requests a log that is being written has so far.
pub(super) fn position(log: &Path) -> Result<usize> {
    let mut head = [0; 24];
    match fs::File::open(log)?.read_at(&mut head, 0)? {
        0 => Ok(0),
        _ => number(&head, 16),
    }
}

impl Log {
    pub(super) fn read(path: &Path) -> Result<Log> {
        let text = fs::read(path)?;
        if text.get(..8) != Some(&MAGIC.to_le_bytes()) {
            return Err(Message(format!("{} is no log of writes", path.display())).into());
        }
        let mut requests = Vec::new();
        let mut at = SECTOR;
        for _ in 0..number(&text, 16)? {
            let (place, sectors, flags) = (number(&text, at)?, number(&text, at + 8)?, number(&text, at + 16)? as u64);
            at += SECTOR;
            // What is discarded has no bytes in the log, and need not be gone.
            let length = if flags & DISCARD == 0 { sectors * SECTOR } else { 0 };
            let bytes = at..at + length;
            at = bytes.end;
            requests.push(Request { place: (place * SECTOR) as u64, bytes, flush: flags & FLUSH != 0, forced: flags & FORCED != 0 });
        }
        Ok(Log { text, requests })
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Makes the disk as it is when the power goes after so many requests.
    pub(super) fn cut(&self, base: &Path, disk: &Path, after: usize, kept: Kept) -> Result {
        let requests = &self.requests[..after.min(self.len())];
        // A flush is for what came before it, so what it carries itself may be lost.
        let flushed = requests.iter().rposition(|request| request.flush).unwrap_or(0);
        let mut blocks: BTreeMap<u64, &[u8]> = BTreeMap::new();
        let mut random = match kept {
            Kept::Some(seed) => seed,
            _ => 0,
        };
        for (number, request) in requests.iter().enumerate() {
            for (n, block) in self.text[request.bytes.clone()].chunks(BLOCK).enumerate() {
                let reached = match kept {
                    _ if number < flushed || request.forced => true,
                    Kept::Flushed => false,
                    Kept::All => true,
                    Kept::Some(_) => next(&mut random) & 1 == 0,
                };
                if reached {
                    blocks.extend(block.chunks(SECTOR).zip((request.place + (n * BLOCK) as u64..).step_by(SECTOR)).map(|(s, at)| (at, s)));
                }
            }
        }
        run::run(Command::new("cp").arg("--sparse=always").arg(base).arg(disk))?;
        let file = OpenOptions::new().write(true).open(disk)?;
        blocks.into_iter().try_for_each(|(at, sector)| Ok(file.write_all_at(sector, at)?))
    }
}

/// The number at a place of the log.
fn number(text: &[u8], at: usize) -> Result<usize> {
    let bytes = text.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.ok_or_else(|| Message("the log of writes ends too early".into()))?;
    Ok(usize::try_from(u64::from_le_bytes(bytes))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as the log has it: place and length in sectors, flags, and the byte that fills it.
    fn request(text: &mut Vec<u8>, place: u64, sectors: u64, flags: u64, filling: u8) {
        let mut head = [place, sectors, flags, 0].map(u64::to_le_bytes).concat();
        head.resize(SECTOR, 0);
        text.extend(head);
        text.extend(vec![filling; sectors as usize * SECTOR]);
    }

    /// What is at the beginning of each of the first blocks.
    fn blocks(log: &Log, base: &Path, after: usize, kept: Kept) -> Vec<u8> {
        let disk = base.with_extension("cut");
        log.cut(base, &disk, after, kept).unwrap();
        fs::read(disk).unwrap().chunks(BLOCK).map(|block| block[0]).collect()
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_loses_what_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let (base, path) = (folder.path().join("base"), folder.path().join("log"));
        fs::write(&base, vec![b'.'; 4 * BLOCK]).unwrap();
        let mut text = [MAGIC, 1, 4].map(u64::to_le_bytes).concat();
        text.resize(SECTOR, 0);
        request(&mut text, 0, 8, 0, b'a');
        request(&mut text, 0, 0, FLUSH, 0);
        request(&mut text, 8, 16, 0, b'b');
        request(&mut text, 24, 8, FORCED, b'c');
        fs::write(&path, text).unwrap();
        assert_eq!(position(&path).unwrap(), 4);
        let log = Log::read(&path).unwrap();

        assert_eq!(blocks(&log, &base, 1, Kept::Flushed), b"....");
        assert_eq!(blocks(&log, &base, 2, Kept::Flushed), b"a...");
        assert_eq!(blocks(&log, &base, 4, Kept::Flushed), b"a..c");
        assert_eq!(blocks(&log, &base, 4, Kept::All), b"abbc");
        let some: std::collections::HashSet<_> = (1..50).map(|seed| blocks(&log, &base, 3, Kept::Some(seed))).collect();
        assert_eq!(some.len(), 4, "each block by itself: {some:?}");
    }
}
