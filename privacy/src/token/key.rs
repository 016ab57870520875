//! The issuer's public key.

use super::structure::Token;
use super::{NK, TOKEN_TYPE};
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PSS_2048_8192_SHA384};
use blind_rsa_signatures::{Deterministic, PSS, PublicKey, Sha384};
use sha2::{Digest, Sha256};
use std::fmt;

/// RSABSSA-SHA384-PSS-Deterministic (RFC 9474 §5), as RFC 9578 §6 asks for.
pub(super) type Blinding = PublicKey<Sha384, PSS, Deterministic>;

/// An issuer's public key, read and checked.
pub struct TokenKey {
    spki: Vec<u8>,
    id: [u8; 32],
    blinding: Blinding,
    verifying: ParsedPublicKey,
}

/// Why bytes are not a token key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not the encoding of RFC 9578 §6.5.
    #[error(
        "not an RSA key encoded as RFC 9578 §6.5 says (SubjectPublicKeyInfo with RSASSA-PSS, SHA-384, salt of 48 bytes)"
    )]
    Encoding,
    /// Another size or exponent: such a key could be one of a kind.
    #[error("the RSA key does not have 2048 bits and the exponent 65537")]
    Parameters,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", hex::encode(self.id))
    }
}

impl TokenKey {
    /// Reads a key in its one encoding.
    pub fn parse(spki: &[u8]) -> Result<Self, BadKey> {
        let blinding = Blinding::from_spki(spki).map_err(|_| BadKey::Encoding)?;
        if blinding.to_spki().ok().as_deref() != Some(spki) {
            return Err(BadKey::Encoding);
        }
        let (n, e) = (blinding.components().n(), blinding.components().e());
        let significant =
            |bytes: &[u8]| bytes.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<_>>();
        let n = significant(&n);
        if n.len() != NK || n[0] < 0x80 || significant(&e) != [1, 0, 1] {
            return Err(BadKey::Parameters);
        }
        let der = blinding.to_der().map_err(|_| BadKey::Encoding)?;
        let verifying =
            ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &der).map_err(|_| BadKey::Parameters)?;
        Ok(Self { spki: spki.into(), id: Sha256::digest(spki).into(), blinding, verifying })
    }

    /// From a key in an ordinary SubjectPublicKeyInfo, as tools write it.
    pub fn from_rsa_spki(der: &[u8]) -> Result<Self, BadKey> {
        let key = Blinding::from_der(der).map_err(|_| BadKey::Encoding)?;
        Self::parse(&key.to_spki().map_err(|_| BadKey::Encoding)?)
    }

    /// The encoding, which a log's entry holds.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the encoding: `token_key_id`.
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Last byte of the id: `truncated_token_key_id`.
    pub const fn truncated_id(&self) -> u8 {
        self.id[31]
    }

    /// Whether the token is signed under this key.
    pub fn verifies(&self, token: &Token) -> bool {
        token.key_id() == &self.id
            && token.input()[..2] == TOKEN_TYPE.to_be_bytes()
            && self.verifying.verify_sig(token.input(), token.authenticator()).is_ok()
    }

    pub(super) const fn blinding(&self) -> &Blinding {
        &self.blinding
    }
}
