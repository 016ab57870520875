//! How many bytes of the image each crate takes, by the symbols of the kernel's ELF.
//!
//! A symbol counts for the crate in which it was written: a generic function of `rustls` counts for `rustls`, whoever
//! uses it. What the linker inlined counts for where it was inlined to. Constants without a name count for nobody.

use super::TcbError;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The bytes of the kernel's sections.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    /// By crate, the toolchain's `core`, `alloc` and `compiler_builtins` among them.
    pub by_crate: BTreeMap<String, u64>,
    /// By section: what is loaded from the image.
    pub sections: BTreeMap<String, u64>,
    /// In those sections, but under no symbol that names a crate: constants, strings, tables of addresses, padding.
    pub unnamed: u64,
}

/// Reads the symbols of `elf`; `crates` are the names that count.
pub fn read(elf: &[u8], crates: &BTreeSet<String>) -> Result<Bytes, TcbError> {
    let unreadable = |error: object::Error| TcbError::Kernel(error.to_string());
    let file = object::File::parse(elf).map_err(unreadable)?;
    let mut bytes = Bytes::default();
    let mut loaded = HashSet::new();
    for section in file.sections() {
        let kind = section.kind();
        if matches!(
            kind,
            SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString | SectionKind::Data
        ) {
            loaded.insert(section.index());
            *bytes.sections.entry(section.name().map_err(unreadable)?.to_owned()).or_default() +=
                section.size();
        }
    }
    let mut seen = BTreeSet::new();
    for symbol in file.symbols() {
        let inside = symbol.section_index().is_some_and(|index| loaded.contains(&index));
        // Two names may stand for the same bytes.
        if !inside || symbol.size() == 0 || !seen.insert(symbol.address()) {
            continue;
        }
        let name = symbol.name().map_err(unreadable)?;
        if let Some(owner) = owner(&format!("{:#}", rustc_demangle::demangle(name)), crates) {
            *bytes.by_crate.entry(owner).or_default() += symbol.size();
        }
    }
    let named: u64 = bytes.by_crate.values().sum();
    bytes.unnamed = bytes.sections.values().sum::<u64>().saturating_sub(named);
    Ok(bytes)
}

/// The first crate that a symbol's path names: for `<a::B as c::D>::e` that is `a`, for `<T as c::D>::e` it is `c`.
fn owner(name: &str, crates: &BTreeSet<String>) -> Option<String> {
    let mut rest = name;
    while let Some(at) = rest.find("::") {
        let before = &rest[..at];
        let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |place| place + 1);
        if crates.contains(&before[start..]) {
            return Some(before[start..].to_owned());
        }
        rest = &rest[at + 2..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_belongs_to_the_crate_it_names_first() {
        let crates = ["core", "rustls", "cipher"].map(String::from).into();
        for (name, crate_name) in [
            ("rustls::conn::f", Some("rustls")),
            ("<rustls::hs::A as core::fmt::Debug>::fmt", Some("rustls")),
            ("<&Alg as cipher::block::Encrypt>::encrypt", Some("cipher")),
            ("core::ptr::drop_in_place<rustls::A>", Some("core")),
            ("memcpy", None),
            ("a::core", None),
        ] {
            assert_eq!(owner(name, &crates).as_deref(), crate_name, "{name}");
        }
    }
}
