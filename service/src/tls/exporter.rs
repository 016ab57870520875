//! The TLS exporter (RFC 8446 §7.5), which binds evidence to one connection.
//!
//! rustls' unbuffered connections have no `export_keying_material`, but they tell a `KeyLog` the exporter master
//! secret. Each connection has a capture of its own, which lets nothing but that secret in.

use super::hash::{HmacSha256, HmacSha384, Sha256, Sha384};
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use rustls::KeyLog;
use rustls::crypto::hash::Hash;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, HkdfUsingHmac, OkmBlock};
use zeroize::Zeroizing;

/// Label under which rustls logs the exporter master secret.
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";
/// The longest exporter master secret: SHA-384's.
const MAX_SECRET: usize = 48;
/// Bytes of `ClientHello.random` (RFC 8446 §4.1.2).
const RANDOM: usize = 32;
/// Bytes that are exported.
const EXPORTED: usize = 32;

/// Holds the exporter master secret between the end of the handshake and [`ExporterCapture::export`].
pub(crate) struct ExporterCapture {
    length: AtomicUsize,
    // Atomics because a `KeyLog` is `Sync` and is called through a shared reference.
    secret: [AtomicU8; MAX_SECRET],
    /// `ClientHello.random`: not secret.
    random: [AtomicU8; RANDOM],
}

impl ExporterCapture {
    pub(crate) fn new() -> Self {
        Self {
            length: AtomicUsize::new(0),
            secret: [const { AtomicU8::new(0) }; MAX_SECRET],
            random: [const { AtomicU8::new(0) }; RANDOM],
        }
    }

    /// Derives the exporter for `label` with an empty context and wipes the captured secret. `None` before the
    /// handshake has come so far, and the second time.
    pub(crate) fn export(&self, label: &[u8]) -> Option<Zeroizing<[u8; EXPORTED]>> {
        let mut secret = Zeroizing::new([0; MAX_SECRET]);
        let length = self.take(&mut secret);
        let secret = secret.get(..length)?;
        // The length of the secret is that of the cipher suite's hash.
        match length {
            32 => export(&Sha256, &HkdfUsingHmac(&HmacSha256), secret, label),
            48 => export(&Sha384, &HkdfUsingHmac(&HmacSha384), secret, label),
            _ => None,
        }
    }

    /// The client's random, once the exporter is there.
    pub(crate) fn client_random(&self) -> [u8; RANDOM] {
        self.random.each_ref().map(|byte| byte.load(Relaxed))
    }

    fn take(&self, secret: &mut [u8; MAX_SECRET]) -> usize {
        for (byte, slot) in secret.iter_mut().zip(&self.secret) {
            *byte = slot.swap(0, Relaxed);
        }
        self.length.swap(0, Relaxed)
    }
}

/// RFC 8446 §7.5 with an empty context value.
fn export(
    hash: &dyn Hash,
    hkdf: &dyn Hkdf,
    secret: &[u8],
    label: &[u8],
) -> Option<Zeroizing<[u8; EXPORTED]>> {
    let of_nothing = hash.hash(&[]);
    let mut derived = Zeroizing::new([0; MAX_SECRET]);
    let derived = derived.get_mut(..hash.output_len())?;
    expand_label(&*hkdf.expander_for_okm(&OkmBlock::new(secret)), label, of_nothing.as_ref(), derived)?;
    let mut exported = Zeroizing::new([0; EXPORTED]);
    let expander = hkdf.expander_for_okm(&OkmBlock::new(derived));
    expand_label(&*expander, b"exporter", of_nothing.as_ref(), &mut exported[..])?;
    Some(exported)
}

/// HKDF-Expand-Label (RFC 8446 §7.1).
pub(super) fn expand_label(
    expander: &dyn HkdfExpander,
    label: &[u8],
    context: &[u8],
    output: &mut [u8],
) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(output.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info = [&length[..], &label_length, PREFIX, label, &context_length, context];
    expander.expand_slice(&info, output).ok()
}

impl KeyLog for ExporterCapture {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if label == EXPORTER_SECRET && secret.len() <= MAX_SECRET {
            let slots = self.secret.iter().zip(secret).chain(self.random.iter().zip(client_random));
            for (slot, byte) in slots {
                slot.store(*byte, Relaxed);
            }
            self.length.store(secret.len(), Relaxed);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

impl Drop for ExporterCapture {
    fn drop(&mut self) {
        self.take(&mut Zeroizing::new([0; MAX_SECRET]));
    }
}

impl fmt::Debug for ExporterCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExporterCapture")
    }
}
