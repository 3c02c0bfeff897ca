//! Volumes as directories of NFS exports that exist already.
//!
//! Each export is mounted once, by a child of its own, and stays mounted there: nowhere in this machine's mount table, but
//! as an open directory of that child ([`crate::mount::mount_detached`]). So a request costs no mount, nothing is left
//! behind however the driver ends, and a server that hangs takes one child with it, which is killed.

mod known;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::store::Store;
use super::{Answer, Ask, Backend, FindError, Handle, Job, Local, Place, Reaped, Trouble};
use crate::child::{self, Child, Lost};
use crate::mount::{Found, MountError, mount_detached, negotiate};
use crate::volume::{Export, ExportName, Key, Kind, MountOptions, SecretOptions, Usage, VolumeId};
use known::Known;

/// Requests that one export's child works on at once. Each waits for the server most of the time.
const THREADS: usize = 16;

/// How long an export that did not answer is left in peace: requests are refused at once instead of each waiting for its
/// deadline. Short, since the server may be back any moment.
const PEACE: Duration = Duration::from_secs(2);

/// An export that nobody asked for this long is let go; mounting it anew takes milliseconds.
const IDLE: Duration = Duration::from_secs(900);

/// A tree of millions of files takes its time over NFS.
const REAP: Duration = Duration::from_secs(6 * 3600);

type Worker = Child<Ask, Answer>;

/// The exports that this driver works on.
pub struct Shares {
    installation: String,
    /// Options that every mount gets, before its own.
    defaults: MountOptions,
    /// Options of our own mounts, behind all others.
    own: MountOptions,
    known: Known,
    bases: Mutex<HashMap<Place, Arc<Base>>>,
}

#[derive(Default)]
struct Base {
    /// Held while it is being mounted, so that it is mounted once.
    worker: tokio::sync::Mutex<Option<Arc<Worker>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: Option<Instant>,
    silent_since: Option<Instant>,
    /// Volumes whose creation was given up in the middle, and of which nothing was heard since: they may have been made.
    unsure: HashSet<Key>,
}

impl Shares {
    /// Shares of `installation`; exports that were used before are read from `state`, those in `exports` are known too.
    pub fn new(
        installation: String,
        defaults: MountOptions,
        exports: &[(Export, MountOptions)],
        state: &Path,
    ) -> std::io::Result<Self> {
        let known = Known::open(state)?;
        for (export, options) in exports {
            known.add(export, &defaults.and(options).reach(), &SecretOptions::default());
        }
        // Another controller may have made or deleted what a look-up of ours found a moment ago.
        let own = MountOptions::parse(["lookupcache=none"]).map_err(std::io::Error::other)?;
        Ok(Self { installation, defaults, own, known, bases: Mutex::default() })
    }

    /// Lets exports go that nobody asks for any more.
    pub fn retire(&self) {
        let mut bases = self.bases.lock();
        bases.retain(|_, base| base.state().used.is_none_or(|used| used.elapsed() < IDLE));
    }

    fn base(&self, place: &Place) -> Arc<Base> {
        let mut bases = self.bases.lock();
        let base = Arc::clone(bases.entry(place.clone()).or_default());
        base.state().used = Some(Instant::now());
        base
    }

    /// Starts a child and has it mount the export.
    async fn open(
        &self,
        export: &Export,
        options: &MountOptions,
        secret: &SecretOptions,
        deadline: Instant,
    ) -> Result<(Worker, Found), Trouble> {
        let own = |error: std::io::Error| Trouble::Own(format!("a child process can't be started: {error}"));
        let worker = Mutex::new(Arc::new(Worker::start("share").map_err(own)?));
        let current = || Arc::clone(&worker.lock());
        let ours = options.and(&self.own);
        let found =
            negotiate(export, export.path(), (&ours, secret), (false, false), deadline, |mount, until| {
                let child = current();
                let worker = &worker;
                async move {
                    let (source_, address) = (mount.source.clone(), mount.address.to_string());
                    let began = Instant::now();
                    let job = Job::Open { mount: Box::new(mount), installation: self.installation.clone() };
                    match child.ask(&Ask { identity: None, job }, until).await {
                        Ok(Answer::Open(Ok(()))) => Ok(()),
                        Ok(Answer::Open(Err(Trouble::Mount(error)))) => Err(error),
                        Ok(_) => Err(MountError::Other {
                            source_,
                            why: "the child process misunderstood".to_owned(),
                        }),
                        Err(lost) => {
                            // The next address needs a new child.
                            if let Ok(new) = Worker::start("share") {
                                *worker.lock() = Arc::new(new);
                            }
                            Err(match lost {
                                Lost::Deadline => MountError::TimedOut {
                                    source_,
                                    address,
                                    seconds: began.elapsed().as_secs(),
                                },
                                Lost::Died => MountError::Other { source_, why: lost.to_string() },
                            })
                        }
                    }
                }
            });
        let found = found.await.map_err(Trouble::Mount)?;
        self.known.add(export, options, secret);
        let worker = worker.into_inner();
        let worker = Arc::into_inner(worker);
        worker
            .map(|worker| (worker, found))
            .ok_or_else(|| Trouble::Own("the child process is still in use".to_owned()))
    }

