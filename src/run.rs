//! A driver process, from its settings to its end.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tonic::service::Routes;

use crate::args::{BenchArgs, ExecArgs, InspectArgs, KubectlArgs, TryArgs};
use crate::backend::pool::{Pool, PoolError, image};
use crate::backend::share::Shares;
use crate::backend::{Backend, Volumes};
use crate::csi::proto::controller_server::ControllerServer;
use crate::csi::proto::identity_server::IdentityServer;
use crate::csi::proto::node_server::NodeServer;
use crate::csi::registration::{Registrar, RegistrationError, Standing};
use crate::csi::{self, Limits, Readiness, serve};
use crate::inspection::rules::exec;
use crate::inspection::runner;
use crate::inspection::task::crd;
use crate::mount::Mounter;
use crate::privilege::{self, Work};
use crate::settings::{
    BackendSettings, InlineSettings, KubernetesSettings, NodeSettings, PoolFilesystem, Settings,
};
use crate::telemetry::admin::AdminError;
use crate::telemetry::{Admin, Metrics, logs};
use crate::volume::{AllowedServers, SecretOptions};
use crate::{bench, child, kubernetes, trial};

mod claims;
mod held;
mod inspector;
mod reap;
mod report;

pub use inspector::inspector;
pub use report::report;

/// Why a driver process can't do its work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its socket.
    #[error("{0}")]
    Listen(#[from] serve::ListenError),
    /// Its address for health and metrics.
    #[error("{0}")]
    Admin(#[from] AdminError),
    /// Its pool.
    #[error("{0}")]
    Pool(#[from] PoolError),
    /// The pool's image.
    #[error("{0}")]
    Image(#[from] image::ImageError),
    /// Its state directory.
    #[error("--state-dir {0}: {1}")]
    State(String, std::io::Error),
    /// Its capabilities.
    #[error("capabilities can't be given up: {0}")]
    Privilege(std::io::Error),
    /// Its children.
    #[error("a child process can't be started: {0}")]
    Child(std::io::Error),
    /// Its socket, while serving.
    #[error("serving CSI: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The kubelet.
    #[error("{0}")]
    Registration(#[from] RegistrationError),
    /// What registers with the kubelet ended by a fault of its own.
    #[error("registering with the kubelet broke off: {0}")]
    Registrar(tokio::task::JoinError),
    /// The cluster's API server.
    #[error("{0}")]
    Connect(#[from] kubernetes::ConnectError),
    /// Signals.
    #[error("signals can't be received: {0}")]
    Signal(std::io::Error),
}

/// Whether it went well, or why it could not even begin.
pub type Done = Result<bool, Box<dyn Error>>;

/// Two threads: a request waits for a server or a child, and hardly ever for a processor. Where there is one processor, the one
/// thread that there is anyway: a pool of them would wake each other, and reads the clock twice more each time that one wakes.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    let one = std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1);
    let mut builder = if one { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(2).enable_all().build()
}

/// Runs a driver process from its start to its end.
pub fn driver<E: Error + 'static>(settings: Result<Settings, E>) -> Done {
    let settings = settings?;
    logs::init(&settings.log)?;
    // Before any thread is there, since each has its own.
    if !privilege::confine(work(&settings)).map_err(RunError::Privilege)? {
        tracing::debug!("the bounding set of capabilities stays as it is: CAP_SETPCAP is missing");
    }
    let runtime = runtime()?;
    let done = runtime.block_on(serve_csi(settings));
    // What still hangs is left to the end of the process, which nothing holds up.
    runtime.shutdown_background();
    done.map(|()| true).map_err(Into::into)
}

/// What a process does that needs more than being root.
fn work(settings: &Settings) -> Work {
    let pool = matches!(settings.backend, BackendSettings::Pool { .. });
    Work {
        volumes: settings.controller
            || pool
            || settings.node.as_ref().is_some_and(|node| node.inline.is_some()),
        image: matches!(settings.backend, BackendSettings::Pool { image: Some(_), .. }),
        low_port: settings.admin.is_some_and(|address| address.port() < 1024),
    }
}

/// Runs `kuration try`.
pub fn attempt(args: TryArgs) -> Done {
    // Before any thread is there: only a process of one thread can enter a user namespace.
    let standing = trial::enter_namespace()?;
    let options = args.options(standing)?;
    Ok(runtime()?.block_on(trial::run(options))?.works)
}

/// Runs `kuration crd`.
pub fn definition(run_schema: bool) -> Done {
    let text = if run_schema { crd::run_schema() } else { crd::yaml()? };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(true)
}

/// Runs `kuration bench`.
pub fn measure(args: BenchArgs) -> Done {
    Ok(runtime()?.block_on(bench::run(args.into()))?.failed == 0)
}

/// Runs the command of a rule, in a container of its own; or puts this program there before.
pub fn aside(args: ExecArgs) -> std::io::Result<()> {
    match args.install {
        Some(directory) => exec::install(&directory),
        None => exec::run(&args.into.unwrap_or_default(), &args.command),
    }
}

/// Runs `kuration inspect`.
pub fn inspect(args: InspectArgs) -> Done {
    let once = args.once;
    let (settings, log) = args.meant();
    logs::init(&log)?;
    let runtime = runtime()?;
    let done = runtime.block_on(runner::run(settings));
    // An expression that never ends is left to the end of the process.
    runtime.shutdown_background();
    let outcome = done?;
    Ok(!once || outcome.well())
}

/// Runs what kubectl was asked for.
pub fn kubectl(args: KubectlArgs) -> Done {
    Ok(runtime()?.block_on(crate::kubectl::run(args))?)
}

/// How often the ready state is looked at anew.
const LOOK: Duration = Duration::from_secs(10);

/// How often children are looked for that have nothing to do.
const RETIRE: Duration = Duration::from_secs(30);

/// A look at the backend that takes longer than this finds it unfit.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Serves CSI until SIGTERM or SIGINT, and finishes what is under way then.
async fn serve_csi(settings: Settings) -> Result<(), RunError> {
    let Settings {
        controller,
        node,
        endpoint,
        driver_name,
        installation,
        state_dir,
        backend,
        servers,
        mount_options,
        operation_timeout,
        trash_lifetime,
        reap_interval,
        known_nodes,
        kubernetes,
        admin,
        grace,
        log: _,
    } = settings;
    let stop = stopped()?;
    let metrics = Metrics::new();
    count_children(&metrics);
    let admin = match admin {
        Some(address) => Some(Admin::bind(address).await?),
        None => None,
    };
    let (ready, readiness) = watch::channel(Readiness::Starting);
    let state = |error| RunError::State(state_dir.display().to_string(), error);
    std::fs::create_dir_all(&state_dir).map_err(state)?;

    let mut shares = None;
    let backend: Arc<dyn Backend> = match backend {
        BackendSettings::Share { exports } => {
            let opened = Shares::new(installation.clone(), mount_options.clone(), &exports, &state_dir)
                .map_err(state)?;
            let opened = Arc::new(opened);
            shares = Some(Arc::clone(&opened));
            opened
        }
        BackendSettings::Pool { directory, image: size, filesystem, overcommit } => {
            let root = match size {
                Some(bytes) => image::Image::open_as(&directory, bytes, image_kind(filesystem))?.root,
                None => directory,
            };
            Arc::new(Pool::open(&root, installation.clone(), overcommit)?)
        }
    };
    if let Err(why) = backend.enforcement() {
        tracing::info!(target: logs::ALWAYS, %why, "sizes are not enforced here");
    }
    let volumes = Volumes::new(backend);
    let limits = Limits { operation: operation_timeout };
    let topology = node.as_ref().map(|node| node.topology.clone()).unwrap_or_default();
    let identity = csi::Identity::new(driver_name.clone(), !topology.is_empty(), readiness.clone());
    // Only a pool is bound to a place; a server can be reached from anywhere.
    let place = if shares.is_none() { topology } else { Default::default() };
    let mut routes = Routes::new(IdentityServer::new(identity));
    if controller {
        routes = routes.add_service(ControllerServer::new(csi::Controller {
            volumes: volumes.clone(),
            installation: installation.clone(),
            servers: servers.clone(),
            limits,
            known_nodes,
            max_volumes: node.as_ref().and_then(|node| node.max_volumes),
            topology: place,
            inflight: Default::default(),
        }));
        let held = match kubernetes {
            Some(wanted) => cluster(wanted, &driver_name, &metrics, &volumes, &servers).await?,
            None => None,
        };
        tokio::spawn(reap::whenever_held(
            held,
            volumes.clone(),
            metrics.clone(),
            trash_lifetime,
            reap_interval,
        ));
    }
    let mut mounter = None;
    let mut registration = None;
    if let Some(NodeSettings { id, max_volumes, topology, registration: asked, inline }) = node {
        registration = asked;
        let fullness = csi::Fullness::default();
        metrics.families(fullness.clone());
        let node = csi::Node {
            id,
            max_volumes,
            topology,
            volumes: volumes.clone(),
            servers,
            defaults: mount_options,
            mounter: mounter.insert(Mounter::new().map_err(RunError::Child)?).clone(),
            staged: csi::Notes::open(&state_dir).map_err(state)?,
            limits,
            inflight: Default::default(),
            inlines: inline_volumes(&volumes, inline, installation),
            metrics: metrics.clone(),
            fullness,
        };
        tokio::spawn(node.clone().tidy());
        routes = routes.add_service(NodeServer::new(node));
    }

    let listener = serve::listen(&endpoint)?;
    tracing::info!(
        target: logs::ALWAYS, driver = driver_name, version = env!("CARGO_PKG_VERSION"),
        endpoint = %endpoint.display(), "serving CSI 1.13"
    );
    let registrar = registration
        .map(|asked| Registrar::open(&asked.directory, driver_name, asked.endpoint))
        .transpose()?;
    if let Some(admin) = admin {
        let standing = registrar.as_ref().map(Registrar::standing);
        tokio::spawn(serve_admin(admin, metrics.clone(), readiness, standing, stop.clone()));
    }
    tokio::spawn(keep_ready(volumes, controller, ready));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RETIRE).await;
            shares.iter().for_each(|shares| shares.retire());
            mounter.iter().for_each(Mounter::retire);
        }
    });
    let (alive, over) = oneshot::channel::<()>();
    let registering = registrar.map(|registrar| {
        let stop = ended(stop.clone());
        tokio::spawn(async move {
            let _alive = alive;
            registrar.serve(stop).await
        })
    });
    // A registration that ended, however it did, ends the driver: without the kubelet nobody asks it anything.
    let end = async {
        match &registering {
            Some(_) => drop(over.await),
            None => ended(stop).await,
        }
    };
    serve::serve(routes, listener, metrics, end, grace).await?;
    if let Some(registering) = registering {
        registering.await.map_err(RunError::Registrar)??;
    }
    tracing::info!(target: logs::ALWAYS, "stopped");
    Ok(())
}

