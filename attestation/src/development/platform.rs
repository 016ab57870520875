//! The report of a platform that is as it should be.

use super::Chain;
use crate::report::{self, GuestPolicy, PlatformInfo, Product, SigningKey, offset};

/// CPUID family, model and stepping of a chip of the product.
const fn cpuid(product: Product) -> [u8; 3] {
    match product {
        Product::Milan => [0x19, 0x01, 0x01],
        Product::Genoa => [0x19, 0x11, 0x01],
        Product::Turin => [0x1A, 0x02, 0x01],
    }
}

impl Chain {
    /// What this chain's platform reports of a guest that was launched as it should be; not signed yet, so that
    /// something in it can be altered first.
    pub fn unsigned_report(&self, report_data: &[u8; 64], launch_digest: &[u8; 48]) -> [u8; report::LEN] {
        let endorsement = self.endorsement();
        let tcb = endorsement.tcb.to_bytes(endorsement.product);
        let mut report = [0; report::LEN];
        let fields: [(usize, &[u8]); 17] = [
            (offset::VERSION, &5u32.to_le_bytes()),
            (offset::POLICY, &GuestPolicy::CLOISTER.0.to_le_bytes()),
            (offset::SIGNATURE_ALGO, &report::ECDSA_P384_SHA384.to_le_bytes()),
            (offset::CURRENT_TCB, &tcb),
            (offset::PLATFORM_INFO, &PlatformInfo::CLOISTER.0.to_le_bytes()),
            (offset::KEY_INFO, &report::key_info(false, SigningKey::Vcek).to_le_bytes()),
            (offset::REPORT_DATA, report_data),
            (offset::MEASUREMENT, launch_digest),
            (offset::REPORT_ID, &[0x77; 32]),
            (offset::REPORT_ID_MA, &[0xFF; 32]),
            (offset::REPORTED_TCB, &tcb),
            (offset::CPUID_FAMILY, &cpuid(endorsement.product)),
            (offset::CHIP_ID, &endorsement.chip_id),
            (offset::COMMITTED_TCB, &tcb),
            (offset::CURRENT_VERSION, &[41, 55, 1]),
            (offset::COMMITTED_VERSION, &[41, 55, 1]),
            (offset::LAUNCH_TCB, &tcb),
        ];
        for (at, bytes) in fields {
            report[at..at + bytes.len()].copy_from_slice(bytes);
        }
        report
    }
}
