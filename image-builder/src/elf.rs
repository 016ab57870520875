//! The kernel's ELF file, read as strictly as the boot code needs it.

use crate::layout::{KERNEL, PAGE};
use object::elf::{EM_X86_64, ET_EXEC, FileHeader64, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_TLS};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, elf};
use std::fmt;

/// One part of the kernel in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Guest-physical address, page-aligned.
    pub address: u32,
    /// Bytes at its start; the rest is zero.
    pub bytes: &'a [u8],
    /// Bytes in memory.
    pub size: u32,
}

impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}: {:#x} of {:#x} bytes", self.address, self.bytes.len(), self.size)
    }
}

/// The kernel: where its segments go and where it is entered.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// In rising order of address, without overlap.
    pub segments: Vec<Segment<'a>>,
    /// Address of the entry point.
    pub entry: u32,
}

/// Why an ELF file is not a kernel that this builder can place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not an ELF file at all, or cut short.
    #[error(
        "it is not a complete 64-bit ELF file ({0}); give the file that `cargo build` made for the kernel"
    )]
    Malformed(String),
    /// An ELF file for something else.
    #[error(
        "it is not a static x86-64 executable; build the kernel with its own flags (`cloister-image build` does)"
    )]
    Kind,
    /// It needs a loader.
    #[error(
        "it has a segment of type {0:#x}, which needs a dynamic loader or thread-local storage; the image has neither"
    )]
    NeedsLoader(u32),
    /// A segment is at the wrong place.
    #[error(
        "its segment at {address:#x} ({size:#x} bytes) is not page-aligned inside {:#x}..{:#x}, or overlaps another; \
         check the kernel's linker script", KERNEL.start, KERNEL.end
    )]
    Place {
        /// Where the segment wants to be.
        address: u64,
        /// Its size in memory.
        size: u64,
    },
    /// A segment is writable and executable.
    #[error("its segment at {0:#x} is both writable and executable; check the kernel's linker script")]
    WritableCode(u64),
    /// It starts outside its own code.
    #[error(
        "its entry point {0:#x} is not in an executable segment; check ENTRY in the kernel's linker script"
    )]
    Entry(u64),
}

impl<'a> Kernel<'a> {
    /// Reads and checks an ELF file.
    pub fn parse(file: &'a [u8]) -> Result<Self, ElfError> {
        let malformed = |error: object::Error| ElfError::Malformed(error.to_string());
        let header = FileHeader64::<LittleEndian>::parse(file).map_err(malformed)?;
        let endian = header.endian().map_err(malformed)?;
        if header.e_type(endian) != ET_EXEC || header.e_machine(endian) != EM_X86_64 {
            return Err(ElfError::Kind);
        }
        let headers = header.program_headers(endian, file).map_err(malformed)?;
        let mut kernel = Self { segments: Vec::new(), entry: 0 };
        let entry = header.e_entry(endian);
        let mut free = u64::from(KERNEL.start);
        for segment in headers {
            match segment.p_type(endian) {
                PT_LOAD if segment.p_memsz(endian) > 0 => {
                    let placed = Self::place(segment, file, free)?;
                    free = u64::from(placed.address) + u64::from(placed.size);
                    let range = u64::from(placed.address)..free;
                    if segment.p_flags(endian) & PF_X != 0 && range.contains(&entry) {
                        kernel.entry = u32::try_from(entry).map_err(|_| ElfError::Entry(entry))?;
                    }
                    kernel.segments.push(placed);
                }
                kind @ (PT_INTERP | PT_DYNAMIC | PT_TLS) if segment.p_memsz(endian) > 0 => {
                    return Err(ElfError::NeedsLoader(kind));
                }
                _ => {}
            }
        }
        if kernel.entry == 0 { Err(ElfError::Entry(entry)) } else { Ok(kernel) }
    }

    fn place(
        header: &elf::ProgramHeader64<LittleEndian>,
        file: &'a [u8],
        free: u64,
    ) -> Result<Segment<'a>, ElfError> {
        let endian = LittleEndian;
        let (address, size, flags) = (header.p_paddr(endian), header.p_memsz(endian), header.p_flags(endian));
        let bytes = header
            .data(endian, file)
            .map_err(|()| ElfError::Malformed("a segment lies beyond its end".into()))?;
        if flags & (PF_W | PF_X) == PF_W | PF_X {
            return Err(ElfError::WritableCode(address));
        }
        let place = ElfError::Place { address, size };
        let end = address.checked_add(size).filter(|end| *end <= u64::from(KERNEL.end));
        let fits = end.is_some()
            && address >= free
            && address.is_multiple_of(PAGE.into())
            && bytes.len() as u64 <= size;
        match (u32::try_from(address), u32::try_from(size)) {
            (Ok(address), Ok(size)) if fits && header.p_vaddr(endian) == u64::from(address) => {
                Ok(Segment { address, bytes, size })
            }
            _ => Err(place),
        }
    }

    /// Where the kernel's last byte in memory ends, rounded up to a page.
    pub fn end(&self) -> u32 {
        self.segments
            .iter()
            .map(|s| (s.address + s.size).next_multiple_of(PAGE))
            .max()
            .unwrap_or(KERNEL.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::kernel as sample;

    const FIRST_HEADER: usize = 64;

    fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = sample(&[0xf4]);
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        file
    }

    #[test]
    fn a_kernel_is_read() {
        let file = sample(&[0xf4, 0x90]);
        let kernel = Kernel::parse(&file).unwrap();
        assert_eq!(kernel.entry, 0x20_0000);
        assert_eq!(kernel.end(), 0x20_4000);
        let [code, zeros] = kernel.segments[..] else { panic!("{kernel:?}") };
        assert_eq!((code.address, code.bytes, code.size), (0x20_0000, &[0xf4, 0x90][..], 2));
        assert_eq!((zeros.address, zeros.bytes, zeros.size), (0x20_1000, &[][..], 0x2345));
    }

    #[test]
    fn e1_what_is_no_kernel_has_its_own_error() {
        let refused = |file: &[u8]| Kernel::parse(file).unwrap_err();
        let whole = sample(&[0xf4]);
        for end in 0..whole.len() {
            assert!(matches!(refused(&whole[..end]), ElfError::Malformed(_)), "cut at {end}");
        }
        assert_eq!(refused(&with(16, &3u16.to_le_bytes())), ElfError::Kind);
        assert_eq!(refused(&with(18, &183u16.to_le_bytes())), ElfError::Kind);
        assert_eq!(refused(&with(24, &0x20_1000u64.to_le_bytes())), ElfError::Entry(0x20_1000));
        assert_eq!(refused(&with(FIRST_HEADER, &PT_INTERP.to_le_bytes())), ElfError::NeedsLoader(PT_INTERP));
        assert_eq!(refused(&with(FIRST_HEADER + 4, &7u32.to_le_bytes())), ElfError::WritableCode(0x20_0000));
        for address in [0x1f_f000u64, 0x20_0010, 0x5f_f000 + 0x1000, u64::MAX - 0xfff] {
            let bytes = address.to_le_bytes();
            let mut file = with(FIRST_HEADER + 16, &bytes);
            file[FIRST_HEADER + 24..FIRST_HEADER + 32].copy_from_slice(&bytes);
            assert_eq!(refused(&file), ElfError::Place { address, size: 1 });
        }
        let overlap = with(FIRST_HEADER + 40, &0x2000u64.to_le_bytes());
        assert_eq!(refused(&overlap), ElfError::Place { address: 0x20_1000, size: 0x2345 });
    }
}
