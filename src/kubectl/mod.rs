//! `kubectl kuration`: a person's view of inspections, from the status of tasks and from the results volume.
//!
//! It has the rights of the person who runs it, and needs no more than to read tasks; a report is fetched by a pod of his.

mod create;
mod doctor;
mod show;
mod volume;
mod watch;

use std::io::IsTerminal;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::args::{ClusterFlags, KubectlArgs, KubectlCommand, ReportFormat};
use crate::inspection::report;
use crate::inspection::run::Run;
use crate::inspection::task::InspectionTask;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum KubectlError {
    /// The kubeconfig.
    #[error("the cluster's address and credentials can't be read: {0}")]
    Config(String),
    /// What the API server said.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// There is no such task.
    #[error("there is no inspectiontask {1} in namespace {0}: kubectl kuration list -A lists all")]
    NoTask(String, String),
    /// What the task lacks.
    #[error("{0}")]
    Missing(String),
    /// Writing the result.
    #[error("{0}: {1}")]
    Write(String, std::io::Error),
    /// Something that should be JSON or YAML.
    #[error("{0}")]
    Form(String),
}

/// A cluster, a namespace in it, and the terminal.
struct Place {
    client: kube::Client,
    namespace: String,
    colours: bool,
}

impl Place {
    async fn of(flags: &ClusterFlags) -> Result<Self, KubectlError> {
        let unread = |error: &dyn std::fmt::Display| KubectlError::Config(error.to_string());
        let options = KubeConfigOptions { context: flags.context.clone(), ..Default::default() };
        let config = match &flags.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|error| unread(&error))?;
                kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unread(&error))?
            }
            None if flags.context.is_some() => {
                kube::Config::from_kubeconfig(&options).await.map_err(|error| unread(&error))?
            }
            None => kube::Config::infer().await.map_err(|error| unread(&error))?,
        };
        let namespace = flags.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = kube::Client::try_from(config)?;
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Ok(Place { client, namespace, colours })
    }

    fn tasks(&self) -> Api<InspectionTask> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn task(&self, name: &str) -> Result<InspectionTask, KubectlError> {
        let unknown = || KubectlError::NoTask(self.namespace.clone(), name.to_owned());
        self.tasks().get_opt(name).await?.ok_or_else(unknown)
    }
}

/// Does what was asked for; whether all is well.
pub async fn run(args: KubectlArgs) -> Result<bool, KubectlError> {
    // What is only printed needs no cluster.
    if let KubectlCommand::Create(asked) = &args.command
        && asked.dry_run
    {
        let namespace = args.cluster.namespace.as_deref().unwrap_or("default");
        show::print(&create::preview(asked, namespace)?);
        return Ok(true);
    }
    let place = Place::of(&args.cluster).await?;
    match args.command {
        KubectlCommand::List { all_namespaces, output } => {
            let api = if all_namespaces { Api::all(place.client.clone()) } else { place.tasks() };
            let tasks = api.list(&ListParams::default()).await?.items;
            show::print(&show::list(&tasks, all_namespaces, output, place.colours)?);
            Ok(true)
        }
        KubectlCommand::Run { name, wait, timeout } => {
            watch::start(&place, &name, wait.then_some(timeout)).await
        }
        KubectlCommand::Results { name, output } => {
            show::print(&show::results(&place.task(&name).await?, output, place.colours)?);
            Ok(true)
        }
        KubectlCommand::Report { name, run, format, output } => {
            let task = place.task(&name).await?;
            let text = volume::report(&place, &task, run.as_deref(), format).await?;
            match output {
                Some(path) => std::fs::write(&path, text)
                    .map_err(|error| KubectlError::Write(path.display().to_string(), error))?,
                None => show::print(&text),
            }
            Ok(true)
        }
        KubectlCommand::Diff { name, before, after, output } => {
            let task = place.task(&name).await?;
            let mut runs = Vec::new();
            for id in [&before, &after] {
                let text = volume::report(&place, &task, Some(id), ReportFormat::Json).await?;
                let run: Run = serde_json::from_str(&text)
                    .map_err(|error| KubectlError::Form(format!("run {id}: {error}: {}", text.trim())))?;
                runs.push(run);
            }
            let changes = report::changes::changes(&runs[0], &runs[1]);
            show::print(&show::changes(&changes, output, place.colours)?);
            Ok(changes.is_empty())
        }
        KubectlCommand::Logs { name, job } => {
            let job = match job {
                Some(job) => job,
                None => {
                    let last = place.task(&name).await?.status.and_then(|status| status.last_run);
                    let none = || KubectlError::Missing(format!("{name} has not run yet"));
                    last.map(|run| run.job).ok_or_else(none)?
                }
            };
            logs(&place, &job).await?;
            Ok(true)
        }
        KubectlCommand::Doctor { output } => {
            let found = doctor::look_at(&place).await;
            show::print(&doctor::told(&found, output, place.colours)?);
            Ok(found.iter().all(|look| look.well))
        }
        KubectlCommand::Create(asked) => {
            show::print(&create::create(&place, &asked).await?);
            Ok(true)
        }
    }
}

async fn logs(place: &Place, job: &str) -> Result<(), KubectlError> {
    let pods: Api<Pod> = Api::namespaced(place.client.clone(), &place.namespace);
    let of = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let found = pods.list(&of).await?.items;
    if found.is_empty() {
        let gone =
            format!("there is no pod of Job {job} any more; what it found is in: kubectl kuration results");
        return Err(KubectlError::Missing(gone));
    }
    for pod in &found {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if found.len() > 1 {
            show::print(&format!("== {name}\n"));
        }
        show::print(&pods.logs(name, &LogParams::default()).await?);
    }
    Ok(())
}
