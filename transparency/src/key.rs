//! Keys of logs and witnesses, and the signatures of C2SP signed-note and tlog-cosignature.
//!
//! Three kinds: plain Ed25519 for a log's checkpoint, and timestamped cosignatures with Ed25519 or ML-DSA-44, which
//! witnesses give and a log may add to its own checkpoint.

use crate::checkpoint::Checkpoint;
use crate::text::{from_base64, is_name, to_base64};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair, PqdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

const SEED: usize = 32;
const TIMESTAMP: usize = 8;
/// Bytes of an ML-DSA-44 signature (FIPS 204, table 2).
const ML_DSA_44_SIGNATURE: usize = 2420;

/// A signature type (C2SP signed-note, "Signature types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Ed25519 over the note's text.
    Ed25519,
    /// A timestamped Ed25519 cosignature.
    CosignatureEd25519,
    /// A timestamped ML-DSA-44 cosignature.
    CosignatureMlDsa44,
}

impl Algorithm {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureEd25519 => 0x04,
            Self::CosignatureMlDsa44 => 0x06,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Ed25519),
            0x04 => Some(Self::CosignatureEd25519),
            0x06 => Some(Self::CosignatureMlDsa44),
            _ => None,
        }
    }

    const fn public_key_len(self) -> usize {
        match self {
            Self::Ed25519 | Self::CosignatureEd25519 => 32,
            Self::CosignatureMlDsa44 => 1312,
        }
    }
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not of the form.
    #[error("not a key of the form that C2SP signed-note describes; copy it again, whole")]
    Format,
    /// A type that this program does not know.
    #[error(
        "a key of a type that this program does not know (known: Ed25519, and cosignatures with it or ML-DSA-44)"
    )]
    Algorithm,
    /// Its id is that of another name or key.
    #[error("the key's id does not fit its name and bytes; the key was altered")]
    Id,
    /// This machine's random numbers or its cryptography failed.
    #[error("this machine's cryptography failed; no key was made")]
    Crypto,
}

/// A public key with its name: a *vkey*.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    algorithm: Algorithm,
    public: Vec<u8>,
}

fn key_id(name: &str, algorithm: Algorithm, public: &[u8]) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', algorithm.byte()]).chain_update(public);
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
    [a, b, c, d]
}

impl VerifierKey {
    fn new(name: &str, algorithm: Algorithm, public: &[u8]) -> Self {
        Self { name: name.into(), id: key_id(name, algorithm, public), algorithm, public: public.into() }
    }

    /// The name of log or witness.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id that signatures by this key bear.
    pub const fn id(&self) -> [u8; 4] {
        self.id
    }

    /// What it signs with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// True if `other` is the same key material, whatever its name and type.
    pub fn same_material(&self, other: &Self) -> bool {
        self.public == other.public
    }

    /// Checks a signature's bytes (those after the key id) over a checkpoint. Gives the time in seconds since 1970 that
    /// a cosignature states, or `Some(None)` for a signature without one; `None` if the signature is wrong.
    pub fn verify(&self, checkpoint: &Checkpoint, signature: &[u8]) -> Option<Option<u64>> {
        if self.algorithm == Algorithm::Ed25519 {
            self.check(checkpoint.text().as_bytes(), signature).then_some(None)
        } else {
            let (time, signature) = signature.split_first_chunk::<TIMESTAMP>()?;
            let time = u64::from_be_bytes(*time);
            // Zero says that nothing is stated about the newest tree; no witness may answer so (tlog-witness).
            if time == 0 || time > i64::MAX as u64 {
                return None;
            }
            let message = cosigned_message(self.algorithm, &self.name, time, checkpoint);
            self.check(&message, signature).then_some(Some(time))
        }
    }

    /// Checks a plain Ed25519 signature over any message; cosignatures are never over one.
    pub fn verify_message(&self, message: &[u8], signature: &[u8]) -> bool {
        self.algorithm == Algorithm::Ed25519 && self.check(message, signature)
    }

    fn check(&self, message: &[u8], bytes: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Ed25519 | Algorithm::CosignatureEd25519 => {
                UnparsedPublicKey::new(&signature::ED25519, &self.public).verify(message, bytes)
            }
            Algorithm::CosignatureMlDsa44 => {
                UnparsedPublicKey::new(&signature::ML_DSA_44, &self.public).verify(message, bytes)
            }
        }
        .is_ok()
    }
}

/// What a cosignature signs (C2SP tlog-cosignature).
fn cosigned_message(algorithm: Algorithm, cosigner: &str, time: u64, checkpoint: &Checkpoint) -> Vec<u8> {
    match algorithm {
        Algorithm::Ed25519 => checkpoint.text().into_bytes(),
        Algorithm::CosignatureEd25519 => {
            format!("cosignature/v1\ntime {time}\n{}", checkpoint.text()).into_bytes()
        }
        Algorithm::CosignatureMlDsa44 => {
            let mut message = b"subtree/v1\n\0".to_vec();
            // Names have at most 255 bytes, see `is_name`.
            message.push(cosigner.len() as u8);
            message.extend_from_slice(cosigner.as_bytes());
            message.extend_from_slice(&time.to_be_bytes());
            message.push(checkpoint.origin.len() as u8);
            message.extend_from_slice(checkpoint.origin.as_bytes());
            message.extend_from_slice(&0_u64.to_be_bytes());
            message.extend_from_slice(&checkpoint.size.to_be_bytes());
            message.extend_from_slice(&checkpoint.root);
            message
        }
    }
}

