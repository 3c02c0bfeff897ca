//! Where a run stands: whose task it is, what it looks at, and by which ways it gets to the cluster and to secrets.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use serde_json::{Map, Value as Json};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::database::Credentials;
use super::sight::Blind;
use crate::inspection::task::Target;
use crate::inspection::task::probe;

/// What a run before this one observed, by rule.
#[derive(Debug, Clone)]
pub struct Past {
    /// When.
    pub time: Timestamp,
    /// What, by the rule's name.
    pub observed: HashMap<String, Map<String, Json>>,
}

/// Where a run stands.
pub struct Place {
    /// The task's namespace.
    pub namespace: String,
    /// What the task looks at.
    pub target: Target,
    /// The node that the run is on, where it is told.
    pub node: Option<String>,
    /// Whether the run looks from every node: then findings are of a node.
    pub shards: bool,
    /// When the run began.
    pub now: Timestamp,
    /// The directory of the results volume, where there is one.
    pub results: Option<PathBuf>,
    /// Where the claims of volume probes are mounted: a directory for each.
    pub claims: Option<PathBuf>,
    /// Where the containers of exec rules leave what they said.
    pub exec: Option<PathBuf>,
    /// Runs before this one, newest first.
    pub past: Vec<Past>,
    /// Where secrets are mounted: a directory for each, a file for each key.
    pub secrets: PathBuf,
    client: OnceCell<Result<Client, Blind>>,
    outliving: Mutex<JoinSet<()>>,
}

impl Place {
    /// A place in a namespace.
    pub fn new(namespace: impl Into<String>, target: Target, now: Timestamp) -> Self {
        Self {
            namespace: namespace.into(),
            target,
            node: None,
            shards: false,
            now,
            results: None,
            claims: None,
            exec: None,
            past: Vec::new(),
            secrets: PathBuf::from("/etc/kuration/secrets"),
            client: OnceCell::new(),
            outliving: Mutex::default(),
        }
    }

    /// The same, with this way to an API server.
    #[cfg(test)]
    pub fn with_client(mut self, client: Client) -> Self {
        self.client = OnceCell::new_with(Some(Ok(client)));
        self
    }

    /// Does something that a rule's deadline must not end: taking away what the rule made.
    pub fn outlive(&self, what: impl Future<Output = ()> + Send + 'static) {
        self.outliving.lock().unwrap_or_else(PoisonError::into_inner).spawn(what);
    }

    /// Waits until what outlives the rules is done; whether it is, within `limit`. What is not is ended.
    pub async fn settled(&self, limit: Duration) -> bool {
        let mut outliving =
            std::mem::take(&mut *self.outliving.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while outliving.join_next().await.is_some() {} };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// The API server, found when a rule first needs it: in a pod by its account, else by the kubeconfig of whoever calls.
    pub async fn cluster(&self) -> Result<Client, Blind> {
        let found = self.client.get_or_init(|| async {
            Client::try_default().await.map_err(|error| {
                Blind::new("NoCluster", format!("there is no way to an API server from here: {error}"))
            })
        });
        found.await.clone()
    }

    /// The host of a probe: its own, or that of the target.
    pub async fn host(&self, own: Option<&str>) -> Result<String, Blind> {
        match (own, self.target.service(), self.target.kind(), self.target.name()) {
            (Some(own), ..) => Ok(own.to_owned()),
            (None, Some(service), ..) => Ok(format!("{service}.{}.svc", self.namespace)),
            (None, None, "node" | "nodes" | "no", Some(node)) => {
                super::cluster::node_address(&self.cluster().await?, node).await
            }
            _ => Err(Blind::new(
                "BadRule",
                format!("the target {} has no address: say `host` in the rule", self.target),
            )),
        }
    }

    /// A key of a Secret: of one that is mounted in the pod, else of the API.
    ///
    /// The value never stands in an error.
    pub async fn secret(&self, name: &str, key: &str) -> Result<Vec<u8>, Blind> {
        // Both are names of Kubernetes; a file may hold others.
        let plain = |word: &str| !word.is_empty() && !word.starts_with('.') && !word.contains('/');
        if !plain(name) || !plain(key) {
            return Err(Blind::new("BadRule", format!("{name}/{key} names no key of a Secret")));
        }
        if let Ok(value) = tokio::fs::read(self.secrets.join(name).join(key)).await {
            return Ok(value);
        }
        super::cluster::secret(&self.cluster().await?, &self.namespace, name, key).await
    }

    /// The same, as text without the line end that editors add.
    pub async fn secret_text(&self, name: &str, key: &str) -> Result<String, Blind> {
        let value = self.secret(name, key).await?;
        let text = String::from_utf8(value)
            .map_err(|_| Blind::new("BadSecret", format!("the Secret {name} holds no text in {key}")))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Name and password of a Secret.
    pub async fn credentials(&self, of: &probe::Credentials) -> Result<Credentials, Blind> {
        Ok(Credentials {
            username: self.secret_text(&of.name, &of.username_key).await?,
            password: self.secret_text(&of.name, &of.password_key).await?,
        })
    }

    /// The authorities of a TLS client, as PEM.
    pub async fn authorities(&self, of: Option<&probe::SecretKey>) -> Result<Option<Vec<u8>>, Blind> {
        match of {
            Some(key) => self.secret(&key.name, &key.key).await.map(Some),
            None => Ok(None),
        }
    }
}
