//! Tiles (C2SP tlog-tiles): which ones a tree has, where they lie, and what is in them.

use crate::merkle::{Hash, node_hash};
use crate::text::decimal;

/// Hashes, or entries, in a full tile.
pub const WIDTH: usize = 256;
/// Tree levels that a tile spans.
pub const HEIGHT: u32 = 8;
/// Levels of tiles that a tree of less than 2^63 leaves can have.
pub const LEVELS: u8 = 8;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// Log entries.
    Entries,
    /// Hashes of this level; those of level 0 are leaves.
    Hashes(u8),
}

/// A tile's place and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// The row that it is in.
    pub row: Row,
    /// Its index in the row.
    pub index: u64,
    /// Hashes or entries in it, 1 to [`WIDTH`].
    pub width: usize,
}

/// Why bytes are not the tile that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// The path is not that of a tile.
    #[error("not the path of a tile")]
    Path,
    /// The tree has no such tile.
    #[error("the tree is too small to have this tile")]
    OutOfRange,
    /// The tile ends in the middle of a hash or an entry.
    #[error("the tile is cut off in the middle of a hash or entry")]
    Truncated,
    /// The tile has more or fewer hashes or entries than its path says.
    #[error("the tile holds {found} hashes or entries where its path says {expected}")]
    Width {
        /// What its path says.
        expected: usize,
        /// What it holds.
        found: usize,
    },
}

impl Tile {
    /// The tile of this row and index in a tree of `size` leaves, as wide as it is there.
    pub fn in_tree(row: Row, index: u64, size: u64) -> Result<Self, TileError> {
        let level = match row {
            Row::Entries => 0,
            Row::Hashes(level) => level,
        };
        let count = if level >= LEVELS { 0 } else { size >> (HEIGHT * u32::from(level)) };
        let start = index.checked_mul(WIDTH as u64).ok_or(TileError::OutOfRange)?;
        match count.saturating_sub(start).min(WIDTH as u64) as usize {
            0 => Err(TileError::OutOfRange),
            width => Ok(Self { row, index, width }),
        }
    }

    /// The same tile when it is full.
    pub const fn full(self) -> Self {
        Self { width: WIDTH, ..self }
    }

    /// Its path, relative to the log's prefix.
    pub fn path(&self) -> String {
        let mut path = match self.row {
            Row::Entries => "tile/entries/".to_owned(),
            Row::Hashes(level) => format!("tile/{level}/"),
        };
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        while let Some(group) = groups.pop() {
            path += &if groups.is_empty() { format!("{group:03}") } else { format!("x{group:03}/") };
        }
        if self.width < WIDTH {
            path += &format!(".p/{}", self.width);
        }
        path
    }

    /// Reads a path; only the one form that [`Tile::path`] writes.
    pub fn from_path(path: &str) -> Result<Self, TileError> {
        let rest = path.strip_prefix("tile/").ok_or(TileError::Path)?;
        let (row, rest) = rest.split_once('/').ok_or(TileError::Path)?;
        let row = match row {
            "entries" => Row::Entries,
            level => {
                let level = decimal(level).filter(|level| *level < 64).ok_or(TileError::Path)?;
                Row::Hashes(level as u8)
            }
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => {
                let width = decimal(width).filter(|width| (1..WIDTH as u64).contains(width));
                (index, width.ok_or(TileError::Path)? as usize)
            }
            None => (rest, WIDTH),
        };
        let mut number: u64 = 0;
        let mut groups = index.split('/').peekable();
        while let Some(group) = groups.next() {
            let digits =
                if groups.peek().is_some() { group.strip_prefix('x').ok_or(TileError::Path)? } else { group };
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(TileError::Path);
            }
            let value = digits.parse::<u64>().map_err(|_| TileError::Path)?;
            number = number.checked_mul(1000).and_then(|n| n.checked_add(value)).ok_or(TileError::Path)?;
        }
        let tile = Self { row, index: number, width };
        if tile.path() == path { Ok(tile) } else { Err(TileError::Path) }
    }

    /// The hashes of a tile's bytes, exactly as many as its width.
    pub fn hashes(&self, bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(TileError::Truncated);
        }
        self.expect_width(hashes.len())?;
        Ok(hashes.to_vec())
    }

    /// The entries of a bundle's bytes, exactly as many as its width.
    pub fn entries<'b>(&self, mut bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, TileError> {
        let mut entries = Vec::with_capacity(self.width);
        while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
            let (entry, rest) =
                rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(TileError::Truncated)?;
            entries.push(entry);
            bytes = rest;
        }
        if !bytes.is_empty() {
            return Err(TileError::Truncated);
        }
        self.expect_width(entries.len())?;
        Ok(entries)
    }

    fn expect_width(&self, found: usize) -> Result<(), TileError> {
        if found == self.width { Ok(()) } else { Err(TileError::Width { expected: self.width, found }) }
    }
}

/// Appends an entry to a bundle. An entry has at most [`crate::entry::MAX_ENTRY`] bytes.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// The root of a complete subtree whose lowest hashes these are; a power of two of them, and at least one.
pub fn subtree_root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    row.first().copied().unwrap_or_default()
}
