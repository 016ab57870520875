//! Which guest-physical memory is used for what, from the measured manifest alone (REQUIREMENTS A10, A18).
//!
//! Below [`FIRST_FREE`] lie the pages of the launch: CPUID, secrets, manifest, image. What the image does not need there
//! is never validated, and so is no memory to the guest.

use crate::cpus::{MAX, stacks::AREA};
use crate::fatal::{Fatal, OrFatal};
use core::ops::Range;
use wire::termination::Termination;

/// A frame: a page of 2 MiB, the unit in which RAM is validated and mapped.
pub const FRAME: u64 = 2 << 20;
/// Bytes of a page table.
pub const TABLE: u64 = 4096;
/// End of the memory that holds the image.
pub const FIRST_FREE: u64 = 0x60_0000;
/// End of the highest memory that a manifest may ask for.
pub const LIMIT: u64 = TIB + MAX_MIB as u64 * MIB;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const FOUR_GIB: u64 = 4 * GIB;
const TIB: u64 = 1024 * GIB;
/// On AMD processors the 12 GiB below 1 TiB are HyperTransport's (`AMD_HT_START` in QEMU `hw/i386/pc.c`).
const HYPER_TRANSPORT: u64 = 0xfd_0000_0000;
/// What q35 sets aside behind RAM for 64-bit device memory (`Q35_PCI_HOST_HOLE64_SIZE_DEFAULT`).
const DEVICE_HOLE: u64 = 32 * GIB;
const MIN_MIB: u32 = 1024;
const MAX_MIB: u32 = 1 << 20;
const SHARED_BYTES: u64 = 2 * FRAME;
const MIN_HEAP: u64 = 64 * MIB;

/// The use of all RAM. Every range consists of whole frames, and no two overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Shared with the host: the devices' queues and buffers, guest messages.
    pub shared: Range<u64>,
    /// Page tables. In the first GiB, whose page directory is part of the image.
    pub tables: Range<u64>,
    /// Stacks of the CPUs beside the first, whose own are in the image.
    pub stacks: Range<u64>,
    /// The weights.
    pub weights: Range<u64>,
    /// Everything else, below and above the hole under 4 GiB; either may be empty.
    pub heap: [Range<u64>; 2],
}

impl Layout {
    /// Plans the use of `memory_mib` MiB as q35 places them: up to 2.75 GiB in one piece from 0; with more, 2 GiB from 0
    /// and the rest from 4 GiB (QEMU `hw/i386/pc_q35.c`), or from 1 TiB if it would otherwise reach what is HyperTransport's
    /// (`pc_memory_init`).
    pub fn plan(memory_mib: u32, vcpus: u32, weights_bytes: u64) -> OrFatal<Self> {
        let refused = Fatal::new(Termination::MemoryLayout, memory_mib.into());
        if !(MIN_MIB..=MAX_MIB).contains(&memory_mib) {
            return Err(refused);
        }
        if !(1..=MAX as u32).contains(&vcpus) {
            return Err(Fatal::new(Termination::CpuStart, vcpus.into()));
        }
        let total = u64::from(memory_mib) * MIB / FRAME * FRAME;
        let low_end = if total < 11 * GIB / 4 { total } else { 2 * GIB };
        let high_bytes = total - low_end;
        let crosses = FOUR_GIB + high_bytes.next_multiple_of(GIB) + DEVICE_HOLE > HYPER_TRANSPORT;
        let high_start = if crosses { TIB } else { FOUR_GIB };
        let high = high_start..high_start + high_bytes;

        let shared = FIRST_FREE..FIRST_FREE + SHARED_BYTES;
        let stacks_bytes = (u64::from(vcpus - 1) * AREA).next_multiple_of(FRAME);
        // A page directory for each GiB, a page table for each frame of stacks, and a few tables above them.
        let tables_bytes = ((high.end / GIB + 4 + stacks_bytes / FRAME) * TABLE).next_multiple_of(FRAME);
        let tables = shared.end..shared.end + tables_bytes;
        let stacks = tables.end..tables.end + stacks_bytes;
        let low = stacks.end..low_end;
        let weights_bytes = weights_bytes.checked_next_multiple_of(FRAME).ok_or(refused)?;

        // The weights go where they leave the larger piece, for the engine's arenas.
        let place = |home: &Range<u64>, other: &Range<u64>| {
            let end = home.start.checked_add(weights_bytes).filter(|end| *end <= home.end)?;
            Some((home.start..end, [end..home.end, other.clone()]))
        };
        let largest = |heap: &[Range<u64>; 2]| heap.iter().map(length).max();
        let (weights, heap) = [place(&low, &high), place(&high, &low)]
            .into_iter()
            .flatten()
            .max_by_key(|(_, heap)| largest(heap))
            .filter(|(_, heap)| largest(heap) >= Some(MIN_HEAP))
            .ok_or(refused)?;
        Ok(Self { shared, tables, stacks, weights, heap })
    }

