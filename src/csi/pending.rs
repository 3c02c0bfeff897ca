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

/// What is given up at its deadline says what went wrong; this much later somebody else answers for it. Less than the
/// margin that lies between our deadline and that of a client who waits for two seconds or more.
const LATE: Duration = Duration::from_millis(150);

/// Does `work` for `object`, alone, to its end: also when the caller goes away, since half a volume helps nobody. A second
/// call meanwhile waits for it until its own `deadline`.
pub async fn alone<T: Send + 'static>(
    inflight: &InFlight,
    object: String,
    deadline: Instant,
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let Some(guard) = inflight.enter(object, deadline).await else {
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
    match tokio::time::timeout_at(deadline + LATE, task).await {
        Ok(done) => {
            done.unwrap_or_else(|error| Err(Status::internal(format!("the operation broke off: {error}"))))
        }
        Err(_) => Err(Status::deadline_exceeded(
            "the operation takes longer and goes on; the next try waits for it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    #[tokio::test]
    async fn a_second_call_joins_the_first_or_is_aborted_at_its_deadline() {
        let inflight = InFlight::default();
        let (release, wait) = tokio::sync::oneshot::channel::<()>();
        let held = inflight.clone();
        let first = tokio::spawn(async move {
            alone(&held, "v".into(), within(9000), async { wait.await.map_err(|_| Status::internal("")) })
                .await
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        let second = alone(&inflight, "v".into(), within(20), async { Ok(()) }).await;
        assert_eq!(second.map_err(|status| status.code()), Err(tonic::Code::Aborted));
        release.send(()).unwrap();
        assert!(alone(&inflight, "v".into(), within(9000), async { Ok(()) }).await.is_ok());
        assert!(first.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn work_goes_on_when_the_caller_leaves() {
        let inflight = InFlight::default();
        let (done, finished) = tokio::sync::oneshot::channel();
        let call = alone(&inflight, "v".into(), within(9000), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            done.send(()).map_err(|()| Status::internal(""))
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), call).await.is_err());
        assert!(finished.await.is_ok());
    }
}
