//! The facts of a chat: a value for every slot that a template may have.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Generator, Language, Piece};

/// Every slot's value. A place is two pieces, as its preposition is no part of its name.
pub type Slots = BTreeMap<String, Vec<Piece>>;

/// The slots' names. `b` is the other one who speaks, `2` marks what somebody proposed instead.
pub const SLOTS: [&str; 23] = [
    "a",
    "b",
    "person",
    "act",
    "item",
    "appt",
    "meeting",
    "document",
    "thing",
    "object",
    "object_other",
    "ask",
    "does",
    "n",
    "code",
    "price",
    "time",
    "time2",
    "when",
    "when2",
    "at",
    "at2",
    "city",
];

impl Generator<'_> {
    /// A value for every slot.
    pub(super) fn slots(&mut self, language: &Language, people: &[String]) -> Slots {
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

/// A template with its slots filled.
pub fn fill(template: &str, slots: &Slots) -> Vec<Piece> {
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
