//! Which code a fault has: one exhaustive table per operation.
//!
//! external-provisioner reads UNAVAILABLE, ABORTED, CANCELLED and DEADLINE_EXCEEDED of CreateVolume as "a volume may be in
//! the making", and then never lets go of the claim. So a creation answers with those only where that is so.

use tonic::{Code, Status};

use crate::backend::{
    CapacityFault, CreateError, DeleteError, ExpandError, FindError, ListError, PublishError, Trouble,
    UnpublishError,
};
use crate::mount::{MeasureError, MountError, UnmountError};
use crate::volume::{
    AccessError, CapacityError, DirectoryError, ExportError, InlineError, NameError, NotAllowed, OptionError,
    ParameterError,
};

/// Why an export can't be mounted.
pub fn mount_code(error: &MountError) -> Code {
    match error {
        MountError::Resolve { .. } | MountError::Refused { .. } | MountError::Unreachable { .. } => {
            Code::Unavailable
        }
        MountError::TimedOut { .. } => Code::DeadlineExceeded,
        MountError::Denied { .. }
        | MountError::NoSuchPath { .. }
        | MountError::NoLockDaemon { .. }
        | MountError::NoClient(_) => Code::FailedPrecondition,
        MountError::Version { .. } | MountError::Options { .. } | MountError::Target { .. } => {
            Code::InvalidArgument
        }
        MountError::Other { .. } => Code::Internal,
    }
}

/// What is wrong with the export or pool.
pub fn trouble_code(trouble: &Trouble) -> Code {
    match trouble {
        Trouble::Mount(error) => mount_code(error),
        Trouble::MountAgain(_) | Trouble::Down { .. } | Trouble::Stale { .. } => Code::Unavailable,
        Trouble::Hung { .. } => Code::DeadlineExceeded,
        Trouble::Locked { .. } => Code::Aborted,
        Trouble::ReadOnly { .. }
        | Trouble::Full { .. }
        | Trouble::Denied { .. }
        | Trouble::Another { .. }
        | Trouble::UnknownExport(_) => Code::FailedPrecondition,
        Trouble::Damaged { .. } | Trouble::Io { .. } | Trouble::Own(_) => Code::Internal,
    }
}

/// A code of CreateVolume where nothing is left running, and nothing was made.
fn terminal(code: Code) -> Code {
    match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled => Code::Internal,
        other => other,
    }
}

/// CreateVolume.
pub fn create_code(error: &CreateError) -> Code {
    match error {
        CreateError::Trouble(trouble) => match trouble {
            // Given up in the middle, now or before: the volume may be there, and the retry will find it.
            Trouble::Hung { .. } | Trouble::MountAgain(_) | Trouble::Down { unsure: true, .. } => {
                trouble_code(trouble)
            }
            other => terminal(trouble_code(other)),
        },
        CreateError::Differs(_) => Code::AlreadyExists,
        CreateError::Occupied { .. } => Code::FailedPrecondition,
        CreateError::Nested { .. } | CreateError::OtherFileSystem { .. } => Code::InvalidArgument,
        CreateError::TooLarge { .. } => Code::OutOfRange,
    }
}

/// DeleteVolume.
pub fn delete_code(error: &DeleteError) -> Code {
    match error {
        DeleteError::Trouble(trouble) => trouble_code(trouble),
        DeleteError::InUse(_) => Code::FailedPrecondition,
    }
}

/// ValidateVolumeCapabilities, ControllerGetVolume and all that only look.
pub fn find_code(error: &FindError) -> Code {
    match error {
        FindError::Trouble(trouble) => trouble_code(trouble),
        FindError::NotFound => Code::NotFound,
    }
}

/// ControllerPublishVolume.
pub fn publish_code(error: &PublishError) -> Code {
    match error {
        PublishError::Trouble(trouble) => trouble_code(trouble),
        PublishError::NotFound => Code::NotFound,
        PublishError::Differs { .. } => Code::AlreadyExists,
        PublishError::Elsewhere { .. } => Code::FailedPrecondition,
        PublishError::Limit { .. } => Code::ResourceExhausted,
    }
}

/// ControllerUnpublishVolume.
pub fn unpublish_code(error: &UnpublishError) -> Code {
    match error {
        UnpublishError::Trouble(trouble) => trouble_code(trouble),
    }
}

/// ControllerExpandVolume.
pub fn expand_code(error: &ExpandError) -> Code {
    match error {
        ExpandError::Trouble(trouble) => trouble_code(trouble),
        ExpandError::NotFound => Code::NotFound,
        ExpandError::Shrink { .. } | ExpandError::TooLarge { .. } => Code::OutOfRange,
    }
}

