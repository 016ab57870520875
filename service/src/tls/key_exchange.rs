//! Key exchange: X25519 (RFC 7748) and the hybrid X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem).

use alloc::boxed::Box;
use alloc::vec::Vec;
use ml_kem::EncapsulationKey768;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SecureRandom, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

/// Length of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
const MLKEM_KEY_BYTES: usize = 1184;
/// Length of an X25519 public key.
const X25519_BYTES: usize = 32;

fn random_32(random: &dyn SecureRandom) -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    random.fill(&mut bytes[..])?;
    Ok(bytes)
}

fn x25519(secret: &StaticSecret, peer: &[u8]) -> Result<SharedSecret, Error> {
    let peer: [u8; X25519_BYTES] = peer.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
    let shared = secret.diffie_hellman(&PublicKey::from(peer));
    // RFC 8446 §7.4.2: an all-zero result must end the handshake.
    if !shared.was_contributory() {
        return Err(PeerMisbehaved::InvalidKeyShare.into());
    }
    Ok(SharedSecret::from(&shared.as_bytes()[..]))
}

/// X25519 alone.
#[derive(Debug)]
pub(super) struct X25519 {
    pub(super) random: &'static dyn SecureRandom,
}

struct ActiveX25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = StaticSecret::from(*random_32(self.random)?);
        let public = PublicKey::from(&secret);
        Ok(Box::new(ActiveX25519 { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for ActiveX25519 {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        x25519(&self.secret, peer)
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// ML-KEM-768 and X25519 together; the ML-KEM part comes first, in the shares and in the secret.
#[derive(Debug)]
pub(super) struct X25519MlKem768 {
    pub(super) random: &'static dyn SecureRandom,
}

impl SupportedKxGroup for X25519MlKem768 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        // Only a client starts a KEM; a server answers in `start_and_complete`.
        Err(Error::General("X25519MLKEM768 is implemented for servers".into()))
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        let (mlkem, ecdhe) = peer.split_at_checked(MLKEM_KEY_BYTES).ok_or_else(invalid)?;
        // FIPS 203 §7.2: `new` makes the modulus check of the encapsulation key.
        let key =
            EncapsulationKey768::new(mlkem.try_into().map_err(|_| invalid())?).map_err(|_| invalid())?;
        let message = random_32(self.random)?;
        let (ciphertext, mut mlkem_secret) = key.encapsulate_deterministic(&(*message).into());

        let secret = StaticSecret::from(*random_32(self.random)?);
        let ecdhe_secret = x25519(&secret, ecdhe)?;

        let mut pub_key = ciphertext.to_vec();
        pub_key.extend_from_slice(PublicKey::from(&secret).as_bytes());
        let mut shared = Vec::with_capacity(mlkem_secret.len() + X25519_BYTES);
        shared.extend_from_slice(&mlkem_secret);
        shared.extend_from_slice(ecdhe_secret.secret_bytes());
        mlkem_secret.zeroize();
        Ok(CompletedKeyExchange { group: self.name(), pub_key, secret: SharedSecret::from(shared) })
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}