    /// MiB of the guest's own memory.
    pub fn private_mib(&self) -> u32 {
        let bytes: u64 =
            [&self.tables, &self.stacks, &self.weights].into_iter().chain(&self.heap).map(length).sum();
        u32::try_from(bytes / MIB).unwrap_or(u32::MAX)
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_machine_is_one_piece() {
        let layout = Layout::plan(1024, 1, 8 * MIB - 1).unwrap();
        assert_eq!(layout.shared, 0x60_0000..0xa0_0000);
        assert_eq!(layout.tables, 0xa0_0000..0xc0_0000);
        assert_eq!(layout.weights, 0xc0_0000..0x140_0000);
        assert_eq!(layout.heap, [0x140_0000..GIB, FOUR_GIB..FOUR_GIB]);
    }

    #[test]
    fn a10_memory_that_cannot_hold_the_guest_is_refused() {
        for (mib, weights) in
            [(0, 0), (1023, 0), (1024, GIB), (1024, u64::MAX), (MAX_MIB + 1, 0), (u32::MAX, 0)]
        {
            let error = Layout::plan(mib, 1, weights).unwrap_err();
            assert_eq!(error.reason, Termination::MemoryLayout, "{mib} MiB, {weights} bytes of weights");
        }
    }

    #[test]
    fn a10_ram_stays_clear_of_hyper_transport() {
        // 2 GiB below, 976 GiB from 4 GiB, 32 GiB for devices: 1012 GiB, where HyperTransport begins.
        let last = Layout::plan(978 << 10, 1, 0).unwrap();
        assert_eq!(last.heap[1].end.max(last.heap[0].end), HYPER_TRANSPORT - DEVICE_HOLE);
        let next = Layout::plan((978 << 10) + 2, 1, 0).unwrap();
        assert_eq!(next.heap.iter().map(|range| range.start).max(), Some(TIB));
        let most = Layout::plan(MAX_MIB, 64, 0).unwrap();
        assert!(most.heap.iter().all(|range| range.end <= LIMIT));
    }

    #[test]
    fn a16_a_number_of_cpus_that_cannot_be_is_refused() {
        for vcpus in [0, 65, u32::MAX] {
            assert_eq!(Layout::plan(1024, vcpus, 0).unwrap_err().reason, Termination::CpuStart, "{vcpus}");
        }
    }

    proptest! {
        #[test]
        fn a10_ranges_are_frames_of_ram_and_do_not_overlap(mib in MIN_MIB..=MAX_MIB, vcpus in 1u32..=64, weights in 0u64..1 << 41) {
            let Ok(layout) = Layout::plan(mib, vcpus, weights) else { return Ok(()) };
            let low = if u64::from(mib) < 2816 { u64::from(mib) * MIB } else { 2 * GIB };
            let high_start = if mib > (978 << 10) { TIB } else { FOUR_GIB };
            let high_end = high_start + u64::from(mib) * MIB - low;
            let [one, other] = layout.heap.clone();
            let mut ranges = [layout.shared.clone(), layout.tables.clone(), layout.stacks.clone(), layout.weights.clone(), one, other];
            for range in &ranges {
                prop_assert!(range.start % FRAME == 0 && range.end % FRAME == 0 && range.start <= range.end);
                let in_low = range.start >= FIRST_FREE && range.end <= low;
                prop_assert!(in_low || (range.start >= high_start && range.end <= high_end) || (range.is_empty() && low == u64::from(mib) * MIB), "{range:x?}");
            }
            prop_assert!(layout.weights.end - layout.weights.start >= weights);
            prop_assert!(layout.tables.end <= GIB);
            prop_assert!(layout.stacks.end - layout.stacks.start >= u64::from(vcpus - 1) * AREA);
            prop_assert_eq!(u64::from(layout.private_mib()) * MIB + FIRST_FREE + SHARED_BYTES, u64::from(mib) / 2 * FRAME);
            prop_assert!((layout.tables.end - layout.tables.start) / TABLE >= high_end / GIB + 3 + (layout.stacks.end - layout.stacks.start) / FRAME);
            ranges.sort_by_key(|range| range.start);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
