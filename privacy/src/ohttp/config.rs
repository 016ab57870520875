//! Key configurations (RFC 9458 §3) and the gateway's secret keys.

use super::suite::HKDF_SHA256;
use super::{Aead, Error, Kem, Suite};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::fmt;
use zeroize::Zeroizing;

/// Most bytes of a list of key configurations: a dozen of the largest.
const MAX_LIST: usize = 16 * 1024;

/// Why a key configuration cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The bytes are no key configuration.
    #[error("the key configuration is malformed")]
    Malformed,
    /// It names no algorithms that are known here.
    #[error("the key configuration names no algorithms that this program has")]
    Unsupported,
}

/// A gateway's public key with what it is used with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// Names the key in requests; unique at a gateway.
    pub key_id: u8,
    /// What the key is for.
    pub kem: Kem,
    /// The key, [`Kem::public_length`] bytes.
    pub public: Vec<u8>,
    /// At least one, in the gateway's order; always with HKDF-SHA256.
    pub aeads: Vec<Aead>,
}

impl KeyConfig {
    /// Encodes one configuration, without its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.key_id];
        out.extend_from_slice(&self.kem.id().to_be_bytes());
        out.extend_from_slice(&self.public);
        out.extend_from_slice(&((self.aeads.len() * 4) as u16).to_be_bytes());
        for aead in &self.aeads {
            out.extend_from_slice(&HKDF_SHA256.to_be_bytes());
            out.extend_from_slice(&aead.id().to_be_bytes());
        }
        out
    }

    /// Decodes one configuration; algorithms that are not known here are left out.
    pub fn decode(bytes: &[u8]) -> Result<Self, ConfigError> {
        let mut rest = bytes;
        let mut take = |length: usize| -> Result<&[u8], ConfigError> {
            let (taken, left) = rest.split_at_checked(length).ok_or(ConfigError::Malformed)?;
            rest = left;
            Ok(taken)
        };
        let key_id = take(1)?[0];
        let kem = Kem::from_id(number(take(2)?)).ok_or(ConfigError::Unsupported)?;
        let public = take(kem.public_length())?.to_vec();
        let length = usize::from(number(take(2)?));
        let symmetric = take(length)?;
        if symmetric.is_empty()
            || !symmetric.len().is_multiple_of(4)
            || !rest.is_empty()
            || !kem.is_public(&public)
        {
            return Err(ConfigError::Malformed);
        }
        let known = symmetric.chunks_exact(4).filter(|pair| number(&pair[..2]) == HKDF_SHA256);
        let aeads: Vec<Aead> = known.filter_map(|pair| Aead::from_id(number(&pair[2..]))).collect();
        if aeads.is_empty() { Err(ConfigError::Unsupported) } else { Ok(Self { key_id, kem, public, aeads }) }
    }

    /// The algorithms of an exchange with this key: the gateway's first choice, which is the same for all clients.
    pub fn suite(&self) -> Result<Suite, ConfigError> {
        let aead = self.aeads.first().ok_or(ConfigError::Unsupported)?;
        Ok(Suite { kem: self.kem, aead: *aead })
    }
}

fn number(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |value, byte| value << 8 | u16::from(*byte))
}

/// Encodes `application/ohttp-keys`.
pub fn encode_list<'a>(configs: impl IntoIterator<Item = &'a KeyConfig>) -> Vec<u8> {
    configs.into_iter().fold(Vec::new(), |mut out, config| {
        let encoded = config.encode();
        out.extend_from_slice(&(encoded.len() as u16).to_be_bytes());
        out.extend_from_slice(&encoded);
        out
    })
}

/// Decodes `application/ohttp-keys`; configurations whose algorithms are not known here are left out (RFC 9458 §3.2).
pub fn decode_list(mut bytes: &[u8]) -> Result<Vec<KeyConfig>, ConfigError> {
    if bytes.len() > MAX_LIST {
        return Err(ConfigError::Malformed);
    }
    let mut configs = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_at_checked(2).ok_or(ConfigError::Malformed)?;
        let (config, rest) = rest.split_at_checked(number(length).into()).ok_or(ConfigError::Malformed)?;
        bytes = rest;
        match KeyConfig::decode(config) {
            Ok(config) => configs.push(config),
            Err(ConfigError::Unsupported) => {}
            Err(error) => return Err(error),
        }
    }
    if configs.is_empty() { Err(ConfigError::Unsupported) } else { Ok(configs) }
}

/// A gateway's key.
#[derive(Clone)]
pub struct SecretKey {
    config: KeyConfig,
    secret: Zeroizing<Vec<u8>>,
}

impl SecretKey {
    /// Makes a key. Errors: no randomness.
    pub fn generate(key_id: u8, kem: Kem) -> Result<Self, Error> {
        // Both KEMs' secret keys are 32 random bytes (RFC 7748 §6.1, draft-connolly-cfrg-xwing-kem §5.2).
        let mut secret = Zeroizing::new(vec![0; 32]);
        SystemRandom::new().fill(&mut secret).map_err(|_| Error::Seal)?;
        Self::new(key_id, kem, secret).ok_or(Error::Seal)
    }

    /// A key that was stored; `None` if the bytes are no key.
    pub fn new(key_id: u8, kem: Kem, secret: Zeroizing<Vec<u8>>) -> Option<Self> {
        let public = kem.public_of(&secret)?;
        Some(Self { config: KeyConfig { key_id, kem, public, aeads: Aead::ALL.to_vec() }, secret })
    }

    /// What clients get.
    pub fn config(&self) -> &KeyConfig {
        &self.config
    }

    /// The secret, to be stored.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}, {:?})", self.config.key_id, self.config.kem)
    }
}