/// ListVolumes: an export that is down makes the list fail, never shorter.
pub fn list_code(error: &ListError) -> Code {
    match error {
        ListError::Trouble(Trouble::Damaged { .. }) => Code::Internal,
        ListError::Trouble(_) => Code::Unavailable,
    }
}

/// GetCapacity.
pub fn capacity_code(error: &CapacityFault) -> Code {
    match error {
        CapacityFault::Trouble(trouble) => trouble_code(trouble),
    }
}

/// NodeUnpublishVolume and NodeUnstageVolume.
pub fn unmount_code(error: &UnmountError) -> Code {
    match error {
        UnmountError::Busy { .. } => Code::FailedPrecondition,
        UnmountError::Other { .. } => Code::Internal,
    }
}

/// NodeGetVolumeStats.
pub fn measure_code(error: &MeasureError) -> Code {
    match error {
        MeasureError::Hung(_) => Code::Unavailable,
        MeasureError::Gone => Code::NotFound,
        MeasureError::Failed(_) => Code::Internal,
    }
}

/// Longest message, in bytes: what an event of Kubernetes holds. What a request said may stand in a message, and headers, in
/// which it travels, are limited.
const LONGEST: usize = 1024;

/// How much of that is for the end of a message, which says what to do.
const END: usize = LONGEST / 2;

/// `message`, or its beginning and its end: what is long stands in the middle, a path or what a kernel said.
fn short(message: String) -> String {
    if message.len() <= LONGEST {
        return message;
    }
    let begin = &message[..message.floor_char_boundary(LONGEST - END - '…'.len_utf8())];
    let end = &message[message.ceil_char_boundary(message.len() - END)..];
    format!("{begin}…{end}")
}

macro_rules! status_of {
    ($($error:ty => $code:expr),+ $(,)?) => {
        $(impl From<$error> for Status {
            fn from(error: $error) -> Self {
                let code: fn(&$error) -> Code = $code;
                Status::new(code(&error), short(error.to_string()))
            }
        })+
    };
}

