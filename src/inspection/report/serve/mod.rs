//! `kuration report`: a read-only page over the history on a results volume.
//!
//! Only GET is answered, nothing is written, and nothing is kept but who was allowed what for a minute. Files are read on
//! threads of their own, a few at a time and under a deadline: a results volume that hangs makes an answer, not a queue.

mod access;
mod pages;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use access::{Access, Refusal};
pub use pages::Answer;
use pages::Content;
pub use pages::{Wanted, overview};

use super::words::Language;
use super::{Shelf, ShelfError, page};

/// How long a look at the volume may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How many looks may be under way. A thread on a dead NFS mount can't be ended, so there must be an end to them.
const LOOKS: usize = 16;

/// What serves the pages.
#[derive(Clone)]
pub struct Site {
    root: Arc<PathBuf>,
    access: Arc<Access>,
    looks: Arc<Semaphore>,
}

/// Why a page is not shown.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The asker may not see it.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It is not there.
    #[error("{0}")]
    Shelf(#[from] ShelfError),
    /// There is no such address.
    #[error("there is no such page")]
    Nothing,
    /// The volume.
    #[error("the results volume does not answer; see whether its NFS server is up")]
    Hangs,
}

impl PageError {
    fn status(&self) -> StatusCode {
        match self {
            PageError::Refused(refusal) => refusal.status(),
            PageError::Shelf(ShelfError::Bad { .. }) => StatusCode::UNPROCESSABLE_ENTITY,
            PageError::Shelf(_) | PageError::Nothing => StatusCode::NOT_FOUND,
            PageError::Hangs => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Answers on `listener` from the volume at `root` until `stop` comes to an end.
pub async fn serve(
    listener: TcpListener,
    root: PathBuf,
    access: Access,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, routes(root, access)).with_graceful_shutdown(stop).await
}

fn routes(root: PathBuf, access: Access) -> Router {
    let site =
        Site { root: Arc::new(root), access: Arc::new(access), looks: Arc::new(Semaphore::new(LOOKS)) };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/", get(all))
        .route("/t/{namespace}/{task}", get(newest))
        .route("/t/{namespace}/{task}/{page}", get(of_task))
        .route("/t/{namespace}/{task}/run/{id}", get(of_run))
        .route("/t/{namespace}/{task}/run/{id}/{file}", get(file_of_run))
        .with_state(site)
}

async fn all(State(site): State<Site>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let query = Query::read(query.as_deref());
    let search = query.value("q").unwrap_or_default();
    site.answer(&headers, &query, None, Wanted::Overview { search }).await
}

async fn newest(
    State(site): State<Site>,
    Path((namespace, task)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = Query::read(query.as_deref());
    site.answer(&headers, &query, Some((namespace, task)), Wanted::Report { id: None }).await
}

async fn of_task(
    State(site): State<Site>,
    Path((namespace, task, page)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = Query::read(query.as_deref());
    let wanted = match page.as_str() {
        "runs" => Wanted::Runs { search: query.value("q").unwrap_or_default() },
        "diff" => Wanted::Diff {
            before: query.value("a").unwrap_or_default(),
            after: query.value("b").unwrap_or_default(),
        },
        _ => return refused(&PageError::Nothing, query.language(&headers)),
    };
    site.answer(&headers, &query, Some((namespace, task)), wanted).await
}

async fn of_run(
    State(site): State<Site>,
    Path((namespace, task, id)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = Query::read(query.as_deref());
    site.answer(&headers, &query, Some((namespace, task)), Wanted::Report { id: Some(id) }).await
}

async fn file_of_run(
    State(site): State<Site>,
    Path((namespace, task, id, file)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    site.answer(&headers, &Query::default(), Some((namespace, task)), Wanted::File { id, file }).await
}

impl Site {
    async fn answer(
        &self,
        headers: &HeaderMap,
        query: &Query,
        task: Option<(String, String)>,
        wanted: Wanted,
    ) -> Response {
        let language = query.language(headers);
        match self.find(headers, language, task, wanted).await {
            Ok(answer) => shown(StatusCode::OK, answer),
            Err(error) => refused(&error, language),
        }
    }

    async fn find(
        &self,
        headers: &HeaderMap,
        language: Language,
        task: Option<(String, String)>,
        wanted: Wanted,
    ) -> Result<Answer, PageError> {
        let asker = self.access.asker(headers).await?;
        let Some((namespace, task)) = task else {
            let root = Arc::clone(&self.root);
            let names = self.look(move || Ok(Shelf::open(&root)?.tasks())).await?;
            let mut seen = Vec::new();
            let mut last = (String::new(), false);
            for name in names {
                let namespace = name.split('/').next().unwrap_or_default();
                if last.0 != namespace {
                    last = (namespace.to_owned(), asker.may_see(namespace).await?);
                }
                if last.1 {
                    seen.push(name);
                }
            }
            let root = Arc::clone(&self.root);
            return self.look(move || pages::overview(&Shelf::open(&root)?, seen, &wanted, language)).await;
        };
        if !asker.may_see(&namespace).await? {
            return Err(Refusal::Forbidden(namespace).into());
        }
        // One name each: openat2 keeps to the volume, this keeps to the namespace that was asked for.
        let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if !plain(&namespace) || !plain(&task) {
            return Err(PageError::Nothing);
        }
        let root = Arc::clone(&self.root);
        self.look(move || {
            let shelf = Shelf::open(&root)?.beneath(&format!("{namespace}/{task}"))?;
            pages::of_task(&shelf, &format!("/t/{namespace}/{task}"), &wanted, language)
        })
        .await
    }

    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PageError> + Send + 'static,
    ) -> Result<T, PageError> {
        let permit = Arc::clone(&self.looks).try_acquire_owned().map_err(|_| PageError::Hangs)?;
        let thread = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        match tokio::time::timeout(LIMIT, thread).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) | Err(_) => Err(PageError::Hangs),
        }
    }
}

/// Headers that let a page do nothing but be read.
fn shown(status: StatusCode, answer: Answer) -> Response {
    let (kind, body) = match answer.content {
        Content::Page => ("text/html; charset=utf-8", answer.body),
        Content::Json => ("application/json", answer.body),
        Content::Xml => ("application/xml", answer.body),
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    // frame-ancestors counts in a header alone.
    if let Ok(policy) = HeaderValue::from_str(&format!("{}; frame-ancestors 'none'", page::policy())) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn refused(error: &PageError, language: Language) -> Response {
    let status = error.status();
    let mut response = shown(status, pages::trouble(status, &error.to_string(), language));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The part of an address after the question mark.
#[derive(Debug, Default)]
struct Query(Vec<(String, String)>);

impl Query {
    fn read(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').take(16).filter_map(|pair| pair.split_once('='));
        Query(pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    fn value(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(held, _)| held == name).map(|(_, value)| value.clone())
    }

    /// The one that is asked for, else the one that the browser would rather have.
    fn language(&self, headers: &HeaderMap) -> Language {
        let asked = self.value("lang");
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        match asked.as_deref().or(accepted).is_some_and(|tag| tag.trim_start().starts_with("zh")) {
            true => Language::Chinese,
            false => Language::English,
        }
    }
}

/// What a form has sent: `+` is a blank, `%E4` a byte.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = rest.clone().take(2).collect::<Vec<_>>();
                let number =
                    std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                match number.filter(|_| digits.len() == 2) {
                    Some(number) => {
                        bytes.push(number);
                        rest.nth(1);
                    }
                    None => bytes.push(b'%'),
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
