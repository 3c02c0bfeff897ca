//! `kuration inspector`, from its flags to its end.

use tokio::sync::watch;

use super::{Done, RunError, ended, stopped};
use crate::args::InspectorArgs;
use crate::inspection::controller::{self, ControllerError, Settings, Tally};
use crate::inspection::intent::{Defaults, RunPods};
use crate::inspection::task::Size;
use crate::settings::LogSettings;
use crate::telemetry::{Admin, Metrics, logs};

/// Why the inspector can't work.
#[derive(Debug, thiserror::Error)]
enum InspectorError {
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("--results-size {0:?}: write a size above nothing, such as 500Mi or 1Gi, without a fraction")]
    Size(String),
    #[error("{0}")]
    Controller(#[from] ControllerError),
}

/// Runs `kuration inspector`.
pub fn inspector(args: InspectorArgs) -> Done {
    let InspectorArgs {
        image,
        image_pull_policy,
        image_pull_secret,
        results_class,
        results_size,
        role,
        namespace,
        pod,
        admin,
        log,
    } = args;
    let size = claim_size(results_size)?;
    let verbosity = ("KURATION_V".to_owned(), log.v.to_string());
    let filter = log.log.clone().map(|filter| ("KURATION_LOG".to_owned(), filter));
    let pods = RunPods {
        pull_secrets: image_pull_secret.into_iter().filter(|name| !name.is_empty()).collect(),
        log: [verbosity].into_iter().chain(filter).collect(),
    };
    logs::init(&LogSettings::from(log))?;
    let defaults = Defaults {
        image,
        pull_policy: image_pull_policy,
        class: results_class.filter(|class| !class.is_empty()),
        size,
        role,
    };
    let settings = Settings { defaults, pods, namespace, identity: pod };
    // One thread: it waits for the API server nearly always, and what two allocate for one another is twice the memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let stop = stopped()?;
        let tally = Tally::default();
        let (ready, readiness) = watch::channel(Err("starting".to_owned()));
        if let Some(address) = admin {
            let admin = Admin::bind(address).await.map_err(RunError::from)?;
            let metrics = Metrics::new();
            metrics.families(tally.clone());
            let serving = admin.serve(metrics, readiness.clone(), ended(stop.clone()));
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "health and metrics are no longer served");
                }
            });
        }
        tracing::info!(target: logs::ALWAYS, version = env!("CARGO_PKG_VERSION"), "inspector");
        controller::run(settings, tally, ready, stop).await?;
        Ok::<(), InspectorError>(())
    });
    runtime.shutdown_background();
    done.map(|()| true).map_err(Into::into)
}

/// The size of claims for results, checked here: the API server would refuse each claim, long after whoever wrote it has gone.
fn claim_size(text: String) -> Result<String, InspectorError> {
    match Size::Text(text.clone()).bytes() {
        Some(1..) => Ok(text),
        _ => Err(InspectorError::Size(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_no_claim_can_have_is_refused_by_name() {
        for good in ["1Gi", "500M", "1073741824"] {
            assert_eq!(claim_size(good.to_owned()).unwrap(), good);
        }
        for bad in ["", "0", "0Gi", "1 Gi", "1.5Gi", "-1Gi", "1gb", "Gi", "many", "9999999Pi"] {
            let said = claim_size(bad.to_owned()).unwrap_err().to_string();
            assert!(said.starts_with(&format!("--results-size {bad:?}: ")), "{said}");
        }
    }
}
