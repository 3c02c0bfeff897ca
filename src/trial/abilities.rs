//! What a server can do for volumes, found by doing it: each finding with what it means, and what to do about it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, StatxFlags, XattrFlags, copy_file_range, fcntl_lock, fgetxattr,
    flock, fsetxattr, fstatvfs, ioctl_ficlone, openat, renameat, statx, unlinkat,
};
use rustix::io::Errno;
use serde::Serialize;

use super::show::size;
use crate::client::percentile;

/// What was found out about the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, for machines.
    pub name: &'static str,
    /// Whether it is as one would wish.
    pub good: bool,
    /// What was seen.
    pub found: String,
    /// What that means for volumes.
    pub means: String,
    /// What to do where it is not as one would wish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// As one would wish.
    fn good(name: &'static str, found: impl Into<String>, means: impl Into<String>) -> Self {
        Self { name, good: true, found: found.into(), means: means.into(), remedy: None }
    }

    /// Not so, with what to do.
    fn poor(name: &'static str, found: impl Into<String>, means: impl Into<String>, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned());
        Self { name, good: false, found: found.into(), means: means.into(), remedy }
    }
}

/// How often each operation is timed.
const TIMES: usize = 50;

/// No more is timed after this long: a server that slow has been told from a fast one by then.
const ENOUGH: Duration = Duration::from_secs(10);

/// A flush of a small file that takes longer than this makes a database slow.
const SLOW: Duration = Duration::from_millis(20);

/// How much is copied, in bytes.
const COPIED: usize = 256 << 10;

/// What was seen in a volume, before anybody judges it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Whether a file could share the blocks of another.
    pub(super) clone: Result<(), Errno>,
    /// Whether a copy succeeded, and how many of its calls the server itself carried out; `None`: nobody counts them.
    pub(super) copy: Result<Option<u64>, Errno>,
    /// flock(2) and fcntl(2).
    pub(super) locks: [Result<(), Errno>; 2],
    pub(super) user_attribute: Result<(), Errno>,
    /// The kind of access control list that can be read.
    pub(super) acl: Option<&'static str>,
    /// What `df` shows as the volume's size, in bytes.
    pub(super) total: u64,
    /// As whom the server shows the owner of a file that user 1000 wrote.
    pub(super) user: Option<u32>,
    /// How long operations took, shortest first.
    pub(super) times: Vec<(&'static str, Vec<Duration>)>,
}

