//! The HTTP side of logs and witnesses.

use crate::log::reader::{CHECKPOINT, statements_path};
use crate::log::store::Store;
use crate::log::unix_now;
use crate::tile::{Row, Tile};
use crate::witness::{Answer, Witness};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Most bytes of a request to a witness: a proof and a checkpoint with post-quantum signatures.
const MAX_REQUEST: usize = 128 * 1024;
/// Path below which the proofs are that `cloister-log prove --publish` writes.
pub const PROOFS: &str = "proof";

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// Tiles never change (tlog-tiles), nor does what was signed when an entry was appended.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// Checkpoints and proofs do.
const BRIEFLY: &str = "public, max-age=5";

/// A log's read-only HTTP interface (C2SP tlog-tiles), from its files: checkpoint, tiles, entries, proofs, and what builders
/// signed about entries.
pub fn log(store: Store) -> Router {
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .route("/proof/{name}", get(proof))
        .route("/statements/{leaf}", get(statements))
        .with_state(store)
}

async fn checkpoint(State(store): State<Store>) -> Response {
    file(&store, CHECKPOINT, TEXT, BRIEFLY).await
}

async fn tile(State(store): State<Store>, Path(path): Path<String>) -> Response {
    // Only paths of tiles: nothing else of the log's files is served.
    match Tile::from_path(&format!("tile/{path}")) {
        Ok(tile) => {
            debug_assert!(matches!(tile.row, Row::Entries | Row::Hashes(_)));
            file(&store, &tile.path(), BYTES, FOREVER).await
        }
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn proof(State(store): State<Store>, Path(name): Path<String>) -> Response {
    match name.strip_suffix(".tlog-proof").map(str::parse::<crate::entry::Name>) {
        Some(Ok(name)) => file(&store, &format!("{PROOFS}/{name}.tlog-proof"), TEXT, BRIEFLY).await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn statements(State(store): State<Store>, Path(leaf): Path<String>) -> Response {
    let mut hash = crate::merkle::Hash::default();
    match hex::decode_to_slice(&leaf, &mut hash) {
        Ok(()) => file(&store, &statements_path(&hash), TEXT, FOREVER).await,
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn file(store: &Store, path: &str, content_type: &'static str, caching: &'static str) -> Response {
    match store.read(path).await {
        Ok(Some(bytes)) => {
            ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, caching)], bytes).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            eprintln!("error: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A witness's HTTP interface (C2SP tlog-witness): `add-checkpoint`, and the last checkpoint of each log.
pub fn witness(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(last_checkpoint))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(witness)
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Bytes) -> Response {
    answer(move || witness.add_checkpoint(&body, unix_now())).await
}

async fn last_checkpoint(State(witness): State<Arc<Witness>>, Path(origin): Path<String>) -> Response {
    answer(move || witness.checkpoint(&origin)).await
}

/// Signing and `fsync` block, so they get a thread of their own.
async fn answer<E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<Answer, E> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(Answer { status, content_type, body })) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Ok(Err(error)) => {
            eprintln!("error: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(listener: TcpListener, router: Router) -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = tokio::signal::ctrl_c() => (),
            }
        })
        .await
}
