//! TLS 1.3 for the guest: a rustls [`CryptoProvider`] over RustCrypto, server side only.
//!
//! * Key exchange: X25519MLKEM768, and X25519 for clients without post-quantum support (REQUIREMENTS B11). rustls lets
//!   the client's order of preference decide between the two.
//! * Randomness comes from the platform alone; no primitive brings a generator of its own.
//! * No resumption, no tickets, no early data, no TLS 1.2: there is no code for them to reach.
//! * Signing keys are made in the guest ([`crate::certificate`]); none can be loaded.

mod aead;
mod exporter;
mod hash;
mod key_exchange;
mod parked;
mod signing;
mod stream;

#[cfg(test)]
mod vectors;

use crate::platform::Platform;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::time::Duration;
use rustls::crypto::{CryptoProvider, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;

pub(crate) use exporter::ExporterCapture;
pub(crate) use parked::Parked;
pub(crate) use signing::SigningKey;
pub(crate) use stream::{Progress, TlsStream};

/// The provider and the slot through which its decrypters hand over application data.
#[derive(Clone)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    pub(crate) parked: &'static Parked,
    pub(crate) random: &'static dyn SecureRandom,
}

impl Tls {
    /// Makes the provider. What rustls wants for `'static` is leaked: once a boot in the guest.
    pub(crate) fn new(platform: &impl Platform) -> Self {
        let random = platform.random();
        let parked: &'static Parked = Box::leak(Box::new(Parked::new()));
        let provider = CryptoProvider {
            cipher_suites: aead::suites(parked),
            kx_groups: vec![
                Box::leak(Box::new(key_exchange::X25519MlKem768 { random })),
                Box::leak(Box::new(key_exchange::X25519 { random })),
            ],
            // Clients have no certificates, so there is no signature to verify.
            signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
            secure_random: random,
            key_provider: &NoStoredKeys,
        };
        Self { provider: Arc::new(provider), parked, random }
    }

    /// The configuration of one certificate's connections.
    pub(crate) fn server_config(
        &self,
        key: Arc<SigningKey>,
        certificate: CertificateDer<'static>,
    ) -> Result<ServerConfig, rustls::Error> {
        let certified = CertifiedKey::new(vec![certificate], key);
        certified.keys_match()?;
        let mut config = ServerConfig::builder_with_details(self.provider.clone(), Arc::new(NoClock))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![wire::path::EVIDENCE_FIRST.to_vec(), b"http/1.1".to_vec()];
        // Said explicitly because rustls' defaults differ between its features.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        // For evidence only, and only for clients that ask for it by ALPN ([`TlsStream::asks_for_evidence`]).
        config.send_half_rtt_data = true;
        Ok(config)
    }
}

/// Keys are made in the guest and die with it.
#[derive(Debug)]
struct NoStoredKeys;

impl KeyProvider for NoStoredKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn rustls::sign::SigningKey>, rustls::Error> {
        Err(rustls::Error::General("keys are made in the guest".into()))
    }
}

/// rustls asks for the time when it issues or reads tickets. There are none, and the guest trusts no clock
/// (REQUIREMENTS A14), so it is always the epoch.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}
