//! The algorithms: which there are, and one face for all of them.

use super::Error;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Algorithm, CHACHA20_POLY1305};
use hpke::aead::{AeadCtxR, AeadCtxS, AesGcm128, AesGcm256, ChaCha20Poly1305};
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};

/// HKDF-SHA256 (RFC 9180 §7.2), the only KDF here: it serves every KEM, and one is enough to agree on.
pub(super) const HKDF_SHA256: u16 = 1;

/// A key encapsulation mechanism (RFC 9180 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kem {
    /// DHKEM(X25519, HKDF-SHA256).
    X25519,
    /// X-Wing: X25519 with ML-KEM-768 (draft-connolly-cfrg-xwing-kem). What is recorded today stays secret from
    /// tomorrow's quantum computers.
    XWing,
}

impl Kem {
    /// All of them, the preferred one first.
    pub const ALL: [Self; 2] = [Self::XWing, Self::X25519];

    /// The identifier in the HPKE registry.
    pub const fn id(self) -> u16 {
        match self {
            Self::X25519 => 0x0020,
            Self::XWing => 0x647a,
        }
    }

    /// The one with this identifier.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kem| kem.id() == id)
    }

    /// Bytes of a public key.
    pub const fn public_length(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1216,
        }
    }

    /// Bytes of an encapsulated key.
    pub const fn encapsulated_length(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1120,
        }
    }

    /// Whether these bytes are a public key.
    pub(super) fn is_public(self, bytes: &[u8]) -> bool {
        match self {
            Self::X25519 => <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(bytes).is_ok(),
            Self::XWing => <XWing as hpke::Kem>::PublicKey::from_bytes(bytes).is_ok(),
        }
    }

    /// The public key of a secret one; `None` if the bytes are no secret key.
    pub(super) fn public_of(self, secret: &[u8]) -> Option<Vec<u8>> {
        fn public<K: hpke::Kem>(secret: &[u8]) -> Option<Vec<u8>> {
            let secret = K::PrivateKey::from_bytes(secret).ok()?;
            Some(K::sk_to_pk(&secret).to_bytes().to_vec())
        }
        match self {
            Self::X25519 => public::<X25519HkdfSha256>(secret),
            Self::XWing => public::<XWing>(secret),
        }
    }
}

/// What encrypts (RFC 9180 §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20Poly1305.
    ChaCha20Poly1305,
}

impl Aead {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// The identifier in the HPKE registry.
    pub const fn id(self) -> u16 {
        match self {
            Self::Aes128Gcm => 1,
            Self::Aes256Gcm => 2,
            Self::ChaCha20Poly1305 => 3,
        }
    }

    /// The one with this identifier.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|aead| aead.id() == id)
    }

    /// Nk: bytes of a key. It is never shorter than a nonce, so it is also the length of a response's nonce
    /// (RFC 9458 §4.4).
    pub const fn key_length(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    pub(super) fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

/// Bytes that every one of these AEADs adds.
pub(super) const TAG: usize = 16;

/// The algorithms of one exchange; the KDF is always HKDF-SHA256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// For the key.
    pub kem: Kem,
    /// For the messages.
    pub aead: Aead,
}

/// An HPKE context of either side.
pub(super) trait Context: Send + Sync {
    /// Encrypts on the client's side, decrypts on the gateway's.
    fn apply(&mut self, text: &[u8], aad: &[u8]) -> Option<Vec<u8>>;
    fn export(&self, label: &[u8], out: &mut [u8]) -> Option<()>;
}

struct Sender<A: hpke::aead::Aead, K: hpke::Kem>(AeadCtxS<A, HkdfSha256, K>);
struct Receiver<A: hpke::aead::Aead, K: hpke::Kem>(AeadCtxR<A, HkdfSha256, K>);

impl<A: hpke::aead::Aead + Send + Sync, K: hpke::Kem + Send + Sync> Context for Sender<A, K>
where
    AeadCtxS<A, HkdfSha256, K>: Send + Sync,
{
    fn apply(&mut self, text: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        self.0.seal(text, aad).ok()
    }

    fn export(&self, label: &[u8], out: &mut [u8]) -> Option<()> {
        self.0.export(label, out).ok()
    }
}