    /// The child that works on `place`. `unsure` goes along into an error: whether what it is for may have been done before.
    async fn worker(
        &self,
        place: &Place,
        base: &Base,
        unsure: bool,
        deadline: Instant,
    ) -> Result<Arc<Worker>, Trouble> {
        let Place::Share { export, options, secret } = place else {
            return Err(Trouble::Own("a pool is not a share".to_owned()));
        };
        let silent_since = base.state().silent_since;
        if let Some(since) = silent_since.filter(|since| since.elapsed() < PEACE) {
            return Err(Trouble::Down {
                place: export.to_string(),
                seconds: since.elapsed().as_secs(),
                unsure,
            });
        }
        let mut worker = tokio::time::timeout_at(deadline, base.worker.lock()).await.map_err(|_| {
            let (source_, address) = (export.to_string(), export.server().to_owned());
            Trouble::Mount(MountError::TimedOut { source_, address, seconds: 0 })
        })?;
        if let Some(worker) = worker.as_ref().filter(|worker| !worker.is_dead()) {
            return Ok(Arc::clone(worker));
        }
        let opened = self.open(export, options, secret, deadline).await.inspect_err(|trouble| {
            if matches!(trouble, Trouble::Mount(MountError::TimedOut { .. })) {
                base.silent();
            }
        });
        let (opened, found) = opened.map_err(|trouble| match trouble {
            Trouble::Mount(error) if unsure => Trouble::MountAgain(error),
            other => other,
        })?;
        tracing::info!(%export, version = %found.version, address = %found.address, %options, "export mounted");
        let opened = Arc::new(opened);
        *worker = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

impl Base {
    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    fn silent(&self) {
        self.state().silent_since = Some(Instant::now());
    }

    /// A request, to create `key` if that is one, was given up in the middle.
    fn given_up(&self, key: Option<Key>) {
        self.state().unsure.extend(key);
    }

    /// The export answers; what is known of `key` now is certain.
    fn answered(&self, key: Option<Key>) {
        let mut state = self.state();
        state.silent_since = None;
        if let Some(key) = key {
            state.unsure.remove(&key);
        }
    }

    async fn forget(&self, worker: &Arc<Worker>) {
        let mut current = self.worker.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, worker)) {
            *current = None;
        }
    }
}

#[tonic::async_trait]
impl Backend for Shares {
    fn kind(&self) -> Kind {
        Kind::Share
    }

    async fn run(&self, place: &Place, ask: Ask, deadline: Instant) -> Result<Answer, Trouble> {
        let base = self.base(place);
        let began = Instant::now();
        let mut tries = 0;
        let created = match &ask.job {
            Job::Create(wanted) => Some(wanted.key),
            _ => None,
        };
        loop {
            tries += 1;
            let unsure = created.is_some_and(|key| base.state().unsure.contains(&key));
            let worker = self.worker(place, &base, unsure, deadline).await?;
            match worker.ask(&ask, deadline).await {
                // Every job can be done twice; a server that came back with other file handles needs a new mount.
                Ok(answer) if tries == 1 && matches!(answer.trouble(), Some(Trouble::Stale { .. })) => {
                    base.forget(&worker).await;
                }
                Ok(answer) => {
                    base.answered(created);
                    return Ok(answer);
                }
                // Another request's deadline killed the child under this one, which it may have done.
                Err(Lost::Died) if tries <= 2 => {
                    base.given_up(created);
                    base.forget(&worker).await;
                }
                Err(lost) => {
                    // A child that was not killed answers others: then it is this request that was too short or too large.
                    if lost == Lost::Died || worker.is_dead() {
                        base.silent();
                    }
                    base.given_up(created);
                    return Err(Trouble::Hung { place: place.name(), seconds: began.elapsed().as_secs() });
                }
            }
        }
    }

