//! Fuzz targets for everything that the guest reads from its host, and for what clients, relays, gateways, issuers and
//! builders read from anybody.
//!
//! A target is an ordinary function of bytes: it panics if the guest's code does, or if that code believes something that
//! it must not. `cargo ci` runs all of them over the kept corpus and over mutations of it with a fixed seed
//! (`tests/corpus.rs`); libFuzzer runs them for as long as one likes (`libfuzzer/`).
#![forbid(unsafe_code)]

mod bytes;
mod device;
#[cfg(feature = "outside")]
mod evidence;
mod ghcb;
#[cfg(feature = "outside")]
mod log;
mod message;
mod model;
mod pages;
#[cfg(feature = "outside")]
mod privacy;
#[cfg(feature = "outside")]
mod template;
mod text;
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
    Target { name: "tokenizer", run: text::tokenizer, seeds: text::tokenizer_seeds },
    #[cfg(feature = "outside")]
    Target { name: "template", run: template::run, seeds: template::seeds },
    #[cfg(feature = "outside")]
    Target { name: "evidence", run: evidence::evidence, seeds: evidence::evidence_seeds },
    #[cfg(feature = "outside")]
    Target { name: "certificate", run: evidence::certificate, seeds: evidence::certificate_seeds },
    #[cfg(feature = "outside")]
    Target { name: "log_entry", run: log::entry, seeds: log::entry_seeds },
    #[cfg(feature = "outside")]
    Target { name: "log_proof", run: log::proof, seeds: log::proof_seeds },
    #[cfg(feature = "outside")]
    Target { name: "bhttp", run: privacy::bhttp, seeds: privacy::bhttp_seeds },
    #[cfg(feature = "outside")]
    Target { name: "ohttp_keys", run: privacy::ohttp_keys, seeds: privacy::ohttp_key_seeds },
    #[cfg(feature = "outside")]
    Target { name: "ohttp_exchange", run: privacy::ohttp_exchange, seeds: privacy::ohttp_exchange_seeds },
    #[cfg(feature = "outside")]
    Target { name: "token", run: privacy::token, seeds: privacy::token_seeds },
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or if the target finds what it looks for.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target is called {name}")).run)(data);
}
