//! The words of a run: what `run.json`, the index, the daily roll-up and a pod's last message say.
//!
//! | file on the volume | type |
//! |---|---|
//! | `runs/YYYY/MM/DD/ID/run.json` | [`Run`] |
//! | `index.json` | [`Index`], which can be rebuilt from the runs |
//! | `latest.json` | [`Latest`] |
//! | `daily/YYYY-MM-DD.json` | [`Daily`] |
//! | the termination message of the pod | [`Termination`] |

mod history;
mod message;
mod outcome;
mod record;

pub use history::{DAILY_SCHEMA, Daily, INDEX_SCHEMA, Index, IndexEntry, LATEST_SCHEMA, Latest, RuleDay};
pub use message::{LIMIT, Persisted, Termination, TerminationRule};
pub use outcome::{Counts, Outcome};
pub use record::{
    Detail, Fingerprint, Inspector, MOST_OBSERVED, MOST_SUBJECTS, OTHER_SHARD, RUN_SCHEMA, RuleResult, Run,
    RunId, Scalar, Shards, Subject, TaskName, Trigger,
};
