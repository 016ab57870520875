//! Where the vCPU stands among the others, and the caches they share: one socket, one die, one thread to a core.
//!
//! The page is measured once for all vCPUs, so ids in it are those of the first one: zero.

use super::{CpuidPage, Machine};

/// `Fn0000_0001_EDX[28]` HTT and `Fn8000_0001_ECX[1]` CmpLegacy: more than one core in the package.
const HTT: u32 = 1 << 28;
const CMP_LEGACY: u32 = 1 << 1;
/// `Fn8000_0001_ECX[22]` TopologyExtensions: leaves 8000_001D and 8000_001E exist.
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

/// Type, level, ways and sets of the caches as in `epyc_genoa_cache_info` (QEMU `target/i386/cpu.c`); lines of 64 bytes.
/// Types are those of `Fn8000_001D_EAX[4:0]`: 1 data, 2 instructions, 3 both. The last one is shared by all cores.
const CACHES: [(u32, u32, u32, u32); 4] = [(1, 1, 8, 64), (2, 1, 8, 64), (3, 2, 8, 2048), (3, 3, 16, 32768)];

pub(super) fn fill(page: &mut CpuidPage, machine: Machine) {
    let vcpus = machine.vcpus.max(1);
    // Bits of an APIC id that number the cores of the package.
    let id_bits = vcpus.next_power_of_two().ilog2();

    let several = vcpus > 1;
    amend(page, 0x1, [0, if several { vcpus.min(255) << 16 } else { 0 }, 0, if several { HTT } else { 0 }]);
    amend(page, 0x8000_0001, [0, 0, TOPOLOGY_EXTENSIONS | if several { CMP_LEGACY } else { 0 }, 0]);
    // ApicIdSize and the number of cores less one.
    amend(page, 0x8000_0008, [0, 0, id_bits << 12 | (vcpus - 1), 0]);

    // Levels: thread (type 1), core (type 2), and the level that ends the list (APM volume 3, §E.3.10).
    page.push(0xB, 0, [0, 1, 1 << 8, 0]);
    page.push(0xB, 1, [id_bits, vcpus, 2 << 8 | 1, 0]);
    page.push(0xB, 2, [0, 0, 2, 0]);

    for (index, (kind, level, ways, sets)) in (0..).zip(CACHES) {
        let sharing = if level == 3 { vcpus } else { 1 };
        // EAX[8] self-initialising, EAX[25:14] sharers less one; EBX ways, partitions and line size less one each.
        page.push(
            0x8000_001D,
            index,
            [(sharing - 1) << 14 | 1 << 8 | level << 5 | kind, (ways - 1) << 22 | 63, sets - 1, 0],
        );
    }
    // Leaf 8000_001E (extended APIC id, core, node) is all zero for the first vCPU, and therefore left out.
}

/// Sets further bits of a leaf that the page holds.
fn amend(page: &mut CpuidPage, leaf: u32, more: [u32; 4]) {
    for entry in page.entries.iter_mut().filter(|e| e.leaf == leaf) {
        for (register, bits) in entry.out.iter_mut().zip(more) {
            *register |= bits;
        }
    }
}
