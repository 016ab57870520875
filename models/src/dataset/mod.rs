//! Chats and what a good answer to them is, made from facts that are drawn at random.
//!
//! A chat is a row of *units* (somebody plans dinner, somebody brings the cake, a question stays open) with
//! small talk between them. Every unit knows the line that a summary has for it, so the reference is right
//! by construction, and every name, time and place in it stands in the chat letter by letter. The names come
//! from pools far larger than the network could memorise: it has to learn to copy.

mod language;
mod names;
mod style;

use std::collections::BTreeMap;

use anyhow::Result;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use language::{Language, Unit};
use names::Names;
pub use names::Split;
use style::Style;

/// What the model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Say what matters in a chat.
    Summarize,
    /// Write a message carefully.
    Rewrite,
    /// Answer the last message.
    Reply,
    /// Anything else.
    Chat,
}

impl Task {
    /// The system turn's text.
    pub const fn instruction(self) -> &'static str {
        match self {
            Self::Summarize => "Summarize the chat.",
            Self::Rewrite => "Rewrite the message.",
            Self::Reply => "Suggest a reply.",
            Self::Chat => "",
        }
    }
}

/// A run of text; what came from a slot is marked with the slot's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// The slot that it filled.
    pub slot: Option<String>,
}

/// What a fact answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FactKind {
    /// A person.
    Who,
    /// A thing or an activity.
    What,
    /// A day or a time.
    When,
    /// A place.
    Where,
}

impl FactKind {
    /// The kind of fact that a slot holds.
    pub fn of_slot(slot: &str) -> Self {
        match slot.trim_end_matches('2') {
            "a" | "b" | "person" => Self::Who,
            "when" | "time" => Self::When,
            "at" | "city" => Self::Where,
            _ => Self::What,
        }
    }
}

/// One chat with the answer that is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Sample {
    /// ISO 639-1 code.
    pub language: String,
    /// What is asked for.
    pub task: Task,
    /// The messages: sender and text. A sample of [`Task::Chat`] has one, without a sender.
    pub messages: Vec<(String, String)>,
    /// The answer.
    pub answer: Vec<Piece>,
}

impl Sample {
    /// The answer's text.
    pub fn answer_text(&self) -> String {
        self.answer.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// The facts that the answer must carry. A place's preposition is no part of the fact.
    pub fn facts(&self) -> impl Iterator<Item = (FactKind, &str)> {
        self.answer
            .iter()
            .filter_map(|piece| Some((FactKind::of_slot(piece.slot.as_deref()?), piece.text.as_str())))
    }
}

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
        Generator {
            languages: &self.languages,
            names: &self.names,
            split,
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }
}

type Slots = BTreeMap<String, Vec<Piece>>;

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
        match way.strip_prefix('@') {
            Some(pool) => self.phrase(language, language.pool(pool), slots),
            None => fill(way, slots),
        }
    }

    /// A value for every slot.
    fn slots(&mut self, language: &Language, people: &[String]) -> Slots {
        let mut slots = Slots::new();
        let mut speakers: Vec<&String> = people.iter().collect();
        speakers.shuffle(&mut self.random);
        let (a, b) = (speakers[0].clone(), speakers[1].clone());
        let mut put = |name: &str, text: String| {
            slots.insert(name.into(), vec![Piece { text, slot: Some(name.into()) }]);
        };
        put("a", a);
        put("b", b);
        for (name, pool) in [
            ("act", &language.activities),
            ("item", &language.items),
            ("appt", &language.appointments),
            ("meeting", &language.meetings),
            ("document", &language.documents),
            ("thing", &language.codes),
        ] {
            put(name, pool.choose(&mut self.random).cloned().unwrap_or_default());
        }
        let object = self.random.random_range(0..language.objects.len());
        put("object", language.objects[object].clone());
        put("object_other", language.objects_other[object].clone());
        if let Some([ask, does]) = language.tasks.choose(&mut self.random) {
            put("ask", ask.clone());
            put("does", does.clone());
        }
        put("person", self.names.person(self.split, &mut self.random));
        put("n", self.random.random_range(2..=60).to_string());
        let digits = self.random.random_range(3..=6);
        put("code", (0..digits).map(|_| char::from(self.random.random_range(b'0'..=b'9'))).collect());
        let price = language.prices.choose(&mut self.random).cloned().unwrap_or_default();
        put("price", price.replace("{n}", &self.random.random_range(2..=150).to_string()));
        let times = self.two_different(|this| this.time(language));
        put("time", times.0);
        put("time2", times.1);
        let days = self.two_different(|this| this.day(language));
        put("when", days.0);
        put("when2", days.1);
        let places = self.two_different(|this| this.place(language));
        let town = language.cities.choose(&mut self.random).cloned().unwrap_or_default();
        let town = town.replace("{C}", &self.names.town(self.split, &mut self.random));
        for (name, phrase) in [("at", places.0), ("at2", places.1), ("city", town)] {
            let (preposition, place) = phrase.split_once('|').unwrap_or(("", &phrase));
            let preposition = Piece { text: preposition.into(), slot: None };
            slots.insert(
                name.into(),
                vec![preposition, Piece { text: place.into(), slot: Some(name.into()) }],
            );
        }
        slots
    }

    fn two_different(&mut self, mut draw: impl FnMut(&mut Self) -> String) -> (String, String) {
        let first = draw(self);
        loop {
            let second = draw(self);
            if second != first {
                return (first, second);
            }
        }
    }

    fn time(&mut self, language: &Language) -> String {
        let way = language.times.choose(&mut self.random).cloned().unwrap_or_default();
        let minutes = if self.random.random_bool(0.7) {
            self.random.random_range(0..4) * 15
        } else {
            self.random.random_range(0..12) * 5
        };
        way.replace("{H}", &self.random.random_range(7..=22).to_string())
            .replace("{h}", &self.random.random_range(2..=12).to_string())
            .replace("{M}", &format!("{minutes:02}"))
    }

    fn day(&mut self, language: &Language) -> String {
        let dates = self.random.random_bool(0.35);
        let way = if dates { &language.dates } else { &language.days }.choose(&mut self.random).cloned();
        // Days that take "th" in English: the others would need their own endings.
        let number = self.random.random_range(4..=20);
        way.unwrap_or_default()
            .replace("{n}", &number.to_string())
            .replace("{m}", &self.random.random_range(1..=12).to_string())
    }

    fn place(&mut self, language: &Language) -> String {
        let way = language.places.choose(&mut self.random).cloned().unwrap_or_default();
        way.replace("{N}", &self.names.place(self.split, &mut self.random))
            .replace("{n}", &self.random.random_range(1..=99).to_string())
    }
}

/// Which of the people fills a slot.
fn position(people: &[String], slots: &Slots, slot: &str) -> usize {
    let name = slots.get(slot).and_then(|pieces| pieces.first()).map(|piece| &piece.text);
    people.iter().position(|person| Some(person) == name).unwrap_or_default()
}

/// A template with its slots filled.
fn fill(template: &str, slots: &Slots) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, slot, tail)) = rest
        .split_once('{')
        .and_then(|(text, tail)| tail.split_once('}').map(|(slot, tail)| (text, slot, tail)))
    {
        pieces.push(Piece { text: text.into(), slot: None });
        pieces.extend(slots.get(slot).cloned().unwrap_or_default());
        rest = tail;
    }
    pieces.push(Piece { text: rest.into(), slot: None });
    pieces.retain(|piece| !piece.text.is_empty());
    pieces
}
