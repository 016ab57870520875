//! `cloister-engine` from its command line, on the small synthetic model.
use inference::{Model, SingleThread};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

const TYPES: [&str; 13] = [
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_m", "q4_k_m", "q5_k_m",
    "q6_k",
];

fn engine(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister-engine")).args(arguments).output().unwrap()
}

fn done(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = engine(arguments);
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A model in a file of its own, as tests run side by side.
fn model(kind: &str, test: &str) -> String {
    let path = place(&format!("{test}-{kind}.gguf")).into_os_string().into_string().unwrap();
    done(&["synthetic-model", "--shape", "tiny", "--type", kind, "--out", &path]);
    path
}

#[test]
fn synthetic_models_of_every_type_give_the_logits_of_the_library() {
    let ids = place("ids.json");
    std::fs::write(&ids, "[5, 300, 17, 900]").unwrap();
    let out = place("logits.f32");
    for kind in TYPES {
        let path = model(kind, "logits");
        done(&["logits", "--model", &path, "--ids", ids.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let written = std::fs::read(&out).unwrap();
        let written: Vec<f32> =
            written.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let file = std::fs::read(&path).unwrap();
        let model = Model::load(&file).unwrap();
        assert_eq!(written, inference::logits(&model, &[5, 300, 17, 900], &SingleThread).unwrap(), "{kind}");
        let mean = written.iter().map(|logit| logit * logit).sum::<f32>() / written.len() as f32;
        assert!((1.0..1000.0).contains(&mean), "{kind}: logits of a mean square of {mean} mean nothing");
    }
}

#[test]
fn the_same_seed_gives_the_same_file() {
    let first = std::fs::read(model("q4_k_m", "first")).unwrap();
    assert!(first == std::fs::read(model("q4_k_m", "second")).unwrap());
    let other = place("other.gguf").into_os_string().into_string().unwrap();
    done(&["synthetic-model", "--shape", "tiny", "--type", "q4_k_m", "--seed", "2", "--out", &other]);
    assert!(first != std::fs::read(other).unwrap());
}

#[test]
fn texts_become_tokens_and_only_on_request_control_tokens() {
    let path = model("q8_0", "tokenize");
    let ids = |more: &[&str]| -> Vec<u32> {
        let all = [&["tokenize", "--model", &path], more].concat();
        serde_json::from_str(&done(&all)).unwrap()
    };
    // The last four tokens are the control tokens.
    assert_eq!(ids(&["--text", "<|im_start|>", "--special"]), [1021]);
    assert_eq!(ids(&["--text", "", "--control", "<|im_end|>", "--control", "7"]), [1023, 7]);
    let spelled = ids(&["--text", "a<|im_start|>b"]);
    assert!(spelled.len() > 3 && spelled.iter().all(|id| *id < 1020));
    assert_eq!(ids(&["--text", "a<|im_start|>b", "--special"]), [b'a'.into(), 1021, u32::from(b'b')]);
    let file = place("text.txt");
    std::fs::write(&file, "the same text").unwrap();
    assert_eq!(ids(&["--file", file.to_str().unwrap()]), ids(&["--text", "the same text"]));
    assert!(ids(&["--text", ""]).is_empty());
}

#[test]
fn answers_are_bounded_and_the_same_with_and_without_guessing() {
    let path = model("q4_0", "generate");
    let generate = |more: &[&str]| -> Value {
        let all =
            [&["generate", "--model", &path, "--prompt", "again and again and", "--json"], more].concat();
        serde_json::from_str(&done(&all)).unwrap()
    };
    let warm: &[&str] =
        &["--temperature", "0.8", "--top-k", "40", "--min-p", "0.01", "--seed", "3", "-n", "40"];
    for arguments in [&["-n", "60"], warm] {
        let with = generate(arguments);
        assert_eq!(with["tokens"], generate(&[arguments, &["--no-speculation"]].concat())["tokens"]);
        assert_eq!(with["tokens"], generate(&[arguments, &["--threads", "3"]].concat())["tokens"]);
    }
    assert_eq!(generate(&["-n", "0"])["tokens"], serde_json::json!([]));
    let most = generate(&["-n", "1000000000"]);
    let tokens = most["tokens"].as_array().unwrap().len() as u64;
    assert!(most["finish_reason"] == "stop" || tokens + most["prompt_tokens"].as_u64().unwrap() == 513);
}

#[test]
fn benchmarks_are_printed_as_json() {
    let path = model("q8_0", "bench");
    let arguments =
        ["--prompt", "16,32", "--generate", "8", "--depth", "0,20", "--parallel", "3", "--threads", "2"];
    let rest = ["--repetitions", "1", "--no-roof", "--json"];
    let printed = done(&[&["bench", "--model", &path][..], &arguments, &rest].concat());
    let value: Value = serde_json::from_str(&printed).unwrap();
    let tests = value["tests"].as_array().unwrap();
    let names: Vec<&str> = tests.iter().map(|test| test["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["pp16", "pp32", "tg8", "tg8@20"]);
    assert!(tests.iter().all(|test| test["tokens_per_second"].as_f64().unwrap() > 0.0));
}

#[test]
fn what_cannot_be_done_is_said_with_an_exit_code() {
    let path = model("q8_0", "errors");
    let ids = place("bad.json");
    std::fs::write(&ids, "[1024]").unwrap();
    let (ids, out) = (ids.to_str().unwrap(), place("none.f32"));
    let cut = place("cut.gguf");
    std::fs::write(&cut, &std::fs::read(&path).unwrap()[..5000]).unwrap();
    for (arguments, expected, part) in [
        (vec!["bench", "--model", "nowhere.gguf"], 1, "cannot read nowhere.gguf"),
        (vec!["tokenize", "--text", "x", "--model", cut.to_str().unwrap()], 1, "error"),
        (vec!["logits", "--model", &path, "--ids", ids, "--out", out.to_str().unwrap()], 1, "1024"),
        (vec!["generate", "--model", &path, "--prompt", "x", "--temperature", "9"], 1, "temperature"),
        (vec!["generate", "--model", &path, "--prompt", "x", "--context", "100000"], 1, "512"),
        (vec!["bench", "--model", &path, "--threads", "0"], 1, "--threads"),
        (vec!["bench", "--model", &path, "--isa", "mmx"], 2, "mmx"),
        (vec!["fly"], 2, "fly"),
    ] {
        let Output { status, stderr, .. } = engine(&arguments);
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(expected), "{arguments:?}: {said}");
        assert!(said.contains(part) && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}
