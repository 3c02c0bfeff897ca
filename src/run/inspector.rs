//! `kuration inspector`, from its flags to its end.

use tokio::sync::watch;

use super::{Done, RunError, ended, stopped};
use crate::args::InspectorArgs;
use crate::inspection::controller::{self, ControllerError, Settings, Tally};
use crate::inspection::intent::Defaults;
use crate::settings::LogSettings;
use crate::telemetry::{Admin, Metrics, logs};

/// Why the inspector can't work.
#[derive(Debug, thiserror::Error)]
enum InspectorError {
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Controller(#[from] ControllerError),
}

/// Runs `kuration inspector`.
pub fn inspector(args: InspectorArgs) -> Done {
    let InspectorArgs {
        image,
        image_pull_policy,
        results_class,
        results_size,
        role,
        namespace,
        pod,
        admin,
        log,
    } = args;
    logs::init(&LogSettings::from(log))?;
    let defaults = Defaults {
        image,
        pull_policy: image_pull_policy,
        class: results_class.filter(|class| !class.is_empty()),
        size: results_size,
        role,
    };
    let settings = Settings { defaults, namespace, identity: pod };
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
