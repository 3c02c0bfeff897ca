//! What every handler does around its work: one operation per object, and an answer before the caller gives up.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Status};

use crate::inflight::InFlight;
use crate::telemetry::Deadline;

/// How long handlers may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest, where the caller names no deadline of its own or a later one.
    pub operation: Duration,
}

impl Limits {
    /// When the work for `request` must be done: before its client loses patience, if that comes first.
    pub fn deadline<T>(&self, request: &Request<T>) -> Instant {
        let ours = Instant::now() + self.operation;
        request.extensions().get::<Deadline>().map_or(ours, |Deadline(theirs)| ours.min(*theirs))
    }
}

/// Does `work` for `object`, alone, to its end: also when the caller goes away, since half a volume helps nobody. A second
/// call meanwhile is ABORTED, and the one after it finds what this one did.
pub async fn alone<T: Send + 'static>(
    inflight: &InFlight,
    object: String,
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let Some(guard) = inflight.enter(object) else {
        return Err(Status::aborted("an operation for this volume is under way; try again when it is done"));
    };
    let span = tracing::Span::current();
    let task = tokio::spawn(tracing::Instrument::instrument(
        async move {
            let done = work.await;
            drop(guard);
            done
        },
        span,
    ));
    task.await.unwrap_or_else(|error| Err(Status::internal(format!("the operation broke off: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_call_for_the_same_object_is_aborted() {
        let inflight = InFlight::default();
        let (release, wait) = tokio::sync::oneshot::channel::<()>();
        let first = tokio::spawn({
            let inflight = inflight.clone();
            async move { alone(&inflight, "v".into(), async { wait.await.map_err(|_| Status::internal("")) }).await }
        });
        while inflight.enter("v").is_some() {
            tokio::task::yield_now().await;
        }
        let second = alone(&inflight, "v".into(), async { Ok(()) }).await;
        assert_eq!(second.map_err(|status| status.code()), Err(tonic::Code::Aborted));
        release.send(()).unwrap();
        assert!(first.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn work_goes_on_when_the_caller_leaves() {
        let inflight = InFlight::default();
        let (done, finished) = tokio::sync::oneshot::channel();
        let call = alone(&inflight, "v".into(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            done.send(()).map_err(|()| Status::internal(""))
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), call).await.is_err());
        assert!(finished.await.is_ok());
    }
}
