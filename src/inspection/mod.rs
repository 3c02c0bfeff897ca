//! Scheduled inspection: tasks that a cluster's users write, the runs that carry them out, and what is kept of them.
//!
//! | part | what it is | |
//! |---|---|---|
//! | [`task`] | the words of a task: `InspectionTask` of `kuration.io/v1`, its rules and its status | pure |
//! | [`schedule`] | when a task is due: what a CronJob's schedule means | pure |
//! | [`rules`] | the rules: probes, and assertions over what they saw | effects |
//! | [`runner`] | one run: all rules of a task, side by side, each to its end | effects |
//! | [`results`] | what is kept of runs, on a volume | effects |
//! | [`run`] | the words of a run: what `run.json`, the index and a pod's last message say | pure |
//! | [`intent`] | the controller's decisions: what should be there for a task, and what is said of it | pure |
//! | [`controller`] | `kuration inspector`: makes it so | effects |
//! | [`notify`] | who is told of what, and in which form | |
//! | [`report`] | pages of what was found | |
//!
//! A task becomes a CronJob of the same name; each of its Jobs is one run; a run evaluates every rule and never leaves one
//! out: a rule that could not be evaluated is an *error*, which is neither a pass nor a fail. The Job succeeds when the
//! inspection ran; whether what it looked at is healthy is said by a condition of the task.

pub mod controller;
pub mod intent;
pub mod notify;
pub mod report;
pub mod results;
pub mod rules;
pub mod run;
pub mod runner;
pub mod schedule;
pub mod task;
