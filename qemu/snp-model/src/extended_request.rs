//! The hypervisor's part of guest messages: what a GHCB guest request returns beside the AMD-SP's message.
//!
//! GHCB §4.1.7 (SNP guest request) and §4.1.8 (SNP extended guest request). The certificates are the host's own gift
//! and come unprotected; the guest passes them on and believes nothing of them.

use crate::{PAGE_BYTES, Page, amd_sp::Status};
use alloc::{vec, vec::Vec};

/// `MSG_TYPE` in a message's header (SNP ABI §8.26), and that of `MSG_REPORT_REQ`, the one request that certificates
/// go with.
const KIND: usize = 0x34;
const REPORT_REQ: u8 = 5;
/// An empty table: one entry of zeroes ends it (GHCB §4.1.8).
const END_OF_TABLE: usize = 24;
/// `SW_EXITINFO2[63:32]` when the data pages do not hold the certificates.
const INVALID_LENGTH: u64 = 1 << 32;

/// `SW_EXITINFO2` after the AMD-SP was asked: its status, zero for success.
pub const fn exit_info_2(result: Result<(), Status>) -> u64 {
    match result {
        Ok(()) => 0,
        Err(status) => status as u64,
    }
}

/// What the hypervisor does with an extended request before it forwards the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extended {
    /// Forward the message, then copy these bytes to the start of the data pages. They fit.
    Forward {
        /// The certificate table; none for a message that is not a report request.
        data: Vec<u8>,
    },
    /// Do not forward: set RBX to the pages needed and `SW_EXITINFO2` to [`Extended::TOO_FEW_PAGES`].
    TooFewPages {
        /// Pages that the certificates need.
        needed: u64,
    },
}

impl Extended {
    /// `SW_EXITINFO2` of [`Extended::TooFewPages`].
    pub const TOO_FEW_PAGES: u64 = INVALID_LENGTH;

    /// Decides over `request`, with `pages` data pages (RBX) and the host's certificate table.
    pub fn decide(request: &Page, pages: u64, table: &[u8]) -> Self {
        if request[KIND] != REPORT_REQ {
            return Self::Forward { data: Vec::new() };
        }
        let needed = table.len().div_ceil(PAGE_BYTES) as u64;
        if needed > pages {
            return Self::TooFewPages { needed };
        }
        let data = match table {
            // As KVM: without certificates an empty table, if there is room for one.
            [] if pages == 0 => Vec::new(),
            [] => vec![0; END_OF_TABLE],
            table => table.to_vec(),
        };
        Self::Forward { data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: u8) -> Page {
        let mut page = [0; PAGE_BYTES];
        page[KIND] = kind;
        page
    }

    #[test]
    fn a_table_needs_its_pages() {
        let table = vec![7; PAGE_BYTES + 1];
        let report = request(REPORT_REQ);
        for pages in [0, 1] {
            assert_eq!(Extended::decide(&report, pages, &table), Extended::TooFewPages { needed: 2 });
        }
        assert_eq!(Extended::decide(&report, 2, &table), Extended::Forward { data: table.clone() });
        assert_eq!(Extended::decide(&request(3), 0, &table), Extended::Forward { data: Vec::new() });
    }

    #[test]
    fn no_table_is_an_empty_table() {
        let report = request(REPORT_REQ);
        assert_eq!(Extended::decide(&report, 4, &[]), Extended::Forward { data: vec![0; 24] });
        assert_eq!(Extended::decide(&report, 0, &[]), Extended::Forward { data: Vec::new() });
    }

    #[test]
    fn exit_information_tells_who_refused() {
        assert_eq!(exit_info_2(Ok(())), 0);
        assert_eq!(exit_info_2(Err(Status::AeadOverflow)), 0x1D);
        assert_eq!(Extended::TOO_FEW_PAGES, 0x1_0000_0000);
    }
}
