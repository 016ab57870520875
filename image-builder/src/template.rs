//! A model's own chat template (Jinja, `tokenizer.chat_template`), made into frames of tokens.
//!
//! The template is rendered for dialogues whose texts are marks. What stands between two marks is the frame of that
//! pair of turns, if it is the same wherever the pair occurs. Then dialogues with real texts are rendered, tokenised as a
//! whole, and must give the tokens that the guest will give with the frames.

use attestation::manifest::{ChatTemplate, Frame};
use inference::Tokenizer;
use inference::gguf::{self, Value};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};
use std::fmt::Write as _;
use wire::chat::Role::{self, Assistant, System, User};

/// Why a model's template cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The file has none.
    #[error(
        "the model file has no `tokenizer.chat_template`; write the model's chat format into the manifest's [template]"
    )]
    Missing,
    /// It cannot be rendered.
    #[error(
        "the model's chat template cannot be rendered for {dialogue}: {reason}; write [template] into the manifest"
    )]
    Render {
        /// The roles.
        dialogue: String,
        /// What the template or the renderer says.
        reason: String,
    },
    /// A text is left out, repeated, altered or moved.
    #[error(
        "the model's chat template does not keep the texts of {dialogue} whole and in order; write [template] into the manifest"
    )]
    Texts {
        /// The roles.
        dialogue: String,
    },
    /// What stands between two turns depends on more than their roles.
    #[error(
        "the model's chat template puts {one:?} or {other:?} before {after} after {before}, depending on the rest of the \
         dialogue; this cannot be framed, so write [template] into the manifest"
    )]
    Varies {
        /// The turn before.
        before: &'static str,
        /// The turn after.
        after: &'static str,
        /// What it puts there in one dialogue.
        one: String,
        /// And in another.
        other: String,
    },
    /// No token ends an answer.
    #[error("the model file names no token that ends an answer; write [template] into the manifest")]
    NoStop,
    /// The frames give other tokens than the template.
    #[error(
        "for {dialogue}, the frames give the token {ours:?} at place {place} where the model's chat template gives \
         {theirs:?}; correct [template], or set `template.differs_from_model = true` if it is meant to differ"
    )]
    Differs {
        /// The roles.
        dialogue: String,
        /// The first token that differs.
        place: usize,
        /// The token of the frames, if there are so many.
        ours: Option<u32>,
        /// The token of the template.
        theirs: Option<u32>,
    },
}

/// A dialogue's roles in order; its answer comes next.
type Dialogue = &'static [Role];

/// What a model must be able to continue.
const PLAIN: [Dialogue; 3] = [&[User], &[User, Assistant, User], &[User, Assistant, User, Assistant, User]];
/// The same with instructions, which some formats do not have.
const INSTRUCTED: [Dialogue; 2] = [&[System, User], &[System, User, Assistant, User]];
/// Orders that many formats refuse.
const UNUSUAL: [Dialogue; 9] = [
    &[User, User],
    &[System, System, User],
    &[User, System, User],
    &[User, Assistant, System, User],
    &[System],
    &[System, Assistant, User],
    &[Assistant, User],
    &[User, Assistant, Assistant, User],
    &[User, Assistant],
];

/// Texts that templates keep as they are: they neither begin nor end with white space. They begin with a letter: where a
/// format has no space before a text (Mistral's before an answer), other signs can join the end of the frame in one
/// token, which the guest never lets a text do.
const TEXTS: [&str; 4] = [
    "Hello, how are you?",
    "See you at 18:30 — don't be late!",
    "明日の午後三時に\nпри встрече",
    "item (1)\n\n  b\tc 🙂",
];

fn name(role: Option<Role>, none: &'static str) -> &'static str {
    match role {
        None => none,
        Some(System) => "system",
        Some(User) => "user",
        Some(Assistant) => "assistant",
    }
}

fn describe(dialogue: &[Role]) -> String {
    let mut text = String::from("the dialogue");
    for (index, role) in dialogue.iter().enumerate() {
        let _ = write!(text, "{} {}", if index == 0 { "" } else { "," }, name(Some(*role), ""));
    }
    text
}

/// A model's template and its tokenizer.
pub struct ModelTemplate<'a> {
    environment: Environment<'a>,
    tokenizer: &'a Tokenizer,
    begin: String,
    end: String,
    stop: Vec<u32>,
}

