//! A language's chat phrases, as `data/*.toml` holds them.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::slots::SLOTS;

/// One language: what its slots may hold and what people say with them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// ISO 639-1 code.
    pub code: String,
    /// Days, with their prepositions.
    pub days: Vec<String>,
    /// Dates, with their prepositions; `{n}` is the day, `{m}` the month.
    pub dates: Vec<String>,
    /// Ways to write a time of day: `{H}` and `{h}` in 24 and 12 hours, `{M}` minutes.
    pub times: Vec<String>,
    /// Places: preposition, `|`, the place; `{N}` is a name, `{n}` a number.
    pub places: Vec<String>,
    /// Towns: preposition, `|`, `{C}`.
    pub cities: Vec<String>,
    /// Amounts of money.
    pub prices: Vec<String>,
    /// What people do together.
    pub activities: Vec<String>,
    /// What people bring.
    pub items: Vec<String>,
    /// Appointments that somebody has.
    pub appointments: Vec<String>,
    /// Regular meetings.
    pub meetings: Vec<String>,
    /// What can be sent.
    pub documents: Vec<String>,
    /// What people lose, as the owner says it.
    pub objects: Vec<String>,
    /// The same things, as others say it.
    pub objects_other: Vec<String>,
    /// What has a code.
    pub codes: Vec<String>,
    /// Questions for a volunteer, and what the volunteer then does.
    pub tasks: Vec<[String; 2]>,
    /// Ways to agree.
    pub yes: Vec<String>,
    /// Ways to volunteer.
    pub mine: Vec<String>,
    /// Ways not to know.
    pub unsure: Vec<String>,
    /// Small talk.
    pub chat: Vec<String>,
    /// What the model says about itself.
    pub about: String,
    /// What people say to a model that they do not know.
    pub about_asked: Vec<String>,
    /// The things that happen in chats.
    #[serde(rename = "unit")]
    pub units: Vec<Unit>,
}

/// One thing that happens in a chat, and the line that a summary has for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its name in reports.
    pub kind: String,
    /// The turns: first who speaks (`a` or `b`, with `?` if the turn may be missing), then the ways to say
    /// it; `@pool` stands for any phrase of that pool.
    pub say: Vec<Vec<String>>,
    /// The summary's line.
    pub line: String,
    /// What one may answer to the first turn.
    pub reply: Option<String>,
}

impl Language {
    /// Parses a language file.
    pub fn parse(toml: &str) -> Result<Self> {
        let language: Self = toml::from_str(toml).context("a language file is malformed")?;
        let units = language.units.iter().map(|unit| unit.check(&language));
        units.collect::<Result<()>>().with_context(|| format!("in the language '{}'", language.code))?;
        ensure!(language.objects.len() == language.objects_other.len(), "objects come in two forms each");
        Ok(language)
    }

    /// The phrases that `@name` stands for.
    pub fn pool(&self, name: &str) -> Option<&[String]> {
        match name {
            "yes" => Some(&self.yes),
            "mine" => Some(&self.mine),
            "unsure" => Some(&self.unsure),
            _ => None,
        }
    }
}

impl Unit {
    fn check(&self, language: &Language) -> Result<()> {
        let kind = &self.kind;
        let phrases = self.say.iter().flat_map(|turn| turn.iter().skip(1));
        for text in phrases.chain([&self.line]).chain(&self.reply) {
            match text.strip_prefix('@') {
                Some(pool) => {
                    ensure!(language.pool(pool).is_some(), "unit '{kind}' names an unknown pool: {text}")
                }
                None => ensure!(slots_are_known(text), "unit '{kind}' names an unknown slot: {text}"),
            }
        }
        for turn in &self.say {
            let speaker = turn.first().map(String::as_str);
            ensure!(
                matches!(speaker, Some("a" | "b" | "a?" | "b?")),
                "unit '{kind}' has a turn without a speaker"
            );
            ensure!(turn.len() > 1, "unit '{kind}' has a turn without words");
        }
        ensure!(!self.say.is_empty(), "unit '{kind}' has no turns");
        Ok(())
    }
}

fn slots_are_known(template: &str) -> bool {
    template
        .split('{')
        .skip(1)
        .all(|rest| rest.split_once('}').is_some_and(|(slot, _)| SLOTS.contains(&slot)))
}