impl TryFrom<String> for VerifierKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl std::str::FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, rest) = text.split_once('+').ok_or(KeyError::Format)?;
        let (id, material) = rest.split_once('+').ok_or(KeyError::Format)?;
        let (algorithm, public) = parse_material(name, material)?;
        if public.len() != algorithm.public_key_len() {
            return Err(KeyError::Format);
        }
        let key = Self::new(name, algorithm, &public);
        if id == hex::encode(key.id) { Ok(key) } else { Err(KeyError::Id) }
    }
}

fn parse_material(name: &str, material: &str) -> Result<(Algorithm, Vec<u8>), KeyError> {
    if !is_name(name) {
        return Err(KeyError::Format);
    }
    let bytes = from_base64(material).ok_or(KeyError::Format)?;
    let (&byte, rest) = bytes.split_first().ok_or(KeyError::Format)?;
    Ok((Algorithm::from_byte(byte).ok_or(KeyError::Algorithm)?, rest.to_vec()))
}

fn material(algorithm: Algorithm, bytes: &[u8]) -> String {
    to_base64(&[&[algorithm.byte()], bytes].concat())
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id), material(self.algorithm, &self.public))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({}+{})", self.name, hex::encode(self.id))
    }
}

impl From<VerifierKey> for String {
    fn from(key: VerifierKey) -> Self {
        key.to_string()
    }
}

/// A private key with its name. It cannot be printed; [`SignerKey::to_secret_text`] is for its file.
pub struct SignerKey {
    seed: [u8; SEED],
    pair: Pair,
    public: VerifierKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    MlDsa44(PqdsaKeyPair),
}

/// This machine's random numbers or its cryptography failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine's cryptography failed; no signature was made")]
pub struct CryptoFailed;

/// Why a text that is no checkpoint was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsignedText {
    /// The key signs cosignatures.
    #[error("this key signs cosignatures of checkpoints and nothing else; use a plain Ed25519 key")]
    Algorithm,
    /// Cryptography.
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

impl SignerKey {
    /// Makes a key with new random numbers. `name` is a key name of a signed note: not empty, without spaces and `+`.
    pub fn generate(name: &str, algorithm: Algorithm) -> Result<Self, KeyError> {
        let mut seed = [0; SEED];
        SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::Crypto)?;
        Self::from_seed(name, algorithm, seed)
    }

    /// The key of a seed: that of RFC 8032 or the ξ of FIPS 204.
    pub fn from_seed(name: &str, algorithm: Algorithm, seed: [u8; SEED]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Format);
        }
        let (pair, public) = match algorithm {
            Algorithm::Ed25519 | Algorithm::CosignatureEd25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Crypto)?;
                let public = pair.public_key().as_ref().to_vec();
                (Pair::Ed25519(pair), public)
            }
            Algorithm::CosignatureMlDsa44 => {
                let pair = PqdsaKeyPair::from_seed(&signature::ML_DSA_44_SIGNING, &seed)
                    .map_err(|_| KeyError::Crypto)?;
                let public = pair.public_key().as_ref().to_vec();
                (Pair::MlDsa44(pair), public)
            }
        };
        Ok(Self { seed, pair, public: VerifierKey::new(name, algorithm, &public) })
    }

    /// Reads what [`SignerKey::to_secret_text`] wrote, or Go's `note.GenerateKey`.
    pub fn from_secret_text(text: &str) -> Result<Self, KeyError> {
        let rest = text.trim_end().strip_prefix("PRIVATE+KEY+").ok_or(KeyError::Format)?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Format);
        };
        let (algorithm, seed) = parse_material(name, secret)?;
        let key = Self::from_seed(name, algorithm, seed.try_into().map_err(|_| KeyError::Format)?)?;
        if id == hex::encode(key.public.id) { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The text of a key file.
    pub fn to_secret_text(&self) -> String {
        let VerifierKey { name, id, algorithm, .. } = &self.public;
        format!("PRIVATE+KEY+{name}+{}+{}\n", hex::encode(id), material(*algorithm, &self.seed))
    }

    /// The public key.
    pub const fn public(&self) -> &VerifierKey {
        &self.public
    }

    /// A plain Ed25519 signature over a message that says itself what it is, and is no checkpoint.
    pub fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, UnsignedText> {
        match (&self.pair, self.public.algorithm) {
            (Pair::Ed25519(pair), Algorithm::Ed25519) => Ok(pair.sign(message).as_ref().to_vec()),
            _ => Err(UnsignedText::Algorithm),
        }
    }

    /// The signature's bytes after the key id. `time` is in seconds since 1970; a plain Ed25519 signature has none.
    pub fn sign(&self, checkpoint: &Checkpoint, time: u64) -> Result<Vec<u8>, CryptoFailed> {
        let algorithm = self.public.algorithm;
        let message = cosigned_message(algorithm, &self.public.name, time, checkpoint);
        let mut signature = match algorithm {
            Algorithm::Ed25519 => Vec::new(),
            Algorithm::CosignatureEd25519 | Algorithm::CosignatureMlDsa44 => time.to_be_bytes().to_vec(),
        };
        match &self.pair {
            Pair::Ed25519(pair) => signature.extend_from_slice(pair.sign(&message).as_ref()),
            Pair::MlDsa44(pair) => {
                let start = signature.len();
                signature.resize(start + ML_DSA_44_SIGNATURE, 0);
                let written = pair.sign(&message, &mut signature[start..]).map_err(|_| CryptoFailed)?;
                signature.truncate(start + written);
            }
        }
        Ok(signature)
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({}+{}, ..)", self.public.name, hex::encode(self.public.id))
    }
}
