//! AMD's root and signing keys for SEV-SNP, as AMD's key distribution service serves them under
//! `https://kdsintf.amd.com/{vcek,vlek}/v1/{Milan,Genoa,Turin}/cert_chain`.
//!
//! Public certificates of AMD. They were taken from github.com/virtee/sev (ARK, ASK; commit 9cf2adb, Apache-2.0) and
//! github.com/confidential-dot-ai/attestation-rs (ASVK; commit 67ee36f, MIT), and are the same, byte for byte, in
//! github.com/google/go-sev-guest (commit af1c107, Apache-2.0). A test holds their SHA-256 fingerprints.

/// The keys of one product line.
pub(super) struct ProductKeys {
    /// AMD root key, self-signed.
    pub(super) ark: &'static [u8],
    /// SEV signing key, which signs VCEKs.
    pub(super) ask: &'static [u8],
    /// SEV-VLEK signing key, which signs VLEKs.
    pub(super) asvk: &'static [u8],
}

/// Milan's, Genoa's and Turin's.
pub(super) const AMD: [ProductKeys; 3] = [
    ProductKeys {
        ark: include_bytes!("roots/milan-ark.der"),
        ask: include_bytes!("roots/milan-ask.der"),
        asvk: include_bytes!("roots/milan-asvk.der"),
    },
    ProductKeys {
        ark: include_bytes!("roots/genoa-ark.der"),
        ask: include_bytes!("roots/genoa-ask.der"),
        asvk: include_bytes!("roots/genoa-asvk.der"),
    },
    ProductKeys {
        ark: include_bytes!("roots/turin-ark.der"),
        ask: include_bytes!("roots/turin-ask.der"),
        asvk: include_bytes!("roots/turin-asvk.der"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn b4_amd_keys_have_the_published_fingerprints() {
        let fingerprints =
            AMD.map(|keys| [keys.ark, keys.ask, keys.asvk].map(|der| hex::encode(Sha256::digest(der))));
        assert_eq!(
            fingerprints,
            [
                [
                    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
                    "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
                    "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
                ],
                [
                    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
                    "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
                    "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372",
                ],
                [
                    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
                    "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
                    "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
                ],
            ]
        );
    }
}
