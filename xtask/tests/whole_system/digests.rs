//! One digest, from three independent programs. That any folder gives the same image is tested in `image-builder`.

use crate::fixture::Fixture;
use image_builder::checkout::Checkout;
use image_builder::tools;
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
    let tool = tools::sev_snp_measure(&Checkout::at(&build::root()).unwrap()).unwrap();
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
