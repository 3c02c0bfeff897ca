//! /proc/self/mountinfo, read into entries. Reading it never blocks, whatever a server does (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The mount's number.
    pub id: u64,
    /// The number of the mount that it is mounted on.
    pub parent: u64,
    /// `major:minor` of its superblock.
    pub device: String,
    /// The directory of that file system which is its root here.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// The kind of file system.
    pub kind: String,
    /// What was mounted.
    pub source: String,
    /// Whether the superblock is read-only.
    pub superblock_read_only: bool,
    /// The superblock's options.
    pub options: String,
}

impl Entry {
    /// Whether the two show the same directory of the same superblock.
    pub fn same_as(&self, other: &Entry) -> bool {
        self.device == other.device && self.root == other.root
    }

    /// The SELinux label that all its files have by a mount option, if there is one.
    pub fn label(&self) -> Option<&str> {
        let behind = self
            .options
            .strip_prefix("context=")
            .or_else(|| Some(self.options.split_once(",context=")?.1))?;
        // The kernel quotes a label that holds a comma.
        let (label, _) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_once(',').unwrap_or((behind, "")),
        };
        Some(label)
    }

    /// Whether a server stands behind it.
    pub fn is_nfs(&self) -> bool {
        matches!(self.kind.as_str(), "nfs" | "nfs4")
    }
}

/// The mount table of this process, as it is now.
pub fn read() -> std::io::Result<Vec<Entry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Reads a table; lines that are not of the documented form are passed over.
pub fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// The directory that an entry is mounted on, whatever path leads to it: superblock and path within that.
///
/// Where a kubelet's directory is itself seen at two places, a mount below it appears at both, as one and the same use.
pub fn seat(table: &[Entry], entry: &Entry) -> Option<(String, PathBuf)> {
    let parent = table.iter().find(|parent| parent.id == entry.parent)?;
    let below = entry.target.strip_prefix(&parent.target).ok()?;
    Some((parent.device.clone(), parent.root.join(below)))
}

/// What is mounted at `target`: the uppermost, which is the last in the table.
pub fn at<'a>(table: &'a [Entry], target: &Path) -> Option<&'a Entry> {
    table.iter().rev().find(|entry| entry.target == target)
}

fn line(line: &[u8]) -> Option<Entry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    // Optional fields end with a lone "-".
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(field).into_owned());
    let has_ro = |options: &str| options.split(',').any(|option| option == "ro");
    let options = text(dash + 3)?;
    Some(Entry {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        device: text(2)?,
        root: path(fields.get(3)?),
        target: path(fields.get(4)?),
        read_only: has_ro(&text(5)?),
        kind: text(dash + 1)?,
        source: path(fields.get(dash + 2)?).to_string_lossy().into_owned(),
        superblock_read_only: has_ro(&options),
        options,
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let digits = field
            .get(at + 1..at + 4)
            .filter(|d| field[at] == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(d) => {
                let value = d.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(u8::try_from(value).unwrap_or(b'?'));
                at += 4;
            }
            None => {
                bytes.push(field[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        40 22 0:42 /vol /var/lib/a\\040b rw,nosuid,relatime shared:2 master:1 - nfs4 h:/x/vol ro,vers=4.2,addr=10.0.0.1\n\
        nonsense\n\
        41 22 0:42 /vol /t ro - nfs4 h:/x/vol rw\n";

    #[test]
    fn entries_are_read_with_their_escapes() {
        let table = parse(TABLE);
        assert_eq!(table.len(), 3);
        assert_eq!(table[1].target, Path::new("/var/lib/a b"));
        assert!(table[1].is_nfs() && table[1].superblock_read_only && !table[1].read_only);
        assert!(table[2].read_only && table[1].same_as(&table[2]));
    }

    #[test]
    fn a_label_is_read_as_the_kernel_shows_it() {
        let label = |options: &str| {
            let line = format!("40 22 0:42 / /t rw,relatime - nfs4 h:/x {options}\n");
            parse(line.as_bytes()).remove(0).label().map(str::to_owned)
        };
        assert_eq!(label("rw,context=\"u:r:t:s0:c1,c2\",vers=4.2").as_deref(), Some("u:r:t:s0:c1,c2"));
        assert_eq!(label("rw,context=u:r:t:s0:c3.c5,vers=4.2").as_deref(), Some("u:r:t:s0:c3.c5"));
        assert_eq!(label("rw,context=u:r:t:s0").as_deref(), Some("u:r:t:s0"));
        assert_eq!(label("rw,seclabel,vers=4.2"), None);
        assert_eq!(label("rw,rootcontext=u:r:t:s0,fscontext=u:r:t:s0"), None);
    }

    #[test]
    fn the_uppermost_of_stacked_mounts_is_found() {
        let mut table = parse(TABLE);
        let mut upper = table[2].clone();
        upper.source = "upper".into();
        table.push(upper);
        assert_eq!(at(&table, Path::new("/t")).map(|e| e.source.as_str()), Some("upper"));
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(at(&read().unwrap(), Path::new("/")).is_some());
    }
}
