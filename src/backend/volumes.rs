//! Volumes, wherever they live: what the porch asks for, and the two places that can answer.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::time::Instant;

use super::job::{Ask, Reaped};
use super::{
    Answer, CapacityFault, CreateError, DeleteError, ExpandError, FindError, Job, ListError, Page,
    PublishError, Room, Trouble, UnpublishError,
};
use crate::plan::Origin;
use crate::volume::{
    Claim, Export, Identity, Key, Kind, MountOptions, Publication, SecretOptions, Usage, Volume, VolumeId,
    Wanted,
};

/// One export, reached in one way, or the pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// An export and the options to mount it with.
    Share {
        /// Which one.
        export: Export,
        /// How.
        options: MountOptions,
        /// What a secret adds to that.
        secret: SecretOptions,
    },
    /// The pool of this process.
    Pool,
}

impl Place {
    /// How it is called in a list's token, and by which places are ordered.
    pub fn name(&self) -> String {
        match self {
            Self::Share { export, .. } => export.to_string(),
            Self::Pool => "pool".to_owned(),
        }
    }
}

/// A volume that a request speaks of: its id, and what a secret of the request says of reaching it.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The id.
    pub id: VolumeId,
    /// Mount options out of the request's secret.
    pub secret: SecretOptions,
}

/// Where a list goes on: behind this volume of this place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// [`Place::name`].
    pub place: String,
    /// The last volume that was listed.
    pub key: Key,
}

/// A volume's directory on this machine, for a node to bind.
pub struct Local {
    /// The directory, opened.
    pub directory: OwnedFd,
    /// What the mount table shows where it is bound.
    pub origin: Origin,
    /// The volume.
    pub volume: Volume,
}

/// A place to keep volumes in.
#[tonic::async_trait]
pub trait Backend: Send + Sync {
    /// Shares or a pool.
    fn kind(&self) -> Kind;

    /// Has a job done by the store of `place`, answered by `deadline`.
    async fn run(&self, place: &Place, ask: Ask, deadline: Instant) -> Result<Answer, Trouble>;

    /// The place that a class's parameters and mount options speak of; `None` where they name none.
    fn place(&self, export: Option<&Export>, options: &MountOptions, secret: &SecretOptions)
    -> Option<Place>;

    /// The places that are known now.
    fn places(&self) -> Vec<Place>;

    /// The place that an id speaks of; `None` where it is not one of this kind.
    fn locate(&self, handle: &Handle) -> Result<Option<Place>, Trouble>;

    /// Removes trash that is older than `lifetime` (in seconds), or no more than Pods' scratch. Unlike [`Backend::run`] this may
    /// take hours, and disturbs no request. Dropped, it stops before the next removal.
    async fn reap(&self, place: &Place, lifetime: Option<u64>) -> Result<Reaped, Trouble>;

    /// The volume's directory, where it is on this machine.
    async fn local(&self, id: &VolumeId) -> Result<Option<Local>, FindError>;

    /// How full a local volume is.
    async fn usage(&self, local: Local) -> Result<Usage, Trouble>;

    /// Whether volumes' sizes are enforced where this runs; a sentence says why not.
    fn enforcement(&self) -> Result<(), String>;
}

/// All volumes of one driver.
#[derive(Clone)]
pub struct Volumes {
    backend: Arc<dyn Backend>,
}

/// The answer was to another question: a child of another version, which can't be, since it is this program's own file.
fn astray() -> Trouble {
    Trouble::Own("a store answered another question than it was asked".to_owned())
}

macro_rules! asked {
    ($self:ident, $place:expr, $id:expr, $job:expr, $deadline:expr, $answer:ident) => {
        match $self.run($place, $id, $job, $deadline).await? {
            Answer::$answer(answer) => answer?,
            Answer::Refused(trouble) => return Err(trouble.into()),
            _ => return Err(astray().into()),
        }
    };
}

/// The id of a volume, from what its record says and no request: it must be the same at each retry and in each list.
fn id_of(place: &Place, volume: &Volume, identity: Identity, key: Key) -> VolumeId {
    match place {
        Place::Share { export, .. } => VolumeId::share(export, &volume.record.mount_options, identity, key),
        Place::Pool => VolumeId::Pool { identity, key },
    }
}

