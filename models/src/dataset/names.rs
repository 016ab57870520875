//! Names of people, places and towns, in two pools that share nothing: one to train on, one to judge by.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

/// Which pool names come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Seen in training.
    Train,
    /// Never seen in training.
    HeldOut,
    /// Invented training names only: for the vocabulary, so that no real name becomes a token of its own
    /// and known and unknown names look alike to the network.
    Vocabulary,
}

/// The lists from `data/names.toml`.
#[derive(Deserialize)]
pub struct Names {
    people: Vec<String>,
    people_held_out: Vec<String>,
    towns: Vec<String>,
    towns_held_out: Vec<String>,
    onsets: Vec<String>,
    vowels: Vec<String>,
    codas: Vec<String>,
}

impl Names {
    /// A given name, real or invented.
    pub fn person(&self, split: Split, random: &mut ChaCha8Rng) -> String {
        self.real_or_invented(&self.people, &self.people_held_out, 0.4, split, random)
    }

    /// A town, real or invented.
    pub fn town(&self, split: Split, random: &mut ChaCha8Rng) -> String {
        self.real_or_invented(&self.towns, &self.towns_held_out, 0.5, split, random)
    }

    /// What a bar, a street or a park is called.
    pub fn place(&self, split: Split, random: &mut ChaCha8Rng) -> String {
        match random.random_range(0..4) {
            0 => self.person(split, random),
            1 => self.town(split, random),
            _ => self.invented(split, random),
        }
    }

    fn real_or_invented(
        &self,
        train: &[String],
        held_out: &[String],
        share: f64,
        split: Split,
        random: &mut ChaCha8Rng,
    ) -> String {
        let real = random.random_bool(share);
        let list = match split {
            Split::Train if real => train,
            Split::HeldOut if real => held_out,
            _ => return self.invented(split, random),
        };
        list.choose(random).cloned().unwrap_or_default()
    }

    /// A name built of syllables. Which pool it belongs to is a property of the name itself.
    fn invented(&self, split: Split, random: &mut ChaCha8Rng) -> String {
        loop {
            let syllables = [1, 2, 2, 2, 3][random.random_range(0..5)];
            let mut name = String::new();
            for _ in 0..syllables {
                for part in [&self.onsets, &self.vowels, &self.codas] {
                    name.push_str(part.choose(random).map_or("", String::as_str));
                }
            }
            let mut letters = name.chars();
            let name: String =
                letters.next().into_iter().flat_map(char::to_uppercase).chain(letters.clone()).collect();
            let listed = |lists: [&[String]; 2]| lists.concat().contains(&name);
            let eligible = match split {
                Split::HeldOut => is_held_out(&name) && !listed([&self.people, &self.towns]),
                _ => !is_held_out(&name) && !listed([&self.people_held_out, &self.towns_held_out]),
            };
            if eligible && (3..=11).contains(&name.chars().count()) {
                return name;
            }
        }
    }
}

/// One invented name in eight is held out, by its FNV-1a hash.
pub fn is_held_out(name: &str) -> bool {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32).is_multiple_of(8)
}
