//! `cloister-image` as a command: what it writes, and what it says and returns when it cannot.

#[path = "../../service/tests/support/model.rs"]
#[allow(dead_code, reason = "only its model file is needed")]
mod model;
mod samples;

use model::Ending;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const VECTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/firmware.bin");

fn cloister_image(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister-image")).args(arguments).output().unwrap()
}

/// The exit code and what stands on standard error, which is never empty.
fn refusal(arguments: &[&str]) -> (i32, String) {
    let output = cloister_image(arguments);
    assert!(output.stdout.is_empty(), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!message.contains("panicked"), "{message}");
    (output.status.code().unwrap(), message)
}

/// A folder with a manifest, its model and a kernel.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = include_str!("../../models/manifest.toml");
    fs::write(folder.path().join("manifest.toml"), manifest).unwrap();
    fs::write(folder.path().join("cloister-mini.gguf"), model::gguf(Ending::Stops)).unwrap();
    fs::write(folder.path().join("kernel.elf"), samples::kernel(&[0xf4])).unwrap();
    folder
}

/// Builds in a folder, perhaps after something in it was changed.
fn build(folder: &Path) -> Output {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    cloister_image(&[
        "build",
        "--out",
        &at("out"),
        "--manifest",
        &at("manifest.toml"),
        "--kernel",
        &at("kernel.elf"),
    ])
}

#[test]
fn a_build_writes_two_containers_and_the_digests_that_they_give() {
    let folder = folder();
    let output = build(folder.path());
    assert!(output.status.success(), "{output:?}");
    let digests = fs::read_to_string(folder.path().join("out/digests.json")).unwrap();
    let digests: Value = serde_json::from_str(&digests).unwrap();
    assert_eq!(digests["image"]["name"], "cloister");
    assert_eq!(digests["weights_file"], "cloister-mini.gguf");
    // Two containers, three CPU types, 1 to 64 vCPUs.
    let machines = digests["launch_digests"].as_array().unwrap();
    assert_eq!(machines.len(), 2 * 3 * 64);
    for machine in machines.iter().filter(|machine| [1, 2, 64].contains(&machine["vcpus"].as_u64().unwrap()))
    {
        let container = machine["container"].as_str().unwrap();
        let image = folder.path().join("out/cloister").with_extension(container);
        let vcpus = machine["vcpus"].to_string();
        // Versions of a type are other features, and the same digest.
        for version in ["", "-v1"] {
            let cpu = format!("{}{version}", machine["cpu_type"].as_str().unwrap());
            let arguments = ["digest", image.to_str().unwrap(), "--vcpus", &vcpus, "--cpu-type", &cpu];
            let digest = format!("{}\n", machine["digest"].as_str().unwrap());
            let alone = String::from_utf8(cloister_image(&arguments).stdout).unwrap();
            assert_eq!(alone, digest, "{container} {vcpus} {cpu}");
        }
    }
    for container in ["rom", "igvm"] {
        let image = folder.path().join("out/cloister").with_extension(container);
        let shown = cloister_image(&["inspect", image.to_str().unwrap()]);
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains(digests["weights_root"].as_str().unwrap()), "{shown}");
        assert!(shown.contains(&format!("container {container}")), "{shown}");
    }
}

#[test]
fn a_digest_is_printed_alone() {
    let output = cloister_image(&["digest", VECTOR, "--vcpus", "1", "--cpu-type", "EPYC-Milan"]);
    // The first of tests/vectors/launch_digests.json.
    let digest =
        "502836b593098e80ae1df3ef70e9ec295c9f7af2405c6e118867d88c620570325136056949d81fe619bdd66cf1124260\n";
    assert_eq!((String::from_utf8(output.stdout).unwrap().as_str(), output.status.code()), (digest, Some(0)));
}

#[test]
fn each_kind_of_bad_input_has_its_code_and_says_what_is_wrong() {
    let changed = |name: &str, bytes: &[u8]| {
        let folder = folder();
        fs::write(folder.path().join(name), bytes).unwrap();
        let output = build(folder.path());
        assert!(!folder.path().join("out").exists(), "nothing is written before all is checked");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let model = model::gguf(Ending::Stops);
    let other = tempfile::tempdir().unwrap();
    let broken_igvm = other.path().join("image");
    fs::write(&broken_igvm, b"IGVM and no more").unwrap();
    for ((code, message), expected, part) in [
        (refusal(&["digest", "/nonexistent/rom"]), 7, "/nonexistent/rom"),
        (refusal(&["digest", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]), 6, "whole pages"),
        (refusal(&["digest", broken_igvm.to_str().unwrap()]), 6, "cloister.igvm"),
        (refusal(&["digest", VECTOR, "--cpu-type", "EPYC-Rome"]), 2, "EPYC-Genoa"),
        (refusal(&["digest", VECTOR, "--vcpus", "0"]), 2, "--vcpus"),
        (refusal(&["inspect", VECTOR]), 6, "copy table"),
        (refusal(&["build", "--out", "/nonexistent/out", "--manifest", "/nonexistent/m.toml"]), 4, "m.toml"),
        (changed("manifest.toml", b"[image]\nname = 5\n"), 4, "manifest.toml"),
        (changed("cloister-mini.gguf", &model[..model.len() - 1]), 5, "cloister-mini.gguf"),
        (changed("cloister-mini.gguf", b""), 5, "cloister-mini.gguf"),
        (changed("kernel.elf", b"#!/bin/sh\n"), 6, "ELF"),
        (changed("kernel.elf", &samples::kernel(&[0xf4; 0x1001])), 6, "linker script"),
    ] {
        assert_eq!(code, expected, "{message}");
        assert!(message.contains(part), "`{part}` in: {message}");
    }
}
