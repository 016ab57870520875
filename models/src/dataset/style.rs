//! How people type: without capitals, without full stops, with emoji and with slips of the finger.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::Piece;

const EMOJI: [&str; 24] = [
    "😂", "👍", "❤️", "🎉", "😅", "🙈", "😍", "🙏", "😭", "🔥", "🥳", "😎", "🤔", "👀", "🍕", "☀️", "💪",
    "😊", "🚗", "⚽", "🍻", "🎂", "😴", "🤷",
];

/// One person's manner of typing.
#[derive(Clone, Copy)]
pub struct Style {
    lower_case: f64,
    no_full_stop: f64,
    emoji: f64,
    slip: f64,
}

impl Style {
    /// Somebody's manner: careful, casual or careless.
    pub fn draw(random: &mut ChaCha8Rng) -> Self {
        match random.random_range(0..10) {
            0..4 => Self { lower_case: 0.0, no_full_stop: 0.2, emoji: 0.05, slip: 0.0 },
            4..8 => Self { lower_case: 0.5, no_full_stop: 0.8, emoji: 0.2, slip: 0.004 },
            _ => Self { lower_case: 0.9, no_full_stop: 0.95, emoji: 0.35, slip: 0.02 },
        }
    }

    /// The manner that most needs a rewrite.
    pub fn careless() -> Self {
        Self { lower_case: 0.9, no_full_stop: 0.9, emoji: 0.2, slip: 0.02 }
    }

    /// Types a message. What a slot holds stays as it is: names, times and places must be copied exactly.
    pub fn type_out(self, message: &[Piece], random: &mut ChaCha8Rng) -> String {
        let lower = random.random_bool(self.lower_case);
        let mut text = String::new();
        for piece in message {
            match &piece.slot {
                Some(slot) if lower && slot.starts_with("when") => text.push_str(&piece.text.to_lowercase()),
                Some(_) => text.push_str(&piece.text),
                None if lower => text.push_str(&self.slip(&piece.text.to_lowercase(), random)),
                None => text.push_str(&self.slip(&piece.text, random)),
            }
        }
        if random.random_bool(self.no_full_stop) {
            text = text.trim_end_matches('.').replace(['¿', '¡'], "");
        }
        if random.random_bool(self.emoji) {
            let emoji = EMOJI.choose(random).copied().unwrap_or_default();
            text.push(' ');
            text.push_str(&emoji.repeat(*[1, 1, 1, 2, 3].choose(random).unwrap_or(&1)));
        }
        text
    }

    fn slip(self, text: &str, random: &mut ChaCha8Rng) -> String {
        let mut letters: Vec<char> = text.chars().collect();
        let mut i = 1;
        while i + 1 < letters.len() {
            if letters[i].is_alphabetic() && letters[i + 1].is_alphabetic() && random.random_bool(self.slip) {
                match random.random_range(0..3) {
                    0 => letters.swap(i, i + 1),
                    1 => drop(letters.remove(i)),
                    _ => letters.insert(i, letters[i]),
                }
                i += 1;
            }
            i += 1;
        }
        letters.into_iter().collect()
    }
}
