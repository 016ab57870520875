//! The GGUF reader on files that are broken or hostile: an error that names the thing, never a panic (E1).
use inference::gguf::write::{self, Writer};
use inference::gguf::{Error, File, Part, TensorType, Value};
use proptest::prelude::*;

/// Assembles a file by hand, so that every field can lie.
#[derive(Clone)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(entries)
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn text(self, text: &[u8]) -> Self {
        self.u64(text.len() as u64).bytes(text)
    }
    fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let raw = self.text(name.as_bytes()).u32(dimensions.len() as u32);
        dimensions.iter().fold(raw, |raw, d| raw.u64(*d)).u32(kind).u64(offset)
    }
    fn data(mut self, len: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self
    }
    fn error(&self) -> Error {
        File::parse(&self.0).expect_err("the file is broken")
    }
}

fn sample() -> Vec<u8> {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("llama.block_count", 3_u32)
        .set("llama.rope.freq_base", 1e4_f32)
        .set("general.flag", true)
        .set("tokenizer.ggml.tokens", vec!["a".to_string(), "Ġb".to_string()])
        .set("tokenizer.ggml.token_type", vec![1, 3]);
    let values: Vec<f32> = (0..64).map(|i| i as f32 - 32.0).collect();
    for (name, kind) in [("one", TensorType::F32), ("two", TensorType::Q8_0), ("three", TensorType::F16)] {
        writer.tensor(name, &[32, 2], kind, &values).expect("the shape fits");
    }
    writer.finish()
}

#[test]
fn what_was_written_is_read() {
    let bytes = sample();
    let file = File::parse(&bytes).expect("a valid file");
    assert_eq!(file.value("general.architecture"), Some(Value::String("llama")));
    assert_eq!(file.value("llama.block_count"), Some(Value::Unsigned(3)));
    assert_eq!(file.value("llama.rope.freq_base"), Some(Value::Float(1e4)));
    assert_eq!(file.value("general.flag"), Some(Value::Bool(true)));
    let Some(Value::Array(tokens)) = file.value("tokenizer.ggml.tokens") else { panic!("an array") };
    assert_eq!(tokens.iter().collect::<Vec<_>>(), [Value::String("a"), Value::String("Ġb")]);
    let tensor = file.tensor("two").expect("it was written");
    assert_eq!(
        (tensor.dimensions(), tensor.kind(), tensor.data().len()),
        (&[32, 2][..], TensorType::Q8_0, 68)
    );
    assert_eq!(file.tensors().map(|(name, _)| name).collect::<Vec<_>>(), ["one", "three", "two"]);
}

#[test]
fn the_writer_refuses_values_that_do_not_fit() {
    let mut writer = Writer::new();
    let error = writer.tensor("t", &[32], TensorType::F32, &[0.0; 31]).err();
    assert_eq!(error, Some(write::Error::Count { tensor: "t".into(), expected: 32, given: 31 }));
    let error = writer.tensor("t", &[16, 2], TensorType::Q8_0, &[0.0; 32]).err();
    assert_eq!(error, Some(write::Error::Block("t".into())));
}

