//! Reading the model file: one copy into private memory, which is then hashed by all CPUs (REQUIREMENTS A13).
//!
//! What is hashed is the copy, never the disk: a disk that answers differently on a second read is never read twice.

use crate::fatal::{Fatal, OrFatal};
use crate::host::{HostIo, SharedBytes};
use crate::once::Once;
use crate::virtio::DeviceError;
use crate::virtio::block::{Block, REQUEST_BYTES, SECTOR_BYTES};
use alloc::vec::Vec;
use attestation::manifest::ModelIdentity;
use attestation::weights::{LEAF_BYTES, RootHasher, WeightsDigest, leaf};
use core::sync::atomic::{AtomicUsize, Ordering};
use inference::Workers;
use wire::event::Event;
use wire::termination::Termination;

/// A disk that is read once, front to back.
pub trait Disk {
    /// Fills `out`, whole sectors and at most [`REQUEST_BYTES`], from `sector` on.
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DeviceError>;
}

/// A virtio disk, with how long to wait for it: `patience` is asked anew for each request.
pub struct PatientDisk<H, M, P> {
    /// The disk.
    pub block: Block<H, M>,
    /// Makes the question "still waiting?" for one request.
    pub patience: P,
}

impl<H: HostIo, M: SharedBytes, P: FnMut() -> W, W: FnMut() -> bool> Disk for PatientDisk<H, M, P> {
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.block.read(sector, out, (self.patience)())
    }
}

/// Copies the model's file into `arena` and checks its root; the file's bytes. The arena holds whole sectors.
pub fn load<'a>(
    disk: &mut impl Disk,
    model: &ModelIdentity,
    arena: &'a mut [u8],
    workers: &impl Workers,
    mut emit: impl FnMut(Event),
) -> OrFatal<&'a mut [u8]> {
    let unreadable = |at: usize| Fatal::new(Termination::WeightsRead, at as u64);
    let length = usize::try_from(model.weights_bytes).map_err(|_| unreadable(0))?;
    let sectors = length.checked_next_multiple_of(SECTOR_BYTES).ok_or(unreadable(0))?;
    let arena = arena.get_mut(..sectors).ok_or(unreadable(0))?;

    let mut reported = 0;
    let mut at = 0;
    for piece in arena.chunks_mut(REQUEST_BYTES) {
        disk.read((at / SECTOR_BYTES) as u64, piece).map_err(|_| unreadable(at))?;
        at += piece.len();
        let tenths = at as u64 * 10 / sectors as u64;
        if tenths > reported {
            reported = tenths;
            emit(Event::WeightsProgress { percent: tenths as u32 * 10 });
        }
    }
    // The last sector may go on after the file's end; what is there is not part of the file.
    let file = &arena[..length];
    if root(file, workers) != Some(model.weights_root) {
        return Err(Fatal::new(Termination::WeightsMismatch, model.weights_bytes));
    }
    Ok(&mut arena[..length])
}

/// The root of the tree hash, its leaves hashed by all CPUs; `None` if a leaf was left out.
fn root(file: &[u8], workers: &impl Workers) -> Option<WeightsDigest> {
    let leaves: Vec<(&[u8], Once<WeightsDigest>)> =
        file.chunks(LEAF_BYTES).map(|bytes| (bytes, Once::new())).collect();
    let next = AtomicUsize::new(0);
    workers.run(&|_| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((bytes, digest)) = leaves.get(index) else { return };
            // Whoever took the number is the only one to fill the cell.
            let _ = digest.set(leaf(index as u64, bytes));
        }
    });
    let mut root = RootHasher::new();
    for (_, digest) in &leaves {
        root.leaf(digest.get()?);
    }
    Some(root.finish(file.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation::weights::TreeHasher;
    use inference::SingleThread;

    struct Image(Vec<u8>, Vec<u64>);

    impl Disk for Image {
        fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DeviceError> {
            self.1.push(sector);
            let at = sector as usize * SECTOR_BYTES;
            out.copy_from_slice(self.0.get(at..at + out.len()).ok_or(DeviceError::Dead)?);
            Ok(())
        }
    }

    fn file() -> Vec<u8> {
        (0..3 * REQUEST_BYTES + 700).map(|i| ((i * 7) >> 3) as u8).collect()
    }

    fn model(file: &[u8]) -> ModelIdentity {
        let mut hasher = TreeHasher::new();
        hasher.update(file);
        ModelIdentity { name: "m".into(), weights_bytes: file.len() as u64, weights_root: hasher.finish() }
    }

    fn disk(file: &[u8]) -> Image {
        let mut bytes = file.to_vec();
        bytes.resize(file.len().next_multiple_of(SECTOR_BYTES), 0xee);
        Image(bytes, vec![])
    }

    fn loaded(disk: &mut Image, model: &ModelIdentity) -> (Result<Vec<u8>, Termination>, Vec<Event>) {
        let mut arena = vec![0; 4 * REQUEST_BYTES];
        let mut events = Vec::new();
        let bytes = load(disk, model, &mut arena, &SingleThread, |event| events.push(event));
        (bytes.map(|bytes| bytes.to_vec()).map_err(|fatal| fatal.reason), events)
    }

    #[test]
    fn the_file_is_copied_once_and_progress_told() {
        let file = file();
        let mut disk = disk(&file);
        let (bytes, events) = loaded(&mut disk, &model(&file));
        assert_eq!(bytes, Ok(file));
        let step = (REQUEST_BYTES / SECTOR_BYTES) as u64;
        assert_eq!(disk.1, [0, step, 2 * step, 3 * step]);
        assert_eq!(events.last(), Some(&Event::WeightsProgress { percent: 100 }));
    }

    #[test]
    fn a13_one_bit_off_stops_the_boot() {
        let file = file();
        for at in [0, file.len() / 2, file.len() - 1] {
            let mut disk = disk(&file);
            disk.0[at] ^= 0x10;
            assert_eq!(loaded(&mut disk, &model(&file)).0, Err(Termination::WeightsMismatch));
        }
    }

    #[test]
    fn a13_a_truncated_disk_stops_the_boot() {
        let file = file();
        let mut disk = disk(&file);
        disk.0.truncate(2 * REQUEST_BYTES);
        assert_eq!(loaded(&mut disk, &model(&file)).0, Err(Termination::WeightsRead));
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused_before_it_is_read() {
        let file = file();
        for weights_bytes in [u64::MAX, 5 * REQUEST_BYTES as u64] {
            let mut disk = disk(&file);
            assert_eq!(
                loaded(&mut disk, &ModelIdentity { weights_bytes, ..model(&file) }).0,
                Err(Termination::WeightsRead)
            );
            assert!(disk.1.is_empty());
        }
    }
}