impl Volumes {
    /// The volumes of `backend`.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// Where they are kept.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    async fn run(
        &self,
        place: &Place,
        id: Option<&VolumeId>,
        job: Job,
        deadline: Instant,
    ) -> Result<Answer, Trouble> {
        let ask = Ask { identity: id.and_then(VolumeId::identity), job };
        self.backend.run(place, ask, deadline).await
    }

    /// Makes a volume, or finds the one that an earlier try made.
    pub async fn create(
        &self,
        place: &Place,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<(VolumeId, Volume), CreateError> {
        let key = wanted.key;
        let (identity, volume) = asked!(self, place, None, Job::Create(Box::new(wanted)), deadline, Create);
        Ok((id_of(place, &volume, identity, key), volume))
    }

    /// Moves a volume to the trash; success where there is none.
    pub async fn delete(&self, handle: &Handle, deadline: Instant) -> Result<(), DeleteError> {
        let Some(place) = self.backend.locate(handle)? else { return Ok(()) };
        asked!(self, &place, Some(&handle.id), Job::Delete { key: handle.id.key() }, deadline, Delete);
        Ok(())
    }

    /// Looks a volume up.
    pub async fn find(&self, handle: &Handle, deadline: Instant) -> Result<Volume, FindError> {
        let place = self.backend.locate(handle)?.ok_or(FindError::NotFound)?;
        let (_, volume) =
            asked!(self, &place, Some(&handle.id), Job::Find { key: handle.id.key() }, deadline, Find);
        Ok(volume)
    }

    /// Looks the volume of `key` up at `place`, by which its id is known too.
    pub async fn look_up(
        &self,
        place: &Place,
        key: Key,
        deadline: Instant,
    ) -> Result<(VolumeId, Volume), FindError> {
        let (identity, volume) = asked!(self, place, None, Job::Find { key }, deadline, Find);
        Ok((id_of(place, &volume, identity, key), volume))
    }

    /// Up to `most` volumes of one place behind `after`.
    pub async fn page(
        &self,
        place: &Place,
        after: Option<Key>,
        most: usize,
        deadline: Instant,
    ) -> Result<Page, ListError> {
        Ok(asked!(self, place, None, Job::List { after, most }, deadline, List))
    }

    /// Notes that a node has a volume, of which it may have `limit` in all.
    pub async fn publish(
        &self,
        handle: &Handle,
        publication: Publication,
        limit: Option<u64>,
        deadline: Instant,
    ) -> Result<(), PublishError> {
        let place = self.backend.locate(handle)?.ok_or(PublishError::NotFound)?;
        let job = Job::Publish { key: handle.id.key(), publication, limit };
        asked!(self, &place, Some(&handle.id), job, deadline, Publish);
        Ok(())
    }

    /// Forgets that a node, or any node, has a volume; success where there is no such volume.
    pub async fn unpublish(
        &self,
        handle: &Handle,
        node: Option<String>,
        deadline: Instant,
    ) -> Result<(), UnpublishError> {
        let Some(place) = self.backend.locate(handle)? else { return Ok(()) };
        asked!(
            self,
            &place,
            Some(&handle.id),
            Job::Unpublish { key: handle.id.key(), node },
            deadline,
            Unpublish
        );
        Ok(())
    }

    /// Grows a volume; its size afterwards, in bytes.
    pub async fn expand(
        &self,
        handle: &Handle,
        (required, limit): (i64, i64),
        deadline: Instant,
    ) -> Result<u64, ExpandError> {
        let place = self.backend.locate(handle)?.ok_or(ExpandError::NotFound)?;
        let job = Job::Expand { key: handle.id.key(), required, limit };
        Ok(asked!(self, &place, Some(&handle.id), job, deadline, Expand))
    }

    /// Records whose a volume is; whether that was news.
    pub async fn claim(&self, handle: &Handle, claim: Claim, deadline: Instant) -> Result<bool, ExpandError> {
        let place = self.backend.locate(handle)?.ok_or(ExpandError::NotFound)?;
        let job = Job::Claim { key: handle.id.key(), claim };
        Ok(asked!(self, &place, Some(&handle.id), job, deadline, Claim))
    }

    /// Up to `most` volumes of all known places behind `after`, with their ids, and where to go on.
    ///
    /// A place that does not answer makes all of it an error: a shorter list would say that its volumes are gone.
    pub async fn list(
        &self,
        after: Option<Position>,
        most: usize,
        deadline: Instant,
    ) -> Result<(Vec<(VolumeId, Volume)>, Option<Position>), ListError> {
        let mut places = self.backend.places();
        places.sort_by_key(Place::name);
        places.dedup_by_key(|place| place.name());
        let mut listed = Vec::new();
        let mut last = None;
        for place in places {
            let name = place.name();
            let behind = match &after {
                Some(after) if name < after.place => continue,
                Some(after) if name == after.place => Some(after.key),
                _ => None,
            };
            let room = most - listed.len();
            if room == 0 {
                // Whether there is more is not known without asking; an empty last page is allowed.
                return Ok((listed, last));
            }
            let page = self.page(&place, behind, room, deadline).await?;
            for volume in page.volumes {
                let Some(identity) = page.identity else { break };
                let key = volume.record.key;
                last = Some(Position { place: name.clone(), key });
                listed.push((id_of(&place, &volume, identity, key), volume));
            }
            if page.more {
                return Ok((listed, last));
            }
        }
        Ok((listed, None))
    }

    /// Free space of one place, or of all known ones together.
    pub async fn capacity(&self, place: Option<Place>, deadline: Instant) -> Result<Room, CapacityFault> {
        let mut places = place.map_or_else(|| self.backend.places(), |place| vec![place]);
        places.sort_by_key(Place::name);
        places.dedup_by_key(|place| place.name());
        let mut sum = Room::default();
        for place in places {
            let room = asked!(self, &place, None, Job::Capacity, deadline, Capacity);
            sum.available = sum.available.saturating_add(room.available);
            sum.largest = sum.largest.max(room.largest);
        }
        Ok(sum)
    }

    /// Whether every known place answers.
    pub async fn ready(&self, deadline: Instant) -> Result<(), Trouble> {
        for place in self.backend.places() {
            asked!(self, &place, None, Job::Ping, deadline, Ping);
        }
        Ok(())
    }
}
