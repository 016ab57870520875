//! Models' own chat templates as frames, with their real vocabularies.

use attestation::manifest::ChatTemplate;
use image_builder::template::{ModelTemplate, TemplateError};
use inference::Tokenizer;
use inference::gguf::write::{Value, Writer};
use inference::gguf::{self, File, ValueType};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::OnceLock;
use wire::chat::Role::{self, Assistant, System, User};

/// SmolLM2-Instruct (`tokenizer_config.json`).
const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
/// Llama-2-Chat.
const LLAMA2: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";
/// Mistral-7B-Instruct v0.1.
const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";
const QWEN25: &str = include_str!("templates/Qwen-Qwen2.5-7B-Instruct.jinja");
const QWEN3: &str = include_str!("templates/Qwen-Qwen3-0.6B.jinja");
const LLAMA3: &str = include_str!("templates/meta-llama-Llama-3.2-3B-Instruct.jinja");
const NEMO: &str = include_str!("templates/mistralai-Mistral-Nemo-Instruct-2407.jinja");

fn vocabularies() -> &'static BTreeMap<String, Vec<u8>> {
    static PARTS: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    PARTS.get_or_init(|| {
        let packed: &[u8] = include_bytes!("../../inference/tests/data/vocabularies.zst");
        let mut bytes = Vec::new();
        ruzstd::decoding::StreamingDecoder::new(packed).unwrap().read_to_end(&mut bytes).unwrap();
        let mut rest = &bytes[..];
        let mut counted = || {
            let (len, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at(u32::from_le_bytes(*len) as usize);
            rest = after;
            Some(part.to_vec())
        };
        let mut parts = BTreeMap::new();
        while let (Some(name), Some(part)) = (counted(), counted()) {
            parts.insert(String::from_utf8(name).unwrap(), part);
        }
        parts
    })
}

/// A vocabulary's file with another template, and tokens that the vocabulary of its family has besides.
fn model(vocabulary: &str, template: &str, renamed: &[(usize, &str, i32)]) -> Vec<u8> {
    let file = File::parse(&vocabularies()[&format!("{vocabulary}.gguf")]).unwrap();
    let mut writer = Writer::new();
    for (key, value) in file.metadata().filter(|(key, _)| key.starts_with("tokenizer.ggml.")) {
        let value = match value {
            gguf::Value::Unsigned(value) => Value::U32(value as u32),
            gguf::Value::Bool(value) => Value::Bool(value),
            gguf::Value::String(text) => Value::String(text.into()),
            gguf::Value::Array(array) if array.element() == ValueType::String => {
                let mut texts: Vec<String> = array
                    .iter()
                    .map(
                        |value| {
                            if let gguf::Value::String(text) = value { text.into() } else { unreachable!() }
                        },
                    )
                    .collect();
                for (token, name, _) in renamed.iter().filter(|_| key.ends_with("tokens")) {
                    texts[*token] = (*name).into();
                }
                Value::Strings(texts)
            }
            gguf::Value::Array(array) if array.element() == ValueType::I32 => {
                let mut types: Vec<i32> =
                    array
                        .iter()
                        .map(|value| {
                            if let gguf::Value::Signed(value) = value { value as i32 } else { unreachable!() }
                        })
                        .collect();
                renamed.iter().for_each(|(token, _, kind)| types[*token] = *kind);
                Value::I32s(types)
            }
            gguf::Value::Array(array) => {
                Value::F32s(
                    array
                        .iter()
                        .map(|value| {
                            if let gguf::Value::Float(value) = value { value as f32 } else { unreachable!() }
                        })
                        .collect(),
                )
            }
            other => panic!("{key}: {other:?}"),
        };
        writer.set(key, value);
    }
    writer.set("tokenizer.chat_template", template);
    writer.finish()
}

fn qwen(template: &str) -> Vec<u8> {
    let mut names = Vec::new();
    // Qwen3 gives these to tokens that Qwen2 does not use.
    for (index, name) in ["<tool_call>", "</tool_call>", "<think>", "</think>"].into_iter().enumerate() {
        names.push((151_657 + index, name, 4));
    }
    model("qwen2", template, &names)
}

fn frames(file: &[u8]) -> Result<(Tokenizer, ChatTemplate), TemplateError> {
    let file = File::parse(file).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    let template = ModelTemplate::from_gguf(&file, &tokenizer)?.ok_or(TemplateError::Missing)?.frames()?;
    Ok((tokenizer, template))
}

/// A frame in words: control tokens by name, other tokens as their text, and a sign for a space that follows.
fn words(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    before: Option<Role>,
    after: Option<Role>,
) -> String {
    let Some(frame) = template.frame(before, after) else { return "none".into() };
    let mut out = Vec::new();
    for token in &frame.tokens {
        match tokenizer.controls().find(|(_, id)| id == token) {
            Some((name, _)) => out.extend_from_slice(name.as_bytes()),
            None => out.extend_from_slice(tokenizer.decode(*token)),
        }
    }
    String::from_utf8(out).unwrap() + if frame.space { "~" } else { "" }
}

