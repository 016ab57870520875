//! A hash table that is filled once, when a model is loaded. It never changes with what is looked up, so it remembers
//! nothing of it.
use alloc::vec;
use alloc::vec::Vec;

/// Entries found by a hash and a comparison; open addressing, three quarters full at most.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    slots: Vec<Option<T>>,
}

impl<T: Copy> Table<T> {
    /// Room for so many entries.
    pub(super) fn new(entries: usize) -> Self {
        Self { slots: vec![None; (entries + entries / 3 + 1).next_power_of_two()] }
    }

    /// The slot of an entry, or the empty one where it would be. One is always empty.
    fn slot(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].as_ref().is_some_and(|entry| !is_it(entry)) {
            at = (at + 1) & mask;
        }
        at
    }

    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<T> {
        self.slots[self.slot(hash, is_it)]
    }

    /// Inserts an entry, unless there is one.
    pub(super) fn insert(&mut self, hash: u64, entry: T, is_it: impl Fn(&T) -> bool) {
        let slot = self.slot(hash, is_it);
        self.slots[slot].get_or_insert(entry);
    }
}

/// The upper half of a product depends on all bits; it becomes the lower one.
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}

/// FNV-1a (RFC 9923), mixed.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

pub(super) fn hash_pair(left: u32, right: u32) -> u64 {
    mix((u64::from(left) << 32 | u64::from(right)).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

#[cfg(test)]
mod tests {
    use super::{Table, hash_pair};

    #[test]
    fn the_first_entry_of_a_key_is_found_and_no_other() {
        for entries in [0, 1, 2, 3, 500] {
            let mut table = Table::new(entries);
            let hash = |key: u32| hash_pair(key % 7, 1);
            for key in 0..entries as u32 {
                table.insert(hash(key), (key, "first"), |entry| entry.0 == key);
                table.insert(hash(key), (key, "second"), |entry| entry.0 == key);
            }
            for key in 0..600 {
                let expected = ((key as usize) < entries).then_some((key, "first"));
                assert_eq!(table.find(hash(key), |entry| entry.0 == key), expected);
            }
        }
    }
}
