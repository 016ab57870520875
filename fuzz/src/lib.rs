//! Fuzz targets for everything that the guest reads from its host.
//!
//! A target is an ordinary function of bytes: it panics if the guest's code does, or if that code believes something that
//! it must not. `cargo ci` runs all of them over the kept corpus and over mutations of it with a fixed seed
//! (`tests/corpus.rs`); libFuzzer runs them for as long as one likes (`libfuzzer/`).
#![forbid(unsafe_code)]

mod bytes;
mod device;
mod ghcb;
mod message;
mod model;
mod pages;
mod virtio;

/// One target.
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
    /// Inputs that it is known to do something with: where mutation begins.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "ghcb", run: ghcb::page, seeds: ghcb::page_seeds },
    Target { name: "ghcb_msr", run: ghcb::msr, seeds: ghcb::msr_seeds },
    Target { name: "guest_message", run: message::run, seeds: message::seeds },
    Target { name: "cpuid_page", run: pages::cpuid, seeds: pages::cpuid_seeds },
    Target { name: "manifest", run: pages::manifest, seeds: pages::manifest_seeds },
    Target { name: "certificate_table", run: pages::certificates, seeds: pages::certificate_seeds },
    Target { name: "weights", run: pages::weights, seeds: pages::weights_seeds },
    Target { name: "model", run: model::run, seeds: model::seeds },
    Target { name: "pci_config", run: virtio::pci, seeds: virtio::pci_seeds },
    Target { name: "virtio_block", run: virtio::block, seeds: virtio::seeds },
    Target { name: "virtio_network", run: virtio::network, seeds: virtio::seeds },
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or if the target finds what it looks for.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target is called {name}")).run)(data);
}