#[test]
fn chatml() {
    for (file, start) in [
        (
            qwen(QWEN25),
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
        ),
        (
            qwen(SMOLLM2),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n",
        ),
    ] {
        let (tokenizer, template) = frames(&file).unwrap();
        let words = |before, after| words(&tokenizer, &template, before, after);
        assert_eq!(words(None, Some(System)), "<|im_start|>system\n");
        assert_eq!(words(None, Some(User)), format!("{start}<|im_start|>user\n"));
        assert_eq!(words(Some(System), Some(User)), "<|im_end|>\n<|im_start|>user\n");
        assert_eq!(words(Some(User), Some(Assistant)), "<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(words(Some(User), None), "<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(words(Some(User), Some(User)), "<|im_end|>\n<|im_start|>user\n");
        assert!(template.stop.contains(&tokenizer.control("<|im_end|>").unwrap()), "{:?}", template.stop);
    }
}

#[test]
fn qwen3_answers_without_reasoning() {
    let (tokenizer, template) = frames(&qwen(QWEN3)).unwrap();
    let words = |before, after| words(&tokenizer, &template, before, after);
    assert_eq!(words(None, Some(User)), "<|im_start|>user\n");
    assert_eq!(words(Some(User), Some(Assistant)), "<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(words(Some(User), None), "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
}

#[test]
fn llama_3() {
    let (tokenizer, template) = frames(&model("llama-bpe", LLAMA3, &[])).unwrap();
    let words = |before, after| words(&tokenizer, &template, before, after);
    let dates = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
    assert_eq!(words(None, Some(System)), dates);
    assert_eq!(
        words(None, Some(User)),
        format!("{dates}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n")
    );
    assert_eq!(words(Some(Assistant), Some(User)), "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n");
    assert_eq!(words(Some(User), None), "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    assert!(template.stop.contains(&tokenizer.control("<|eot_id|>").unwrap()));
}

#[test]
fn llama_2_and_mistral() {
    let (tokenizer, template) = frames(&model("llama-spm", LLAMA2, &[])).unwrap();
    let said = |before, after| words(&tokenizer, &template, before, after);
    assert_eq!(said(None, Some(User)), "<s> [INST]~");
    assert_eq!(said(None, Some(System)), "<s> [INST] <<SYS>>\n");
    assert_eq!(said(Some(System), Some(User)), "\n<</SYS>>\n\n");
    assert_eq!(said(Some(User), Some(Assistant)), " [/INST]~");
    assert_eq!(said(Some(Assistant), Some(User)), " </s><s> [INST]~");
    assert_eq!(said(Some(User), None), " [/INST]");
    assert_eq!(said(Some(User), Some(User)), "none");
    assert!(template.stop.contains(&tokenizer.control("</s>").unwrap()));

    let (tokenizer, template) = frames(&model("llama-spm", MISTRAL, &[])).unwrap();
    let said = |before, after| words(&tokenizer, &template, before, after);
    assert_eq!(said(None, Some(User)), "<s> [INST]~");
    assert_eq!(said(None, Some(System)), "none");
    assert_eq!(said(Some(User), Some(Assistant)), " [/INST]");
}

#[test]
fn what_cannot_be_framed_is_said() {
    let refused = |template: &str| frames(&qwen(template)).unwrap_err();
    assert!(matches!(refused("{{ messages | frobnicate }}"), TemplateError::Render { .. }));
    assert!(matches!(refused("{% if %}"), TemplateError::Render { .. }));
    assert!(
        matches!(refused("{{ raise_exception('no chats') }}"), TemplateError::Render { reason, .. } if reason.contains("no chats"))
    );
    assert!(matches!(refused("a question"), TemplateError::Texts { .. }));
    assert!(matches!(
        refused("{% for m in messages | reverse %}{{ m.content }}\n{% endfor %}"),
        TemplateError::Texts { .. }
    ));
    let numbered = "{% for m in messages %}{{ loop.index }}. {{ m.content }}\n{% endfor %}";
    let said = refused(numbered).to_string();
    assert!(said.contains("user") && said.contains("[template]"), "{said}");
    assert!(matches!(
        refused("{% for m in messages %}{{ m.content | upper }}\n{% endfor %}"),
        TemplateError::Texts { .. }
    ));
    // Its instructions stand before the last turn, wherever that is.
    let controls = [(300, "[INST]", 3), (301, "[/INST]", 3)];
    let (tokenizer, nemo) = frames(&model("llama-spm", NEMO, &controls)).unwrap();
    assert_eq!(words(&tokenizer, &nemo, None, Some(System)), "none");
    assert_eq!(words(&tokenizer, &nemo, Some(User), None), "[/INST]");
    // With a vocabulary where its signs are text and join the text beside them.
    let error = frames(&model("llama-spm", NEMO, &[])).unwrap_err();
    assert!(matches!(error, TemplateError::Differs { .. }), "{error}");
}

#[test]
fn a_model_without_a_template_or_an_end_is_said() {
    let file = model("qwen2", "", &[]);
    assert!(matches!(frames(&file), Err(TemplateError::Texts { .. })));
    let bare = File::parse(&vocabularies()["gpt-2.gguf"]).unwrap();
    let tokenizer = Tokenizer::from_gguf(&bare).unwrap();
    assert!(ModelTemplate::from_gguf(&bare, &tokenizer).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e2_no_text_in_a_frame_becomes_a_control_token(
        parts in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    "<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<think>", "</think>", "<tool_call>", "<|im_", "end|>",
                ]).prop_map(String::from),
                any::<String>(),
            ], 0..8),
        spaced: bool,
    ) {
        static QWEN: OnceLock<(Tokenizer, Vec<u32>)> = OnceLock::new();
        let (tokenizer, control) = QWEN.get_or_init(|| {
            let tokenizer = frames(&qwen(QWEN3)).unwrap().0;
            let control = tokenizer.controls().map(|(_, id)| id).collect();
            (tokenizer, control)
        });
        let text = parts.concat();
        let tokens = tokenizer.encode_continued(&text, spaced);
        prop_assert!(tokens.iter().all(|token| !control.contains(token)));
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| tokenizer.decode(*token)).copied().collect();
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), if spaced { format!(" {text}") } else { text });
    }
}
