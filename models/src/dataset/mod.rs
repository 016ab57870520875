//! Chats and what a good answer to them is, made from facts that are drawn at random.
//!
//! A chat is a row of *units* (somebody plans dinner, somebody brings the cake, a question stays open) with
//! small talk between them. Every unit knows the line that a summary has for it, so the reference is right
//! by construction, and every name, time and place in it stands in the chat letter by letter. The names come
//! from pools far larger than the network could memorise: it has to learn to copy.

mod language;
mod names;
mod sample;
mod slots;
mod style;

use anyhow::Result;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use language::{Language, Unit};
use names::Names;
pub use names::Split;
pub use sample::{FactKind, Piece, Sample, Task};
use slots::{Slots, fill};
use style::Style;

#[cfg(test)]
mod tests;

/// How difficult the chats may be.
#[derive(Clone, Copy, Debug)]
pub struct Difficulty {
    /// Most units in one chat.
    pub units: usize,
    /// How likely small talk is between two turns.
    pub small_talk: f64,
    /// The share of rewrites, which are nearly all copying.
    pub rewrites: f64,
}

impl Difficulty {
    /// Chats as they are judged.
    pub const FULL: Self = Self { units: 4, small_talk: 0.25, rewrites: 0.08 };
}

/// Makes samples; the same seed gives the same samples.
pub struct Generator<'a> {
    languages: &'a [Language],
    names: &'a Names,
    split: Split,
    random: ChaCha8Rng,
}

/// The generator's texts.
pub struct Texts {
    /// The languages.
    pub languages: Vec<Language>,
    names: Names,
}

impl Texts {
    /// Reads the files of `data/`.
    pub fn load() -> Result<Self> {
        let languages = [
            include_str!("../../data/en.toml"),
            include_str!("../../data/de.toml"),
            include_str!("../../data/es.toml"),
            include_str!("../../data/fr.toml"),
            include_str!("../../data/pt.toml"),
        ];
        let languages = languages.into_iter().map(Language::parse).collect::<Result<_>>()?;
        Ok(Self { languages, names: toml::from_str(include_str!("../../data/names.toml"))? })
    }

    /// A generator over these texts.
    pub fn generator(&self, split: Split, seed: u64) -> Generator<'_> {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Generator { languages: &self.languages, names: &self.names, split, random }
    }
}

