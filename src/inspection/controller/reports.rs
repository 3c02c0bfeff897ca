//! Keeps the OpenReports Report of a task's last run, for a task that asks for one. Others cost no request.

use jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::super::intent::reported::{Reported, Wanted, reported, wanted};
use super::super::intent::{Ended, FIELD_MANAGER};
use super::super::task::{InspectionTask, InspectionTaskStatus};
use super::Context;

/// That the cluster has no such kind is one answer for all tasks, and holds as long as what was applied.
const NOT_SERVED: &str = "openreports.io/v1alpha1 is not served";

/// Writes or deletes the Report of `task`, of which `new` is about to be said, and says in it what became of that. What goes
/// wrong is tried again when the task is looked at next, and is no reason to leave the rest of it.
pub async fn keep(
    task: &InspectionTask,
    new: &mut InspectionTaskStatus,
    ended: &[Ended],
    context: &Context,
    now: Timestamp,
) {
    let reports = || {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("openreports.io", "v1alpha1", "Report"));
        let namespace = task.namespace().unwrap_or_default();
        Api::<DynamicObject>::namespaced_with(context.client.clone(), &namespace, &kind)
    };
    let became = match wanted(task, new, ended) {
        Wanted::Nothing => return,
        Wanted::Later => Ok(Reported::Later),
        Wanted::Kept => Ok(Reported::Written),
        Wanted::Gone => delete(&reports(), task).await,
        Wanted::Written(_) if context.settled(NOT_SERVED) => Ok(Reported::NotServed),
        Wanted::Written(report) => write(&reports(), task, &report).await,
    };
    if became == Ok(Reported::NotServed) && !context.settled(NOT_SERVED) {
        context.settle(NOT_SERVED.to_owned());
    }
    reported(task, new, became.unwrap_or_else(Reported::Trouble), now);
}

/// Whose the Report of the task's name is: nobody's, the task's with this uid, or another's.
enum There {
    Nothing,
    Ours(Option<String>),
    Foreign,
}

async fn there(reports: &Api<DynamicObject>, task: &InspectionTask) -> Result<There, String> {
    match reports.get_metadata(&task.name_any()).await {
        Ok(found) => {
            let ours = |uid: &String| found.owner_references().iter().any(|owner| owner.uid == *uid);
            let ours = task.metadata.uid.as_ref().is_some_and(ours);
            Ok(if ours { There::Ours(found.uid()) } else { There::Foreign })
        }
        // Neither it nor its kind, perhaps.
        Err(kube::Error::Api(refused)) if refused.code == 404 => Ok(There::Nothing),
        Err(error) => Err(error.to_string()),
    }
}

async fn write(
    reports: &Api<DynamicObject>,
    task: &InspectionTask,
    report: &Value,
) -> Result<Reported, String> {
    if let There::Foreign = there(reports, task).await? {
        return Ok(Reported::Foreign);
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match reports.patch(&task.name_any(), &params, &Patch::Apply(report)).await {
        Ok(_) => Ok(Reported::Written),
        Err(kube::Error::Api(refused)) if refused.code == 404 => Ok(Reported::NotServed),
        Err(error) => Err(error.to_string()),
    }
}

async fn delete(reports: &Api<DynamicObject>, task: &InspectionTask) -> Result<Reported, String> {
    let There::Ours(uid) = there(reports, task).await? else { return Ok(Reported::Gone) };
    // Another one that has come in its place since is not deleted.
    let preconditions = Some(Preconditions { uid, resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    match reports.delete(&task.name_any(), &params).await {
        Ok(_) => Ok(Reported::Gone),
        Err(kube::Error::Api(refused)) if refused.code == 404 => Ok(Reported::Gone),
        Err(error) => Err(error.to_string()),
    }
}
