//! The cluster's API server: what a controller asks of it, beside CSI.
//!
//! | part | does |
//! |---|---|
//! | [`claims`] | tells which claims have the volumes |
//! | [`taint`] | takes the start-up taint off nodes on which the driver is registered |
//! | [`lease`] | lets one of several processes do what one at a time should do |
//!
//! None of it is needed to serve CSI. While the API server does not answer, or denies a right, volumes are made and published
//! all the same, and all here tries again.

use std::time::Duration;

use kube::runtime::watcher;
use kube::{Client, Config};

pub mod claims;
pub mod lease;
pub mod taint;

pub use claims::{Bound, bindings};
pub use lease::{Lease, identity};
pub use taint::StartupTaint;

/// Why there is no client. Nothing was asked of the API server yet.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither an account of a pod nor a file.
    #[error(
        "--kubernetes: no API server is known: this process runs in no pod (KUBERNETES_SERVICE_HOST is not set), and \
         KUBECONFIG names no file"
    )]
    Nowhere,
    /// The file that KUBECONFIG names.
    #[error("--kubernetes: the file of KUBECONFIG: {0}")]
    File(#[from] kube::config::KubeconfigError),
    /// The pod's account.
    #[error("--kubernetes: the pod's service account (is automountServiceAccountToken off?): {0}")]
    Account(#[from] kube::config::InClusterError),
    /// Certificates, a proxy.
    #[error("--kubernetes: {0}")]
    Client(#[from] kube::Error),
}

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection that is asked something may say nothing. Longer than the 290 s for which a quiet watch is kept, after
/// which the API server ends it by itself. Without it, a list behind a connection that is gone without a word waits for ever.
const SILENCE: Duration = Duration::from_secs(310);

/// A client by KUBECONFIG where that is set, else by the account of the pod that this process runs in.
pub async fn connect() -> Result<Client, ConnectError> {
    let config = if std::env::var_os("KUBECONFIG").is_some_and(|file| !file.is_empty()) {
        Config::from_kubeconfig(&Default::default()).await?
    } else if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Config::incluster()?
    } else {
        return Err(ConnectError::Nowhere);
    };
    Ok(client(config, SILENCE)?)
}

fn client(mut config: Config, silence: Duration) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(silence);
    // Counted from the request on, and not from when the connection was last used.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// What stands for an answer that did not come.
fn no_answer() -> kube::Error {
    kube::Error::Service("no answer from the API server".into())
}

/// What was said last of something that is tried again and again: the same words are said once.
#[derive(Debug, Default)]
pub(crate) struct Said(Option<String>);

impl Said {
    /// Logs what is wrong, unless it is what was wrong before.
    pub(crate) fn trouble(&mut self, what: &str, error: &kube::Error) {
        let words = words(error);
        if self.is_new(&words) {
            tracing::warn!(error = words, "{what}; it is tried again");
        }
    }

    /// Whether these are other words than the last ones.
    fn is_new(&mut self, words: &str) -> bool {
        self.0.replace(words.to_owned()).is_none_or(|last| last != words)
    }

    /// It went well: the next trouble is said again.
    pub(crate) fn well(&mut self, what: &str) {
        if self.0.take().is_some() {
            tracing::info!("{what} works again");
        }
    }
}

/// Says what keeps a watch from going on.
pub(crate) fn watch_trouble(said: &mut Said, what: &str, error: watcher::Error) {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => said.trouble(what, &error),
        watcher::Error::WatchError(status) => said.trouble(what, &kube::Error::Api(status)),
        watcher::Error::NoResourceVersion => {}
    }
}

/// An error in words; of a missing right, who lacks which, and where to give it.
fn words(error: &kube::Error) -> String {
    match error {
        // The API server names the account, the verb and the resource.
        kube::Error::Api(status) if status.code == 403 => {
            format!("{}: give the driver's service account this right (ClusterRole or Role)", status.message)
        }
        kube::Error::Api(status) if status.code == 401 => {
            format!("the API server does not know this process' token ({})", status.message)
        }
        kube::Error::Api(status) => status.message.clone(),
        other => {
            // The reason stands at the end of the chain: "client error (Connect)" alone helps nobody.
            let mut words = other.to_string();
            let mut next = std::error::Error::source(other);
            while let Some(source) = next {
                let more = source.to_string();
                if !words.contains(&more) {
                    words = format!("{words}: {more}");
                }
                next = source.source();
            }
            words
        }
    }
}

/// The HTTP code of an answer that is an error.
fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
