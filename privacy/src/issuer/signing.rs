//! The issuer's private key.
//!
//! Blind signing is the raw RSA operation on numbers that clients choose: what a timing attack needs. It is done by OpenSSL,
//! with exponents in constant time and a random blinding of each number (`RSA_blinding_on` is its default); the `rsa`
//! crate, which RUSTSEC-2023-0071 is about, does only public operations here.

use crate::token::NK;
use crate::token::key::{BadKey, TokenKey};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use std::fmt;
use zeroize::Zeroizing;

/// A key pair.
pub struct SigningKey {
    private: Rsa<Private>,
    public: TokenKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public)
    }
}

/// Why there is no key, or it did not sign.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// OpenSSL's reason.
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] ErrorStack),
    /// Not a key that may issue.
    #[error("the private key: {0}")]
    Key(#[from] BadKey),
    /// Not a number below the modulus.
    #[error("the blinded message is not below the key's modulus")]
    TooLarge,
    /// The result does not verify: a fault of the machine.
    #[error("a signature that was made does not verify; this machine computes wrongly")]
    Fault,
}

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self, SigningError> {
        Self::from_rsa(Rsa::generate_with_e(NK as u32 * 8, &*BigNum::from_u32(65537)?)?)
    }

    /// Reads PKCS#8 or PKCS#1, PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningError> {
        Self::from_rsa(PKey::private_key_from_pem(pem)?.rsa()?)
    }

    fn from_rsa(private: Rsa<Private>) -> Result<Self, SigningError> {
        if !private.check_key()? {
            return Err(BadKey::Parameters.into());
        }
        let public = TokenKey::from_rsa_spki(&private.public_key_to_der()?)?;
        Ok(Self { private, public })
    }

    /// As PKCS#8, PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<Vec<u8>>, SigningError> {
        Ok(PKey::from_rsa(self.private.clone())?.private_key_to_pem_pkcs8()?.into())
    }

    /// The public key.
    pub const fn public(&self) -> &TokenKey {
        &self.public
    }

    /// Signs a blinded message (RFC 9474 §4.3, BlindSign).
    pub fn sign(&self, blinded: &[u8; NK]) -> Result<[u8; NK], SigningError> {
        if BigNum::from_slice(blinded)?.as_ref() >= self.private.n() {
            return Err(SigningError::TooLarge);
        }
        let (mut signature, mut check) = ([0; NK], [0; NK]);
        self.private.private_encrypt(blinded, &mut signature, Padding::NONE)?;
        self.private.public_decrypt(&signature, &mut check, Padding::NONE)?;
        if check == *blinded { Ok(signature) } else { Err(SigningError::Fault) }
    }
}
