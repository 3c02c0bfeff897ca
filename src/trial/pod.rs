//! What a container does with a volume: it writes and reads.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::abilities::{self, Seen};

/// How long a file operation may take before the server is taken for dead.
const PATIENCE: Duration = Duration::from_secs(60);

const CHUNK: usize = 1 << 20;

/// A consumer of a volume: where it finds it, and as whom it works there.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    target: PathBuf,
    /// `None`: as the trial itself.
    uid: Option<u32>,
    /// Held by whoever may still be at work in a volume.
    at_work: Arc<()>,
}

/// Waits, not for ever, until nobody is at work in a volume: a step that was interrupted has left its thread behind, and a
/// volume in use can't be unmounted.
pub(super) async fn all_done(at_work: &Arc<()>) {
    for _ in 0..1000 {
        if Arc::strong_count(at_work) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How far writing came.
#[derive(Debug)]
pub(super) struct Filled {
    /// The file's size in the end.
    pub(super) size: u64,
    /// What stopped it.
    pub(super) refused: Option<io::Error>,
}

impl Pod {
    pub(super) fn new(target: &Path, uid: Option<u32>, at_work: &Arc<()>) -> Self {
        Self { target: target.to_owned(), uid, at_work: Arc::clone(at_work) }
    }

    /// Writes a file of one MiB and waits until it is safe.
    pub(super) async fn write(&self, name: &'static str) -> io::Result<()> {
        self.within(move |volume| {
            let mut file = create(&volume, name)?;
            file.write_all(&pattern())?;
            file.sync_all()
        })
        .await
    }

    /// Reads the file that [`Pod::write`] wrote and compares it.
    pub(super) async fn read(&self, name: &'static str) -> io::Result<()> {
        self.within(move |volume| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mut content = Vec::new();
            File::from(openat(&volume, name, flags, Mode::empty())?).read_to_end(&mut content)?;
            if content == pattern() { Ok(()) } else { Err(io::Error::other("the file holds something else")) }
        })
        .await
    }

    /// Makes a file grow to `size`, or as far as it is let.
    pub(super) async fn fill(&self, name: &'static str, size: u64) -> io::Result<Filled> {
        self.within(move |volume| {
            let mut file = create(&volume, name)?;
            let mut at = file.seek(SeekFrom::End(0))?;
            let chunk = pattern();
            let mut refused = None;
            while at < size && refused.is_none() {
                let wanted = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
                match file.write(&chunk[..wanted]) {
                    Ok(written) => at += written as u64,
                    Err(error) => refused = Some(error),
                }
            }
            // Where the limit is the server's, it may be met only when what was written is sent there.
            if let Err(error) = file.sync_all() {
                refused.get_or_insert(error);
            }
            Ok(Filled { size: file.metadata()?.len(), refused })
        })
        .await
    }

    /// Writes a small file and hands it to user 1000. The file as the server shows it, and whether that was allowed.
    pub(super) async fn hand_over(&self, name: &'static str) -> io::Result<(Metadata, bool)> {
        self.within(move |volume| {
            let mut file = create(&volume, name)?;
            file.write_all(b"whose?")?;
            file.sync_all()?;
            let made = file.metadata()?;
            let allowed = std::os::unix::fs::fchown(&file, Some(1000), Some(1000)).is_ok();
            Ok((made, allowed))
        })
        .await
    }

    /// Looks what the server can do; `theirs` is a file that another pod wrote.
    pub(super) async fn look(&self, theirs: &'static str) -> io::Result<Seen> {
        let mounted = self.target.to_string_lossy().into_owned();
        self.within(move |volume| abilities::look(&volume, &mounted, theirs)).await
    }

    /// Does something in the volume's directory: in a thread of its own, because it changes who it is, and because a
    /// mount whose server is dead would hold it for ever.
    async fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce(OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Self { target, uid, at_work } = self.clone();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("pod".to_owned()).spawn(move || {
            // A container's runtime opens the volume as root and starts the container as somebody else.
            let volume = open(&target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            let outcome = volume.map_err(io::Error::from).and_then(|volume| {
                uid.map_or(Ok(()), become_user)?;
                work(volume)
            });
            drop(at_work);
            // Nobody listens any more where it took too long.
            drop(sender.send(outcome));
        })?;
        match tokio::time::timeout(PATIENCE, receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(io::Error::other("the thread ended")),
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing happened for {PATIENCE:?}")))
            }
        }
    }
}

/// Makes this thread, and no other, a user without privileges.
fn become_user(uid: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(())
}

fn create(volume: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(volume, name, flags, Mode::from_raw_mode(0o644))?.into())
}

/// One MiB that no file system can make smaller much.
fn pattern() -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let step = || {
        // xorshift, by Marsaglia.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_ne_bytes()
    };
    std::iter::repeat_with(step).take(CHUNK / 4).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_pod_reads_what_another_wrote() {
        let volume = tempfile::tempdir().unwrap();
        let at_work = Arc::new(());
        let (writer, reader) =
            (Pod::new(volume.path(), None, &at_work), Pod::new(volume.path(), None, &at_work));
        writer.write("hello").await.unwrap();
        reader.read("hello").await.unwrap();
        std::fs::write(volume.path().join("hello"), "changed").unwrap();
        assert!(reader.read("hello").await.unwrap_err().to_string().contains("something else"));
        assert_eq!(reader.read("nothing").await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn filling_goes_on_where_it_stopped() {
        let volume = tempfile::tempdir().unwrap();
        let pod = Pod::new(volume.path(), None, &Arc::new(()));
        for size in [CHUNK as u64 + 5, 3 * CHUNK as u64] {
            let filled = pod.fill("data", size).await.unwrap();
            assert!(filled.size == size && filled.refused.is_none(), "{filled:?}");
        }
    }
}
