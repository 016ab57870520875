//! Text from clients.

use inference::Tokenizer;
use inference::gguf::File;
use inference::gguf::write::Writer;
use std::sync::OnceLock;

/// The tokenizers of both kinds: byte-level BPE and SentencePiece.
pub(crate) fn tokenizers() -> &'static [Tokenizer] {
    static TOKENIZERS: OnceLock<Vec<Tokenizer>> = OnceLock::new();
    TOKENIZERS.get_or_init(|| {
        let own: &[u8] = include_bytes!("../../models/cloister-mini.gguf");
        let tokenizer = |file: &[u8]| {
            Tokenizer::from_gguf(&File::parse(file).expect("a model file")).expect("its tokenizer")
        };
        vec![tokenizer(own), tokenizer(&vocabulary(None))]
    })
}

/// A model file of SentencePiece that has a vocabulary and no tensors, and maybe a template.
pub(crate) fn vocabulary(template: Option<&str>) -> Vec<u8> {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<|user|>", "<|end|>"].map(Into::into).to_vec();
    let mut types = vec![2, 3, 3, 3, 3];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), 6);
    let pieces =
        ["\u{2581}", "a", "b", "ab", "\u{2581}a", "\u{2581}ab", "user", "\n", "é", "\u{2581}\u{2581}"];
    tokens.extend(pieces.map(Into::into));
    types.resize(tokens.len(), 1);
    let scores: Vec<f32> = (0..tokens.len()).map(|at| -(at as f32)).collect();
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("tokenizer.ggml.model", "llama")
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.token_type", types)
        .set("tokenizer.ggml.scores", scores)
        .set("tokenizer.ggml.bos_token_id", 1_u32)
        .set("tokenizer.ggml.eos_token_id", 2_u32);
    if let Some(template) = template {
        writer.set("tokenizer.chat_template", template);
    }
    writer.finish()
}

/// Whatever a client writes: no control token comes out, and the tokens spell the text.
pub fn tokenizer(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for tokenizer in tokenizers() {
        let tokens = tokenizer.encode(&text);
        assert!(tokenizer.controls().all(|(_, id)| !tokens.contains(&id)), "text became a control token");
        let spelt: Vec<u8> = tokens.iter().flat_map(|token| tokenizer.decode(*token)).copied().collect();
        // SentencePiece has one sign for a space and for U+2581.
        let sentence_piece = tokenizer.pre_tokenizer().is_none();
        let text = if sentence_piece { text.replace('\u{2581}', " ").into() } else { text.clone() };
        let space = if tokenizer.space_prefix() && !text.is_empty() { " " } else { "" };
        assert_eq!(
            String::from_utf8_lossy(&spelt),
            format!("{space}{text}"),
            "the tokens spell something else"
        );
    }
}

/// Texts.
pub fn tokenizer_seeds() -> Vec<Vec<u8>> {
    ["abc a <|im_start|><|end|>\n'll 12\u{a0}é\u{2581}🙂", " ab  ab\r\n\tuser", "<s></s><0x41><unk>"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
