//! Manifests' sources on disk, good and bad.

#[path = "../../service/tests/support/model.rs"]
#[allow(dead_code, reason = "only its model file is needed")]
mod model;

use image_builder::source::{Source, SourceError};
use image_builder::template::TemplateError;
use inference::Tokenizer;
use inference::gguf::File;
use model::{END_OF_TEXT, Ending, IM_END, IM_START};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use wire::chat::Role;

const MANIFEST: &str = include_str!("../../models/manifest.toml");

struct Folder(TempDir);

impl Folder {
    fn with(manifest: &str, model: &[u8]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.manifest(), manifest).unwrap();
        fs::write(folder.0.path().join("cloister-mini.gguf"), model).unwrap();
        folder
    }

    fn manifest(&self) -> PathBuf {
        self.0.path().join("manifest.toml")
    }

    fn load(&self) -> Result<Source, SourceError> {
        Source::load(&self.manifest())
    }
}

fn model_file() -> Vec<u8> {
    model::gguf(Ending::Stops)
}

fn refusal(manifest: &str) -> SourceError {
    Folder::with(manifest, &model_file()).load().unwrap_err()
}

#[test]
fn the_default_manifest_becomes_tokens_of_the_model() {
    let model = model_file();
    let source = Folder::with(MANIFEST, &model).load().unwrap();
    let tokenizer = Tokenizer::from_gguf(&File::parse(&model).unwrap()).unwrap();
    let manifest = source.manifest;
    let text = |tokens: &[u32]| -> String {
        tokens.iter().flat_map(|t| tokenizer.decode(*t)).map(|byte| char::from(*byte)).collect()
    };
    let system = manifest.template.frame(None, Some(Role::System)).unwrap();
    assert_eq!(
        (system.tokens[0], text(&system.tokens).as_str(), system.space),
        (IM_START, "system\n", false)
    );
    let user = manifest.template.frame(Some(Role::System), Some(Role::User)).unwrap();
    assert_eq!((user.tokens[0], user.tokens[2], text(&user.tokens).as_str()), (IM_END, IM_START, "\nuser\n"));
    assert_eq!(manifest.template.stop, [IM_END, END_OF_TEXT]);
    assert_eq!(text(&manifest.task("summarize").unwrap().instruction), "Summarize the chat.");
    assert!(manifest.task("chat").unwrap().instruction.is_empty());
    assert_eq!(
        manifest.tasks.iter().map(|t| t.task.as_str()).collect::<Vec<_>>(),
        ["chat", "reply", "rewrite", "summarize"]
    );
    assert_eq!(manifest.model.weights_bytes, model.len() as u64);
    assert_eq!(manifest.model.weights_root, attestation::weights::root(&model[..]).unwrap().0);
    assert_eq!(manifest.network.address, [10, 0, 2, 15]);
}

/// The default manifest without its [template].
fn without_template() -> String {
    let (before, rest) = MANIFEST.split_once("[template]").unwrap();
    before.to_owned() + &rest[rest.find("[tasks]").unwrap()..]
}

#[test]
fn the_default_models_own_template_gives_what_the_default_manifest_says() {
    let model = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/cloister-mini.gguf")).unwrap();
    let written = Folder::with(MANIFEST, &model).load().unwrap().manifest;
    let own = Folder::with(&without_template(), &model).load().unwrap().manifest;
    assert_eq!(written.template.frames, own.template.frames);
    let [mut written_stop, mut own_stop] = [written.template.stop, own.template.stop];
    written_stop.sort_unstable();
    own_stop.sort_unstable();
    assert_eq!(written_stop, own_stop);

    let other = MANIFEST.replace("\"assistant\\n\"]", "\"assistant:\\n\"]");
    assert_ne!(other, MANIFEST);
    let error = Folder::with(&other, &model).load().unwrap_err();
    assert!(matches!(error, SourceError::Template(TemplateError::Differs { .. })), "{error}");
    let meant = other.replace("[template]", "[template]\ndiffers_from_model = true");
    assert!(Folder::with(&meant, &model).load().is_ok());
}

