//! The tokenizer against llama.cpp: on its own vocabularies and their test cases, and on random text.
//! `data/vocabularies.py` says how the file is made and where its parts are from.
use inference::Tokenizer;
use inference::gguf::File;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const NAMES: [&str; 5] = ["gpt-2", "refact", "llama-bpe", "qwen2", "llama-spm"];

/// Splits off a length and as many bytes.
fn counted<'a>(bytes: &mut &'a [u8], unit: usize) -> &'a [u8] {
    let (len, rest) = bytes.split_first_chunk::<4>().expect("a length");
    let (counted, rest) = rest.split_at(u32::from_le_bytes(*len) as usize * unit);
    *bytes = rest;
    counted
}

fn parts() -> &'static BTreeMap<String, Vec<u8>> {
    static PARTS: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    PARTS.get_or_init(|| {
        let packed: &[u8] = include_bytes!("data/vocabularies.zst");
        let mut bytes = Vec::new();
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed).expect("a zstd frame");
        decoder.read_to_end(&mut bytes).expect("the frame is whole");
        let (mut rest, mut parts) = (&bytes[..], BTreeMap::new());
        while !rest.is_empty() {
            let name = String::from_utf8(counted(&mut rest, 1).to_vec()).expect("a name");
            parts.insert(name, counted(&mut rest, 1).to_vec());
        }
        parts
    })
}

fn tokenizer(name: &str) -> Tokenizer {
    let file = File::parse(&parts()[&format!("{name}.gguf")]).expect("a valid file");
    Tokenizer::from_gguf(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_cases_of_llama_cpp() {
    for name in NAMES {
        let tokenizer = tokenizer(name);
        let text =
            |suffix: &str| String::from_utf8(parts()[&format!("{name}{suffix}")].clone()).expect("UTF-8");
        let (inputs, outputs) = (text(".inp"), text(".out"));
        let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
        let outputs: Vec<Vec<u32>> = outputs
            .lines()
            .map(|line| line.split_whitespace().map(|id| id.parse().expect("a token")).collect())
            .collect();
        assert!(outputs.len() >= 40 && inputs.len() >= outputs.len(), "{name}: {}", outputs.len());
        for (input, expected) in inputs.iter().zip(&outputs) {
            assert_eq!(&tokenizer.encode(input), expected, "{name}: {input:?}");
        }
    }
}

#[test]
fn the_tokens_of_llama_cpp_for_random_text() {
    for name in NAMES {
        let tokenizer = tokenizer(name);
        let (mut texts, mut ids) = (&parts()["texts"][..], &parts()[&format!("{name}.ids")][..]);
        let mut count = 0;
        while !texts.is_empty() {
            let text = std::str::from_utf8(counted(&mut texts, 1)).expect("UTF-8");
            let expected = counted(&mut ids, 4).as_chunks().0.iter().map(|id| u32::from_le_bytes(*id));
            let tokens = tokenizer.encode(text);
            assert_eq!(tokens, expected.collect::<Vec<_>>(), "{name}: {text:?}");
            count += 1;
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| tokenizer.decode(*token)).copied().collect();
            let back = bytes.strip_prefix(b" ").filter(|_| tokenizer.space_prefix()).unwrap_or(&bytes);
            let expected = if tokenizer.space_prefix() { text.replace('▁', " ") } else { text.into() };
            assert_eq!(back, expected.as_bytes(), "{name}");
        }
        assert!(count > 700, "{count}");
    }
}

#[test]
fn e2_no_text_becomes_a_control_token() {
    for name in NAMES {
        let tokenizer = tokenizer(name);
        let control: Vec<(&str, u32)> = tokenizer.controls().collect();
        assert!(!control.is_empty());
        for pair in control.windows(2) {
            let text = format!("{}{} {}\n", pair[0].0, pair[1].0, pair[0].0);
            let tokens = tokenizer.encode(&text);
            assert!(tokens.iter().all(|token| control.iter().all(|(_, id)| id != token)), "{name}: {text}");
        }
    }
}

#[test]
fn a_text_without_words_takes_time_in_proportion() {
    for name in NAMES {
        let tokenizer = tokenizer(name);
        for unit in ["a", "\n", " ", "!", "1", "ab", "\u{300}", "▁"] {
            let text = unit.repeat(100_000 / unit.len());
            let start = Instant::now();
            let tokens = tokenizer.encode(&text);
            // A quadratic method takes minutes.
            assert!(start.elapsed() < Duration::from_secs(20), "{name} {unit:?}");
            assert!(!tokens.is_empty());
        }
    }
}
