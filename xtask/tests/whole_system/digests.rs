//! One digest, from three independent programs, in any folder.

use crate::fixture::Fixture;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use xtask::build;

fn digest(rom: &Path, vcpus: &str, cpu_type: &str) -> String {
    let output = Command::new(build::program("cloister-image").unwrap())
        .arg("digest")
        .arg(rom)
        .args(["--vcpus", vcpus, "--cpu-type", cpu_type])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(hex::decode(printed.trim()).unwrap().len(), 48);
    printed.trim().to_owned()
}

#[test]
fn the_model_measures_what_the_builder_computes() {
    let fixture = Fixture::get();
    let (mut guest, _) = fixture.boot(&[]);
    let line = guest.wait_for("launch digest", Duration::from_secs(10)).unwrap();
    let expected = digest(&fixture.rom(), "1", "EPYC-Genoa");
    assert!(line.contains(&expected), "{line} does not contain {expected}");
}

#[test]
fn sev_snp_measure_computes_the_same_digests() {
    let fixture = Fixture::get();
    let tool = image_builder::tools::sev_snp_measure().unwrap();
    for cpu_type in ["EPYC-Milan", "EPYC-Genoa"] {
        for vcpus in ["1", "2", "4", "8"] {
            let output = Command::new(&tool)
                .args([
                    "--mode",
                    "snp",
                    "--vmm-type",
                    "QEMU",
                    "--guest-features",
                    "0x1",
                    "--output-format",
                    "hex",
                ])
                .args(["--vcpus", vcpus, "--vcpu-type", cpu_type, "--ovmf"])
                .arg(fixture.rom())
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let theirs = String::from_utf8(output.stdout).unwrap();
            assert_eq!(theirs.trim(), digest(&fixture.rom(), vcpus, cpu_type), "{cpu_type}, {vcpus} vCPUs");
        }
    }
}

#[test]
fn two_folders_give_the_same_image() {
    let fixture = Fixture::get();
    let elsewhere = tempfile::tempdir().unwrap();
    let checkout = elsewhere.path().join("another folder");
    // Committed and uncommitted files alike: what is tested is this tree.
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(build::root())
        .output()
        .unwrap();
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(name).unwrap();
        let from = build::root().join(name);
        if from.is_file() {
            let to = checkout.join(name);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from, to).unwrap();
        }
    }
    let out = elsewhere.path().join("out");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "-q", "--release", "--locked", "-p", "image-builder", "--", "build", "--out"])
        .arg(&out)
        .current_dir(&checkout)
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .unwrap();
    assert!(status.success());
    let here = std::fs::read(fixture.rom()).unwrap();
    let there = std::fs::read(out.join("cloister.rom")).unwrap();
    assert!(here == there, "the images of two folders differ");
}
