//! Reading a log: from its files, or over HTTP as anyone does.

use super::store::{Store, StoreError};
use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::merkle::{Hash, leaf_hash};
use crate::note::{MAX_NOTE, Note, NoteError};
use crate::tile::{Row, Tile, TileError, WIDTH};
use crate::tree::HashSource;
use futures_util::StreamExt;
use std::time::Duration;

/// Path of the newest published checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// Folder of what others signed about entries.
pub const STATEMENTS: &str = "statements";
/// Longest wait for a log that is read over HTTP.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of an entry bundle: full, with entries as large as can be.
const MAX_BUNDLE: usize = WIDTH * (2 + crate::entry::MAX_ENTRY);

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not answer.
    #[error("cannot read {url}: {problem}")]
    Http {
        /// What was asked for.
        url: String,
        /// Why not.
        problem: String,
    },
    /// It lacks something that it must have.
    #[error("the log has no {0}")]
    Missing(String),
    /// A tile is not as it must be.
    #[error("{path}: {problem}")]
    Tile {
        /// The tile.
        path: String,
        /// What is wrong.
        problem: TileError,
    },
    /// What was asked for is not in the tree.
    #[error(transparent)]
    Place(#[from] TileError),
    /// The checkpoint is not one.
    #[error("the log's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// What is kept beside an entry is no signed note.
    #[error("the statements about the entry: {0}")]
    Statements(#[from] NoteError),
    /// Entries and hashes do not belong together.
    #[error("{0} holds entries that do not hash to the tree's leaves; the log is damaged or lies")]
    Entries(String),
}

/// A log that can be read. What it says is an allegation until it was checked.
#[derive(Clone, Debug)]
pub enum Reader {
    /// From its files.
    Store(Store),
    /// Over HTTP.
    Http {
        /// The log's prefix, with a slash at the end.
        prefix: url::Url,
        /// The client.
        client: reqwest::Client,
    },
}

impl Reader {
    /// A log at a URL's prefix.
    pub fn http(prefix: &str) -> Result<Self, ReadError> {
        let failed = |problem: String| ReadError::Http { url: prefix.into(), problem };
        let prefix =
            format!("{}/", prefix.trim_end_matches('/')).parse().map_err(|e| failed(format!("{e}")))?;
        let client = reqwest::Client::builder().timeout(PATIENCE).build();
        Ok(Self::Http { prefix, client: client.map_err(|error| failed(error.to_string()))? })
    }

    async fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, ReadError> {
        match self {
            Self::Store(store) => Ok(store.read(path).await?),
            Self::Http { prefix, client } => {
                let url = format!("{prefix}{path}");
                let failed = |problem: String| ReadError::Http { url: url.clone(), problem };
                let response =
                    client.get(&url).send().await.map_err(|e| failed(e.without_url().to_string()))?;
                if response.status() == reqwest::StatusCode::NOT_FOUND {
                    return Ok(None);
                }
                if !response.status().is_success() {
                    return Err(failed(format!("HTTP status {}", response.status())));
                }
                let (mut body, mut bytes) = (response.bytes_stream(), Vec::new());
                while let Some(chunk) = body.next().await {
                    bytes.extend_from_slice(&chunk.map_err(|e| failed(e.without_url().to_string()))?);
                    if bytes.len() > limit {
                        return Err(failed(format!("more than {limit} bytes")));
                    }
                }
                Ok(Some(bytes))
            }
        }
    }

    /// The newest published checkpoint, unchecked.
    pub async fn checkpoint(&self) -> Result<SignedCheckpoint, ReadError> {
        let bytes = self.read(CHECKPOINT, MAX_NOTE).await?;
        Ok(SignedCheckpoint::parse(&bytes.ok_or_else(|| ReadError::Missing("checkpoint".into()))?)?)
    }

    /// What was signed about the entry with this leaf hash when it was appended, such as its builders' statements;
    /// `None` if nothing was. Unchecked.
    pub async fn statements(&self, leaf: &Hash) -> Result<Option<Note>, ReadError> {
        let bytes = self.read(&statements_path(leaf), MAX_NOTE).await?;
        Ok(bytes.map(|bytes| Note::parse(&bytes)).transpose()?)
    }

    /// A tile's bytes, or those of its full version where the log has dropped the partial one (tlog-tiles, "Partial
    /// Tiles").
    async fn tile(&self, tile: Tile, limit: usize) -> Result<(Tile, Vec<u8>), ReadError> {
        for tile in [tile, tile.full()] {
            if let Some(bytes) = self.read(&tile.path(), limit).await? {
                return Ok((tile, bytes));
            }
        }
        Err(ReadError::Missing(tile.path()))
    }

    /// The entries of a bundle, as many as its width.
    pub async fn entries(&self, bundle: Tile) -> Result<Vec<Vec<u8>>, ReadError> {
        let (found, bytes) = self.tile(bundle, MAX_BUNDLE).await?;
        let entries =
            found.entries(&bytes).map_err(|problem| ReadError::Tile { path: found.path(), problem })?;
        Ok(entries.into_iter().take(bundle.width).map(<[u8]>::to_vec).collect())
    }

    /// One entry of a log of `size` entries, checked against its leaf in the tile.
    pub async fn entry(&self, index: u64, size: u64) -> Result<Vec<u8>, ReadError> {
        if index >= size {
            return Err(TileError::OutOfRange.into());
        }
        let place = index / WIDTH as u64;
        let bundle = Tile::in_tree(Row::Entries, place, size)?;
        let within = (index % WIDTH as u64) as usize;
        let entry = self.entries(bundle).await?.swap_remove(within);
        let leaves = self.hashes(Tile::in_tree(Row::Hashes(0), place, size)?).await?;
        if leaves.get(within) == Some(&leaf_hash(&entry)) {
            Ok(entry)
        } else {
            Err(ReadError::Entries(bundle.path()))
        }
    }
}

/// Path of what was signed about an entry.
pub(crate) fn statements_path(leaf: &Hash) -> String {
    format!("{STATEMENTS}/{}", hex::encode(leaf))
}

impl HashSource for Reader {
    type Error = ReadError;

    async fn hashes(&self, tile: Tile) -> Result<Vec<Hash>, ReadError> {
        let (found, bytes) = self.tile(tile, WIDTH * 32).await?;
        let mut hashes =
            found.hashes(&bytes).map_err(|problem| ReadError::Tile { path: found.path(), problem })?;
        hashes.truncate(tile.width);
        Ok(hashes)
    }
}
