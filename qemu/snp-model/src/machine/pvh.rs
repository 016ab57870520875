//! What QEMU's PVH entry hands over (Xen's `hvm_start_info`, `arch-x86/hvm/start_info.h`): the module is the
//! bundle.

use super::memory::DIRECT_MAP;

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
}

#[repr(C)]
struct Module {
    address: u64,
    bytes: u64,
    command_line: u64,
    reserved: u64,
}

/// The first module, which stays where QEMU put it, at the end of RAM.
///
/// # Safety `start_info` is what the entry got in EBX, and nothing has written to the memory that it and the
/// module are in.
pub unsafe fn first_module(start_info: u32) -> Option<&'static [u8]> {
    // SAFETY: the direct map shows all of RAM, and the caller says what is there.
    unsafe {
        let info = ((DIRECT_MAP + u64::from(start_info)) as *const StartInfo).read_unaligned();
        if info.magic != MAGIC || info.modules == 0 {
            return None;
        }
        let module = ((DIRECT_MAP + info.module_list) as *const Module).read_unaligned();
        let start = (DIRECT_MAP + module.address) as *const u8;
        Some(core::slice::from_raw_parts(start, module.bytes as usize))
    }
}
