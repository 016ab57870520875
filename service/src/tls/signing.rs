//! The guest's TLS key: ECDSA over P-384, deterministic (RFC 6979), made in the guest and never stored.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use p384::ecdsa::DerSignature;
use p384::ecdsa::signature::Signer as _;
use p384::pkcs8::EncodePublicKey;
use rustls::crypto::SecureRandom;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::Signer;
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroizing;

/// A signing key. The scalar is wiped when the last connection that uses it has ended.
#[derive(Clone)]
pub(crate) struct SigningKey(Arc<p384::ecdsa::SigningKey>);

impl SigningKey {
    /// Makes a key.
    pub(crate) fn generate(random: &dyn SecureRandom) -> Result<Self, Error> {
        let mut scalar = Zeroizing::new([0; 48]);
        // Rejection sampling (FIPS 186-5 §A.2.2): a scalar is out of range with a probability below 2^-190, so a second
        // failure in a row says that the generator is broken.
        for _ in 0..2 {
            random.fill(&mut scalar[..])?;
            if let Ok(key) = p384::ecdsa::SigningKey::from_slice(&scalar[..]) {
                return Ok(Self(Arc::new(key)));
            }
        }
        Err(Error::FailedToGetRandomBytes)
    }

    /// The key itself, to sign the certificate.
    pub(crate) fn p384(&self) -> &p384::ecdsa::SigningKey {
        &self.0
    }
}

impl rustls::sign::SigningKey for SigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.0.verifying_key().to_public_key_der().ok()?.into_vec().into())
    }
}

impl Signer for SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: DerSignature =
            self.0.try_sign(message).map_err(|_| Error::General("signing failed".into()))?;
        Ok(signature.as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP384_SHA384
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(P-384)")
    }
}
