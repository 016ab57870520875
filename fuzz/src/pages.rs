//! Bytes that are read as a whole: the CPUID page, the manifest, certificates, weights.

use crate::bytes::Bytes;
use attestation::certificate_table;
use attestation::manifest::{Manifest, ModelIdentity};
use attestation::weights::TreeHasher;
use kernel::snp::cpuid::{self, CpuidTable, Feature};
use kernel::virtio::DeviceError;
use kernel::weights::{Disk, load};

#[path = "../../image-builder/tests/samples/mod.rs"]
mod samples;

/// The page that the AMD-SP checked, or did not.
pub fn cpuid(data: &[u8]) {
    let mut page = [0; cpuid::BYTES];
    let length = data.len().min(page.len());
    page[..length].copy_from_slice(&data[..length]);
    let Ok(table) = CpuidTable::new(&page) else { return };
    let c_bit = table.leaf(0x8000_001f, 0).map(|leaf| leaf.ebx & 0x3f);
    assert_eq!(c_bit, Ok(cpuid::C_BIT), "another C-bit was accepted");
    let states = table.xcr0();
    assert!(states & !0xe7 == 0, "an unknown state would be enabled");
    assert!(states == 0 || states & 3 == 3, "XCR0 without x87 and SSE");
    assert!(states & 4 == 0 || table.has(Feature::AVX), "AVX state without AVX");
    assert!(states & 0xe0 == 0 || states & 0xe4 == 0xe4, "AVX-512 state without the rest");
    for leaf in (0..0x20).chain(0x8000_0000..0x8000_0022) {
        for subleaf in 0..9 {
            if let (Some(answer), Ok(same)) = (table.find(leaf, subleaf), table.leaf(leaf, subleaf)) {
                assert_eq!(answer, same);
            }
            let _ = table.instruction(leaf, subleaf);
        }
    }
}

/// A page like that of a small EPYC.
pub fn cpuid_seeds() -> Vec<Vec<u8>> {
    let lines: [(u32, u32, [u32; 4]); 7] = [
        (0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (1, 0, [0x00a1_0f11, 0, 1 << 26 | 1 << 28 | 1 << 30, 0]),
        (7, 0, [0, 1 << 7 | 1 << 16 | 1 << 18 | 1 << 20, 1 << 2, 0]),
        (0xd, 0, [7, 832, 832, 0]),
        (0xd, 1, [0, 0, 0, 0]),
        (0xd, 2, [256, 576, 0, 0]),
        (0x8000_001f, 0, [0, 51, 0, 0]),
    ];
    let mut page = vec![0; 16];
    page[0] = lines.len() as u8;
    for (leaf, subleaf, registers) in lines {
        let mut entry = [0; 48];
        for (slot, word) in [leaf, subleaf].into_iter().enumerate() {
            entry[4 * slot..4 * slot + 4].copy_from_slice(&word.to_le_bytes());
        }
        if leaf == 0xd && subleaf < 2 {
            entry[8] = 1;
        }
        for (slot, word) in registers.into_iter().enumerate() {
            entry[24 + 4 * slot..28 + 4 * slot].copy_from_slice(&word.to_le_bytes());
        }
        page.extend(entry);
    }
    vec![page, vec![0; 16], vec![255; 100]]
}

/// The manifest: what is read is the only encoding of it.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data) {
        assert_eq!(manifest.encode(), data, "two encodings of one manifest");
    }
}

/// A manifest.
pub fn manifest_seeds() -> Vec<Vec<u8>> {
    vec![samples::manifest().encode(), Vec::new()]
}

/// The host's certificates.
pub fn certificates(data: &[u8]) {
    if let Ok(entries) = certificate_table::decode(data) {
        let again = certificate_table::encode(&entries);
        assert_eq!(certificate_table::decode(&again), Ok(entries), "not the same after a round");
    }
}

/// Tables.
pub fn certificate_seeds() -> Vec<Vec<u8>> {
    vec![certificate_table::encode(&[]), certificate_table::encode(&[(Default::default(), &[1, 2, 3])])]
}

/// A disk that gives other bytes than it should, fewer, or an error.
struct Liar<'a> {
    file: &'a [u8],
    script: Bytes<'a>,
}

impl Disk for Liar<'_> {
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        let start = sector as usize * 512;
        let end = (start + out.len()).min(self.file.len());
        let right = &self.file[start.min(end)..end];
        out[..right.len()].copy_from_slice(right);
        for _ in 0..self.script.u8() >> 6 {
            let (at, change) = (self.script.u32() as usize % out.len(), self.script.u8());
            out[at] ^= change;
        }
        if self.script.u8() == 255 { Err(DeviceError::Dead) } else { Ok(()) }
    }
}

/// Weights of a size that the input chooses.
pub fn weights(data: &[u8]) {
    let mut script = Bytes(data);
    let length = script.u32() as usize % (3 << 20);
    let file: Vec<u8> = (0..length).map(|at| ((at * 31) >> 4) as u8).collect();
    let mut hasher = TreeHasher::new();
    hasher.update(&file);
    let weights_root = hasher.finish();
    let model = ModelIdentity { name: "m".into(), weights_bytes: length as u64, weights_root };
    let mut disk = Liar { file: &file, script };
    let mut arena = vec![0; 4 << 20];
    if let Ok(bytes) = load(&mut disk, &model, &mut arena, &inference::SingleThread, |_| {}) {
        assert!(bytes == file, "other weights were accepted");
    }
}

/// Honest disks.
pub fn weights_seeds() -> Vec<Vec<u8>> {
    [0u32, 1, 511, 512, 4096, 1 << 20, (1 << 20) + 7].iter().map(|n| n.to_le_bytes().to_vec()).collect()
}