status_of! {
    MountError => mount_code,
    CreateError => create_code,
    DeleteError => delete_code,
    FindError => find_code,
    PublishError => publish_code,
    UnpublishError => unpublish_code,
    ExpandError => expand_code,
    ListError => list_code,
    CapacityFault => capacity_code,
    UnmountError => unmount_code,
    MeasureError => measure_code,
    Trouble => trouble_code,
    AccessError => |_| Code::InvalidArgument,
    NameError => |_| Code::InvalidArgument,
    OptionError => |_| Code::InvalidArgument,
    ParameterError => |_| Code::InvalidArgument,
    InlineError => |_| Code::InvalidArgument,
    DirectoryError => |_| Code::InvalidArgument,
    ExportError => |_| Code::InvalidArgument,
    NotAllowed => |_| Code::InvalidArgument,
    CapacityError => |error| match error {
        CapacityError::Negative { .. } | CapacityError::Missing => Code::InvalidArgument,
        CapacityError::Empty { .. } => Code::OutOfRange,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Identity, Version};

    const MAY_STILL_RUN: [Code; 4] =
        [Code::Unavailable, Code::Aborted, Code::Cancelled, Code::DeadlineExceeded];

    fn text() -> String {
        "x".to_owned()
    }

    fn every_mount_error() -> Vec<MountError> {
        vec![
            MountError::Resolve { server: text(), why: text() },
            MountError::Refused { source_: text(), address: text() },
            MountError::Unreachable { source_: text(), address: text(), why: text() },
            MountError::TimedOut { source_: text(), address: text(), seconds: 1 },
            MountError::Denied { source_: text(), why: text() },
            MountError::NoSuchPath { source_: text() },
            MountError::Version { source_: text(), versions: vec![] },
            MountError::Options { source_: text(), options: text(), why: text() },
            MountError::NoLockDaemon { source_: text(), why: text() },
            MountError::NoClient(Version::V3),
            MountError::Target { target: text(), why: text() },
            MountError::Other { source_: text(), why: text() },
        ]
    }

    fn every_trouble_that_left_nothing() -> Vec<Trouble> {
        let (place, doing) = (text(), text());
        let mut all: Vec<Trouble> = every_mount_error().into_iter().map(Trouble::Mount).collect();
        all.extend([
            Trouble::Down { place: text(), seconds: 1, unsure: false },
            Trouble::ReadOnly { place: place.clone(), doing: doing.clone() },
            Trouble::Full { place: place.clone(), doing: doing.clone() },
            Trouble::Denied { place: place.clone(), doing: doing.clone() },
            Trouble::Stale { place: text() },
            Trouble::Locked { place: text() },
            Trouble::Another { place: text(), found: text(), recorded: Identity::new([0; 4]) },
            Trouble::UnknownExport(text()),
            Trouble::Damaged { what: text(), why: text() },
            Trouble::Io { place, doing, error: text() },
            Trouble::Own(text()),
        ]);
        all
    }

    #[test]
    fn a_creation_that_left_nothing_running_never_says_that_something_may_be() {
        for trouble in every_trouble_that_left_nothing() {
            let code = create_code(&CreateError::Trouble(trouble.clone()));
            assert!(!MAY_STILL_RUN.contains(&code), "{trouble:?} → {code:?}");
        }
    }

    #[test]
    fn a_creation_that_was_given_up_in_the_middle_says_so() {
        let troubles = [
            Trouble::Hung { place: text(), seconds: 1 },
            Trouble::Down { place: text(), seconds: 1, unsure: true },
            Trouble::MountAgain(MountError::Refused { source_: text(), address: text() }),
        ];
        for trouble in troubles {
            let code = create_code(&CreateError::Trouble(trouble.clone()));
            assert!(MAY_STILL_RUN.contains(&code), "{trouble:?} → {code:?}");
        }
    }

    #[test]
    fn a_list_that_lacks_an_export_is_unavailable() {
        for trouble in
            every_trouble_that_left_nothing().into_iter().chain([Trouble::Hung { place: text(), seconds: 1 }])
        {
            let code = list_code(&ListError::Trouble(trouble.clone()));
            let expected =
                if matches!(trouble, Trouble::Damaged { .. }) { Code::Internal } else { Code::Unavailable };
            assert_eq!(code, expected, "{trouble:?}");
        }
    }

    #[test]
    fn a_message_fits_into_an_event() {
        assert_eq!(short("ü".repeat(512)), "ü".repeat(512));
        let long = short("ü".repeat(1 << 20));
        assert!(long.len() <= LONGEST && long.contains("ü…ü"), "{}", long.len());
    }

    #[test]
    fn what_people_meet_most_is_said_with_its_remedy_however_long_the_path() {
        let path = format!("nas:/{}", "x".repeat(1023));
        let (source_, address) = (|| path.clone(), "192.0.2.1".to_owned());
        let denied = Trouble::Denied { place: path.clone(), doing: "making .kuration".into() };
        let full = Trouble::Full { place: path.clone(), doing: "making the volume".into() };
        let mounts = [
            (MountError::Resolve { server: "nas".into(), why: "no such name".into() }, "check its name"),
            (MountError::Refused { source_: source_(), address: address.clone() }, "start it"),
            (
                MountError::Unreachable { source_: source_(), address: address.clone(), why: text() },
                "check the address, routes and firewalls",
            ),
            (MountError::TimedOut { source_: source_(), address, seconds: 9 }, "check that the server is up"),
            (
                MountError::Denied { source_: source_(), why: text() },
                "export the path to the address of this host",
            ),
            (MountError::NoSuchPath { source_: source_() }, "check the share"),
            (
                MountError::Version { source_: source_(), versions: vec![Version::V4_2] },
                "mountOptions (vers=)",
            ),
            (MountError::NoClient(Version::V4_2), "load the modules nfs and nfsv4"),
        ];
        let troubles = mounts
            .map(|(error, remedy)| (Trouble::Mount(error), remedy))
            .into_iter()
            .chain([(denied, "no_root_squash"), (full, "free some there or enlarge it")]);
        let mut all: Vec<(Status, &str)> =
            troubles.map(|(trouble, remedy)| (CreateError::Trouble(trouble).into(), remedy)).collect();
        all.push((CreateError::TooLarge { bytes: 2, available: 1 }.into(), "--overcommit"));
        for (status, remedy) in all {
            let message = status.message();
            assert!(message.contains(remedy) && message.len() <= LONGEST, "{remedy:?} in {message}");
            assert!(!MAY_STILL_RUN.contains(&status.code()), "{status:?}");
        }
    }

    #[test]
    fn a_message_never_is_empty() {
        for error in every_mount_error() {
            assert!(Status::from(error.clone()).message().len() > 1, "{error:?}");
        }
    }
}