impl Generator<'_> {
    /// The next sample, of any task.
    pub fn sample(&mut self, difficulty: Difficulty) -> Sample {
        if self.random.random_bool(difficulty.rewrites) {
            return self.rewrite();
        }
        match self.random.random_range(0..100) {
            0..88 => self.summary(difficulty),
            88..98 => self.reply(),
            _ => self.about(),
        }
    }

    /// A chat and its summary.
    pub fn summary(&mut self, difficulty: Difficulty) -> Sample {
        let language = self.language();
        let people = self.people();
        let styles = people.iter().map(|_| Style::draw(&mut self.random)).collect::<Vec<_>>();
        let count = self.random.random_range(1..=difficulty.units);
        let mut kinds: Vec<&Unit> = language.units.iter().collect();
        kinds.shuffle(&mut self.random);
        let mut messages = Vec::new();
        let mut answer = Vec::new();
        for (i, unit) in kinds.into_iter().take(count).enumerate() {
            let slots = self.slots(language, &people);
            for turn in self.turns(unit) {
                if self.random.random_bool(difficulty.small_talk) {
                    self.small_talk(language, &people, &styles, &mut messages);
                }
                let speaker = position(&people, &slots, &turn[0][..1]);
                let phrase = self.phrase(language, &turn[1..], &slots);
                messages.push((people[speaker].clone(), styles[speaker].type_out(&phrase, &mut self.random)));
            }
            if i > 0 {
                answer.push(Piece { text: "\n".into(), slot: None });
            }
            answer.extend(fill(&unit.line, &slots));
        }
        if self.random.random_bool(difficulty.small_talk) {
            self.small_talk(language, &people, &styles, &mut messages);
        }
        Sample { language: language.code.clone(), task: Task::Summarize, messages, answer }
    }

    /// A carelessly typed message and how it should read.
    fn rewrite(&mut self) -> Sample {
        let language = self.language();
        let people = self.people();
        let slots = self.slots(language, &people);
        let unit = language.units.choose(&mut self.random).expect("a language has units");
        let turn = &unit.say[0];
        let clean = self.phrase(language, &turn[1..], &slots);
        let text = Style::careless().type_out(&clean, &mut self.random);
        let messages = vec![(people[0].clone(), text)];
        Sample { language: language.code.clone(), task: Task::Rewrite, messages, answer: clean }
    }

    /// A chat that waits for an answer, and one.
    fn reply(&mut self) -> Sample {
        let language = self.language();
        let people = self.people();
        let styles = people.iter().map(|_| Style::draw(&mut self.random)).collect::<Vec<_>>();
        let answered: Vec<(&Unit, &String)> =
            language.units.iter().filter_map(|unit| Some((unit, unit.reply.as_ref()?))).collect();
        let (unit, reply) = answered.choose(&mut self.random).copied().expect("a language has replies");
        let slots = self.slots(language, &people);
        let mut messages = Vec::new();
        while self.random.random_bool(0.4) {
            self.small_talk(language, &people, &styles, &mut messages);
        }
        let speaker = position(&people, &slots, "a");
        let phrase = self.phrase(language, &unit.say[0][1..], &slots);
        messages.push((people[speaker].clone(), styles[speaker].type_out(&phrase, &mut self.random)));
        Sample { language: language.code.clone(), task: Task::Reply, messages, answer: fill(reply, &slots) }
    }

    /// Somebody who wants to know what this is.
    fn about(&mut self) -> Sample {
        let language = self.language();
        let asked = language.about_asked.choose(&mut self.random).cloned().unwrap_or_default();
        let answer = vec![Piece { text: language.about.clone(), slot: None }];
        Sample {
            language: language.code.clone(),
            task: Task::Chat,
            messages: vec![(String::new(), asked)],
            answer,
        }
    }

    fn language<'b>(&mut self) -> &'b Language
    where
        Self: 'b,
    {
        self.languages.choose(&mut self.random).expect("there are languages")
    }

    fn people(&mut self) -> Vec<String> {
        let mut people: Vec<String> = Vec::new();
        let count = self.random.random_range(2..=4);
        while people.len() < count {
            let mut name = self.names.person(self.split, &mut self.random);
            if self.random.random_bool(0.08) {
                name = format!("{name} {}", self.names.person(self.split, &mut self.random));
            }
            if !people.contains(&name) {
                people.push(name);
            }
        }
        people
    }

    /// The turns of a unit, without those that may be missing and are.
    fn turns<'u>(&mut self, unit: &'u Unit) -> Vec<&'u [String]> {
        let mut kept = Vec::new();
        for turn in &unit.say {
            if !turn[0].ends_with('?') || self.random.random_bool(0.6) {
                kept.push(turn.as_slice());
            }
        }
        kept
    }

    fn small_talk(
        &mut self,
        language: &Language,
        people: &[String],
        styles: &[Style],
        messages: &mut Vec<(String, String)>,
    ) {
        let slots = self.slots(language, people);
        let phrase = self.phrase(language, &language.chat, &slots);
        let speaker = self.random.random_range(0..people.len());
        messages.push((people[speaker].clone(), styles[speaker].type_out(&phrase, &mut self.random)));
    }

    fn phrase(&mut self, language: &Language, ways: &[String], slots: &Slots) -> Vec<Piece> {
        let way = ways.choose(&mut self.random).map_or("", String::as_str);
        match way.strip_prefix('@').and_then(|pool| language.pool(pool)) {
            Some(pool) => self.phrase(language, pool, slots),
            None => fill(way, slots),
        }
    }
}

/// Which of the people fills a slot.
fn position(people: &[String], slots: &Slots, slot: &str) -> usize {
    let name = slots.get(slot).and_then(|pieces| pieces.first()).map(|piece| &piece.text);
    people.iter().position(|person| Some(person) == name).unwrap_or_default()
}
