//! The tree behind the tiles: its right edge, which a writer extends, and proofs, which anyone makes from tiles.

use crate::merkle::{Hash, empty_root, node_hash};
use crate::tile::{HEIGHT, LEVELS, Row, Tile, TileError, WIDTH, subtree_root};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Where hashes of tiles come from.
pub trait HashSource {
    /// Why there are none.
    type Error: From<TileError>;

    /// The hashes of a tile, as many as its width.
    fn hashes(&self, tile: Tile) -> impl Future<Output = Result<Vec<Hash>, Self::Error>> + Send;
}

/// The right edge of a tree: the hashes of its partial tiles, from the leaves up. It is all that is needed to extend the
/// tree and to know its root, and does not grow with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    rows: Vec<Vec<Hash>>,
}

impl Default for Edge {
    fn default() -> Self {
        Self { size: 0, rows: vec![Vec::new(); LEVELS.into()] }
    }
}

impl Edge {
    /// The edge of a tree of `size` leaves, from its partial tiles.
    pub async fn read<S: HashSource>(size: u64, source: &S) -> Result<Self, S::Error> {
        let mut edge = Self { size, ..Self::default() };
        for (level, row) in (0..LEVELS).zip(&mut edge.rows) {
            let count = size >> (HEIGHT * u32::from(level));
            let width = (count % WIDTH as u64) as usize;
            if width > 0 {
                let tile = Tile { row: Row::Hashes(level), index: count / WIDTH as u64, width };
                *row = source.hashes(tile).await?;
            }
        }
        Ok(edge)
    }

    /// The edge with these rows, if a tree of this size has rows of these lengths.
    pub fn from_rows(size: u64, rows: Vec<Vec<Hash>>) -> Option<Self> {
        let width = |level: usize| (size >> (HEIGHT as usize * level)) as usize % WIDTH;
        let fits = rows.iter().enumerate().all(|(level, row)| row.len() == width(level));
        (rows.len() == usize::from(LEVELS) && fits).then_some(Self { size, rows })
    }

    /// The rows, from the leaves up.
    pub fn rows(&self) -> &[Vec<Hash>] {
        &self.rows
    }

    /// Leaves of the tree.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The leaf hashes of the partial tile, if there is one.
    pub fn leaves(&self) -> &[Hash] {
        self.rows.first().map_or(&[], Vec::as_slice)
    }

    /// Adds a leaf; calls `full` with every tile that it completes.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(Tile, &[Hash])) {
        self.size += 1;
        let mut hash = leaf;
        for (level, row) in (0..LEVELS).zip(&mut self.rows) {
            row.push(hash);
            if row.len() < WIDTH {
                return;
            }
            let index = (self.size >> (HEIGHT * (u32::from(level) + 1))) - 1;
            full(Tile { row: Row::Hashes(level), index, width: WIDTH }, row);
            hash = subtree_root(row);
            row.clear();
        }
    }

    /// The partial tiles.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        (0..LEVELS).zip(&self.rows).filter(|(_, row)| !row.is_empty()).map(|(level, row)| {
            let index = self.size >> (HEIGHT * (u32::from(level) + 1));
            (Tile { row: Row::Hashes(level), index, width: row.len() }, row.as_slice())
        })
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        // Complete subtrees from the left, the largest first, joined from the right.
        let mut peaks = Vec::new();
        for row in self.rows.iter().rev() {
            let mut rest = row.as_slice();
            while let Some(bits) = rest.len().checked_ilog2() {
                let (complete, after) = rest.split_at(1 << bits);
                peaks.push(subtree_root(complete));
                rest = after;
            }
        }
        join(&peaks).unwrap_or_else(empty_root)
    }
}

fn join(peaks: &[Hash]) -> Option<Hash> {
    let (last, rest) = peaks.split_last()?;
    Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// The largest power of two below `n`, which is 2 or more.
const fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The hashes that prove that the leaf `index` is in the tree of `size` leaves (RFC 6962, section 2.1.1).
pub async fn inclusion_proof<S: HashSource>(
    index: u64,
    size: u64,
    source: &S,
) -> Result<Vec<Hash>, S::Error> {
    if index >= size {
        return Err(TileError::OutOfRange.into());
    }
    let (mut range, mut ranges) = (0..size, Vec::new());
    while range.end - range.start > 1 {
        let middle = range.start + split(range.end - range.start);
        if index < middle {
            ranges.push(middle..range.end);
            range.end = middle;
        } else {
            ranges.push(range.start..middle);
            range.start = middle;
        }
    }
    ranges.reverse();
    hashes_of(&ranges, size, source).await
}

/// The hashes that prove that the tree of `new` leaves begins with that of `old` leaves (RFC 6962, section 2.1.2).
pub async fn consistency_proof<S: HashSource>(old: u64, new: u64, source: &S) -> Result<Vec<Hash>, S::Error> {
    if old > new {
        return Err(TileError::OutOfRange.into());
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    let (mut range, mut ranges, mut whole) = (0..new, Vec::new(), true);
    while old != range.end {
        let middle = range.start + split(range.end - range.start);
        if old <= middle {
            ranges.push(middle..range.end);
            range.end = middle;
        } else {
            ranges.push(range.start..middle);
            range.start = middle;
            whole = false;
        }
    }
    if !whole {
        ranges.push(range);
    }
    ranges.reverse();
    hashes_of(&ranges, new, source).await
}

/// A complete subtree: its height, and its index among those of this height.
type Node = (u32, u64);

/// The complete subtrees of a range, from the left.
fn nodes(range: &Range<u64>) -> Vec<Node> {
    let (mut start, mut nodes) = (range.start, Vec::new());
    while start < range.end {
        let height = start.trailing_zeros().min((range.end - start).ilog2());
        nodes.push((height, start >> height));
        start += 1 << height;
    }
    nodes
}

async fn hashes_of<S: HashSource>(
    ranges: &[Range<u64>],
    size: u64,
    source: &S,
) -> Result<Vec<Hash>, S::Error> {
    let place = |(height, index): Node| {
        let within = height % HEIGHT;
        let first = index << within;
        let row = Row::Hashes((height / HEIGHT) as u8);
        Tile::in_tree(row, first / WIDTH as u64, size).map(|tile| (tile, (first % WIDTH as u64) as usize))
    };
    let mut wanted = BTreeSet::new();
    for node in ranges.iter().flat_map(nodes) {
        wanted.insert(place(node)?.0);
    }
    let mut tiles = BTreeMap::new();
    for tile in wanted {
        tiles.insert(tile, source.hashes(tile).await?);
    }
    let hash = |node: Node| -> Result<Hash, TileError> {
        let (tile, first) = place(node)?;
        let hashes = tiles.get(&tile).ok_or(TileError::OutOfRange)?;
        let below = hashes.get(first..first + (1 << (node.0 % HEIGHT))).ok_or(TileError::OutOfRange)?;
        Ok(subtree_root(below))
    };
    let mut proof = Vec::with_capacity(ranges.len());
    for range in ranges {
        let peaks = nodes(range).into_iter().map(hash).collect::<Result<Vec<_>, _>>()?;
        proof.push(join(&peaks).ok_or(TileError::OutOfRange)?);
    }
    Ok(proof)
}
