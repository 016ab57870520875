//! The host writes where it may, and reads where it may not.

use crate::machine::{machine::Machine, serial::log};
use alloc::{collections::BTreeSet, vec::Vec};
use snp_model::{PAGE_BYTES, hostile::CANARY};

const PAGE: u64 = PAGE_BYTES as u64;

impl Machine {
    /// Noise over everything that the guest shares, but for its GHCB and what a device works on.
    pub(super) fn scribble(&mut self, ghcb: u64) {
        let busy: BTreeSet<u64> = self.device_pages().into_iter().chain([ghcb]).collect();
        for range in self.hostile.shared.clone() {
            for gpa in range.step_by(PAGE_BYTES).filter(|gpa| !busy.contains(gpa)) {
                let Some(page) = self.shared_page(gpa) else { continue };
                for at in (0..PAGE_BYTES).step_by(8) {
                    // xorshift64 (Marsaglia, 2003).
                    let noise = &mut self.hostile.noise;
                    *noise ^= *noise << 13;
                    *noise ^= *noise >> 7;
                    *noise ^= *noise << 17;
                    page.write(at, *noise);
                }
            }
        }
    }

    /// Counts the canary in the guest's private memory and tells the log.
    pub(super) fn search(&self, when: &str) {
        let mut window: Vec<u8> = Vec::new();
        let mut found = 0;
        let mut bytes = [0; PAGE_BYTES];
        for gpa in self.memory.ram().ranges().into_iter().flatten().step_by(PAGE_BYTES) {
            let Some(page) = self.memory.private(gpa) else { continue };
            if page.is_clear() {
                window.clear();
                continue;
            }
            page.copy(&mut bytes);
            window.extend_from_slice(&bytes);
            found += window.windows(CANARY.len()).filter(|run| run[0] == CANARY[0] && *run == CANARY).count();
            window.drain(..window.len() - (CANARY.len() - 1));
        }
        log!("the canary is in guest memory {found} times {when}");
    }
}

/// The page of an address.
pub(super) fn page_of(gpa: u64) -> u64 {
    gpa & !(PAGE - 1)
}
