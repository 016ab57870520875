//! HMAC_DRBG of SP 800-90A rev. 1, §10.1.2, without prediction resistance or additional input.

use hmac::{KeyInit, Mac};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Most bytes of one request (table 2: 2^19 bits).
pub const MAX_REQUEST_BYTES: usize = 1 << 16;

/// The generator's state, for a MAC `M` with `N` bytes of output.
pub struct HmacDrbg<M, const N: usize> {
    key: [u8; N],
    value: [u8; N],
    requests: u64,
    mac: core::marker::PhantomData<M>,
}

impl<M: Mac + KeyInit, const N: usize> HmacDrbg<M, N> {
    /// Instantiates the generator (§10.1.2.3).
    pub fn new(entropy: &[u8], nonce: &[u8], personalization: &[u8]) -> Self {
        let mut drbg = Self { key: [0; N], value: [1; N], requests: 0, mac: core::marker::PhantomData };
        drbg.update(&[entropy, nonce, personalization]);
        drbg
    }

    /// Mixes in new entropy (§10.1.2.4).
    pub fn reseed(&mut self, entropy: &[u8]) {
        self.update(&[entropy]);
        self.requests = 0;
    }

    /// Requests since the last seed.
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Fills `out`, of which no more than [`MAX_REQUEST_BYTES`] are asked for (§10.1.2.5).
    pub fn generate(&mut self, out: &mut [u8]) {
        for piece in out.chunks_mut(N) {
            self.value = Self::mac(&self.key, &[&self.value]);
            piece.copy_from_slice(&self.value[..piece.len()]);
        }
        self.update(&[]);
        self.requests += 1;
    }

    /// §10.1.2.2.
    fn update(&mut self, provided: &[&[u8]]) {
        self.round(0, provided);
        if !provided.is_empty() {
            self.round(1, provided);
        }
    }

    fn round(&mut self, number: u8, provided: &[&[u8]]) {
        self.key =
            Self::mac_of(&self.key, [&self.value[..], &[number]].into_iter().chain(provided.iter().copied()));
        self.value = Self::mac(&self.key, &[&self.value]);
    }

    fn mac(key: &[u8; N], parts: &[&[u8]]) -> [u8; N] {
        Self::mac_of(key, parts.iter().copied())
    }

    fn mac_of<'a>(key: &[u8; N], parts: impl Iterator<Item = &'a [u8]>) -> [u8; N] {
        let mut out = [0; N];
        // HMAC takes keys of any length.
        if let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) {
            parts.for_each(|part| mac.update(part));
            out.copy_from_slice(&mac.finalize().into_bytes());
        }
        out
    }
}

impl<M, const N: usize> Drop for HmacDrbg<M, N> {
    fn drop(&mut self) {
        self.key.zeroize();
        self.value.zeroize();
    }
}

impl<M, const N: usize> ZeroizeOnDrop for HmacDrbg<M, N> {}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::Hmac;
    use sha2::Sha256;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// NIST CAVP, `drbgvectors_no_reseed/HMAC_DRBG.rsp` (public domain), [SHA-256], no personalization, COUNT = 0: the
    /// second of two requests of 1,024 bits is the expected one.
    #[test]
    fn the_cavp_vector_is_met() {
        let mut drbg = HmacDrbg::<Hmac<Sha256>, 32>::new(
            &bytes("ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488"),
            &bytes("659ba96c601dc69fc902940805ec0ca8"),
            &[],
        );
        let mut out = [0; 128];
        drbg.generate(&mut out);
        drbg.generate(&mut out);
        let expected = "e528e9abf2dece54d47c7e75e5fe302149f817ea9fb4bee6f4199697d04d5b89d54fbb978a15b5c443c9ec21036d2460\
            b6f73ebad0dc2aba6e624abf07745bc107694bb7547bb0995f70de25d6b29e2d3011bb19d27676c07162c8b5ccde0668961df86803482c\
            b37ed6d5c0bb8d50cf1f50d476aa0458bdaba806f48be9dcb8";
        assert_eq!(out.to_vec(), bytes(expected));
    }

    #[test]
    fn a_new_seed_changes_the_stream() {
        let start = || HmacDrbg::<Hmac<sha2::Sha384>, 48>::new(&[1; 48], &[2; 24], b"");
        let (mut a, mut b) = (start(), start());
        b.reseed(&[3; 48]);
        let (mut x, mut y) = ([0; 96], [0; 96]);
        a.generate(&mut x);
        b.generate(&mut y);
        assert_ne!(x, y);
        assert_eq!((a.requests(), b.requests()), (1, 1));
    }
}