/// Where inline volumes live. In a pool those that there are can be removed also when there may be no new ones.
fn inline_volumes(
    volumes: &Volumes,
    inline: Option<InlineSettings>,
    installation: String,
) -> Option<csi::InlineVolumes> {
    let limit = inline.as_ref().map(|inline| inline.limit);
    let (export, options) = inline.and_then(|inline| inline.share).unzip();
    let options = options.unwrap_or_default();
    let place = volumes.backend().place(export.as_ref(), &options, &SecretOptions::default())?;
    Some(csi::InlineVolumes {
        place,
        options,
        limit,
        installation,
        freed: Arc::default(),
        late: Arc::default(),
    })
}

/// Sets going what is asked of the cluster's API server; what tells whether this process holds its Lease, if it wants one.
async fn cluster(
    wanted: KubernetesSettings,
    driver: &str,
    metrics: &Metrics,
    volumes: &Volumes,
    servers: &AllowedServers,
) -> Result<Option<watch::Receiver<bool>>, RunError> {
    let KubernetesSettings { startup_taint, lease } = wanted;
    let client = kubernetes::connect().await?;
    if startup_taint {
        tokio::spawn(kubernetes::StartupTaint::of(driver).remove(client.clone(), metrics.clone()));
    }
    let held = lease.map(|(namespace, name)| {
        let (sender, held) = watch::channel(false);
        let lease = kubernetes::Lease::new(client.clone(), &namespace, &name, kubernetes::identity());
        tokio::spawn(lease.keep(sender));
        held
    });
    let (driver, volumes, servers) = (driver.to_owned(), volumes.clone(), servers.clone());
    tokio::spawn(claims::whenever_held(held.clone(), client, driver, volumes, servers));
    Ok(held)
}