impl<'a> ModelTemplate<'a> {
    /// Reads the template of a model file; `None` if it has none.
    pub fn from_gguf(file: &gguf::File<'a>, tokenizer: &'a Tokenizer) -> Result<Option<Self>, TemplateError> {
        let Some(Value::String(source)) = file.value("tokenizer.chat_template") else { return Ok(None) };
        let mut environment = Environment::new();
        let unusable = |error: minijinja::Error| TemplateError::Render {
            dialogue: "any dialogue".into(),
            reason: error.to_string(),
        };
        // As `apply_chat_template` of Hugging Face's transformers sets its own environment up. It has a clock besides
        // (`strftime_now`), which would give another image every day.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(unusable)?);
        // A template that never ends is stopped after so many operations.
        environment.set_fuel(Some(10_000_000));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |reason: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, reason))
        });
        environment.add_template("chat", source).map_err(unusable)?;
        let special = |key: &str| match file.value(&format!("tokenizer.ggml.{key}_token_id")) {
            Some(Value::Unsigned(id)) => u32::try_from(id).ok(),
            _ => None,
        };
        let name = |token: Option<u32>| {
            let named = tokenizer.controls().find(|(_, id)| Some(*id) == token);
            named.map_or_else(String::new, |(name, _)| name.into())
        };
        let stop = [special("eos"), special("eot"), special("eom")].into_iter().flatten();
        let stop = stop.filter(|token| (*token as usize) < tokenizer.vocabulary_len()).collect();
        Ok(Some(Self {
            environment,
            tokenizer,
            begin: name(special("bos")),
            end: name(special("eos")),
            stop,
        }))
    }

    fn render(&self, dialogue: &[Role], texts: &[&str]) -> Result<String, TemplateError> {
        let messages: Vec<minijinja::Value> = dialogue
            .iter()
            .zip(texts)
            .map(|(role, text)| context! { role => name(Some(*role), ""), content => *text })
            .collect();
        let template = self.environment.get_template("chat");
        let rendered = template.and_then(|template| {
            template.render(context! {
                messages,
                add_generation_prompt => true,
                // Qwen3: the guest's answers are short and to be read, so no reasoning is asked for.
                enable_thinking => false,
                bos_token => &self.begin,
                eos_token => &self.end,
            })
        });
        rendered.map_err(|error| TemplateError::Render {
            dialogue: describe(dialogue),
            reason: error.detail().map_or_else(|| error.to_string(), str::to_owned),
        })
    }

    /// The texts before, between and behind those of a dialogue.
    fn between(&self, dialogue: &[Role]) -> Result<Vec<String>, TemplateError> {
        let marks: Vec<String> = (0..dialogue.len()).map(|index| format!("⟦text {index}⟧")).collect();
        let rendered = self.render(dialogue, &marks.iter().map(String::as_str).collect::<Vec<_>>())?;
        let texts = || TemplateError::Texts { dialogue: describe(dialogue) };
        let mut rest = rendered.as_str();
        let mut between = Vec::new();
        for mark in &marks {
            let (before, after) = rest.split_once(mark.as_str()).ok_or_else(texts)?;
            between.push(before.to_owned());
            rest = after;
        }
        between.push(rest.to_owned());
        if between.iter().any(|text| text.contains('⟦')) {
            return Err(texts());
        }
        Ok(between)
    }

    /// Adds a dialogue's frames to those that are known.
    fn learn(&self, known: &mut Known, dialogue: &[Role]) -> Result<(), TemplateError> {
        let mut learnt = known.clone();
        let between = self.between(dialogue)?;
        for (index, text) in between.into_iter().enumerate() {
            let before = index.checked_sub(1).map(|index| dialogue[index]);
            let after = dialogue.get(index).copied();
            match learnt.iter().find(|(pair, _)| *pair == (before, after)) {
                None => learnt.push(((before, after), text)),
                Some((_, other)) if *other == text => {}
                Some((_, other)) => {
                    return Err(TemplateError::Varies {
                        before: name(before, "the start"),
                        after: name(after, "the answer"),
                        one: other.clone(),
                        other: text,
                    });
                }
            }
        }
        *known = learnt;
        Ok(())
    }

    /// The frames. A format without instructions, or that treats them unlike a turn, has no frames for them.
    pub fn frames(&self) -> Result<ChatTemplate, TemplateError> {
        let mut known = Known::new();
        for dialogue in PLAIN {
            self.learn(&mut known, dialogue)?;
        }
        let mut instructed = known.clone();
        if INSTRUCTED.iter().all(|dialogue| self.learn(&mut instructed, dialogue).is_ok()) {
            known = instructed;
        }
        for dialogue in UNUSUAL {
            // What fails here is refused by the guest, should a client send it.
            let mut more = known.clone();
            if self.learn(&mut more, dialogue).is_ok() && self.keeps(&more, dialogue) {
                known = more;
            }
        }
        let mut template = self.tokenise(&known);
        // What follows an answer in a conversation ends it, if it is a control token.
        let ends =
            template.frame(Some(Assistant), Some(User)).and_then(|frame| frame.tokens.first().copied());
        let ends = ends.filter(|token| self.tokenizer.controls().any(|(_, id)| id == *token));
        for token in self.stop.iter().copied().chain(ends) {
            if !template.stop.contains(&token) {
                template.stop.push(token);
            }
        }
        if template.stop.is_empty() {
            return Err(TemplateError::NoStop);
        }
        self.check(&template)?;
        Ok(template)
    }

    /// Whether an unusual dialogue gives the template's tokens.
    fn keeps(&self, known: &Known, dialogue: &[Role]) -> bool {
        self.compare(&self.tokenise(known), dialogue).is_ok()
    }

    fn tokenise(&self, known: &Known) -> ChatTemplate {
        let mut template = ChatTemplate::default();
        for ((before, after), text) in known {
            *template.frame_mut(*before, *after) = Some(self.frame(text, before.is_some(), after.is_some()));
        }
        template
    }

    /// The tokens of a text of the template, after a client's text or at the start, and before one or the answer.
    fn frame(&self, text: &str, follows_text: bool, text_follows: bool) -> Frame {
        // A space belongs to the word behind it.
        let (text, space) = match text.strip_suffix(' ').filter(|_| text_follows) {
            Some(text) => (text, true),
            None => (text, text_follows && !follows_text && text.is_empty() && self.tokenizer.space_prefix()),
        };
        let tokens = self.encode(text, follows_text);
        let control = tokens.last().is_some_and(|last| self.tokenizer.controls().any(|(_, id)| id == *last));
        // A text right behind a control token is tokenised like one that begins a prompt.
        let space = space || text_follows && control && self.tokenizer.space_prefix();
        Frame { tokens, space }
    }

    /// The tokens of a text in which the names of control tokens are those tokens: only for the template's own text.
    fn encode(&self, mut text: &str, mut follows_text: bool) -> Vec<u32> {
        let mut tokens = Vec::new();
        while !text.is_empty() {
            let next = self
                .tokenizer
                .controls()
                .filter(|(name, _)| !name.is_empty())
                .filter_map(|(name, id)| text.find(name).map(|at| (at, name.len(), id)));
            // The first one, and of those that begin together the longest.
            let next = next.min_by_key(|(at, len, _)| (*at, usize::MAX - len));
            let (at, len, token) = next.map_or((text.len(), 0, None), |(at, len, id)| (at, len, Some(id)));
            tokens.extend(match follows_text {
                true => self.tokenizer.encode_continued(&text[..at], false),
                false => self.tokenizer.encode(&text[..at]),
            });
            tokens.extend(token);
            follows_text = false;
            text = &text[at + len..];
        }
        tokens
    }

    /// Compares frames with the template: every dialogue that both have gives the same tokens.
    pub fn check(&self, template: &ChatTemplate) -> Result<(), TemplateError> {
        PLAIN.iter().try_for_each(|dialogue| self.compare(template, dialogue))?;
        if template.frame(None, Some(System)).is_some() {
            INSTRUCTED.iter().try_for_each(|dialogue| self.compare(template, dialogue))?;
        }
        Ok(())
    }

    fn compare(&self, template: &ChatTemplate, dialogue: &[Role]) -> Result<(), TemplateError> {
        for first in 0..TEXTS.len() {
            let texts: Vec<&str> =
                (0..dialogue.len()).map(|index| TEXTS[(first + index) % TEXTS.len()]).collect();
            let theirs = self.encode(&self.render(dialogue, &texts)?, false);
            let mut ours = Vec::new();
            let mut before = None;
            for (role, text) in dialogue.iter().zip(&texts) {
                let Some(frame) = template.frame(before, Some(*role)) else { return Ok(()) };
                ours.extend_from_slice(&frame.tokens);
                ours.extend(self.tokenizer.encode_continued(text, frame.space));
                before = Some(*role);
            }
            let Some(frame) = template.frame(before, None) else { return Ok(()) };
            ours.extend_from_slice(&frame.tokens);
            if ours != theirs {
                let place = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
                let (ours, theirs) = (ours.get(place).copied(), theirs.get(place).copied());
                return Err(TemplateError::Differs { dialogue: describe(dialogue), place, ours, theirs });
            }
        }
        Ok(())
    }
}

/// What a template puts between two turns, the start or the answer.
type Known = Vec<((Option<Role>, Option<Role>), String)>;
