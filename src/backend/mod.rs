//! Where volumes are kept: on exports that exist already ([`share`]) or in a pool of our own ([`pool`]).
//!
//! Both keep the same tree of records beneath `.kuration/` and do the same things to it, so there is one [`store`], which
//! is plain blocking code below one open directory. What differs is where it runs: a pool's in this process, a share's
//! in a child that can be killed when the server stops answering ([`crate::child`]). A request to it is a [`Job`], which
//! crosses that border as JSON, and so does the [`Answer`], errors and all.

mod fault;
mod job;
pub mod pool;
pub mod share;
pub mod store;
mod volumes;

pub use fault::{
    CapacityFault, CreateError, DeleteError, ExpandError, FindError, ListError, PublishError, Trouble,
    UnpublishError,
};
pub use job::{Answer, Ask, Job, Page, Reaped, Room};
pub use volumes::{Backend, Handle, Local, Place, Position, Volumes};
