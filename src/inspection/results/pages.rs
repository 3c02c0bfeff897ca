//! `report.html`: one in each run's directory, as of that run, and that of the newest in its task's.
//!
//! A page is made of what is on the volume, under the lock, when the run is there already. So SHA256SUMS does not name it: it
//! covers what can't be made again. Its bytes count to what is kept, and it goes before any run does.

use std::fs;
use std::io;
use std::path::Path;

use super::disk;
use crate::fault_point;
use crate::inspection::report::{Language, Shelf, html};
use crate::inspection::run::Index;

/// The page's name.
pub const PAGE: &str = "report.html";

/// Besides its own and the newest, a save makes the pages of at most so many runs that were written by others, or written down
/// later: as many as a ConfigMap hands over at once. Of an index that is lost all runs are new.
const MOST: usize = 60;

/// Makes the page of the newest run in `index`, of the one at `own`, and of those at `fresh` that have none; how large they are
/// goes into `index`. Says why the first of them that can't be made can't.
pub fn make(
    directory: &Path,
    index: &mut Index,
    own: &str,
    fresh: &[String],
    pod: &str,
) -> Result<(), String> {
    let newest = index.runs.iter().max_by_key(|run| (run.start_time, &run.id)).map(|run| run.path.clone());
    let others = fresh.iter().filter(|path| *path != own && Some(*path) != newest.as_ref());
    let none = |path: &String| index.runs.iter().any(|run| run.path == *path && run.report_bytes == 0);
    let mut lacking: Vec<&String> = others.filter(|path| none(path)).collect();
    // Paths begin with their time.
    lacking.sort_by(|a, b| b.cmp(a));
    lacking.truncate(MOST);
    let mut paths: Vec<String> = newest.iter().cloned().chain([own.to_owned()]).collect();
    paths.extend(lacking.into_iter().cloned());
    paths.dedup();

    let shelf = Shelf::open(directory).map_err(|error| error.to_string())?;
    let mut done = Ok(());
    // Its own may have been removed as one too many.
    paths.retain(|path| index.runs.iter().any(|run| run.path == *path));
    for path in &paths {
        let made = one(directory, &shelf, index, path, Some(path) == newest.as_ref(), pod);
        done = done.and(made.map_err(|error| format!("{path}: {error}")));
    }
    done
}

/// Makes the page of the run at `path`, and puts it where the newest run's is if it is that.
fn one(
    directory: &Path,
    shelf: &Shelf,
    index: &mut Index,
    path: &str,
    newest: bool,
    pod: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let page = html(&shelf.history_at(index.runs.clone(), path)?, Language::English);
    disk::replace(&directory.join(path).join(PAGE), page.as_bytes(), pod)?;
    fault_point!("results.paged");
    resized(index, path, page.len() as u64);
    if newest {
        disk::replace(&directory.join(PAGE), page.as_bytes(), pod)?;
        fault_point!("results.reported");
    }
    Ok(())
}

/// Removes the pages of the runs at `paths`.
pub fn remove(directory: &Path, index: &mut Index, paths: &[String]) -> io::Result<()> {
    for path in paths {
        match fs::remove_file(directory.join(path).join(PAGE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        fault_point!("results.unpaged");
        resized(index, path, 0);
    }
    Ok(())
}

/// The page of the run at `path` takes so much now.
fn resized(index: &mut Index, path: &str, bytes: u64) {
    for run in index.runs.iter_mut().filter(|run| run.path == path) {
        run.bytes = run.bytes.saturating_sub(run.report_bytes) + bytes;
        run.report_bytes = bytes;
    }
}
