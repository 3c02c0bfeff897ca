//! The index, made equal to what stands on the volume.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use super::disk;
use super::pages::PAGE;
use crate::inspection::run::{INDEX_SCHEMA, Index, IndexEntry, RUN_SCHEMA, Run, TaskName};

/// Its name.
const FILE: &str = "index.json";

/// What stands on a volume.
pub struct Found {
    /// The index as it should be.
    pub index: Index,
    /// Directories named as runs that hold none, or one that is not what its digest says. They are left as they are.
    pub damaged: Vec<String>,
    /// The paths of the runs that were read, as the old index did not know them, or the caller said that they changed.
    pub fresh: Vec<String>,
}

/// Compares `index.json` with the runs' directories: reads the runs that it does not know, forgets those that are gone. An
/// index that can't be read is one that knows nothing. The run at `changed` is read though it is known.
pub fn reconcile(task: &Path, name: &TaskName, changed: Option<&str>) -> io::Result<Found> {
    let mut known = read(task).map_or_else(Vec::new, |index| index.runs);
    known.retain(|entry| Some(entry.path.as_str()) != changed);
    known.sort_by(|a, b| a.path.cmp(&b.path));
    // Both are in the order of their paths, of which there may be ten thousand: a map of them would be the most that a run takes.
    let mut known = known.into_iter().peekable();
    let (mut runs, mut damaged, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    for path in directories(task)? {
        while known.next_if(|entry| entry.path < path).is_some() {}
        if let Some(entry) = known.next_if(|entry| entry.path == path) {
            runs.push(entry);
            continue;
        }
        match entry(task, &path) {
            Ok(entry) => {
                runs.push(entry);
                fresh.push(path);
            }
            Err(error)
                if error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::NotFound =>
            {
                damaged.push(path);
            }
            Err(error) => return Err(error),
        }
    }
    sort(&mut runs);
    Ok(Found { index: Index { schema: INDEX_SCHEMA.to_owned(), task: name.clone(), runs }, damaged, fresh })
}

/// Newest first. Of two of one moment the id decides, so that any order of reading gives the same index.
pub fn sort(runs: &mut [IndexEntry]) {
    let moment = |entry: &IndexEntry| entry.scheduled_time.unwrap_or(entry.start_time);
    runs.sort_by(|a, b| moment(b).cmp(&moment(a)).then_with(|| b.path.cmp(&a.path)));
}

fn read(task: &Path) -> Option<Index> {
    let file = BufReader::new(File::open(task.join(FILE)).ok()?);
    let index: Index = serde_json::from_reader(file).ok()?;
    (index.schema == INDEX_SCHEMA).then_some(index)
}

/// Replaces it, a run to a line. Neither this nor reading it has all of the text in memory: with ten thousand runs there are
/// megabytes of it, and a run has little.
pub fn replace(directory: &Path, index: &Index, pod: &str) -> io::Result<()> {
    let Index { schema, task, runs } = index;
    disk::replace_by(&directory.join(FILE), pod, |file| {
        file.write_all(b"{\n\"schema\": ")?;
        serde_json::to_writer(&mut *file, schema)?;
        file.write_all(b",\n\"task\": ")?;
        serde_json::to_writer(&mut *file, task)?;
        file.write_all(b",\n\"runs\": [")?;
        for (at, run) in runs.iter().enumerate() {
            file.write_all(if at == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *file, run)?;
        }
        file.write_all(b"\n]\n}\n")
    })
}

fn entry(task: &Path, path: &str) -> io::Result<IndexEntry> {
    let directory = task.join(path);
    let (run, sha256) = run(&directory)?;
    let mut entry = IndexEntry::of(&run, disk::size(&directory)?, sha256);
    // A run that was tried again has a directory of its own beside the first.
    path.clone_into(&mut entry.path);
    let page = fs::symlink_metadata(directory.join(PAGE)).ok().filter(fs::Metadata::is_file);
    entry.report_bytes = page.map_or(0, |page| page.len());
    Ok(entry)
}

/// The run in a directory, and its digest.
///
/// # Errors
/// `InvalidData` where it is not what SHA256SUMS says, or no run.
pub fn run(directory: &Path) -> io::Result<(Run, String)> {
    let text = fs::read(directory.join("run.json"))?;
    let sums = fs::read_to_string(directory.join("SHA256SUMS"))?;
    let sha256 = disk::sha256(&text);
    // There are two while a run that is made of parts is written anew.
    let mut said = sums.lines().filter_map(|line| line.strip_suffix("  run.json"));
    if !said.any(|said| said == sha256) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "run.json is not what SHA256SUMS says"));
    }
    let run: Run =
        serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if run.schema != RUN_SCHEMA {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "run.json has a schema that is not known here",
        ));
    }
    Ok((run, sha256))
}

/// The runs' directories in order, as paths beneath the task's. Whatever is named otherwise is somebody else's.
pub fn directories(task: &Path) -> io::Result<Vec<String>> {
    let digits = |name: &str, count: usize| name.len() == count && name.bytes().all(|b| b.is_ascii_digit());
    let mut found = Vec::new();
    for (year, at) in named(&task.join("runs"), |name| digits(name, 4))? {
        for (month, at) in named(&at, |name| digits(name, 2))? {
            for (day, at) in named(&at, |name| digits(name, 2))? {
                for (id, _) in named(&at, is_id)? {
                    found.push(format!("runs/{year}/{month}/{day}/{id}"));
                }
            }
        }
    }
    Ok(found)
}

/// `20260901T120500Z-29804405`, `20260901T120500Z-m0badcafe`, each perhaps with `-r1`.
pub fn is_id(name: &str) -> bool {
    let Some((time, rest)) = name.split_once('-') else { return false };
    let time = time.as_bytes();
    let shaped = time.len() == 16 && time[8] == b'T' && time[15] == b'Z';
    shaped && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Directories with such names, in order; none where there is no such place.
fn named(place: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if wanted(&name) && entry.file_type()?.is_dir() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
