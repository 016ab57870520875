//! The certificate table that the host hands over with a report (AMD 56421, GHCB, extended guest request).
//!
//! Entries of a GUID, an offset and a length, an entry of zeros, then the certificates at their offsets. All of it is
//! the host's word: a table says nothing by itself, its certificates are verified against roots the verifier has.

use alloc::vec::Vec;
use core::fmt;

/// A GUID's bytes in the order in which it is written.
pub type Guid = [u8; 16];

/// AMD root key: c0b406a4-a803-4952-9743-3fb6014cd0ae.
pub const ARK: Guid = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes();
/// AMD SEV signing key: 4ab7b379-bbac-4fe4-a02f-05aef327c782.
pub const ASK: Guid = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes();
/// Versioned chip endorsement key: 63da758d-e664-4564-adc5-f4b93be8accd.
pub const VCEK: Guid = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
/// Versioned loaded endorsement key: a8074bc2-a25a-483e-aae6-39c045a0b8a1.
pub const VLEK: Guid = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes();

/// The transparency log's proof for the image, a project's own GUID: 5b6bc9cd-6a31-4f6d-8e5b-3d1f6c52a7e4. The guest hands
/// the table on unread, so a host can staple the proof to evidence without the guest's knowing of it.
pub const PROOF: Guid = 0x5b6bc9cd_6a31_4f6d_8e5b_3d1f6c52a7e4_u128.to_be_bytes();

const ENTRY: usize = 24;
const MAX_ENTRIES: usize = 16;

/// The bytes are no certificate table: it does not end, or an entry lies outside it or is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATable;

impl fmt::Display for NotATable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the host's certificate table is malformed; the operator must load AMD's certificates again",
        )
    }
}

impl core::error::Error for NotATable {}

/// A table of certificates in DER.
pub fn encode(certificates: &[(Guid, &[u8])]) -> Vec<u8> {
    let mut table = Vec::new();
    let mut offset = (certificates.len() + 1) * ENTRY;
    for (guid, der) in certificates {
        table.extend_from_slice(guid);
        table.extend_from_slice(&(offset as u32).to_le_bytes());
        table.extend_from_slice(&(der.len() as u32).to_le_bytes());
        offset += der.len();
    }
    table.extend_from_slice(&[0; ENTRY]);
    for (_, der) in certificates {
        table.extend_from_slice(der);
    }
    table
}

/// The entries of a table; no bytes at all are a table without entries. What follows the certificates is the padding
/// of the host's pages and is ignored.
pub fn decode(table: &[u8]) -> Result<Vec<(Guid, &[u8])>, NotATable> {
    let mut entries: Vec<(Guid, &[u8])> = Vec::new();
    if table.is_empty() {
        return Ok(entries);
    }
    for entry in table.as_chunks::<ENTRY>().0.iter().take(MAX_ENTRIES + 1) {
        if entry == &[0; ENTRY] {
            return Ok(entries);
        }
        let (guid, place) = entry.split_first_chunk().ok_or(NotATable)?;
        let (&[offset, length], []) = place.as_chunks::<4>() else { return Err(NotATable) };
        let [offset, length] = [offset, length].map(|n| u32::from_le_bytes(n) as usize);
        let end = offset.checked_add(length).ok_or(NotATable)?;
        let der = table.get(offset..end).ok_or(NotATable)?;
        if entries.iter().any(|(known, _)| known == guid) {
            return Err(NotATable);
        }
        entries.push((*guid, der));
    }
    Err(NotATable)
}

/// The same certificates in a table without padding or gaps, as it goes into evidence; empty if there are none.
pub fn compact(table: &[u8]) -> Result<Vec<u8>, NotATable> {
    let entries = decode(table)?;
    Ok(if entries.is_empty() { Vec::new() } else { encode(&entries) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back() {
        let certificates: [(Guid, &[u8]); 3] = [(VCEK, b"chip"), (ASK, b"signer"), (ARK, b"")];
        let table = encode(&certificates);
        assert_eq!(decode(&table).unwrap(), certificates);
        let mut page = table.clone();
        page.resize(4096, 0);
        assert_eq!(decode(&page).unwrap(), certificates);
        assert_eq!(compact(&page).unwrap(), table);
        assert_eq!(decode(&[]).unwrap(), []);
        assert_eq!(compact(&[0; 4096]).unwrap(), []);
    }

    #[test]
    fn b5_a_table_that_lies_about_itself_is_refused() {
        let table = encode(&[(VCEK, b"chip"), (ASK, b"signer")]);
        for length in 1..3 * ENTRY {
            assert_eq!(decode(&table[..length]), Err(NotATable), "cut to {length}");
        }
        assert_eq!(decode(&table[..table.len() - 1]), Err(NotATable));
        for field in [16, 20] {
            let mut bad = table.clone();
            bad[field..field + 4].fill(0xFF);
            assert_eq!(decode(&bad), Err(NotATable));
        }
        assert_eq!(decode(&encode(&[(VCEK, b"one"), (VCEK, b"two")])), Err(NotATable));
        assert_eq!(decode(&encode(&[(ARK, &[][..]); MAX_ENTRIES + 1])), Err(NotATable));
        assert_eq!(decode(&[1; 4096]), Err(NotATable));
    }
}