fn image_kind(filesystem: PoolFilesystem) -> Option<image::Kind> {
    match filesystem {
        PoolFilesystem::Auto => None,
        PoolFilesystem::Btrfs => Some(image::Kind::Btrfs),
        PoolFilesystem::Xfs => Some(image::Kind::Xfs),
    }
}

/// Turns true when the process is asked to end.
fn stopped() -> Result<watch::Receiver<bool>, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(target: logs::ALWAYS, "asked to stop: finishing what is under way");
        sender.send_replace(true);
    });
    Ok(receiver)
}

async fn ended(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which it never is before it has spoken.
    drop(stop.wait_for(|stopped| *stopped).await);
}

fn count_children(metrics: &Metrics) {
    metrics.children(
        || child::ALIVE.load(Ordering::Relaxed),
        || child::KILLED.iter().map(|(role, count)| (*role, count.load(Ordering::Relaxed))).collect(),
    );
}

async fn serve_admin(
    admin: Admin,
    metrics: Metrics,
    readiness: watch::Receiver<Readiness>,
    standing: Option<watch::Receiver<Standing>>,
    stop: watch::Receiver<bool>,
) {
    let (sender, ready) = watch::channel(Err("starting".to_owned()));
    let mut from = readiness;
    let follow = async move {
        // Where nobody is to be registered, nothing ever changes about that.
        let (_kept, mut standing) = match standing {
            Some(standing) => (None, standing),
            None => {
                let (sender, standing) = watch::channel(Standing::Accepted);
                (Some(sender), standing)
            }
        };
        loop {
            let now = match (&*from.borrow_and_update(), &*standing.borrow_and_update()) {
                (Readiness::Starting, _) => Err("starting".to_owned()),
                (Readiness::Unfit(why), _) => Err(why.clone()),
                (Readiness::Ready, Standing::Accepted) => Ok(()),
                (Readiness::Ready, Standing::Waiting) => {
                    Err("the kubelet has not registered this driver yet".to_owned())
                }
                (Readiness::Ready, Standing::Refused(why)) => Err(why.clone()),
            };
            drop(sender.send_replace(now));
            let changed = tokio::select! {
                changed = from.changed() => changed,
                changed = standing.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    };
    tokio::spawn(follow);
    if let Err(error) = admin.serve(metrics, ready, ended(stop)).await {
        tracing::error!(%error, "health and metrics are no longer served");
    }
}

/// Looks now and then whether the driver could work: a pool that is gone, a kernel without NFS.
///
/// A server that is down makes nobody unready: other servers' volumes work on, and restarting this process would help none.
async fn keep_ready(volumes: Volumes, controller: bool, ready: watch::Sender<Readiness>) {
    loop {
        let now = match volumes.backend().kind() {
            crate::volume::Kind::Pool => match volumes.ready(Instant::now() + LOOK_LIMIT).await {
                Ok(()) => Readiness::Ready,
                Err(trouble) => Readiness::Unfit(trouble.to_string()),
            },
            crate::volume::Kind::Share => match kernel_has_nfs() {
                true => Readiness::Ready,
                false if controller => Readiness::Unfit(
                    "this machine's kernel has no NFS client, so no export can be reached: load the modules nfs and nfsv4".into(),
                ),
                false => Readiness::Unfit("this node's kernel has no NFS client: load the modules nfs and nfsv4".into()),
            },
        };
        ready.send_if_modified(|held| {
            let changed = *held != now;
            if changed {
                match &now {
                    Readiness::Unfit(why) => tracing::warn!(%why, "not ready"),
                    _ => tracing::info!("ready"),
                }
                *held = now.clone();
            }
            changed
        });
        tokio::time::sleep(LOOK).await;
    }
}

/// /proc/filesystems names what is loaded; where modules can be loaded, the first mount does so.
fn kernel_has_nfs() -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let listed = known.lines().any(|line| matches!(line.split_whitespace().last(), Some("nfs" | "nfs4")));
    let loadable = || {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let index =
            std::fs::read_to_string(format!("/lib/modules/{release}/modules.dep")).unwrap_or_default();
        index
            .lines()
            .any(|line| line.split(':').next().is_some_and(|module| module.contains("/nfs/nfsv4.ko")))
    };
    listed || loadable()
}
