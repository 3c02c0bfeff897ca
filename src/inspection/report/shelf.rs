//! Reading what runs have left in a directory, and trusting none of it.
//!
//! Anybody who can mount the volume can write to it. So every file is opened beneath the directory that was given, without
//! following a link out of it or within it; what is too large, is no plain file or does not parse is left aside, and said.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use jiff::tz::TimeZone;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use serde::de::DeserializeOwned;

use super::since::{thinned, walk};
use super::story::{DAYS, History};
use crate::inspection::run::{
    DAILY_SCHEMA, Daily, INDEX_SCHEMA, Index, IndexEntry, LATEST_SCHEMA, Latest, RUN_SCHEMA, Run,
};

/// The largest file that is read. A run has at most 64 rules of 50 subjects; an index of 100,000 runs is the largest.
const LARGEST: u64 = 64 << 20;

/// So many runs are read for the lines, whatever they found.
const RECENT: usize = 60;

/// So many runs are read at most to find out since when something is broken.
const BUDGET: usize = 600;

/// Why a result can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The directory itself.
    #[error("{path}: {error}")]
    Open {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// There is no run in it.
    #[error("{0} holds no run: is it the directory of one task, NAMESPACE/TASK-UID on a results volume?")]
    Empty(String),
    /// There is no such run.
    #[error("there is no run {0}: `index.json` and the directory runs/ list those that are kept")]
    Unknown(String),
    /// A file that is not what it should be.
    #[error("{path}: {why}")]
    Bad {
        /// Which.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A directory; nothing outside of it can be reached through it.
#[derive(Debug)]
pub struct Shelf {
    fd: OwnedFd,
    name: String,
}

impl Shelf {
    /// Opens `path`.
    pub fn open(path: &Path) -> Result<Self, ShelfError> {
        let name = path.display().to_string();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, name }),
            Err(error) => Err(ShelfError::Open { path: name, error: error.into() }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // NONBLOCK: a pipe that somebody put there would wait for its other end.
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::RDONLY;
        Ok(rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), within)?)
    }

    /// The directory `path` beneath it.
    pub fn beneath(&self, path: &str) -> Result<Self, ShelfError> {
        let name = format!("{}/{path}", self.name);
        match self.open_beneath(path, OFlags::DIRECTORY) {
            Ok(fd) => Ok(Self { fd, name }),
            Err(error) => Err(ShelfError::Open { path: name, error }),
        }
    }

    /// What the file `path` holds.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, ShelfError> {
        let bad = |why: String| ShelfError::Bad { path: format!("{}/{path}", self.name), why };
        let fd = self.open_beneath(path, OFlags::empty()).map_err(|error| bad(error.to_string()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| bad(error.to_string()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(bad("it is no plain file".to_owned()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(1 << 20));
        let read = File::from(fd).take(LARGEST + 1).read_to_end(&mut bytes);
        match read {
            Ok(length) if length as u64 > LARGEST => Err(bad(format!("it is larger than {LARGEST} bytes"))),
            Ok(_) => Ok(bytes),
            Err(error) => Err(bad(error.to_string())),
        }
    }

    /// The document in the file `path`, whose `schema` must be `schema`.
    fn document<T: DeserializeOwned>(
        &self,
        path: &str,
        schema: fn(&T) -> (&str, &str),
    ) -> Result<T, ShelfError> {
        let bad = |why: String| ShelfError::Bad { path: format!("{}/{path}", self.name), why };
        let found: T = serde_json::from_slice(&self.bytes(path)?).map_err(|error| bad(error.to_string()))?;
        let (is, wanted) = schema(&found);
        if is != wanted {
            return Err(bad(format!("its schema is {is:?}, and this program reads {wanted}")));
        }
        Ok(found)
    }

    /// The names in the directory `path`, sorted; those that begin with a dot are somebody's work in progress.
    pub fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let fd = self.open_beneath(path, OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && !name.starts_with('.')
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The index of a task; where it is lost or broken, what the runs themselves tell.
    pub fn index(&self) -> Vec<IndexEntry> {
        let found = self.document("index.json", |index: &Index| (&index.schema, INDEX_SCHEMA));
        // What is written there says where to look, and so may only name places beneath the directory; openat2 sees to it.
        ordered(match found {
            Ok(index) => index.runs,
            Err(_) => self.rebuilt(),
        })
    }

    fn rebuilt(&self) -> Vec<IndexEntry> {
        let mut paths = vec!["runs".to_owned()];
        for _ in 0..4 {
            let list = |path: &String| {
                let names = self.names(path).unwrap_or_default();
                names.into_iter().map(|name| format!("{path}/{name}")).collect::<Vec<_>>()
            };
            paths = paths.iter().flat_map(list).collect();
        }
        let runs = paths.iter().filter_map(|path| self.run(path).ok());
        runs.map(|run| IndexEntry::of(&run, 0, String::new())).collect()
    }

    /// The newest run of a task as `latest.json` tells it: less to read than the index.
    pub fn latest(&self) -> Result<Latest, ShelfError> {
        self.document("latest.json", |latest: &Latest| (&latest.schema, LATEST_SCHEMA))
    }

    /// The run in the directory `path`.
    pub fn run(&self, path: &str) -> Result<Run, ShelfError> {
        self.document(&format!("{path}/run.json"), |run: &Run| (&run.schema, RUN_SCHEMA))
    }

    /// The last days, the oldest first, those after `last` left out.
    fn daily(&self, last: &str) -> Vec<Daily> {
        let names = self.names("daily").unwrap_or_default();
        let dates = names.iter().filter(|name| name.strip_suffix(".json").is_some_and(|date| date <= last));
        let newest = dates.rev().take(DAYS).collect::<Vec<_>>().into_iter().rev();
        let read = |name: &String| {
            self.document(&format!("daily/{name}"), |day: &Daily| (&day.schema, DAILY_SCHEMA)).ok()
        };
        newest.filter_map(read).collect()
    }

    /// The zone of a task's days, as the task itself says it; UTC where it doesn't.
    fn zone(&self) -> TimeZone {
        let task: Option<serde_json::Value> =
            self.bytes("task.json").ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let named = task.as_ref().and_then(|task| {
            let name = task.pointer("/spec/timeZone").or_else(|| task.get("timeZone"))?;
            TimeZone::get(name.as_str()?).ok()
        });
        named.unwrap_or(TimeZone::UTC)
    }

    /// All that the report of one run needs: of the newest, or of the one with the id `id`.
    pub fn history(&self, id: Option<&str>) -> Result<History, ShelfError> {
        self.history_in(self.index(), id)
    }

    /// The same, of a task whose index was read or made a moment ago.
    pub fn history_in(&self, index: Vec<IndexEntry>, id: Option<&str>) -> Result<History, ShelfError> {
        let mut index = ordered(index);
        if index.is_empty() {
            return Err(ShelfError::Empty(self.name.clone()));
        }
        let at = match id {
            None => 0,
            Some(id) => index
                .iter()
                .position(|entry| entry.id == id)
                .ok_or_else(|| ShelfError::Unknown(id.to_owned()))?,
        };
        let run = self.run(&index[at].path)?;
        let date = run.start_time.to_zoned(TimeZone::UTC).date();
        let mut daily = self.daily(&date.to_string());
        let thinned = thinned(&index, &daily);
        if at > 0 {
            // That day went on after this run.
            daily.retain(|day| day.date < date);
            index.drain(..at);
        }
        let read = |entry: &IndexEntry| self.run(&entry.path).ok();
        let (since, recent) = walk(&run, &index[1..], &daily, &thinned, (RECENT, BUDGET), read);
        Ok(History { run, recent, index, daily, since, thinned, zone: self.zone() })
    }

    /// All that the report of the run in the directory `path` needs, of a task whose index was made a moment ago.
    pub fn history_at(&self, mut index: Vec<IndexEntry>, path: &str) -> Result<History, ShelfError> {
        let found = index.iter().find(|entry| entry.path == path).map(|entry| entry.id.clone());
        let id = found.ok_or_else(|| ShelfError::Unknown(path.to_owned()))?;
        // A run that was tried again has the id of the first, and a directory of its own.
        index.retain(|entry| entry.path == path || entry.id != id);
        self.history_in(index, Some(&id))
    }

    /// The tasks on a results volume: directories `NAMESPACE/TASK-UID`, sorted.
    pub fn tasks(&self) -> Vec<String> {
        let namespaces = self.names(".").unwrap_or_default();
        let tasks = namespaces.iter().flat_map(|namespace| {
            let names = self.names(namespace).unwrap_or_default();
            names.into_iter().map(move |name| format!("{namespace}/{name}"))
        });
        tasks.collect()
    }
}

/// Each run once, the newest first.
fn ordered(mut runs: Vec<IndexEntry>) -> Vec<IndexEntry> {
    runs.sort_by(|a, b| (b.start_time, &b.id).cmp(&(a.start_time, &a.id)));
    runs.dedup_by(|a, b| a.id == b.id);
    runs
}
