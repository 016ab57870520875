//! Hands the linker script to the linker, for the image only.

const OPTIONS: [&str; 12] = [
    "-static",
    "--no-dynamic-linker",
    "--gc-sections",
    // Functions with the same instructions are one; no code compares addresses of functions.
    "--icf=all",
    "--build-id=none",
    "-z",
    "noexecstack",
    "-z",
    "max-page-size=4096",
    "--no-undefined",
    "--orphan-handling=error",
    "--strip-debug",
];

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    if std::env::var_os("CARGO_FEATURE_FREESTANDING").is_none() {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg-bins=--script={folder}/link.ld");
    for option in OPTIONS {
        println!("cargo::rustc-link-arg-bins={option}");
    }
}
