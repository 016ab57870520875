//! One digest, from three independent programs. That any folder gives the same image is tested in `image-builder`.

use crate::fixture::{Fixture, cloister};
use image_builder::checkout::Checkout;
use image_builder::tools;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use xtask::guest::Guest;
use xtask::{build, guest, manifest};

/// The machines for which the outside tools are asked.
const CPU_TYPES: [&str; 3] = ["EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"];
const VCPUS: &str = "1,2,4,8,64";

/// vCPUs that the default manifest asks for.
fn manifest_vcpus() -> String {
    manifest::vcpus().unwrap().to_string()
}

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
    let expected = digest(&fixture.rom(), &manifest_vcpus(), "EPYC-Genoa");
    assert!(line.contains(&expected), "{line} does not contain {expected}");
}

/// The other container reaches the same guest: it boots, listens, and its report has the IGVM file's digest.
#[test]
fn the_igvm_boots_and_reports_its_own_digest() {
    let fixture = Fixture::get();
    let weights = build::weights();
    let start = fixture.start_image(&fixture.igvm(), &weights, &fixture.state(), &[]);
    let mut guest = Guest::boot(&start).unwrap();
    let policy = guest::policy(&fixture.folder, Some(&fixture.root())).unwrap();
    let expected = digest(&fixture.igvm(), &manifest_vcpus(), "EPYC-Genoa");
    assert_ne!(expected, digest(&fixture.rom(), &manifest_vcpus(), "EPYC-Genoa"));
    let line = guest.wait_for("launch digest", Duration::from_secs(10)).unwrap();
    assert!(line.contains(&expected), "{line} does not contain {expected}");

    let arguments = ["verify", "--server", &guest.server(), "--policy", policy.to_str().unwrap(), "--json"];
    let verified = cloister(&arguments);
    let shown = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{shown}{}", String::from_utf8_lossy(&verified.stderr));
    assert!(shown.contains(&expected), "{shown} does not contain {expected}");
    guest.stop().unwrap();
}

#[test]
fn sev_snp_measure_computes_the_same_digests_of_the_rom() {
    let fixture = Fixture::get();
    let tool = tools::sev_snp_measure(&Checkout::at(&build::root()).unwrap()).unwrap();
    for cpu_type in CPU_TYPES {
        for vcpus in VCPUS.split(',') {
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

/// sev-snp-measure reads no IGVM files: `igvm_digest.py` reads it the pages and says what KVM adds for further vCPUs.
#[test]
fn sev_snp_measure_computes_the_same_digests_of_the_igvm() {
    let fixture = Fixture::get();
    let tool = tools::sev_snp_measure(&Checkout::at(&build::root()).unwrap()).unwrap();
    let output = Command::new(tool.with_file_name("python"))
        .arg(build::root().join("image-builder/tests/vectors/igvm_digest.py"))
        .arg(fixture.igvm())
        .args([VCPUS, &CPU_TYPES.join(",")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(theirs.lines().count(), 15);
    for line in theirs.lines() {
        let [cpu_type, vcpus, digest_of] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(digest_of, digest(&fixture.igvm(), vcpus, cpu_type), "{cpu_type}, {vcpus} vCPUs");
    }
}

/// What QEMU's library would see, by the tool of the people who maintain QEMU's IGVM support.
#[test]
fn igvm_inspect_reads_what_was_written() {
    let fixture = Fixture::get();
    let tool = tools::igvm_inspect(&Checkout::at(&build::root()).unwrap()).unwrap();
    let output = Command::new(tool).arg(fixture.igvm()).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    let policy = format!(
        "initialization: policy {:#x}, compat 0x1 [SEV_SNP]",
        attestation::report::GuestPolicy::CLOISTER.0
    );
    assert_eq!(lines[0], "platform: SEV_SNP, compat 0x1");
    assert_eq!(lines[1], policy);
    assert_eq!(lines[2], "SnpVpContext: pm32, eip 0x200000, compat 0x1 [SEV_SNP]");
    let pages: Vec<&str> = lines.into_iter().filter(|line| line.contains("type ")).collect();
    let page = |gpa: u32, kind: &str| format!("PageData: gpa {gpa:#x}, type {kind}, compat 0x1 [SEV_SNP]");
    assert_eq!(
        pages,
        [
            page(0x10_0000, "CPUID_DATA, flags 4k, empty"),
            page(0x10_1000, "SECRETS, flags 4k, empty"),
            page(0x10_2000, "NORMAL, flags 4k"),
            page(0x18_0000, "NORMAL, flags 4k"),
            page(0x20_0000, "NORMAL, flags 4k"),
        ]
    );
}