impl<A: hpke::aead::Aead + Send + Sync, K: hpke::Kem + Send + Sync> Context for Receiver<A, K>
where
    AeadCtxR<A, HkdfSha256, K>: Send + Sync,
{
    fn apply(&mut self, text: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        self.0.open(text, aad).ok()
    }

    fn export(&self, label: &[u8], out: &mut [u8]) -> Option<()> {
        self.0.export(label, out).ok()
    }
}

impl Suite {
    /// The client's context and the encapsulated key.
    pub(super) fn send(self, public: &[u8], info: &[u8]) -> Result<(Vec<u8>, Box<dyn Context>), Error> {
        fn setup<A, K>(public: &[u8], info: &[u8]) -> Result<(Vec<u8>, Box<dyn Context>), Error>
        where
            A: hpke::aead::Aead + Send + Sync + 'static,
            K: hpke::Kem + Send + Sync + 'static,
            AeadCtxS<A, HkdfSha256, K>: Send + Sync,
        {
            let public = K::PublicKey::from_bytes(public).map_err(|_| Error::Encapsulation)?;
            let (encapsulated, context) =
                hpke::setup_sender::<A, HkdfSha256, K>(&OpModeS::Base, &public, info)
                    .map_err(|_| Error::Encapsulation)?;
            Ok((encapsulated.to_bytes().to_vec(), Box::new(Sender(context))))
        }
        match (self.kem, self.aead) {
            (Kem::X25519, Aead::Aes128Gcm) => setup::<AesGcm128, X25519HkdfSha256>(public, info),
            (Kem::X25519, Aead::Aes256Gcm) => setup::<AesGcm256, X25519HkdfSha256>(public, info),
            (Kem::X25519, Aead::ChaCha20Poly1305) => {
                setup::<ChaCha20Poly1305, X25519HkdfSha256>(public, info)
            }
            (Kem::XWing, Aead::Aes128Gcm) => setup::<AesGcm128, XWing>(public, info),
            (Kem::XWing, Aead::Aes256Gcm) => setup::<AesGcm256, XWing>(public, info),
            (Kem::XWing, Aead::ChaCha20Poly1305) => setup::<ChaCha20Poly1305, XWing>(public, info),
        }
    }

    /// The gateway's context.
    pub(super) fn receive(
        self,
        secret: &[u8],
        encapsulated: &[u8],
        info: &[u8],
    ) -> Result<Box<dyn Context>, Error> {
        fn setup<A, K>(secret: &[u8], encapsulated: &[u8], info: &[u8]) -> Result<Box<dyn Context>, Error>
        where
            A: hpke::aead::Aead + Send + Sync + 'static,
            K: hpke::Kem + Send + Sync + 'static,
            AeadCtxR<A, HkdfSha256, K>: Send + Sync,
        {
            let secret = K::PrivateKey::from_bytes(secret).map_err(|_| Error::Encapsulation)?;
            let encapsulated = K::EncappedKey::from_bytes(encapsulated).map_err(|_| Error::Encapsulation)?;
            let context =
                hpke::setup_receiver::<A, HkdfSha256, K>(&OpModeR::Base, &secret, &encapsulated, info)
                    .map_err(|_| Error::Encapsulation)?;
            Ok(Box::new(Receiver(context)))
        }
        match (self.kem, self.aead) {
            (Kem::X25519, Aead::Aes128Gcm) => {
                setup::<AesGcm128, X25519HkdfSha256>(secret, encapsulated, info)
            }
            (Kem::X25519, Aead::Aes256Gcm) => {
                setup::<AesGcm256, X25519HkdfSha256>(secret, encapsulated, info)
            }
            (Kem::X25519, Aead::ChaCha20Poly1305) => {
                setup::<ChaCha20Poly1305, X25519HkdfSha256>(secret, encapsulated, info)
            }
            (Kem::XWing, Aead::Aes128Gcm) => setup::<AesGcm128, XWing>(secret, encapsulated, info),
            (Kem::XWing, Aead::Aes256Gcm) => setup::<AesGcm256, XWing>(secret, encapsulated, info),
            (Kem::XWing, Aead::ChaCha20Poly1305) => {
                setup::<ChaCha20Poly1305, XWing>(secret, encapsulated, info)
            }
        }
    }
}
