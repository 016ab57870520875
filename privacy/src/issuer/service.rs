//! The issuer's HTTP interface (RFC 9578 §4 and §6, draft-ietf-privacypass-batched-tokens-09 §6).
//!
//! | request | answer |
//! |---|---|
//! | `POST /token-request`, one request or a batch | 200 with signatures; 206 with fewer than asked for |
//! | `GET /.well-known/private-token-issuer-directory` | the key that is in use and the one after it |
//!
//! | status | meaning |
//! |---|---|
//! | 401 | no credential, or not one of an account |
//! | 413, 415, 422 | too large; of another media type; not token requests, or not under the key in use |
//! | 429 | the account had all its tokens of this epoch |
//! | 503 | accounts or counts cannot be reached, or too much to do; with `Retry-After` |

use super::accounts::{Authenticate, Denied};
use super::epochs::{EpochKey, Epochs};
use super::quota::Quota;
use crate::body::Body;
use crate::clock;
use crate::token::structure::{
    BATCH_REQUEST, BATCH_RESPONSE, MAX_BATCH, REQUEST, RESPONSE, TokenRequest, decode_requests,
    encode_responses,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::json;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// Media type of the directory (RFC 9578 §8.3.1).
const DIRECTORY: &str = "application/private-token-issuer-directory";
/// Most requests whose signatures are being made or waited for.
const MAX_WAITING: usize = 256;
/// Most bytes of a request.
const MAX_REQUEST: usize = 8 + MAX_BATCH * TokenRequest::LENGTH;

/// Longest time from a request's head to its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// An issuer.
pub struct Issuer {
    issued: AtomicU64,
    refused: AtomicU64,
    epochs: RwLock<Epochs>,
    accounts: Box<dyn Authenticate>,
    quota: Quota,
    waiting: Semaphore,
    cores: Semaphore,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("epochs", &self.epochs).finish_non_exhaustive()
    }
}

struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.0, self.1 + "\n").into_response();
        let headers = response.headers_mut();
        match self.0 {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"))
            }
            _ => None,
        };
        response
    }
}

