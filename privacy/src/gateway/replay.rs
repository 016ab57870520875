//! Requests that were answered before (RFC 9458 §6.5), in bounded memory.
//!
//! A copy of a request does nothing even without this: a token is spent once, and what is appended must continue where the
//! session stands. This refuses a copy before it costs a look into the store of tokens.

use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::Mutex;

/// Requests in each of the two generations.
const GENERATION: usize = 1 << 18;

/// The encapsulated keys of the last requests, at least [`GENERATION`] of them.
pub struct Replays {
    seen: Mutex<[HashSet<u128>; 2]>,
    generation: usize,
}

impl Default for Replays {
    fn default() -> Self {
        Self { seen: Mutex::default(), generation: GENERATION }
    }
}

impl Replays {
    /// Whether a request with this encapsulated key is the first one.
    pub fn is_first(&self, encapsulated: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(encapsulated).into();
        let (half, _) = digest.split_at(16);
        let key = half.iter().fold(0, |key, byte| key << 8 | u128::from(*byte));
        let Ok(mut seen) = self.seen.lock() else { return false };
        let [new, old] = &mut *seen;
        if old.contains(&key) || !new.insert(key) {
            return false;
        }
        if new.len() >= self.generation {
            *old = std::mem::take(new);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c8_a_copy_is_seen_and_memory_is_bounded() {
        let replays = Replays { seen: Mutex::default(), generation: 100 };
        for number in 0..1_000_u32 {
            assert!(replays.is_first(&number.to_be_bytes()));
            for earlier in number.saturating_sub(99)..=number {
                assert!(!replays.is_first(&earlier.to_be_bytes()), "{earlier} of {number}");
            }
        }
        let kept: usize = replays.seen.lock().unwrap().iter().map(HashSet::len).sum();
        assert!(kept <= 200, "{kept}");
    }
}
