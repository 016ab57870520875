//! A chat, what is asked for, and the answer that is wanted.

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
