//! Chats of two classes, drawn anew for each exchange.

use wire::task::Message;

/// Makes a chat of a class.
pub type Class = fn(&mut Dice) -> Vec<Message>;

/// What is told apart, and the two classes.
pub const EXPERIMENTS: &[(&str, [Class; 2])] = &[
    ("short and long chats", [|dice| chat(dice, &ENGLISH, 2..4), |dice| chat(dice, &ENGLISH, 14..20)]),
    ("English and German", [|dice| chat(dice, &ENGLISH, 6..10), |dice| chat(dice, &GERMAN, 6..10)]),
];

/// A generator of numbers that repeats (SplitMix64, Steele and others 2014).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

const SENDERS: [&str; 5] = ["Amara", "Ben", "Chloe", "Nadia", "Tom"];

const ENGLISH: [&str; 10] = [
    "Are we still meeting at the station tomorrow at nine?",
    "Yes, but my train is ten minutes late, so please wait for me.",
    "Can somebody bring the cake for the party on Saturday?",
    "I will bring it, and also the plates and the candles.",
    "The meeting moved to Thursday because the room is taken.",
    "Thanks, I have changed it in the calendar.",
    "Who is picking up the children after the football training?",
    "I can do it, I am done with work at half past four.",
    "Please do not forget to send me the address of the new flat.",
    "It is the yellow house behind the church, second floor.",
];

const GERMAN: [&str; 10] = [
    "Treffen wir uns morgen um neun wirklich wieder am Bahnhof?",
    "Ja, aber mein Zug hat zehn Minuten Verspätung, wartet bitte auf mich.",
    "Kann jemand am Samstag den Kuchen für die Geburtstagsfeier mitbringen?",
    "Ich bringe ihn mit, und außerdem die Teller und die Kerzen.",
    "Die Besprechung wurde auf Donnerstag verschoben, weil der Raum belegt ist.",
    "Danke, ich habe es im Kalender geändert.",
    "Wer holt die Kinder nach dem Fußballtraining ab?",
    "Das kann ich machen, ich bin um halb fünf mit der Arbeit fertig.",
    "Vergesst bitte nicht, mir die Adresse der neuen Wohnung zu schicken.",
    "Es ist das gelbe Haus hinter der Kirche, im zweiten Stock.",
];

fn chat(dice: &mut Dice, sentences: &[&str], messages: std::ops::Range<usize>) -> Vec<Message> {
    let count = messages.start + dice.below(messages.len());
    let mut pick = |from: &[&str]| from.get(dice.below(from.len())).copied().unwrap_or_default().to_owned();
    (0..count).map(|_| Message { sender: pick(&SENDERS), text: pick(sentences) }).collect()
}
