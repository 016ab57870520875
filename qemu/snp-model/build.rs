//! Hands the linker script of the hypervisor to the linker; ordinary host builds need none.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link.ld");
    if std::env::var_os("CARGO_FEATURE_FREESTANDING").is_none() {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    println!("cargo::rustc-link-arg-bins=--script={folder}/link.ld");
    for argument in [
        "-static",
        "--no-dynamic-linker",
        "--gc-sections",
        "--build-id=none",
        "-znoexecstack",
        "-zmax-page-size=4096",
        "--no-undefined",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
