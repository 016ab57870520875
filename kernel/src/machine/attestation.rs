//! Guest messages on the hardware's side: the secrets page, and the way to the AMD-SP and back.

use super::shared::SharedRun;
use super::{ghcb, paging};
use ::attestation::certificate_table;
use alloc::vec::Vec;
use kernel::fatal::{Fatal, OrFatal};
use kernel::host::{HostFault, SharedBytes};
use kernel::snp::ghcb::GuestRequestStatus;
use kernel::snp::message::{Carrier, MESSAGE_BYTES, Messenger};
use kernel::snp::{cpuid, secrets};
use wire::termination::Termination;

/// Room for the host's certificates, in pages.
const CERTIFICATE_PAGES: usize = ::attestation::evidence::MAX_CERTIFICATES / 4096;

/// `PAUSE`s of one rest: about 20 ms on processors with SEV-SNP, which take some 50 cycles for each.
const REST: u32 = 1 << 20;

/// Takes VMPCK0 and removes the secrets and CPUID pages, which are not needed after the boot.
///
/// # Safety
/// Called once, when nobody reads these pages any more.
pub unsafe fn messenger() -> OrFatal<Messenger> {
    // SAFETY: the page is private, mapped, and by the caller's promise used here only.
    let page = unsafe { &mut *(secrets::GPA as *mut [u8; secrets::BYTES]) };
    let key = secrets::take_vmpck0(page)?;
    paging::unmap(secrets::GPA)?;
    paging::unmap(cpuid::GPA)?;
    Ok(Messenger::new(key))
}

/// Carries messages through three runs of shared pages.
pub struct GhcbCarrier {
    request: SharedRun,
    reply: SharedRun,
    certificates: SharedRun,
}

impl GhcbCarrier {
    /// Takes its pages from `shared`.
    pub fn new(shared: &mut SharedRun) -> OrFatal<Self> {
        let mut take = |size| shared.take(size).ok_or(Fatal::new(Termination::MemoryLayout, size as u64));
        Ok(Self {
            request: take(MESSAGE_BYTES)?,
            reply: take(MESSAGE_BYTES)?,
            certificates: take(CERTIFICATE_PAGES * 4096)?,
        })
    }
}

impl Carrier for GhcbCarrier {
    fn carry(
        &mut self,
        message: &[u8; MESSAGE_BYTES],
        reply: &mut [u8; MESSAGE_BYTES],
        certificates: Option<&mut Vec<u8>>,
    ) -> Result<GuestRequestStatus, HostFault> {
        self.request.write(0, message)?;
        // An answer that never came must not be the one before.
        self.reply.clear();
        let (request, answer) = (self.request.gpa(), self.reply.gpa());
        let status = match certificates {
            None => ghcb::with(|ghcb| ghcb.guest_request(request, answer))?,
            Some(table) => {
                self.certificates.clear();
                let data = self.certificates.gpa();
                let status = ghcb::with(|ghcb| {
                    ghcb.extended_guest_request(request, answer, data, CERTIFICATE_PAGES as u64)
                })?;
                let mut pages = alloc::vec![0; CERTIFICATE_PAGES * 4096];
                self.certificates.read(0, &mut pages)?;
                // What is no table is no use to a verifier; the rest of the pages is padding.
                *table = certificate_table::decode(&pages).map_or_else(
                    |_| Vec::new(),
                    |entries| {
                        if entries.is_empty() { Vec::new() } else { certificate_table::encode(&entries) }
                    },
                );
                status
            }
        };
        self.reply.read(0, reply)?;
        Ok(status)
    }

    fn rest(&mut self) {
        (0..REST).for_each(|_| core::hint::spin_loop());
    }
}
