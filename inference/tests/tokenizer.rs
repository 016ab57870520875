//! The tokenizer against Hugging Face `tokenizers`, which the models' own files are made for: a vocabulary is trained
//! with it here, written as GGUF, and both must give the same tokens for any text.
use inference::Tokenizer;
use inference::gguf::{File, write::Writer};
use inference::tokenizer::Error;
use proptest::prelude::*;
use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind};
use std::sync::OnceLock;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence};
use tokenizers::{Model, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer as Reference};

const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// What the vocabularies are trained on: a few scripts, digits, contractions and runs of white space.
const CORPUS: [&str; 8] = [
    "Anna: are we still on for 18:30 at the station? I'll bring the tickets, you've got the keys.",
    "Ben: can't make it before 19:15, sorry!! They're closing   the bridge...\n\n\tAnna: no problem, see you there",
    "Größe, Straße, naïve café, façade — „Anführung“ und “quotes” für alle Fälle 2026",
    "Привет! Встретимся завтра в 10 утра у входа, не опаздывай. Хорошо, договорились.",
    "明日の午後三時に駅で会いましょう。はい、わかりました。",
    "مرحبا، هل نلتقي غدا في الساعة ١٠؟ नमस्ते, हम कल दस बजे मिलेंगे",
    "fn main() { println!(\"{}\", 1_000 + 0x1f); } // ¹²³ ½ Ⅷ 🙂🙂👍🏽",
    "the the the and and you you that that station station tickets tomorrow tomorrow meeting meeting",
];

struct Pair {
    ours: Tokenizer,
    reference: Reference,
}

fn rules(name: &str) -> PreTokenizerWrapper {
    let bytes = ByteLevel::new(false, true, true);
    match name {
        "gpt-2" => bytes.into(),
        // The expressions in the tokenizer.json of Llama 3 and Qwen2.
        "llama-bpe" | "qwen2" => {
            let numbers = if name == "qwen2" { r"\p{N}" } else { r"\p{N}{1,3}" };
            let pattern = format!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            );
            let split = Split::new(SplitPattern::Regex(pattern), SplitDelimiterBehavior::Isolated, false);
            Sequence::new(vec![
                split.expect("a valid expression").into(),
                ByteLevel::new(false, true, false).into(),
            ])
            .into()
        }
        _ => Sequence::new(vec![Digits::new(true).into(), bytes.into()]).into(),
    }
}

fn make(name: &str) -> Pair {
    let mut bpe = BPE::default();
    bpe.ignore_merges = name == "llama-bpe";
    let mut reference = Reference::new(bpe);
    reference.with_pre_tokenizer(Some(rules(name)));
    let trainer = BpeTrainer::builder()
        .vocab_size(600)
        .min_frequency(1)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::from(trainer);
    reference.train(&mut trainer, CORPUS.into_iter()).expect("training works");

    // The merges are only in the model's serialised form.
    let model = serde_json::to_value(reference.get_model()).expect("a model serialises");
    let merges = model["merges"].as_array().expect("merges").iter().map(|merge| {
        let pair: Vec<&str> =
            merge.as_array().expect("a pair").iter().filter_map(|part| part.as_str()).collect();
        pair.join(" ")
    });
    let mut tokens: Vec<String> = (0..reference.get_model().get_vocab_size() as u32)
        .map(|id| reference.get_model().id_to_token(id).expect("ids are dense"))
        .collect();
    let mut types = vec![1; tokens.len()];
    tokens.extend(CONTROL.map(String::from));
    types.resize(tokens.len(), 3);
    let mut writer = Writer::new();
    writer
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", name)
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.token_type", types)
        .set("tokenizer.ggml.merges", merges.collect::<Vec<_>>());
    let bytes = writer.finish();
    let ours = Tokenizer::from_gguf(&File::parse(&bytes).expect("a valid file")).expect("a valid tokenizer");
    Pair { ours, reference }
}

fn pairs() -> &'static [Pair; 4] {
    static PAIRS: OnceLock<[Pair; 4]> = OnceLock::new();
    PAIRS.get_or_init(|| ["gpt-2", "smollm", "llama-bpe", "qwen2"].map(make))
}

fn assert_same(text: &str) {
    for Pair { ours, reference } in pairs() {
        let tokens = ours.encode(text);
        let expected = reference.encode(text, false).expect("the reference encodes");
        assert_eq!(
            tokens,
            expected.get_ids(),
            "{text:?} by {}",
            ours.pre_tokenizer().map_or("SentencePiece", |rules| rules.name())
        );
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| ours.decode(*token)).copied().collect();
        assert_eq!(bytes, text.as_bytes(), "decoding gives the text back");
    }
}

/// Leaves out what only the newer Unicode counts as a number: the reference takes its digits from the standard library,
/// its letters and our tables are from `regex-syntax`, and the two are not always of the same version of Unicode.
fn of_one_version(text: &str) -> String {
    static NUMBERS: OnceLock<ClassUnicode> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(|| match regex_syntax::parse(r"\p{N}").map(Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        _ => panic!("a class"),
    });
    let in_table = |c: char| numbers.ranges().iter().any(|range| (range.start()..=range.end()).contains(&c));
    text.chars().filter(|c| c.is_numeric() == in_table(*c)).collect()
}

