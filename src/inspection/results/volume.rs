//! What can be asked of a volume beside keeping results: how full it is, and whether it takes and gives back a file.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::disk;

/// How full a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Bytes in use.
    pub used: u64,
    /// Bytes in all.
    pub capacity: u64,
    /// Inodes in use.
    pub inodes_used: u64,
    /// Inodes in all; 0 where the file system has no such number.
    pub inodes: u64,
}

/// Asks the file system (statfs(2)).
pub fn room(root: &Path) -> io::Result<Room> {
    let found = rustix::fs::statvfs(root)?;
    Ok(Room {
        used: (found.f_blocks - found.f_bfree) * found.f_frsize,
        capacity: found.f_blocks * found.f_frsize,
        inodes_used: found.f_files - found.f_ffree,
        inodes: found.f_files,
    })
}

/// How a file fared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Milliseconds until it was written.
    pub write_millis: f64,
    /// Milliseconds until it was on the disk.
    pub fsync_millis: f64,
    /// Milliseconds until it had its name.
    pub rename_millis: f64,
    /// Milliseconds until it was read back.
    pub read_millis: f64,
    /// Whether what was read is what was written.
    pub read_back: bool,
}

/// Writes a file, makes it last, names it, reads it back, and removes it.
pub fn try_out(root: &Path, bytes: u64, unique: u32) -> io::Result<Tried> {
    let (first, second) =
        (root.join(format!(".kuration-probe-{unique}.tmp")), root.join(format!(".kuration-probe-{unique}")));
    let done = exchange(&first, &second, bytes);
    for path in [&first, &second] {
        // What was never made can't be removed.
        fs::remove_file(path).ok();
    }
    done
}

fn exchange(first: &Path, second: &Path, bytes: u64) -> io::Result<Tried> {
    use io::Write;
    // Bytes that no compression and no deduplication makes fewer of.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let wanted: Vec<u8> = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    let mut clock = Instant::now();
    let mut lap = || {
        let taken = clock.elapsed().as_secs_f64() * 1000.0;
        clock = Instant::now();
        taken
    };
    let mut file = fs::File::create(first)?;
    file.write_all(&wanted)?;
    let write_millis = lap();
    file.sync_all()?;
    drop(file);
    let fsync_millis = lap();
    disk::rename(first, second)?;
    let rename_millis = lap();
    let held = fs::read(second)?;
    Ok(Tried { write_millis, fsync_millis, rename_millis, read_millis: lap(), read_back: held == wanted })
}
