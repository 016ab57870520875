//! Whether enough builders signed the same.

use super::builders::Builders;
use super::difference::{self, Difference};
use super::statement::{self, NotAStatement};
use std::collections::BTreeMap;
use transparency::entry::Entry;
use transparency::note::{Note, Signature, SignedBy};

/// What enough builders signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The entry, without the one before it.
    pub entry: Entry,
    /// Names of the builders.
    pub builders: Vec<String>,
    /// Their statements as one: what they signed, with the signature of each.
    pub statements: Note,
}

/// Why nothing may be appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A note bears no signature of a builder who counts.
    #[error("statement {number} is signed by {by}, and `builders.toml` names none of them")]
    Unknown {
        /// Which of the notes, from 1.
        number: usize,
        /// Who signed, by their own word.
        by: String,
    },
    /// A signature is wrong.
    #[error("the signature of the builder {0} is wrong: the statement was altered, or forged")]
    WrongSignature(String),
    /// A builder signed a note twice.
    #[error("the builder {0} signed one statement more than once; no builder does")]
    Repeated(String),
    /// A note is no statement.
    #[error("the statement of {builder}: {source}")]
    Statement {
        /// Who signed it.
        builder: String,
        /// What is wrong.
        source: NotAStatement,
    },
    /// Two builders made different things.
    #[error(
        "the builders {first} and {second} disagree: {}; nothing was appended. Find out which build is wrong before \
         either is published (`cloister-image audit` names symbol and offset)",
        list(.differences)
    )]
    Disagree {
        /// A builder.
        first: String,
        /// Another one.
        second: String,
        /// In which fields.
        differences: Vec<Difference>,
    },
    /// Too few builders.
    #[error("{found} of the builders that `builders.toml` names signed, and {needed} must; ask another one")]
    TooFew {
        /// How many signed.
        found: usize,
        /// How many must.
        needed: usize,
    },
}

/// Most differences that a message names.
const NAMED: usize = 3;

fn list(differences: &[Difference]) -> String {
    let named: Vec<String> = differences.iter().take(NAMED).map(Difference::to_string).collect();
    let more = match differences.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more fields"),
    };
    named.join("; ") + &more
}

/// Checks the notes of several builders against each other. Every one must be signed by a builder who counts, and all must
/// say the same.
pub fn agree(notes: &[Note], builders: &Builders) -> Result<Agreed, Refused> {
    let mut agreed: Option<(String, Entry, &str)> = None;
    let mut who = BTreeMap::new();
    for (at, note) in notes.iter().enumerate() {
        let signed = signers(note, builders)?;
        let Some((builder, _)) = signed.first().cloned() else {
            let by: Vec<&str> = note.signatures.iter().map(|line| line.name.as_str()).collect();
            return Err(Refused::Unknown { number: at + 1, by: by.join(", ") });
        };
        let entry = statement::entry_of(note)
            .map_err(|source| Refused::Statement { builder: builder.clone(), source })?;
        match &agreed {
            None => agreed = Some((builder, entry, &note.text)),
            Some((first, other, _)) => {
                let differences = difference::between(other, &entry);
                if !differences.is_empty() {
                    return Err(Refused::Disagree { first: first.clone(), second: builder, differences });
                }
            }
        }
        who.extend(signed);
    }
    let (found, needed) = (who.len(), builders.threshold());
    match agreed {
        // An entry has one text, so all of them signed this one.
        Some((_, entry, text)) if found >= needed => {
            let (builders, signatures) = who.into_iter().unzip();
            Ok(Agreed { entry, builders, statements: Note { text: text.into(), signatures } })
        }
        _ => Err(Refused::TooFew { found, needed }),
    }
}

/// Names and signatures of the builders who count and signed this note.
fn signers(note: &Note, builders: &Builders) -> Result<Vec<(String, Signature)>, Refused> {
    let mut signers = Vec::new();
    for key in builders.keys() {
        match note.signed_by(key) {
            SignedBy::Missing => (),
            SignedBy::Signed(_) => {
                let line = note.signatures.iter().find(|line| line.claims(key));
                signers.extend(line.map(|line| (key.name().to_owned(), line.clone())));
            }
            SignedBy::Wrong => return Err(Refused::WrongSignature(key.name().into())),
            SignedBy::Repeated => return Err(Refused::Repeated(key.name().into())),
        }
    }
    Ok(signers)
}
