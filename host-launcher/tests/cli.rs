//! `cloister-launch` as a command: what it says and returns when a guest cannot be started.

use image_builder::rom;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

#[path = "../../image-builder/tests/samples/mod.rs"]
mod samples;

/// A folder with an image and weights that could be started.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rom = rom::build(&samples::kernel(&[0xf4]), &samples::manifest()).unwrap();
    fs::write(folder.path().join("cloister.rom"), rom).unwrap();
    fs::write(folder.path().join("model.gguf"), "GGUF").unwrap();
    folder
}

fn launch(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister-launch"))
        .current_dir(folder)
        .args(["run", "--image", "cloister.rom", "--weights", "model.gguf"])
        .args(more)
        .output()
        .unwrap()
}

fn refusal(output: Output) -> (i32, String) {
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!message.is_empty() && !message.contains("panicked"), "{message}");
    (output.status.code().unwrap(), message)
}

#[test]
fn each_kind_of_bad_input_has_its_code_and_says_what_is_wrong() {
    let model = ["--platform", "model", "--listen", "127.0.0.1:0"];
    let with = |more: &[&str]| refusal(launch(folder().path(), &[&model[..], more].concat()));
    let changed = |name: &str, bytes: Option<&[u8]>| {
        let folder = folder();
        let path = folder.path().join(name);
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        refusal(launch(folder.path(), &model))
    };
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for ((code, message), expected, part) in [
        (changed("cloister.rom", None), 4, "cloister.rom"),
        (changed("cloister.rom", Some(b"")), 4, "empty"),
        (changed("cloister.rom", Some(&[0; 8192])), 4, "cloister-image build"),
        (changed("model.gguf", None), 4, "model.gguf"),
        (changed("model.gguf", Some(b"")), 4, "empty"),
        (with(&["--memory", "512"]), 4, "1024"),
        (with(&["--vcpus", "65"]), 2, "--vcpus"),
        (with(&["--cpu-type", "EPYC-Rome"]), 2, "EPYC-Genoa"),
        (refusal(launch(folder().path(), &["--platform", "model", "--listen", &taken])), 5, &taken),
        (refusal(launch(folder().path(), &["--platform", "snp", "--hostile", "a6-remap"])), 2, "--hostile"),
    ] {
        assert_eq!(code, expected, "{message}");
        assert!(message.contains(part), "`{part}` in: {message}");
    }
}

#[test]
fn without_qemu_the_package_to_install_is_named() {
    let folder = folder();
    let output = Command::new(env!("CARGO_BIN_EXE_cloister-launch"))
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .args(["run", "--platform", "model", "--image", "cloister.rom", "--weights", "model.gguf"])
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let (code, message) = refusal(output);
    assert_eq!(code, 3, "{message}");
    assert!(message.contains("apt install qemu-system-x86"), "{message}");
}

#[test]
fn what_qemu_refuses_is_passed_on() {
    let folder = folder();
    fs::write(folder.path().join("no-model.elf"), "no ELF file").unwrap();
    let more =
        ["--platform", "model", "--listen", "127.0.0.1:0", "--state", "state", "--snp-model", "no-model.elf"];
    let (code, message) = refusal(launch(folder.path(), &more));
    assert_eq!(code, 13, "{message}");
    assert!(message.contains("QEMU ended with status 1"), "{message}");
}

#[test]
fn a_command_can_be_printed_on_a_host_that_cannot_run_it() {
    let output =
        launch(folder().path(), &["--platform", "snp", "--listen", "127.0.0.1:0", "--print-command"]);
    let command = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && command.contains("sev-snp-guest"), "{command}");
}
