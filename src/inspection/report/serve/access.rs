//! Who may see what: Kubernetes decides.
//!
//! A bearer token is shown to TokenReview, and for each namespace SubjectAccessReview is asked whether its user may get
//! inspectiontasks there: who may see a task may see its results.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// So long an answer of the API server counts. A token that was taken back is good for so long.
const LIFETIME: Duration = Duration::from_secs(60);

/// So many answers are kept.
const MOST: usize = 4096;

/// The longest token that is looked at.
const LONGEST: usize = 16 << 10;

/// Why somebody may not see something.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No token came along.
    #[error("say who you are: a bearer token is needed (kubectl create token ACCOUNT makes one)")]
    Nobody,
    /// The token is not good.
    #[error("the API server does not know this token")]
    Unknown,
    /// The user may not.
    #[error("you may not get inspectiontasks.kuration.io in namespace {0}")]
    Forbidden(String),
    /// The API server could not be asked.
    #[error("the API server can't be asked who you are: {0}")]
    Unasked(String),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Refusal::Nobody | Refusal::Unknown => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::Unasked(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// How it is decided who may see what.
pub enum Access {
    /// Everybody may see everything.
    Everybody,
    /// Kubernetes decides.
    Kubernetes(Box<Reviews>),
}

impl Access {
    /// Kubernetes decides, asked through `client`.
    pub fn kubernetes(client: kube::Client) -> Self {
        Access::Kubernetes(Box::new(Reviews { client, users: Kept::default(), rights: Kept::default() }))
    }

    /// Who asks.
    pub(super) async fn asker(&self, headers: &HeaderMap) -> Result<Asker<'_>, Refusal> {
        let Access::Kubernetes(reviews) = self else { return Ok(Asker(None)) };
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Refusal::Nobody)?;
        if token.is_empty() || token.len() > LONGEST {
            return Err(Refusal::Unknown);
        }
        let digest: Digested = Sha256::digest(token).into();
        let user = reviews.user(digest, token).await?.ok_or(Refusal::Unknown)?;
        Ok(Asker(Some((reviews, digest, user))))
    }
}

type Digested = [u8; 32];

/// Answers of the API server, for a while.
struct Kept<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Kept(Mutex::default())
    }
}

impl<K: std::hash::Hash + Eq, V: Clone> Kept<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let kept = self.0.lock();
        kept.get(key).filter(|(at, _)| at.elapsed() < LIFETIME).map(|(_, value)| value.clone())
    }

    fn keep(&self, key: K, value: V) {
        let mut kept = self.0.lock();
        if kept.len() >= MOST {
            kept.retain(|_, (at, _)| at.elapsed() < LIFETIME);
            if kept.len() >= MOST {
                kept.clear();
            }
        }
        kept.insert(key, (Instant::now(), value));
    }
}

/// Reviews, and what they said of late.
pub struct Reviews {
    client: kube::Client,
    users: Kept<Digested, Option<Arc<UserInfo>>>,
    rights: Kept<(Digested, String), bool>,
}

fn unasked(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unasked(error.to_string())
}

impl Reviews {
    async fn user(&self, digest: Digested, token: &str) -> Result<Option<Arc<UserInfo>>, Refusal> {
        if let Some(known) = self.users.get(&digest) {
            return Ok(known);
        }
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..Default::default() };
        let review = TokenReview { spec, ..Default::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(unasked)?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(Arc::new);
        self.users.keep(digest, user.clone());
        Ok(user)
    }

    async fn may(&self, digest: Digested, user: &UserInfo, namespace: &str) -> Result<bool, Refusal> {
        let key = (digest, namespace.to_owned());
        if let Some(known) = self.rights.get(&key) {
            return Ok(known);
        }
        let attributes = ResourceAttributes {
            group: Some("kuration.io".to_owned()),
            resource: Some("inspectiontasks".to_owned()),
            verb: Some("get".to_owned()),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(attributes),
            ..Default::default()
        };
        let review = SubjectAccessReview { spec, ..Default::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(unasked)?;
        let allowed = answer.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        self.rights.keep(key, allowed);
        Ok(allowed)
    }
}

/// Somebody who asks for a page.
pub(super) struct Asker<'a>(Option<(&'a Reviews, Digested, Arc<UserInfo>)>);

impl Asker<'_> {
    /// Whether he may see what is kept of the tasks of `namespace`.
    pub async fn may_see(&self, namespace: &str) -> Result<bool, Refusal> {
        match &self.0 {
            None => Ok(true),
            Some((reviews, digest, user)) => reviews.may(*digest, user, namespace).await,
        }
    }
}