#[test]
fn a_model_without_a_template_needs_one_in_the_manifest() {
    let error = refusal(&without_template());
    assert!(matches!(error, SourceError::Template(TemplateError::Missing)), "{error}");
}

#[test]
fn e2_text_that_spells_a_control_token_stays_text() {
    let manifest = MANIFEST.replace(r#"chat = """#, r#"chat = "<|im_end|>""#);
    let source = Folder::with(&manifest, &model_file()).load().unwrap();
    let tokens = &source.manifest.task("chat").unwrap().instruction;
    assert_eq!(tokens.len(), "<|im_end|>".len());
    assert!(tokens.iter().all(|token| ![END_OF_TEXT, IM_START, IM_END].contains(token)), "{tokens:?}");
}

#[test]
fn e8_another_value_is_another_digest() {
    let digest = |manifest: &str| Folder::with(manifest, &model_file()).load().unwrap().manifest.digest();
    let original = digest(MANIFEST);
    assert_eq!(original, digest(MANIFEST));
    for (from, to) in [
        ("sessions = 4", "sessions = 5"),
        ("Suggest a reply.", "Suggest a reply"),
        ("port = 443", "port = 444"),
        ("device = 5", "device = 6"),
        ("vcpus = ", "vcpus = 3"),
    ] {
        assert!(MANIFEST.contains(from), "{from}");
        assert_ne!(original, digest(&MANIFEST.replace(from, to)), "{to}");
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let missing = Source::load(Path::new("/nonexistent/manifest.toml")).unwrap_err();
    assert!(
        matches!(&missing, SourceError::Read { .. })
            && missing.to_string().contains("/nonexistent/manifest.toml")
    );
    let missing = refusal(&MANIFEST.replace("cloister-mini.gguf", "other.gguf"));
    assert!(matches!(&missing, SourceError::Weights { .. }) && missing.to_string().contains("other.gguf"));
}

#[test]
fn e1_a_gguf_file_that_was_cut_short_is_refused() {
    let model = model_file();
    for kept in [0, 3, 4, model.len() / 2, model.len() - 1] {
        let error = Folder::with(MANIFEST, &model[..kept]).load().unwrap_err();
        assert!(matches!(error, SourceError::Gguf { .. }), "{kept}: {error}");
    }
}

#[test]
fn e1_a_gguf_file_that_the_guest_could_not_load_is_refused() {
    let model = model_file();
    let changed = |from: &[u8], to: &[u8]| {
        let at = model.windows(from.len()).position(|bytes| bytes == from).unwrap();
        let mut other = model.clone();
        other[at..at + to.len()].copy_from_slice(to);
        Folder::with(MANIFEST, &other).load().unwrap_err().to_string()
    };
    let architecture = changed(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0other");
    assert!(architecture.contains("other"), "{architecture}");
    let tensor = changed(b"blk.0.attn_q.weight", b"blk.0.attn_q.height");
    assert!(tensor.contains("blk.0.attn_q.weight"), "{tensor}");
}

#[test]
fn nonsense_in_a_manifest_is_refused_with_its_place() {
    for (error, part) in [
        (refusal("no manifest"), "manifest.toml"),
        (refusal(&MANIFEST.replace("[image]", "[imagination]")), "imagination"),
        (refusal(&MANIFEST.replace("sessions = 4", "sessions = \"many\"")), "sessions"),
        (refusal(&MANIFEST.replace("sessions = 4", "sessions = 4\nseesions = 5")), "seesions"),
        (refusal(&MANIFEST.replace("sessions = 4", "")), "sessions"),
        (refusal(&MANIFEST.replace("\"<|endoftext|>\"", "\"<|eot|>\"")), "<|eot|>"),
        (
            refusal(&MANIFEST.replace("context_tokens = 1024", "context_tokens = 1025")),
            "limits.context_tokens",
        ),
        (refusal(&MANIFEST.replace("10.0.2.15/24", "10.0.2.15")), "network.address"),
        (refusal(&MANIFEST.replace("summarize =", "summarise =")), "tasks.summarise"),
    ] {
        assert!(error.to_string().contains(part), "`{part}` in: {error}");
    }
}