/// Looks, in the directory of a volume that is at `mounted` (a mount's options and statistics are found by that). `theirs`
/// is a file that user 1000 wrote. What it makes it removes. May block for as long as the server does not answer.
pub(super) fn look(volume: &OwnedFd, mounted: &str, theirs: &str) -> io::Result<Seen> {
    let volume = volume.as_fd();
    let source = make(volume, "able-source")?;
    let mut written = &source;
    written.write_all(&vec![0x5a; COPIED])?;
    source.sync_all()?;

    let clone = make(volume, "able-clone").map(|copy| ioctl_ficlone(&copy, &source))?;
    let before = copies(mounted);
    let target = make(volume, "able-copy")?;
    let (mut from, mut to) = (0, 0);
    let copied = copy_file_range(&source, Some(&mut from), &target, Some(&mut to), COPIED);
    let copy = copied.map(|_| Some(copies(mounted)?.saturating_sub(before?)));

    let other: File = openat(volume, "able-source", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?.into();
    let by_flock = flock(&other, FlockOperation::NonBlockingLockExclusive);
    // Over NFS both are locks on bytes, of two owners, and would keep each other out (flock(2), "NFS details").
    drop(other);
    let locks = [by_flock, fcntl_lock(&source, FlockOperation::NonBlockingLockExclusive)];
    let user_attribute = fsetxattr(&source, "user.kuration", b"1", XattrFlags::empty());
    let acl = ["system.nfs4_acl", "system.posix_acl_access"].into_iter().find(|name| {
        // No list at all is an answer too.
        matches!(fgetxattr(&source, *name, &mut [0_u8; 4096]), Ok(_) | Err(Errno::NODATA | Errno::RANGE))
    });
    let about = fstatvfs(&source)?;
    let user = openat(volume, theirs, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let user = user.ok().and_then(|file| File::from(file).metadata().ok()).map(|metadata| metadata.uid());
    drop((source, target));
    for name in ["able-source", "able-clone", "able-copy"] {
        unlinkat(volume, name, AtFlags::empty())?;
    }
    let times = measure(volume)?;
    let total = about.f_blocks.saturating_mul(about.f_frsize);
    Ok(Seen { clone, copy, locks, user_attribute, acl, total, user, times })
}

fn make(volume: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(volume, name, flags, Mode::from_raw_mode(0o644))?.into())
}

/// How long the basic operations take.
fn measure(volume: BorrowedFd<'_>) -> io::Result<Vec<(&'static str, Vec<Duration>)>> {
    let mut times: Vec<(&'static str, Vec<Duration>)> =
        ["create", "write+fsync", "stat", "rename", "unlink"].map(|name| (name, Vec::new())).into();
    let began = Instant::now();
    for at in 0..TIMES {
        if began.elapsed() > ENOUGH {
            break;
        }
        let (name, other) = (format!("able-{at}"), format!("able-{at}-renamed"));
        let mut start = Instant::now();
        let mut took = Vec::with_capacity(times.len());
        let mut lap = || {
            took.push(start.elapsed());
            start = Instant::now();
        };
        let mut file = make(volume, &name)?;
        lap();
        file.write_all(&[0x5a; 4096])?;
        file.sync_all()?;
        lap();
        // Asked of the server, not of what the client remembers.
        statx(volume, &*name, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS)?;
        lap();
        renameat(volume, &*name, volume, &*other)?;
        lap();
        drop(file);
        unlinkat(volume, &*other, AtFlags::empty())?;
        lap();
        times.iter_mut().zip(took).for_each(|((_, all), took)| all.push(took));
    }
    times.iter_mut().for_each(|(_, all)| all.sort());
    Ok(times)
}

/// How many copies the server of what is mounted at `mounted` has carried out itself for this host.
fn copies(mounted: &str) -> Option<u64> {
    carried_out(&std::fs::read_to_string("/proc/self/mountstats").ok()?, mounted, "COPY")
}

/// How many calls of `operation` went well: the first figure, less the last, which counts errors (mountstats, statvers 1.1).
fn carried_out(stats: &str, mounted: &str, operation: &str) -> Option<u64> {
    let block = format!(" mounted on {mounted} with fstype nfs");
    let mut lines = stats.lines().skip_while(|line| !line.contains(&block)).skip(1);
    let figures = lines
        .by_ref()
        .take_while(|line| !line.starts_with("device "))
        .find_map(|line| line.trim().strip_prefix(operation)?.strip_prefix(':'))?;
    let figures: Vec<u64> = figures.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
    Some(figures.first()?.saturating_sub(figures.get(8).copied().unwrap_or(0)))
}

/// What it means. `options` are those of the mount, `wanted` is the size the volume was made with.
pub(super) fn judge(seen: &Seen, options: &str, wanted: u64) -> Vec<Finding> {
    let version = options.split(',').find_map(|option| option.strip_prefix("vers=")).unwrap_or_default();
    vec![
        clone(seen, version),
        copy(seen, version),
        quota(seen, wanted),
        locks(seen, options),
        users(seen),
        attributes(seen),
        latency(seen),
    ]
}

fn clone(seen: &Seen, version: &str) -> Finding {
    let name = "clone";
    match seen.clone {
        Ok(()) => Finding::good(
            name,
            "files can share blocks (CLONE)",
            "a copy of a volume takes no time and no space",
        ),
        Err(_) if version != "4.2" => Finding::poor(
            name,
            format!("not over NFS {version}"),
            "a copy of a volume reads and writes all its data",
            "use vers=4.2 where the server offers it",
        ),
        Err(errno) => Finding::poor(
            name,
            format!("files can't share blocks: {errno}"),
            "a copy of a volume takes as much time and space as its data",
            "export a file system that can: xfs made with reflink=1, or btrfs",
        ),
    }
}

fn copy(seen: &Seen, version: &str) -> Finding {
    let (name, through) = ("copy", "a copy goes through this host, twice over the network");
    match seen.copy {
        Ok(Some(1..)) => Finding::good(name, "the server copies by itself (COPY)", "a copy loads no network"),
        Ok(Some(0)) if version == "4.2" => Finding::poor(
            name,
            "the server leaves copies to the client",
            through,
            "nothing on Linux, which copies by itself from 4.2 on; ask the server's maker about NFS 4.2 COPY",
        ),
        Ok(Some(0)) => {
            let remedy = "use vers=4.2 where the server offers it";
            Finding::poor(name, format!("not over NFS {version}"), through, remedy)
        }
        Ok(None) => Finding::good(name, "works", "whether the server or this host copies can't be told here"),
        Err(errno) => Finding::poor(
            name,
            format!("fails: {errno}"),
            through,
            "look into the server's log; use vers=4.2",
        ),
    }
}

fn quota(seen: &Seen, wanted: u64) -> Finding {
    let total = size(seen.total);
    // Some file systems round what they enforce.
    if seen.total <= wanted.saturating_mul(2) {
        return Finding::good(
            "quota",
            format!("df shows {total}"),
            "the server limits a volume's directory, and pods see it",
        );
    }
    Finding::poor(
        "quota",
        format!("df shows {total}, the whole export, in a volume of {}", size(wanted)),
        "sizes are recorded and not enforced: one volume can fill the export for all",
        "set a project quota on directories at the server, or keep volumes in a pool (--pool), whose sizes are limits",
    )
}

fn locks(seen: &Seen, options: &str) -> Finding {
    let name = "locks";
    let local = options.split(',').find_map(|option| option.strip_prefix("local_lock="));
    match seen.locks {
        [Ok(()), Ok(())] if local.is_none_or(|kept| kept == "none") => Finding::good(
            name,
            "flock and fcntl are granted by the server",
            "pods on different nodes keep each other out",
        ),
        [Ok(()), Ok(())] => Finding::poor(
            name,
            format!("granted by this host alone (local_lock={})", local.unwrap_or("all")),
            "pods on different nodes don't see each other's locks",
            "leave nolock and local_lock out of mountOptions, or use NFS 4, whose locks need no daemon",
        ),
        [flock, fcntl] => {
            let words =
                |what, outcome: Result<(), Errno>| outcome.err().map(|errno| format!("{what}: {errno}"));
            let failed: Vec<String> =
                [words("flock", flock), words("fcntl", fcntl)].into_iter().flatten().collect();
            Finding::poor(
                name,
                failed.join(", "),
                "what locks its files (databases, git, mail) fails here",
                "use NFS 4, or start rpc.statd and rpcbind on server and nodes for NFSv3",
            )
        }
    }
}

fn users(seen: &Seen) -> Finding {
    let name = "users";
    match seen.user {
        Some(1000) => Finding::good(name, "user 1000 is user 1000 there", "a pod's files belong to its user"),
        Some(other) => Finding::poor(
            name,
            format!("user 1000 becomes user {other} there"),
            "all pods are one user on the server: fsGroup, and the class's uid and gid, have no effect",
            "export without all_squash; or, where names are mapped (NFS 4 idmapping), let numbers pass (sec=sys)",
        ),
        None => Finding::poor(
            name,
            "a file that user 1000 wrote can't be read by root",
            "root is squashed, and another user's files are closed to it",
            "export with no_root_squash to the controller and the nodes",
        ),
    }
}

fn attributes(seen: &Seen) -> Finding {
    let acl = seen
        .acl
        .map_or("no access control lists".to_owned(), |name| format!("access control lists ({name})"));
    let (name, means) = ("attributes", "a faithful copy can carry them");
    match seen.user_attribute {
        Ok(()) => Finding::good(name, format!("extended attributes; {acl}"), means),
        Err(errno) => Finding::poor(
            name,
            format!("no extended attributes ({errno}); {acl}"),
            "what keeps attributes on its files can't do so here",
            "use vers=4.2 and a server that knows RFC 8276 (Linux 5.9 or newer); few programs need it",
        ),
    }
}

fn latency(seen: &Seen) -> Finding {
    let shown = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1000.0);
    let each = seen.times.iter().map(|(name, times)| {
        format!("{name} {}/{}", shown(percentile(times, 50)), shown(percentile(times, 95)))
    });
    let count = seen.times.first().map_or(0, |(_, times)| times.len());
    let found = format!("p50/p95 in ms of {count}: {}", each.collect::<Vec<_>>().join(", "));
    let flush = seen
        .times
        .iter()
        .find(|(name, _)| *name == "write+fsync")
        .map_or(Duration::ZERO, |(_, times)| percentile(times, 50));
    if flush <= SLOW {
        return Finding::good("latency", found, "small files and databases are at home here");
    }
    Finding::poor(
        "latency",
        found,
        format!("half of all flushes take over {} ms: databases will be slow", SLOW.as_millis()),
        "look at the server's disks (a log device or a write cache that survives power loss), and at the network's round trip",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "device rootfs mounted on / with fstype rootfs\n\
        device s:/a mounted on /x with fstype nfs4 statvers=1.1\n\
        \topts:\trw,vers=4.2\n\
        \t      COPY: 3 3 0 700 600 0 1 1 1\n\
        device s:/b mounted on /y with fstype nfs4 statvers=1.1\n\
        \t      COPY: 9 9 0 700 600 0 1 1 0\n\
        \tCOPY_NOTIFY: 5 5 0 0 0 0 0 0 0\n\
        device s:/c mounted on /z with fstype nfs4 statvers=1.1\n";

    fn best() -> Seen {
        let times = [
            ("create", vec![Duration::from_millis(1); 50]),
            ("write+fsync", vec![Duration::from_millis(2); 50]),
        ];
        Seen {
            clone: Ok(()),
            copy: Ok(Some(1)),
            locks: [Ok(()), Ok(())],
            user_attribute: Ok(()),
            acl: Some("system.nfs4_acl"),
            total: 64 << 20,
            user: Some(1000),
            times: times.into(),
        }
    }

    fn poor(seen: &Seen, options: &str) -> Vec<&'static str> {
        let findings = judge(seen, options, 64 << 20);
        assert!(findings.iter().all(|finding| finding.good == finding.remedy.is_none()), "{findings:?}");
        findings.into_iter().filter(|finding| !finding.good).map(|finding| finding.name).collect()
    }

    #[test]
    fn the_servers_own_copies_are_counted_for_the_mount_that_was_asked_about() {
        assert_eq!(carried_out(STATS, "/x", "COPY"), Some(2));
        assert_eq!(carried_out(STATS, "/y", "COPY"), Some(9));
        assert_eq!(carried_out(STATS, "/z", "COPY"), None);
        assert_eq!(carried_out(STATS, "/nowhere", "COPY"), None);
    }

    #[test]
    fn what_is_as_one_would_wish_needs_no_remedy() {
        assert_eq!(poor(&best(), "rw,vers=4.2,local_lock=none"), [""; 0]);
    }

    #[test]
    fn each_lack_is_found_by_itself() {
        let best = best();
        let slow = vec![("write+fsync", vec![Duration::from_millis(30); 3])];
        let cases = [
            (Seen { clone: Err(Errno::OPNOTSUPP), ..best.clone() }, "clone"),
            (Seen { copy: Ok(Some(0)), ..best.clone() }, "copy"),
            (Seen { copy: Err(Errno::IO), ..best.clone() }, "copy"),
            (Seen { total: 1 << 40, ..best.clone() }, "quota"),
            (Seen { locks: [Ok(()), Err(Errno::NOLCK)], ..best.clone() }, "locks"),
            (Seen { user: Some(65534), ..best.clone() }, "users"),
            (Seen { user: None, ..best.clone() }, "users"),
            (Seen { user_attribute: Err(Errno::OPNOTSUPP), ..best.clone() }, "attributes"),
            (Seen { times: slow, ..best.clone() }, "latency"),
        ];
        for (seen, name) in cases {
            assert_eq!(poor(&seen, "vers=4.2"), [name]);
        }
        assert_eq!(poor(&best, "vers=3,local_lock=all"), ["locks"]);
    }

    #[test]
    fn a_local_directory_can_be_looked_at_and_is_left_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("theirs"), "x").unwrap();
        let volume = OwnedFd::from(File::open(place.path()).unwrap());
        let seen = look(&volume, "/nowhere", "theirs").unwrap();
        assert_eq!(seen.copy, Ok(None));
        assert!(seen.times.iter().all(|(_, times)| times.len() == TIMES && times.is_sorted()), "{seen:?}");
        assert!(seen.locks == [Ok(()), Ok(())] && seen.total > 0 && seen.user.is_some());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
