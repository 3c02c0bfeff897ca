//! The decisions of the controller: from a task and what is found to what should be there, and to what is said of it.
//!
//! | part | from | to |
//! |---|---|---|
//! | [`objects`] | a task, the settings | its CronJob, account, claim and rules, as they should be |
//! | [`fleet`] | a task that looks from every node, the nodes | the pods of its Job |
//! | [`RunPods`] | the controller's installation | what the pods of every run have |
//! | [`degrade`] | a Job and its pod | whether it waits for a volume that does not come, and the Job that runs without |
//! | [`MissReason`] | a moment, the Jobs around it | why no run started then |
//! | [`Ended`] | a Job, its pods' last messages | how that run ended |
//! | [`reported`] | the run that ended last | its Report, and what is said of that |
//! | [`verdict`] | a task's Jobs, their pods' last messages, the clock | its status |

mod aside;
pub mod degrade;
mod ended;
pub mod fleet;
mod missed;
pub mod objects;
mod pods;
pub mod reported;
pub mod verdict;

pub use ended::{Ended, ended};
pub use missed::MissReason;
pub use objects::{Claim, Defaults, Desired, NotReady, choose_class, covers, desired};
pub use pods::RunPods;
pub use verdict::{Found, notified, status};

/// Every object that the controller makes for a task bears its name in this label.
pub const TASK_LABEL: &str = "kuration.io/task";

/// The label of a Job that runs without its volume.
pub const DEGRADED_LABEL: &str = "kuration.io/degraded";

/// The annotation by which a person asks for a run now: any value that is not the last one.
pub const RUN_REQUEST: &str = "kuration.io/run-requested-at";

/// Who applies.
pub const FIELD_MANAGER: &str = "kuration-controller";
