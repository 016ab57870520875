//! What a guest puts into `REPORT_DATA`: SHA-512 over a canonical encoding, with one label for each use, so that
//! evidence for one use is never evidence for another (DESIGN §4).

use crate::{canonical::Writer, manifest::ManifestDigest};
use sha2::{Digest, Sha512};

/// Bytes of a client's nonce.
pub const NONCE_LEN: usize = 32;
/// Bytes taken from the TLS exporter.
pub const EXPORTER_LEN: usize = 32;
/// Label of the TLS exporter (RFC 8446 §7.5), used without a context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Cloister-evidence-v1";

/// A client's nonce.
pub type Nonce = [u8; NONCE_LEN];
/// A value of the TLS exporter: it names one TLS connection, and only its two ends know it.
pub type Exporter = [u8; EXPORTER_LEN];

const CERTIFICATE: &str = "cloister report data v1: certificate";
const FRESH: &str = "cloister report data v1: fresh";

/// For the report in a certificate: binds the certificate's key (a DER `SubjectPublicKeyInfo`) and the manifest.
pub fn certificate(spki_der: &[u8], manifest: &ManifestDigest) -> [u8; 64] {
    let mut w = Writer::new(CERTIFICATE);
    w.bytes(spki_der).bytes(manifest);
    Sha512::digest(w.finish()).into()
}

/// For one client's fresh evidence: binds its nonce, the certificate's key, the TLS connection and the manifest.
///
/// This is one leaf of a [`crate::batch`]; the report holds the batch's root.
pub fn fresh(nonce: &Nonce, spki_der: &[u8], exporter: &Exporter, manifest: &ManifestDigest) -> [u8; 64] {
    let mut w = Writer::new(FRESH);
    w.bytes(nonce).bytes(spki_der).bytes(exporter).bytes(manifest);
    Sha512::digest(w.finish()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn b1_every_input_is_bound(
            nonce: [u8; 32], exporter: [u8; 32], spki in proptest::collection::vec(any::<u8>(), 1..200),
            manifest in proptest::collection::vec(any::<u8>(), 48), at in any::<prop::sample::Index>(), bits in 1u8..,
        ) {
            let manifest: ManifestDigest = manifest.try_into().unwrap();
            fn altered<T: AsMut<[u8]> + Clone>(value: &T, at: prop::sample::Index, bits: u8) -> T {
                let mut value = value.clone();
                let bytes = value.as_mut();
                bytes[at.index(bytes.len())] ^= bits;
                value
            }
            let value = fresh(&nonce, &spki, &exporter, &manifest);
            prop_assert_ne!(fresh(&altered(&nonce, at, bits), &spki, &exporter, &manifest), value);
            prop_assert_ne!(fresh(&nonce, &altered(&spki, at, bits), &exporter, &manifest), value);
            prop_assert_ne!(fresh(&nonce, &spki, &altered(&exporter, at, bits), &manifest), value);
            prop_assert_ne!(fresh(&nonce, &spki, &exporter, &altered(&manifest, at, bits)), value);
            prop_assert_ne!(fresh(&exporter, &spki, &nonce, &manifest) == value, nonce != exporter);

            let value = certificate(&spki, &manifest);
            prop_assert_ne!(certificate(&altered(&spki, at, bits), &manifest), value);
            prop_assert_ne!(certificate(&spki, &altered(&manifest, at, bits)), value);
        }
    }
}
