//! The guest's TLS key: Ed25519, made in the guest and never stored.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use ed25519_dalek::Signer as _;
use rustls::crypto::SecureRandom;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::Signer;
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroizing;

/// A SubjectPublicKeyInfo up to the key itself: `id-Ed25519` and a bit string of 256 bits (RFC 8410 §4).
const SPKI_HEADER: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A signing key. It is wiped when the last connection that uses it has ended.
#[derive(Clone)]
pub(crate) struct SigningKey(Arc<ed25519_dalek::SigningKey>);

impl SigningKey {
    /// Makes a key.
    pub(crate) fn generate(random: &dyn SecureRandom) -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(&mut seed[..])?;
        Ok(Self(Arc::new(ed25519_dalek::SigningKey::from_bytes(&seed))))
    }

    /// The public key's SubjectPublicKeyInfo, DER.
    pub(crate) fn spki(&self) -> Vec<u8> {
        [&SPKI_HEADER[..], self.0.verifying_key().as_bytes()].concat()
    }

    /// The signature over `message`.
    pub(crate) fn signature(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl rustls::sign::SigningKey for SigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.spki().into())
    }
}

impl Signer for SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.signature(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(Ed25519)")
    }
}