    fn place(
        &self,
        export: Option<&Export>,
        options: &MountOptions,
        secret: &SecretOptions,
    ) -> Option<Place> {
        let (options, secret) = (self.defaults.and(options).reach(), secret.clone());
        export.map(|export| Place::Share { export: export.clone(), options, secret })
    }

    fn places(&self) -> Vec<Place> {
        self.known
            .all()
            .into_iter()
            .map(|(export, options, secret)| Place::Share { export, options, secret })
            .collect()
    }

    fn locate(&self, handle: &Handle) -> Result<Option<Place>, Trouble> {
        let place = |export: &Export, options: Option<&MountOptions>| {
            let known = self.known.options_of(export);
            // A request without a secret reaches what one with a secret reached before, as long as this process lives.
            let secret = match &known {
                Some((_, known)) if handle.secret.is_empty() => known.clone(),
                _ => handle.secret.clone(),
            };
            let options = options.cloned().or(known.map(|(options, _)| options));
            let options = options.unwrap_or_else(|| self.defaults.reach());
            Place::Share { export: export.clone(), options, secret }
        };
        match &handle.id {
            VolumeId::Share { export: ExportName::Named(export, options), .. } => {
                Ok(Some(place(export, options.as_ref())))
            }
            VolumeId::Share { export: ExportName::Hashed(hash), .. } => {
                let export = self.known.of_hash(hash).ok_or_else(|| Trouble::UnknownExport(hash.clone()))?;
                Ok(Some(place(&export, None)))
            }
            VolumeId::Peer { export, .. } => Ok(Some(place(export, None))),
            VolumeId::Pool { .. } => Ok(None),
        }
    }

    async fn reap(&self, place: &Place, lifetime: Option<u64>) -> Result<Reaped, Trouble> {
        let Place::Share { export, options, secret } = place else { return Ok(Reaped::default()) };
        // A child of its own, so that a removal which takes hours holds up no request, and the other way round.
        let (worker, _) =
            self.open(export, options, secret, Instant::now() + Duration::from_secs(60)).await?;
        let ask = Ask { identity: None, job: Job::Reap { lifetime } };
        match worker.ask(&ask, Instant::now() + REAP).await {
            Ok(Answer::Reap(reaped)) => reaped,
            Ok(_) => Err(Trouble::Own("a store answered another question".to_owned())),
            Err(_) => Err(Trouble::Hung { place: export.to_string(), seconds: REAP.as_secs() }),
        }
    }

    async fn local(&self, _id: &VolumeId) -> Result<Option<Local>, FindError> {
        Ok(None)
    }

    async fn usage(&self, _local: Local) -> Result<Usage, Trouble> {
        Err(Trouble::Own("a share's volume is measured where it is mounted".to_owned()))
    }

    fn enforcement(&self) -> Result<(), String> {
        Err("a share's server sets no limit per directory: sizes are recorded, not enforced".to_owned())
    }
}

/// The life of an export's child: mounts what it is first asked to, and works on it until its parent ends.
pub fn work() -> std::io::Result<()> {
    let store: OnceLock<Store> = OnceLock::new();
    // The modes that are asked for are the modes that are made.
    rustix::process::umask(rustix::fs::Mode::empty());
    child::serve(THREADS, move |ask: Ask| match ask.job {
        Job::Open { mount, installation } => {
            Answer::Open(mount_detached(&mount).map_err(Trouble::Mount).and_then(|root| {
                let file_system = Box::new(super::pool::fs::Plain::nfs());
                let opened = Store::new(root, mount.source.clone(), installation, file_system, None);
                store.set(opened).map_err(|_| Trouble::Own("the export is open already".to_owned()))
            }))
        }
        job => match store.get() {
            Some(store) => store.answer(Ask { identity: ask.identity, job }),
            None => Answer::Refused(Trouble::Own("the export is not open".to_owned())),
        },
    })
}
