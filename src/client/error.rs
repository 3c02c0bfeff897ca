//! What goes wrong between a client and a driver, in words.

use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

use crate::telemetry::rpc::code_name;

/// What goes wrong between a client and a driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The endpoint is not a unix socket's.
    #[error("{0:?} is no endpoint: write unix:///path/to/csi.sock")]
    Endpoint(String),
    /// Nobody answers, or nobody who is ready.
    #[error("no driver is ready at {socket} after {waited:?}: {reason}")]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// For how long it was tried.
        waited: Duration,
        /// The last thing that was seen.
        reason: String,
    },
    /// The driver answered with an error.
    #[error("{method} answered {}: {message}", code_name(*.code))]
    Refused {
        /// The RPC.
        method: &'static str,
        /// The code.
        code: Code,
        /// The driver's words.
        message: String,
    },
    /// The answer breaks the specification.
    #[error("{method}: {fault}")]
    Answer {
        /// The RPC.
        method: &'static str,
        /// What is wrong with it.
        fault: String,
    },
    /// What the kubelet does itself, making and removing directories, went wrong.
    #[error("{path}: {reason}")]
    Path {
        /// Where.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
}

impl ClientError {
    /// The RPC that failed, or `-`, and the code's name, or what stands for it.
    pub fn method_and_code(&self) -> (&'static str, &'static str) {
        match self {
            Self::Refused { method, code, .. } => (method, code_name(*code)),
            Self::Answer { method, .. } => (method, "BAD_ANSWER"),
            Self::Endpoint(_) | Self::Silent { .. } => ("-", "NO_DRIVER"),
            Self::Path { .. } => ("-", "LOCAL_PATH"),
        }
    }

    /// Whether the driver may have done the work, or be at it, all the same: the codes that external-provisioner reads so
    /// (its `isFinalError`), after which it asks again until it knows.
    pub fn may_have_happened(&self) -> bool {
        use Code::{Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable};
        match self {
            Self::Refused { code, .. } => {
                matches!(code, Cancelled | DeadlineExceeded | Unavailable | ResourceExhausted | Aborted)
            }
            Self::Answer { .. } => true,
            Self::Endpoint(_) | Self::Silent { .. } | Self::Path { .. } => false,
        }
    }
}

/// A status's message; for one that the transport made, the first cause, which says more than "transport error".
pub(super) fn words(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}
