//! `kuration report`, from its flags to its end.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use super::{Done, ended, runtime, stopped};
use crate::args::{ReportArgs, ReportAuth, ReportFormat, ReportLanguage};
use crate::inspection::report::serve::{self as pages, Access};
use crate::inspection::report::{self, Shelf, ShelfError};
use crate::telemetry::{listen, logs};

/// Runs `kuration report`: one report, or pages until SIGTERM.
pub fn report(args: ReportArgs) -> Done {
    if let Some(task) = &args.once {
        let text = one_report(task, &args)?;
        match &args.output {
            Some(path) => {
                std::fs::write(path, text).map_err(|error| format!("--output {}: {error}", path.display()))?
            }
            None => std::io::stdout().write_all(text.as_bytes())?,
        }
        return Ok(true);
    }
    logs::init(&args.log.clone().into())?;
    // Files are read on threads of their own: there must be more of them than may hang.
    let runtime = runtime()?;
    let done = runtime.block_on(serve_reports(args));
    runtime.shutdown_background();
    done.map(|()| true)
}

fn one_report(task: &Path, args: &ReportArgs) -> Result<String, ShelfError> {
    let history = Shelf::open(task)?.history(args.run.as_deref())?;
    let language = match args.language {
        ReportLanguage::En => report::Language::English,
        ReportLanguage::Zh => report::Language::Chinese,
    };
    Ok(match args.format {
        ReportFormat::Html => report::html(&history, language),
        ReportFormat::Json => format!("{:#}\n", serde_json::to_value(&history.run).unwrap_or_default()),
        ReportFormat::Junit => report::junit(&history.run),
        ReportFormat::Openreports => format!("{:#}\n", report::open_report(&history.run)),
    })
}

async fn serve_reports(args: ReportArgs) -> Result<(), Box<dyn Error>> {
    let stop = stopped()?;
    Shelf::open(&args.results)?;
    let access = match args.auth {
        ReportAuth::None => Access::Everybody,
        ReportAuth::Kubernetes => Access::kubernetes(kube::Client::try_default().await.map_err(|error| {
            format!("{error}: --auth kubernetes asks an API server who may see what; --auth none asks nobody")
        })?),
    };
    let listener = listen(args.listen).await.map_err(|error| format!("--listen {}: {error}", args.listen))?;
    let open = matches!(access, Access::Everybody);
    if open && !args.listen.ip().is_loopback() {
        tracing::warn!(address = %args.listen, "--auth none: whoever reaches this address sees all results");
    }
    tracing::info!(target: logs::ALWAYS, address = %listener.local_addr()?, results = %args.results.display(), "serving reports");
    Ok(pages::serve(listener, args.results, access, ended(stop)).await?)
}