/// Text rich in what the rules distinguish: letters and numbers of many scripts, marks, every kind of white space.
fn mixed() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-zA-Z]{1,9}",
        2 => "[ \t\r\n\u{a0}\u{2003}\u{3000}\u{85}]{1,4}",
        2 => "'(s|t|re|ve|m|ll|d|S|VE|Ll|x|)",
        2 => r"\p{N}{1,3}",
        2 => r"\p{L}{1,3}",
        1 => r"\p{M}{1,2}",
        1 => r"[\p{P}\p{S}]{1,3}",
        1 => r"\p{C}",
        2 => prop::sample::select(vec!["the ", "station", "tomorrow", " 18:30", "ß", "明日", "Привет", "<|im_end|>"])
            .prop_map(String::from),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_tokens_as_the_reference_for_mixed_text(text in mixed()) {
        assert_same(&of_one_version(&text));
    }

    #[test]
    fn the_same_tokens_as_the_reference_for_any_text(text in any::<String>()) {
        assert_same(&of_one_version(&text));
    }

    #[test]
    fn e2_no_text_becomes_a_control_token(parts in prop::collection::vec(
        prop_oneof![prop::sample::select(CONTROL.to_vec()).prop_map(String::from), "[<|>a-z_ ]{0,6}"], 0..12,
    )) {
        for Pair { ours, .. } in pairs() {
            let control = CONTROL.map(|name| ours.control(name).expect("it is in the vocabulary"));
            let tokens = ours.encode(&parts.concat());
            prop_assert!(tokens.iter().all(|token| !control.contains(token)));
        }
    }
}

#[test]
fn few_characters_differ_between_versions_of_unicode() {
    let differ = ('\0'..=char::MAX).filter(|c| of_one_version(&c.to_string()).is_empty()).count();
    assert!(differ < 100, "{differ} characters are left out of the comparison");
}

#[test]
fn the_corpus_and_long_runs_are_the_same() {
    CORPUS.into_iter().for_each(assert_same);
    // A single piece of this length is quadratic work for the obvious method.
    assert_same(&"the".repeat(20_000));
    assert_same(&" ".repeat(20_000));
}

#[test]
fn characters_across_all_planes_fall_in_the_class_that_the_reference_gives_them() {
    // Each stands between letters, so that a wrong class changes the division into pieces. One in seventeen runs of
    // eight is taken; `tests/unicode.rs` compares the classes themselves for all.
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    for chars in all.chunks(8 * 17).map(|chars| &chars[..8.min(chars.len())]) {
        let text: String = chars.iter().flat_map(|c| ['t', 'h', *c, 'e', ' ', *c]).collect();
        assert_same(&text);
    }
}

#[test]
fn e2_merges_cannot_build_a_control_token() {
    let tokens = ["<", "|", "<|"].map(String::from).to_vec();
    let file = |types: Vec<i32>| {
        let mut writer = Writer::new();
        writer
            .set("tokenizer.ggml.model", "gpt2")
            .set("tokenizer.ggml.pre", "smollm")
            .set("tokenizer.ggml.tokens", tokens.clone())
            .set("tokenizer.ggml.token_type", types)
            .set("tokenizer.ggml.merges", vec!["< |".to_string()]);
        writer.finish()
    };
    let read = |bytes: &[u8]| {
        Tokenizer::from_gguf(&File::parse(bytes).expect("a valid file")).map(|t| t.encode("<|"))
    };
    assert_eq!(read(&file(vec![1, 1, 1])), Ok(vec![2]));
    assert_eq!(read(&file(vec![1, 1, 3])), Err(Error::BadMerge(0)));
    assert_eq!(read(&file(vec![1, 3, 1])), Err(Error::BadMerge(0)));
    assert_eq!(read(&file(vec![1, 1, 6])), Err(Error::BadTokenType(2)));
    assert_eq!(read(&file(vec![1, 1])), Err(Error::TypeCount { tokens: 3, types: 2 }));
}

#[test]
fn tokens_that_are_no_text_decode_to_nothing() {
    let ours = &pairs()[1].ours;
    let end = ours.control("<|im_end|>").expect("it is in the vocabulary");
    assert_eq!(ours.decode(end), b"");
    assert_eq!(ours.decode(ours.vocabulary_len() as u32), b"");
    assert_eq!(ours.decode(u32::MAX), b"");
    assert_eq!(ours.control("the"), None);
}

#[test]
fn names_what_is_missing_or_unsupported() {
    let read =
        |writer: &Writer| Tokenizer::from_gguf(&File::parse(&writer.finish()).expect("a valid file")).err();
    let mut writer = Writer::new();
    assert_eq!(read(&writer), Some(Error::Missing("tokenizer.ggml.model")));
    writer.set("tokenizer.ggml.model", "bert");
    assert_eq!(read(&writer), Some(Error::UnsupportedModel("bert".into())));
    writer.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", "falcon");
    assert_eq!(read(&writer), Some(Error::UnsupportedPreTokenizer("falcon".into())));
    writer.set("tokenizer.ggml.pre", "smollm").set("tokenizer.ggml.tokens", vec![1, 2]);
    assert_eq!(read(&writer), Some(Error::WrongType("tokenizer.ggml.tokens")));
    writer.set("tokenizer.ggml.tokens", Vec::<String>::new());
    assert_eq!(read(&writer), Some(Error::VocabularySize(0)));
    writer.set("tokenizer.ggml.tokens", vec!["a".to_string()]);
    assert_eq!(read(&writer), Some(Error::Missing("tokenizer.ggml.merges")));
    writer.set("tokenizer.ggml.model", "llama");
    assert_eq!(read(&writer), Some(Error::Missing("tokenizer.ggml.scores")));
    writer.set("tokenizer.ggml.scores", vec![0.0, 1.0]);
    assert_eq!(read(&writer), Some(Error::ScoreCount { tokens: 1, scores: 2 }));
}
