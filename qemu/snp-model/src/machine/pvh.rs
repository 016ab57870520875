//! What QEMU's PVH entry hands over (Xen's `hvm_start_info`, `arch-x86/hvm/start_info.h`): the module is the
//! bundle.

use super::memory::DIRECT_MAP;
use snp_model::layout::HIGH_START;

const MAGIC: u32 = 0x336E_C578;

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    /// From version 1 on.
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct Module {
    address: u64,
    bytes: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
struct MemoryMapEntry {
    address: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

/// What was handed over.
pub struct HandOver {
    /// The first module, where QEMU put it: near the end of RAM below 4 GiB.
    pub module: &'static [u8],
    /// The end of RAM above 4 GiB, or 4 GiB if there is none.
    pub ram_end: u64,
}

/// Reads what was handed over; `None` if it has no module or no memory map.
///
/// # Safety
/// `start_info` is what the entry got in EBX, and nothing has written to the memory that it and the
/// module are in.
pub unsafe fn read(start_info: u32) -> Option<HandOver> {
    const RAM: u32 = 1;
    let at = |address: u64| DIRECT_MAP + address;
    // SAFETY: the direct map shows all of RAM, and the caller says what is there.
    unsafe {
        let info = (at(start_info.into()) as *const StartInfo).read_unaligned();
        if info.magic != MAGIC || info.modules == 0 || info.version == 0 {
            return None;
        }
        let module = (at(info.module_list) as *const Module).read_unaligned();
        let module = core::slice::from_raw_parts(at(module.address) as *const u8, module.bytes as usize);
        let mut ram_end = HIGH_START;
        for index in 0..u64::from(info.memory_map_entries) {
            let entry = info.memory_map + index * size_of::<MemoryMapEntry>() as u64;
            let entry = (at(entry) as *const MemoryMapEntry).read_unaligned();
            if entry.kind == RAM && entry.address == HIGH_START {
                ram_end = HIGH_START + entry.bytes;
            }
        }
        Some(HandOver { module, ram_end })
    }
}