impl Issuer {
    /// Issues under these keys to these accounts.
    pub fn new(epochs: Epochs, accounts: Box<dyn Authenticate>, quota: Quota) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            issued: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            epochs: RwLock::new(epochs),
            accounts,
            quota,
            waiting: Semaphore::new(MAX_WAITING),
            cores: Semaphore::new(cores),
        }
    }

    /// Replaces the keys, as after a new one was made.
    pub fn set_epochs(&self, epochs: Epochs) {
        *self.epochs.write().unwrap_or_else(PoisonError::into_inner) = epochs;
    }

    fn epochs(&self) -> Epochs {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn issue(self: Arc<Self>, headers: HeaderMap, body: Bytes) -> Result<Response, Refused> {
        let refuse = |status, why: &str| Refused(status, why.into());
        let unavailable =
            || refuse(StatusCode::SERVICE_UNAVAILABLE, "tokens cannot be issued now: try again later");
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, bearer) =
            bearer.ok_or_else(|| Refused(StatusCode::UNAUTHORIZED, Denied::Refused.to_string()))?;
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let unreadable =
            |error: &dyn std::fmt::Display| Refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
        let (requests, batch) = match content_type {
            Some(REQUEST) => (vec![TokenRequest::decode(&body).map_err(|error| unreadable(&error))?], false),
            Some(BATCH_REQUEST) => (decode_requests(&body).map_err(|error| unreadable(&error))?, true),
            _ => {
                let why = format!("the media type must be {BATCH_REQUEST} or {REQUEST}");
                return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
            }
        };
        let _waiting = self.waiting.try_acquire().map_err(|_| unavailable())?;
        let account = self.accounts.account(bearer.trim()).await.map_err(|denied| match denied {
            Denied::Refused => Refused(StatusCode::UNAUTHORIZED, denied.to_string()),
            Denied::Unavailable => Refused(StatusCode::SERVICE_UNAVAILABLE, denied.to_string()),
        })?;
        let key =
            clock::now().ok().and_then(|now| self.epochs().current(now).cloned()).ok_or_else(unavailable)?;
        if requests.iter().any(|request| request.truncated_key_id != key.signing.public().truncated_id()) {
            let why = "these requests are not under the key in use: fetch the key's newest proof";
            return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, why));
        }
        let _core = self.cores.acquire().await.map_err(|_| unavailable())?;
        let issuer = self.clone();
        let work = move || {
            let given = issuer.quota.take(key.signing.public().id(), account, requests.len() as u32)?;
            Ok::<_, super::quota::QuotaError>((given, sign(&key, &requests, given as usize)))
        };
        let (given, signatures) = match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                eprintln!("error: {error}");
                return Err(unavailable());
            }
            Err(_) => return Err(unavailable()),
        };
        if given == 0 {
            let why = format!("this account had its {} tokens of this epoch", self.quota.cap());
            return Err(Refused(StatusCode::TOO_MANY_REQUESTS, why));
        }
        self.issued.fetch_add(signatures.iter().flatten().count() as u64, Relaxed);
        let all = signatures.iter().all(Option::is_some);
        match (batch, signatures.as_slice()) {
            (true, signatures) if signatures.iter().any(Option::is_some) => {
                let status = if all { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
                Ok((status, [(header::CONTENT_TYPE, BATCH_RESPONSE)], encode_responses(signatures))
                    .into_response())
            }
            (false, [Some(signature)]) => {
                Ok(([(header::CONTENT_TYPE, RESPONSE)], signature.to_vec()).into_response())
            }
            // RFC 9578 §6.2: what cannot be signed is not a blinded message.
            _ => Err(refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "these are not blinded messages under the key in use",
            )),
        }
    }

    /// What it has done, in the Prometheus text format. No account is in it.
    pub fn metrics(&self) -> String {
        let (issued, refused) = (self.issued.load(Relaxed), self.refused.load(Relaxed));
        format!(
            "# TYPE cloister_issuer_tokens_total counter\ncloister_issuer_tokens_total {issued}\n\
             # TYPE cloister_issuer_refused_total counter\ncloister_issuer_refused_total {refused}\n"
        )
    }

    fn directory(&self) -> Response {
        let Ok(now) = clock::now() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
        let epochs = self.epochs();
        let current = epochs.current(now);
        let next = epochs.all().iter().filter(|key| key.not_before > now);
        let keys = current.into_iter().chain(next).map(|key| {
            json!({
                "token-type": crate::token::TOKEN_TYPE,
                "token-key": URL_SAFE.encode(key.signing.public().spki()),
                "not-before": key.not_before,
            })
        });
        let directory =
            json!({ "issuer-request-uri": "/token-request", "token-keys": keys.collect::<Vec<_>>() });
        let headers = [(header::CONTENT_TYPE, DIRECTORY), (header::CACHE_CONTROL, "public, max-age=300")];
        (headers, directory.to_string()).into_response()
    }
}

fn sign(key: &EpochKey, requests: &[TokenRequest], given: usize) -> Vec<Option<[u8; crate::token::NK]>> {
    let signature = |(place, request): (usize, &TokenRequest)| {
        (place < given).then(|| key.signing.sign(&request.blinded).ok()).flatten()
    };
    requests.iter().enumerate().map(signature).collect()
}

/// The interface.
pub fn router(issuer: Arc<Issuer>) -> Router {
    async fn issue(State(issuer): State<Arc<Issuer>>, headers: HeaderMap, body: Bytes) -> Response {
        let result = issuer.clone().issue(headers, body).await;
        issuer.refused.fetch_add(result.is_err().into(), Relaxed);
        result.into_response()
    }
    async fn directory(State(issuer): State<Arc<Issuer>>) -> Response {
        issuer.directory()
    }
    Router::new()
        .route("/token-request", post(issue))
        .route("/.well-known/private-token-issuer-directory", get(directory))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(issuer)
}

/// Answers a request, in bounded time; for [`crate::serve::run`].
pub async fn handle(router: Router, request: Request<Incoming>) -> hyper::Response<Body> {
    let answer = router.oneshot(request.map(axum::body::Body::new));
    let response = match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    response.map(|body| body.map_err(io::Error::other).boxed_unsync())
}