#[test]
fn e1_every_truncation_is_an_error() {
    let bytes = sample();
    // The last tensor's 128 bytes end exactly at the padding, so the file has no byte to spare.
    for len in 0..bytes.len() {
        assert!(File::parse(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
    assert_eq!(
        File::parse(&bytes[..bytes.len() - 1]).err(),
        Some(Error::Truncated(Part::TensorData("three".into())))
    );
}

#[test]
fn e1_every_flipped_bit_is_an_error_or_another_file() {
    let bytes = sample();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(file) = File::parse(&flipped) {
            for (_, tensor) in file.tensors() {
                assert_eq!(Some(tensor.data().len()), tensor.kind().bytes(tensor.elements()));
            }
            for (_, value) in file.metadata() {
                if let Value::Array(array) = value {
                    assert_eq!(array.iter().count(), array.len());
                }
            }
        }
    }
}

#[test]
fn e1_headers() {
    assert_eq!(Raw(b"GGML\x03\0\0\0".to_vec()).error(), Error::NotGguf);
    assert_eq!(Raw(Vec::new()).error(), Error::Truncated(Part::Header));
    assert_eq!(Raw(b"GGUF".to_vec()).u32(1).error(), Error::Version(1));
    // Big-endian: the version reads as 3 · 2^24.
    assert_eq!(Raw(b"GGUF".to_vec()).u32(3 << 24).error(), Error::Version(3 << 24));
    assert_eq!(Raw::new(u64::MAX, 0).error(), Error::TooMany { what: "tensors", count: u64::MAX });
    assert_eq!(Raw::new(0, 1 << 40).error(), Error::TooMany { what: "metadata entries", count: 1 << 40 });
    assert_eq!(Raw::new(0, 1 << 16).error(), Error::Truncated(Part::Key(0)));
}

#[test]
fn e1_metadata() {
    let value = |key: &str| Error::Truncated(Part::Value(key.into()));
    assert_eq!(Raw::new(0, 1).u64(u64::MAX).error(), Error::Truncated(Part::Key(0)));
    assert_eq!(Raw::new(0, 1).text(b"").error(), Error::BadName(Part::Key(0)));
    assert_eq!(Raw::new(0, 1).text(b"\xff").error(), Error::BadName(Part::Key(0)));
    assert_eq!(Raw::new(0, 1).text(&[b'k'; 65_536]).error(), Error::BadName(Part::Key(0)));
    assert_eq!(
        Raw::new(0, 1).text(b"k").u32(13).error(),
        Error::UnknownValueType { key: "k".into(), id: 13 }
    );
    assert_eq!(Raw::new(0, 1).text(b"k").u32(7).bytes(&[2]).error(), Error::BadValue("k".into()));
    assert_eq!(Raw::new(0, 1).text(b"k").u32(8).text(b"\xc0").error(), Error::BadValue("k".into()));
    assert_eq!(Raw::new(0, 1).text(b"k").u32(8).u64(u64::MAX).error(), value("k"));
    let array = || Raw::new(0, 1).text(b"k").u32(9);
    assert_eq!(array().u32(4).u64(u64::MAX).error(), value("k"));
    assert_eq!(array().u32(8).u64(u64::MAX).error(), value("k"));
    assert_eq!(array().u32(7).u64(2).bytes(&[0, 3]).error(), Error::BadValue("k".into()));
    assert_eq!(array().u32(9).u64(1).u32(4).u64(0).error(), Error::BadValue("k".into()));
    let entry = |raw: Raw| raw.text(b"k").u32(4).u32(1);
    assert_eq!(entry(entry(Raw::new(0, 2))).error(), Error::DuplicateKey("k".into()));
    for alignment in [0, 4, 24] {
        let raw = Raw::new(0, 1).text(b"general.alignment").u32(4).u32(alignment);
        assert_eq!(raw.error(), Error::BadAlignment);
    }
}

#[test]
fn e1_tensors() {
    let one =
        |dimensions: &[u64], kind, offset| Raw::new(1, 0).tensor("t", dimensions, kind, offset).data(128);
    assert!(File::parse(&one(&[32], 0, 0).0).is_ok());
    for shape in [&[][..], &[1; 5], &[0], &[4, 0], &[u64::MAX], &[1 << 32, 1 << 32], &[1 << 62]] {
        assert_eq!(one(shape, 0, 0).error(), Error::BadShape("t".into()), "{shape:?}");
    }
    assert_eq!(one(&[16, 2], 8, 0).error(), Error::BadShape("t".into()), "half a block to the row");
    assert_eq!(one(&[1 << 40], 0, 0).error(), Error::Truncated(Part::TensorData("t".into())));
    assert_eq!(one(&[32], 0, 32).error(), Error::Truncated(Part::TensorData("t".into())));
    assert_eq!(one(&[32], 0, u64::MAX - 31).error(), Error::Truncated(Part::TensorData("t".into())));
    assert_eq!(one(&[8], 0, 8).error(), Error::Misaligned("t".into()));
    let error = one(&[256], 18, 0).error();
    assert_eq!(error, Error::UnsupportedType { tensor: "t".into(), id: 18 });
    let said = error.to_string();
    assert!(
        said.contains("'t' has type 18 (IQ3_XXS)") && said.contains("Q8_0") && said.contains("Q6_K"),
        "{said}"
    );

    let two =
        |a: &str, b: &str, offset| Raw::new(2, 0).tensor(a, &[32], 0, 0).tensor(b, &[8], 0, offset).data(160);
    assert!(File::parse(&two("a", "b", 128).0).is_ok());
    assert_eq!(two("a", "b", 96).error(), Error::Overlap { first: "a".into(), second: "b".into() });
    assert_eq!(two("a", "b", 0).error(), Error::Overlap { first: "a".into(), second: "b".into() });
    assert_eq!(two("a", "a", 128).error(), Error::DuplicateTensor("a".into()));
    let long = "n".repeat(65);
    assert_eq!(two("a", &long, 128).error(), Error::BadName(Part::TensorName(1)));
}

#[test]
fn errors_name_the_thing() {
    let said = Error::Truncated(Part::TensorData("blk.3.ffn_up.weight".into())).to_string();
    assert!(said.contains("blk.3.ffn_up.weight") && said.contains("incomplete"));
}

proptest! {
    #[test]
    fn e1_noise_after_the_header_never_panics(tensors in 0..4_u64, entries in 0..4_u64, noise: Vec<u8>) {
        let _ = File::parse(&Raw::new(tensors, entries).bytes(&noise).0);
    }
}
