//! What the app writes where a person's words would stand: omitted media, deletions, edit marks.

use super::is_mark;

/// Whole bodies that the app wrote, by language, in lower case and without marks. Sources: exports made by the app
/// in these languages; iOS also marks such bodies with U+200E, which is how unlisted languages are recognised.
const WRITTEN_BY_THE_APP: &[&str] = &[
    "null",
    "this message was deleted",
    "this message was deleted.",
    "you deleted this message",
    "you deleted this message.",
    "diese nachricht wurde gelöscht.",
    "du hast diese nachricht gelöscht.",
    "se eliminó este mensaje.",
    "eliminaste este mensaje.",
    "este mensaje fue eliminado",
    "ce message a été supprimé",
    "vous avez supprimé ce message",
    "mensagem apagada",
    "você apagou esta mensagem",
    "questo messaggio è stato eliminato",
    "waiting for this message. this may take a while.",
];

/// Endings of a body's first line that name an attached file.
const ATTACHED: &[&str] = &[
    "(file attached)",
    "(datei angehängt)",
    "(archivo adjunto)",
    "(fichier joint)",
    "(arquivo anexado)",
    "(file allegato)",
];

/// Marks that follow a message which was edited.
const EDITED: &[&str] = &[
    "<this message was edited>",
    "<diese nachricht wurde bearbeitet.>",
    "<se editó este mensaje.>",
    "<este mensaje fue editado>",
    "<ce message a été modifié>",
    "<mensagem editada>",
    "<questo messaggio è stato modificato>",
];

/// What a person wrote in this body; `None` if it is all the app's.
pub(super) fn strip(body: &str) -> Option<String> {
    // iOS puts a mark of direction before everything that the app itself wrote, and before nothing else.
    if body.starts_with('\u{200e}') {
        return None;
    }
    let clean: String = body.chars().filter(|c| !is_mark(*c)).collect();
    let mut text = without_edit_mark(clean.trim());
    if let Some((first, caption)) = text.split_once('\n') {
        if names_a_file(first) {
            text = caption.trim();
        }
    } else if names_a_file(text) {
        return None;
    }
    let lower = text.to_lowercase();
    let bracketed = lower.starts_with('<') && lower.ends_with('>') && !lower.contains('\n');
    let written_by_the_app = bracketed || WRITTEN_BY_THE_APP.contains(&lower.as_str());
    (!text.is_empty() && !written_by_the_app).then(|| text.to_owned())
}

fn names_a_file(line: &str) -> bool {
    let lower = line.trim().to_lowercase();
    ATTACHED.iter().any(|ending| lower.ends_with(ending)) || lower.starts_with("<attached: ")
}

fn without_edit_mark(text: &str) -> &str {
    let Some(start) = text.rfind('<') else { return text };
    let mark = text[start..].to_lowercase();
    if EDITED.contains(&mark.as_str()) { text[..start].trim_end() } else { text }
}
