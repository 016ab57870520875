//! The order of weights in memory: from rows, as a file has them, to tiles of sixteen rows side by side, and back.
//!
//! Both orders take the same bytes, so a matrix is packed where it lies.
use super::bands::Bands;
use super::simd::ROWS;
use crate::encode;
use crate::error::LoadError;
use crate::gguf::TensorType;
use crate::memory::reserve;
use crate::workers::Workers;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of a block in the order of a tile: runs of (first byte, length, bytes that stay together).
type Fields = &'static [(usize, usize, usize)];

/// What lies where in a type's block is in `blocks.rs`, and the order of a tile's fields in `format.rs`.
const fn fields(kind: TensorType) -> Fields {
    match kind {
        TensorType::F32 => &[(0, 4, 4)],
        TensorType::F16 | TensorType::Bf16 => &[(0, 2, 2)],
        TensorType::Q8_0 => &[(0, 2, 2), (2, 32, 4)],
        TensorType::Q4_0 => &[(0, 2, 2), (2, 16, 4)],
        TensorType::Q4_1 => &[(0, 2, 2), (2, 2, 2), (4, 16, 4)],
        TensorType::Q5_0 => &[(0, 2, 2), (2, 4, 4), (6, 16, 4)],
        TensorType::Q5_1 => &[(0, 2, 2), (2, 2, 2), (4, 4, 4), (8, 16, 4)],
        TensorType::Q2K => &[(80, 2, 2), (82, 2, 2), (0, 16, 1), (16, 64, 4)],
        TensorType::Q3K => &[(108, 2, 2), (96, 12, 1), (0, 32, 4), (32, 64, 4)],
        TensorType::Q4K => &[(0, 2, 2), (2, 2, 2), (4, 12, 1), (16, 128, 4)],
        TensorType::Q5K => &[(0, 2, 2), (2, 2, 2), (4, 12, 1), (16, 32, 4), (48, 128, 4)],
        TensorType::Q6K => &[(208, 2, 2), (192, 16, 1), (0, 128, 4), (128, 64, 4)],
    }
}

/// What becomes of a field's bits.
#[derive(Clone, Copy)]
enum Change {
    Keep,
    /// Signed bytes are kept as unsigned ones, 128 more.
    Flip,
    /// The bit of each of 32 columns, in order, is kept as bit `column / 4` of byte `column % 4`.
    Transpose,
}

const fn change(kind: TensorType, field: usize) -> Change {
    match (kind, field) {
        (TensorType::Q8_0, 1) => Change::Flip,
        (TensorType::Q5_0, 1) | (TensorType::Q5_1, 2) => Change::Transpose,
        _ => Change::Keep,
    }
}

/// Bits 0, 4, 8 and so on of each of four numbers, side by side in a byte each.
fn transpose(bits: u32) -> u32 {
    let each = u128::from(bits)
        | u128::from(bits >> 1) << 32
        | u128::from(bits >> 2) << 64
        | u128::from(bits >> 3) << 96;
    let every = |byte: u8| u128::from_ne_bytes([byte; 16]);
    let fours = each & every(0x11);
    let pairs = (fours | fours >> 3) & every(0x03);
    let nibbles =
        (pairs | pairs >> 6) & u128::from(0x000f_000f_u32).wrapping_mul(1 | 1 << 32 | 1 << 64 | 1 << 96);
    let bytes = nibbles | nibbles >> 12;
    u32::from_le_bytes([bytes as u8, (bytes >> 32) as u8, (bytes >> 64) as u8, (bytes >> 96) as u8])
}

/// The inverse of [`transpose`].
fn untranspose(bytes: u32) -> u32 {
    (0..32).fold(0, |bits, column| bits | (bytes >> (column % 4 * 8 + column / 4) & 1) << column)
}

/// A packed matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed<'a> {
    pub(crate) kind: TensorType,
    /// Elements of a row, which is the length of the vectors that the matrix is multiplied with.
    pub(crate) width: usize,
    /// Rows, which is the length of the products.
    pub(crate) height: usize,
    /// Whole groups of sixteen rows.
    pub(crate) tiles: &'a [u8],
    /// One group that begins with the rows that are left, or nothing.
    pub(crate) tail: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Rows from one multiple of sixteen to another, or to the end.
    pub(crate) fn rows(&self, first: usize, end: usize) -> Self {
        let whole = self.height / ROWS * self.group_bytes();
        let place = |row: usize| (row / ROWS * self.group_bytes()).min(whole);
        let tail: &'a [u8] = if end == self.height { self.tail } else { &[] };
        Self { height: end - first, tiles: &self.tiles[place(first)..place(end)], tail, ..*self }
    }

    pub(super) fn group_bytes(&self) -> usize {
        ROWS * self.row_bytes()
    }

    pub(super) fn tiles_in_group(&self) -> usize {
        self.width / self.kind.block_elements()
    }

    fn row_bytes(&self) -> usize {
        // A packed matrix has rows of whole blocks.
        self.kind.bytes(self.width).unwrap_or(0)
    }

    /// The values of a row.
    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        let (group, lane) = (row / ROWS, row % ROWS);
        let tiles = if group < self.height / ROWS {
            &self.tiles[group * self.group_bytes()..][..self.group_bytes()]
        } else {
            self.tail
        };
        let (elements, bytes) = (self.kind.block_elements(), self.kind.block_bytes());
        let mut block = [0; LARGEST_BLOCK];
        let block = &mut block[..bytes];
        for (tile, out) in tiles.chunks_exact(bytes * ROWS).zip(out.chunks_exact_mut(elements)) {
            let mut from = lane;
            for (field, (first, len, unit)) in fields(self.kind).iter().enumerate() {
                for to in block[*first..first + len].chunks_exact_mut(*unit) {
                    // `from` counts units of the current size; fields begin at multiples of sixteen of them.
                    to.copy_from_slice(&tile[from_byte(from, lane, *unit)..][..*unit]);
                    match (change(self.kind, field), to.first_chunk_mut()) {
                        (Change::Flip, _) => to.iter_mut().for_each(|byte| *byte ^= 0x80),
                        (Change::Transpose, Some(to)) => {
                            *to = untranspose(u32::from_le_bytes(*to)).to_le_bytes();
                        }
                        _ => {}
                    }
                    from += ROWS * unit;
                }
            }
            encode::decode(self.kind, block, out);
        }
    }
}

