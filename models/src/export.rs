//! The trained decoder as a GGUF file, as llama.cpp and the project's own engine read it.

use anyhow::Result;
use candle_core::{DType, Tensor};
use inference::gguf::TensorType;
use inference::gguf::write::Writer;

use crate::bpe::{CONTROL, END_OF_TEXT, TURN_END, Vocabulary};
use crate::net::attention::HEAD;
use crate::net::decoder::Decoder;
use crate::net::ops::NORM_EPSILON;

/// For programs that render prompts from the file itself.
const CHAT_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// llama.cpp's token types.
const NORMAL: i32 = 1;
const CONTROL_TYPE: i32 = 3;

/// The file's bytes.
pub fn gguf(decoder: &Decoder, vocabulary: &Vocabulary) -> Result<Vec<u8>> {
    let shape = &decoder.shape;
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("general.name", "Cloister Mini")
        .set("general.license", "apache-2.0")
        .set("llama.vocab_size", shape.vocabulary as u32)
        .set("llama.context_length", shape.context as u32)
        .set("llama.embedding_length", shape.width as u32)
        .set("llama.block_count", shape.layers as u32)
        .set("llama.feed_forward_length", shape.feed_forward as u32)
        .set("llama.attention.head_count", shape.heads as u32)
        .set("llama.attention.head_count_kv", shape.kv_heads as u32)
        .set("llama.attention.layer_norm_rms_epsilon", NORM_EPSILON)
        .set("llama.rope.dimension_count", HEAD as u32)
        .set("llama.rope.freq_base", shape.rope_base as f32);
    put_tokenizer(&mut writer, vocabulary);

    put(&mut writer, "token_embd.weight", &decoder.embedding)?;
    put(&mut writer, "output_norm.weight", &decoder.output_norm)?;
    let (queries, keys) = (shape.heads * HEAD, shape.kv_heads * HEAD);
    for (i, layer) in decoder.layers.iter().enumerate() {
        // The file wants output-major matrices, one for each purpose.
        let columns = |matrix: &Tensor, start, count| matrix.narrow(1, start, count)?.t()?.contiguous();
        let qkv = layer.qkv.as_tensor();
        let gate_up = layer.gate_up.as_tensor();
        for (name, tensor) in [
            ("attn_norm", layer.attention_norm.as_tensor().clone()),
            ("attn_q", columns(qkv, 0, queries)?),
            ("attn_k", columns(qkv, queries, keys)?),
            ("attn_v", columns(qkv, queries + keys, keys)?),
            ("attn_output", layer.output.t()?.contiguous()?),
            ("ffn_norm", layer.feed_forward_norm.as_tensor().clone()),
            ("ffn_gate", columns(gate_up, 0, shape.feed_forward)?),
            ("ffn_up", columns(gate_up, shape.feed_forward, shape.feed_forward)?),
            ("ffn_down", layer.down.t()?.contiguous()?),
        ] {
            put(&mut writer, &format!("blk.{i}.{name}.weight"), &tensor)?;
        }
    }
    Ok(writer.finish())
}

/// Matrices in 8 bits, vectors as they are.
fn put(writer: &mut Writer, name: &str, tensor: &Tensor) -> Result<()> {
    let dimensions: Vec<usize> = tensor.dims().iter().rev().copied().collect();
    let kind = if dimensions.len() == 1 { TensorType::F32 } else { TensorType::Q8_0 };
    let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    writer.tensor(name, &dimensions, kind, &values)?;
    Ok(())
}

fn put_tokenizer(writer: &mut Writer, vocabulary: &Vocabulary) {
    let tokens: Vec<String> = (0..vocabulary.len() as u32)
        .map(|token| match CONTROL.get(token as usize) {
            Some(name) => (*name).to_owned(),
            None => printable(vocabulary.bytes(token)),
        })
        .collect();
    let types = (0..tokens.len()).map(|i| if i < CONTROL.len() { CONTROL_TYPE } else { NORMAL }).collect();
    let merge = |&(left, right): &(u32, u32)| {
        format!("{} {}", printable(vocabulary.bytes(left)), printable(vocabulary.bytes(right)))
    };
    let merges: Vec<String> = vocabulary.merges().iter().map(merge).collect();
    writer
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "smollm")
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.token_type", Vec::<i32>::clone(&types))
        .set("tokenizer.ggml.merges", merges)
        .set("tokenizer.ggml.bos_token_id", END_OF_TEXT)
        .set("tokenizer.ggml.eos_token_id", END_OF_TEXT)
        .set("tokenizer.ggml.eot_token_id", TURN_END)
        .set("tokenizer.ggml.add_bos_token", false)
        .set("tokenizer.chat_template", CHAT_TEMPLATE);
}

/// GPT-2's spelling of bytes: printable ones as themselves, the others as characters from U+0100 on.
fn printable(bytes: &[u8]) -> String {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let spell = |&byte: &u8| {
        if plain(byte) {
            return char::from(byte);
        }
        let rank = (0..byte).filter(|&other| !plain(other)).count() as u32;
        char::from_u32(0x100 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    bytes.iter().map(spell).collect()
}

#[cfg(test)]
mod tests {
    use inference::{Model, SingleThread};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::dataset::{Difficulty, Split, Texts};
    use crate::net::decoder::Shape;
    use crate::prompt::encode;

    fn small(vocabulary: &Vocabulary) -> Decoder {
        let shape = Shape {
            vocabulary: vocabulary.len(),
            width: 128,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            feed_forward: 128,
            context: 512,
            rope_base: 10_000.0,
        };
        Decoder::new(shape, &mut ChaCha8Rng::seed_from_u64(1)).unwrap()
    }

    #[test]
    fn the_engine_reads_the_same_tokens_and_nearly_the_same_logits() {
        let texts = Texts::load().unwrap();
        let mut generator = texts.generator(Split::Vocabulary, 1);
        let samples: Vec<_> = (0..40).map(|_| generator.sample(Difficulty::FULL)).collect();
        let answers: Vec<String> = samples.iter().map(|sample| sample.answer_text()).collect();
        let vocabulary = Vocabulary::train(answers.iter().map(String::as_str), 400);
        let decoder = small(&vocabulary);
        let file = gguf(&decoder, &vocabulary).unwrap();
        let model = Model::load(&file).unwrap();

        for text in samples.iter().flat_map(crate::prompt::rendered).chain(answers.clone()) {
            assert_eq!(model.tokenizer().encode(&text), vocabulary.encode(&text), "{text}");
        }
        for (id, name) in CONTROL.iter().enumerate() {
            assert_eq!(model.tokenizer().control(name), Some(id as u32));
        }

        let tokens = encode(&samples[0], &vocabulary).tokens;
        let wanted: Vec<u32> = (0..tokens.len() as u32).collect();
        let span = 0..tokens.len();
        let ours: Vec<f32> = decoder
            .logits(&tokens, [span].into(), &wanted)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        let theirs = inference::logits(&model, &tokens, &SingleThread).unwrap();
        // The file holds 8-bit weights, so the numbers agree in direction and not to the last digit.
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(&ours, &theirs) / (dot(&ours, &ours) * dot(&theirs, &theirs)).sqrt();
        assert!(cosine > 0.999, "{cosine}");
    }

    #[test]
    fn bytes_are_spelled_as_gpt2_spells_them() {
        assert_eq!(printable(b" ok\n"), "\u{120}ok\u{10A}");
        assert_eq!(printable("é".as_bytes()), "\u{C3}\u{A9}");
        assert_eq!(printable(&[0, 0x7F, 0xA0, 0xAD]), "\u{100}\u{121}\u{142}\u{143}");
    }
}
