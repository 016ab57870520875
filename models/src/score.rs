//! How good a summary is: which of the facts asked for it carries, and what it says that nobody wrote.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataset::{FactKind, Language, Sample};

/// What was counted over some summaries.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Summaries.
    pub chats: usize,
    /// For each kind of fact, how many were asked for and how many of them were found.
    pub facts: BTreeMap<FactKind, Share>,
    /// Names, numbers and times in the summaries, and how many of them stand in no message of their chat.
    pub invented: Share,
    /// The reference's lines, and how many of them the summaries have letter by letter.
    pub lines: Share,
    /// Summaries equal to the reference.
    pub exact: Share,
}

/// A part of a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// The part.
    pub part: usize,
    /// The whole.
    pub of: usize,
}

impl Share {
    fn count(&mut self, hit: bool) {
        self.part += usize::from(hit);
        self.of += 1;
    }

    fn add(&mut self, other: Self) {
        self.part += other.part;
        self.of += other.of;
    }

    /// In per cent; an empty whole counts as nothing.
    pub fn percent(self) -> f64 {
        100.0 * self.part as f64 / self.of.max(1) as f64
    }
}

impl Score {
    /// The score of one summary.
    pub fn of(sample: &Sample, summary: &str, vocabulary: &Vocabulary) -> Self {
        let mut score = Self { chats: 1, ..Self::default() };
        let said = words(summary);
        for (kind, fact) in sample.facts() {
            score.facts.entry(kind).or_default().count(contains(&said, &words(fact)));
        }
        let chat: BTreeSet<String> =
            sample.messages.iter().flat_map(|(sender, text)| words(&format!("{sender} {text}"))).collect();
        for word in said.iter().filter(|word| vocabulary.is_name(word)) {
            score.invented.count(!chat.contains(word));
        }
        let reference = sample.answer_text();
        for line in reference.lines() {
            score.lines.count(summary.lines().any(|other| other == line));
        }
        score.exact.count(summary == reference);
        score
    }

    /// Adds what another score counted.
    pub fn add(&mut self, other: &Self) {
        self.chats += other.chats;
        self.lines.add(other.lines);
        self.exact.add(other.exact);
        self.invented.add(other.invented);
        for (&kind, &share) in &other.facts {
            self.facts.entry(kind).or_default().add(share);
        }
    }

    /// The facts of all kinds together.
    pub fn recall(&self) -> Share {
        let mut all = Share::default();
        self.facts.values().for_each(|&share| all.add(share));
        all
    }
}

/// The words that a language's summaries are made of. Whatever else stands in a summary is a name, a number
/// or a time, and somebody must have written it.
pub struct Vocabulary(BTreeSet<String>);

impl Vocabulary {
    /// The words of a language's summaries.
    pub fn of(language: &Language) -> Self {
        let lists = [
            &language.days,
            &language.dates,
            &language.activities,
            &language.items,
            &language.appointments,
            &language.meetings,
            &language.documents,
            &language.objects_other,
            &language.codes,
            &language.prices,
        ];
        let places = language.places.iter().chain(&language.cities);
        let tasks = language.tasks.iter().flatten();
        let lines = language.units.iter().map(|unit| &unit.line);
        let texts = lists.into_iter().flatten().chain(places).chain(tasks).chain(lines);
        Self(texts.flat_map(|text| words(&without_slots(text))).collect())
    }

    fn is_name(&self, word: &str) -> bool {
        !self.0.contains(word)
    }
}

/// A template with a mark in the place of its slots.
fn without_slots(template: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for letter in template.chars() {
        match letter {
            '{' => inside = true,
            '}' => inside = false,
            '|' => text.push(' '),
            _ if !inside => text.push(letter),
            _ => {}
        }
    }
    text
}

/// The words of a text in lower case. Marks within a word or a time belong to it.
fn words(text: &str) -> Vec<String> {
    let trim = |word: &str| {
        word.trim_matches(|c: char| !c.is_alphanumeric() && c != '€' && c != '$' && c != '£').to_lowercase()
    };
    text.split_whitespace().map(trim).filter(|word| !word.is_empty()).collect()
}

/// Whether the words of `fact` stand in a row in `said`.
fn contains(said: &[String], fact: &[String]) -> bool {
    said.windows(fact.len().max(1)).any(|window| window == fact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Difficulty, Split, Texts};

    #[test]
    fn references_are_perfect_and_empty_summaries_worthless() {
        let texts = Texts::load().unwrap();
        let mut generator = texts.generator(Split::HeldOut, 11);
        for _ in 0..300 {
            let sample = generator.summary(Difficulty::FULL);
            let language = texts.languages.iter().find(|l| l.code == sample.language).unwrap();
            let vocabulary = Vocabulary::of(language);
            let perfect = Score::of(&sample, &sample.answer_text(), &vocabulary);
            assert_eq!(perfect.recall().part, perfect.recall().of, "{sample:?}");
            assert_eq!(perfect.invented.part, 0, "{sample:?}");
            assert_eq!((perfect.lines.percent(), perfect.exact.percent()), (100.0, 100.0));
            assert_eq!(Score::of(&sample, "", &vocabulary).recall().part, 0);
        }
    }

    #[test]
    fn names_that_nobody_wrote_are_counted() {
        let texts = Texts::load().unwrap();
        let sample = texts.generator(Split::HeldOut, 5).summary(Difficulty::FULL);
        let language = texts.languages.iter().find(|l| l.code == sample.language).unwrap();
        let summary = format!("{}\nXyzzy 99:98.", sample.answer_text());
        assert_eq!(Score::of(&sample, &summary, &Vocabulary::of(language)).invented.part, 2);
    }
}