/// A unit's place, from where the sixteen units begin that it is one of, plus the lane.
fn from_byte(start_and_lane: usize, lane: usize, unit: usize) -> usize {
    start_and_lane - lane + lane * unit
}

/// The largest block of any type, that of Q6_K.
const LARGEST_BLOCK: usize = 210;

/// Parts of a matrix that are packed one after the other.
const PARTS: usize = 64;
/// Bytes that are fetched together, so that they are still in a cache when they are packed.
const FETCHED: usize = 1 << 18;

/// Brings bytes of a file, which begin at this offset, to where they belong, if they are not there yet.
pub(crate) type Fetch<'a> = &'a (dyn Fn(usize, &mut [u8]) + Sync);

/// Packs a matrix of whole rows where it lies, at this offset of its file. What is returned is its last rows' group,
/// if they do not fill one.
pub(crate) fn pack(
    (kind, width, height): (TensorType, usize, usize),
    (offset, data): (usize, &mut [u8]),
    fetch: Fetch<'_>,
    workers: &impl Workers,
) -> Result<Vec<u8>, LoadError> {
    let row_bytes = kind.bytes(width).unwrap_or(0);
    let group_bytes = (ROWS * row_bytes).max(1);
    let whole = height / ROWS * group_bytes;
    let mut scratch = reserve(workers.count() * group_bytes).map_err(|_| LoadError::Memory)?;
    scratch.resize(workers.count() * group_bytes, 0);
    let (groups, rest) = data.split_at_mut(whole);
    let parts = Bands::new(groups, whole, PARTS, group_bytes);
    let copies = Bands::new(&mut scratch, workers.count() * group_bytes, workers.count(), group_bytes);
    let next = AtomicUsize::new(0);
    workers.run(&|worker| {
        let Some(mut copy) = copies.take(worker) else { return };
        while let Some(mut part) = parts.take(next.fetch_add(1, Ordering::Relaxed)) {
            let first = offset + part.columns().start;
            let together = (FETCHED / group_bytes).max(1) * group_bytes;
            for (groups, at) in part.row(0).chunks_mut(together).zip((first..).step_by(together)) {
                fetch(at, groups);
                for group in groups.chunks_exact_mut(group_bytes) {
                    copy.row(0).copy_from_slice(group);
                    pack_group(kind, row_bytes, copy.row(0), group);
                }
            }
        }
    });
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    fetch(offset + whole, rest);
    let (rows, mut tail) = (&mut scratch[..group_bytes], vec![0; group_bytes]);
    rows.fill(0);
    rows[..rest.len()].copy_from_slice(rest);
    pack_group(kind, row_bytes, rows, &mut tail);
    Ok(tail)
}

fn pack_group(kind: TensorType, row_bytes: usize, rows: &[u8], tiles: &mut [u8]) {
    macro_rules! by_kind {
        ($($kind:ident)*) => {
            match kind {
                $(TensorType::$kind => pack_as::<{ TensorType::$kind as u32 }>(
                    const { fields(TensorType::$kind) }, kind, row_bytes, rows, tiles),)*
            }
        };
    }
    by_kind!(F32 F16 Bf16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2K Q3K Q4K Q5K Q6K);
}

/// Compiled once for each type, so that fields and sizes are constants.
#[inline(always)]
fn pack_as<const KIND: u32>(
    fields: Fields,
    kind: TensorType,
    row_bytes: usize,
    rows: &[u8],
    tiles: &mut [u8],
) {
    let bytes = kind.block_bytes();
    for (index, tile) in tiles.chunks_exact_mut(bytes * ROWS).enumerate() {
        let mut rest = tile;
        for (field, (first, len, unit)) in fields.iter().enumerate() {
            let (part, after) = rest.split_at_mut(len * ROWS);
            rest = after;
            let change = change(kind, field);
            for lane in 0..ROWS {
                let from = &rows[lane * row_bytes + index * bytes + first..][..*len];
                match unit {
                    1 => scatter::<1>(from, part, lane, change),
                    2 => scatter::<2>(from, part, lane, change),
                    _ => scatter::<4>(from, part, lane, change),
                }
            }
        }
    }
}

#[inline(always)]
fn scatter<const UNIT: usize>(from: &[u8], to: &mut [u8], lane: usize, change: Change) {
    if let (Change::Transpose, Some(bits)) = (change, from.first_chunk()) {
        to[4 * lane..][..4].copy_from_slice(&transpose(u32::from_le_bytes(*bits)).to_le_bytes());
        return;
    }
    let flip = if matches!(change, Change::Flip) { 0x80 } else { 0 };
    let (from, to) = (from.as_chunks::<UNIT>().0, to.as_chunks_mut::<UNIT>().0);
    for (from, to) in from.iter().zip(to.as_chunks_mut::<ROWS>().0) {
        to[lane] = from.map(|byte| byte ^ flip);
    }
}
