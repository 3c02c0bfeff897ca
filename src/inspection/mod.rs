//! Scheduled inspection: tasks that a cluster's users write, the runs that carry them out, and what is kept of them.
//!
//! | part | what it is | |
//! |---|---|---|
//! | [`task`] | the words of a task: `InspectionTask` of `kuration.io/v1`, its rules and its status | pure |
//! | [`run`] | the words of a run: what `run.json`, the index and a pod's last message say | pure |
//!
//! A task becomes a CronJob of the same name; each of its Jobs is one run; a run evaluates every rule and never leaves one
//! out: a rule that could not be evaluated is an *error*, which is neither a pass nor a fail. The Job succeeds when the
//! inspection ran; whether what it looked at is healthy is said by a condition of the task.

pub mod notify;
pub mod report;
pub mod run;
pub mod task;
