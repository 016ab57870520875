//! Record protection (RFC 8446 §5.2): AES-256-GCM and AES-128-GCM. Every CPU with SEV-SNP has AES instructions, so ChaCha20 has no
//! place here.

use super::hash::{HmacSha256, HmacSha384, Sha256, Sha384};
use super::parked::{MAX_PLAINTEXT, Parked};
use crate::connection::{RECORD, UNSHAPED};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError, make_tls13_aad,
};
use rustls::crypto::tls13::{Hkdf, HkdfUsingHmac};
use rustls::crypto::{CipherSuiteCommon, hash::Hash};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};

const TAG_BYTES: usize = 16;

/// Records are padded to a multiple of this (RFC 8446 §5.4). Nothing longer is sent once the handshake is complete, so all
/// of them have one size then (REQUIREMENTS C6).
const PADDED_TO: usize = if UNSHAPED { 1 } else { RECORD + 1 };

/// RFC 8446 §5.5 allows 2^24.5 full records under one AES-GCM key; rustls rekeys well before.
const AES_GCM_RECORDS: u64 = 1 << 23;

/// The cipher suites in order of preference; their decrypters hand application data over through `parked`.
pub(super) fn suites(parked: &'static Parked) -> Vec<SupportedCipherSuite> {
    let sha384: (&'static dyn Hash, &'static dyn Hkdf) = (&Sha384, &HkdfUsingHmac(&HmacSha384));
    let sha256: (&'static dyn Hash, &'static dyn Hkdf) = (&Sha256, &HkdfUsingHmac(&HmacSha256));
    let suite = |suite, (hash_provider, hkdf_provider), confidentiality_limit, aead_alg| {
        let common = CipherSuiteCommon { suite, hash_provider, confidentiality_limit };
        let suite = Tls13CipherSuite { common, hkdf_provider, aead_alg, quic: None };
        SupportedCipherSuite::Tls13(Box::leak(Box::new(suite)))
    };
    vec![
        suite(
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            sha384,
            AES_GCM_RECORDS,
            leak::<aes_gcm::Aes256Gcm>(parked),
        ),
        suite(
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            sha256,
            AES_GCM_RECORDS,
            leak::<aes_gcm::Aes128Gcm>(parked),
        ),
    ]
}

fn leak<A: AeadInOut + KeyInit + Send + Sync + 'static>(
    parked: &'static Parked,
) -> &'static dyn Tls13AeadAlgorithm {
    Box::leak(Box::new(Algorithm::<A> { parked, cipher: PhantomData }))
}

struct Algorithm<A> {
    parked: &'static Parked,
    cipher: PhantomData<A>,
}

impl<A: AeadInOut + KeyInit + Send + Sync + 'static> Algorithm<A> {
    fn cipher(key: &AeadKey) -> A {
        A::new_from_slice(key.as_ref()).expect("rustls derives keys of the length that `key_len` gives")
    }
}

impl<A: AeadInOut + KeyInit + Send + Sync + 'static> Tls13AeadAlgorithm for Algorithm<A> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Encrypter { cipher: Self::cipher(&key), iv })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Decrypter { cipher: Self::cipher(&key), iv, parked: self.parked })
    }

    fn key_len(&self) -> usize {
        A::key_size()
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

struct Encrypter<A> {
    cipher: A,
    iv: Iv,
}

/// Length of content, type and padding together; at most 2^14 + 1 (RFC 8446 §5.4).
fn padded(content: usize) -> usize {
    (content + 1).next_multiple_of(PADDED_TO).min(MAX_PLAINTEXT + 1)
}

impl<A: AeadInOut + Send + Sync> MessageEncrypter for Encrypter<A> {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let inner = padded(message.payload.len());
        let total = inner + TAG_BYTES;
        // The exact capacity, so that no plaintext stays behind in a smaller allocation.
        let mut payload = PrefixedPayload::with_capacity(total);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        payload.extend(core::iter::repeat_n(&0u8, inner.saturating_sub(message.payload.len() + 1)));
        let nonce = Nonce::new(&self.iv, sequence).0;
        let nonce = nonce.as_slice().try_into().map_err(|_| Error::EncryptError)?;
        let tag = self
            .cipher
            .encrypt_inout_detached(nonce, &make_tls13_aad(total), InOutBuf::from(payload.as_mut()))
            .map_err(|_| Error::EncryptError)?;
        payload.extend_from_slice(&tag);
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        padded(length) + TAG_BYTES
    }
}

pub(super) struct Decrypter<A> {
    pub(super) cipher: A,
    pub(super) iv: Iv,
    pub(super) parked: &'static Parked,
}

impl<A: AeadInOut + Send + Sync> MessageDecrypter for Decrypter<A> {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let total = message.payload.len();
        let inner = total.checked_sub(TAG_BYTES).ok_or(Error::DecryptError)?;
        let nonce = Nonce::new(&self.iv, sequence).0;
        let nonce = nonce.as_slice().try_into().map_err(|_| Error::DecryptError)?;
        let (body, tag) = message.payload.split_at_mut(inner);
        let tag = (&*tag).try_into().map_err(|_| Error::DecryptError)?;
        self.cipher
            .decrypt_inout_detached(nonce, &make_tls13_aad(total), InOutBuf::from(body), tag)
            .map_err(|_| Error::DecryptError)?;
        message.payload.truncate(inner);
        self.park(&mut message.payload)?;
        message.into_tls13_unpadded_message()
    }
}

impl<A> Decrypter<A> {
    /// Parks the content if it is application data; its type is the last byte that is not padding (RFC 8446 §5.4).
    fn park(&self, inner: &mut [u8]) -> Result<(), Error> {
        let Some(at) = inner.iter().rposition(|byte| *byte != 0) else { return Ok(()) };
        let (content, rest) = inner.split_at_mut(at);
        if rest.first().copied().map(ContentType::from) != Some(ContentType::ApplicationData) {
            return Ok(());
        }
        self.parked.park(content).map_err(|_| Error::PeerSentOversizedRecord)
    }
}
