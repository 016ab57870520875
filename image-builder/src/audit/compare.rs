//! Where two images differ: in which part, under which symbol, at which offset.

use crate::firmware::Firmware;
use crate::layout::MANIFEST;
use object::{Object, ObjectSection, ObjectSymbol};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// Equal bytes between two differences that still count as one.
const GAP: usize = 16;
/// Differences that are listed; more are only counted.
const LISTED: usize = 20;
/// Bytes of each difference that are shown, and how many around it.
const SHOWN: usize = 32;
const AROUND: usize = 8;

/// The result of comparing two images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether every byte is the same.
    pub identical: bool,
    /// Bytes of the rebuilt image and of the published one.
    pub sizes: (usize, usize),
    /// Lines of the manifest, spelt out, or of the digests, that only the rebuilt image has (`-`) or only the published one (`+`).
    pub lines: Vec<String>,
    /// Where bytes differ, in the order of addresses; at most a few are listed.
    pub differences: Vec<Difference>,
    /// How many places differ, those not listed included.
    pub places: usize,
    /// Bytes that differ in each part.
    pub by_section: BTreeMap<String, usize>,
}

/// One place where the images differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Part of the image: a section of the kernel, `manifest`, `boot code and tables`, or `file` where a published file is
    /// not a ROM.
    pub section: String,
    /// Symbol of the rebuilt kernel that covers the place, and how far into it.
    pub symbol: Option<(String, u64)>,
    /// Guest-physical address, for what is copied to RAM.
    pub address: Option<u64>,
    /// Offset in the rebuilt file.
    pub offset: usize,
    /// Bytes that differ here.
    pub bytes: usize,
    /// First bytes of the rebuilt image with what stands around them, in hexadecimal and as text.
    pub rebuilt: (String, String),
    /// First bytes of the published one.
    pub published: (String, String),
}

/// A run of bytes with one name, at an address in guest memory or an offset in the file.
struct Part<'a> {
    section: String,
    address: Option<u64>,
    offset: usize,
    bytes: &'a [u8],
}

/// Compares two ROMs; `kernel` is the rebuilt one's ELF, for the names.
pub fn roms(rebuilt: &[u8], published: &[u8], kernel: &[u8]) -> Comparison {
    let mut result = Comparison { sizes: (rebuilt.len(), published.len()), ..Comparison::default() };
    if rebuilt == published {
        result.identical = true;
        return result;
    }
    let names = Names::of(kernel);
    let (Some(ours), Some(theirs)) = (parts(rebuilt), parts(published)) else {
        return files(rebuilt, published);
    };
    result.lines = manifests(rebuilt, published);
    for our in &ours {
        let same_place = |their: &&Part| their.address == our.address && their.section == our.section;
        match theirs.iter().find(same_place) {
            Some(their) => result.add(our, their, &names),
            None => result.add(our, &Part { bytes: &[], section: String::new(), ..*our }, &names),
        }
    }
    for their in &theirs {
        if !ours.iter().any(|our| our.address == their.address && our.section == their.section) {
            result.add(&Part { bytes: &[], section: their.section.clone(), ..*their }, their, &names);
        }
    }
    result
}

/// Compares two files that are no ROMs: all there is to say is where they part.
pub fn files(rebuilt: &[u8], published: &[u8]) -> Comparison {
    let mut result = Comparison { sizes: (rebuilt.len(), published.len()), ..Comparison::default() };
    result.identical = rebuilt == published;
    if !result.identical {
        let whole = |bytes| Part { section: "file".into(), address: None, offset: 0, bytes };
        result.add(&whole(rebuilt), &whole(published), &Names::of(&[]));
    }
    result
}

/// Compares two files of digests line by line, where there is no image to compare.
pub fn texts(rebuilt: &str, published: &str) -> Comparison {
    let only = lines_that_differ(rebuilt, published);
    Comparison {
        identical: rebuilt == published,
        sizes: (rebuilt.len(), published.len()),
        places: only.len(),
        lines: only,
        ..Comparison::default()
    }
}

/// What a ROM consists of: each run that is copied to RAM, then the last page. `None` if it is not a ROM.
fn parts(rom: &[u8]) -> Option<Vec<Part<'_>>> {
    let firmware = Firmware::parse(rom).ok()?;
    let mut parts = Vec::new();
    let mut end = 0;
    for (offset, address, length) in firmware.copies().ok()? {
        let section = if address == MANIFEST.start { "manifest" } else { "kernel" };
        parts.push(Part {
            section: section.into(),
            address: Some(address.into()),
            offset,
            bytes: rom.get(offset..offset + length)?,
        });
        end = end.max(offset + length);
    }
    let start = parts.iter().map(|part| part.offset).min()?;
    parts.push(Part { section: "padding".into(), address: None, offset: 0, bytes: &rom[..start] });
    parts.push(Part {
        section: "boot code and tables".into(),
        address: None,
        offset: end,
        bytes: &rom[end..],
    });
    Some(parts)
}

/// The lines in which the two manifests differ, spelt out.
fn manifests(rebuilt: &[u8], published: &[u8]) -> Vec<String> {
    let spelt = |rom| {
        let manifest = Firmware::parse(rom).and_then(|firmware| firmware.manifest());
        manifest.map(|manifest| format!("{manifest:#?}")).unwrap_or_default()
    };
    lines_that_differ(&spelt(rebuilt), &spelt(published))
}

fn lines_that_differ(ours: &str, theirs: &str) -> Vec<String> {
    let only = |mark: char, here: &str, there: &str| -> Vec<String> {
        let there: Vec<&str> = there.lines().collect();
        here.lines()
            .filter(|line| !there.contains(line))
            .map(|line| format!("{mark} {}", line.trim()))
            .collect()
    };
    [only('-', ours, theirs), only('+', theirs, ours)].concat()
}

impl Comparison {
    fn add(&mut self, ours: &Part, theirs: &Part, names: &Names) {
        let length = ours.bytes.len().max(theirs.bytes.len());
        let differs = |place: usize| ours.bytes.get(place) != theirs.bytes.get(place);
        let mut place = 0;
        while place < length {
            if !differs(place) {
                place += 1;
                continue;
            }
            let start = place;
            let mut end = place + 1;
            while place < length && place < end + GAP {
                if differs(place) {
                    end = place + 1;
                }
                place += 1;
            }
            self.note(ours, theirs, start..end, names);
        }
    }

    fn note(&mut self, ours: &Part, theirs: &Part, range: std::ops::Range<usize>, names: &Names) {
        let address = ours.address.map(|address| address + range.start as u64);
        let section = match address {
            Some(address) if ours.section == "kernel" => {
                names.section(address).unwrap_or("kernel").to_owned()
            }
            _ => ours.section.clone(),
        };
        self.places += 1;
        *self.by_section.entry(section.clone()).or_default() += range.len();
        if self.differences.len() < LISTED {
            self.differences.push(Difference {
                section,
                symbol: address.and_then(|address| names.symbol(address)),
                address,
                offset: ours.offset + range.start,
                bytes: range.len(),
                rebuilt: shown(ours.bytes, &range),
                published: shown(theirs.bytes, &range),
            });
        }
    }
}

/// The first bytes of a range with what stands around it, in hexadecimal and as text.
fn shown(bytes: &[u8], range: &std::ops::Range<usize>) -> (String, String) {
    let end = (range.end.min(range.start + SHOWN) + AROUND).min(bytes.len());
    let bytes = bytes.get(range.start.saturating_sub(AROUND)..end).unwrap_or_default();
    let text =
        bytes.iter().map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { byte.into() } else { '.' });
    (hex::encode(bytes), text.collect())
}

/// The names in the rebuilt kernel's ELF.
struct Names {
    sections: Vec<(u64, u64, String)>,
    symbols: BTreeMap<u64, (u64, String)>,
}

impl Names {
    fn of(kernel: &[u8]) -> Self {
        let mut names = Self { sections: Vec::new(), symbols: BTreeMap::new() };
        let Ok(file) = object::File::parse(kernel) else { return names };
        for section in file.sections().filter(|section| section.address() != 0) {
            let name = section.name().unwrap_or_default().to_owned();
            names.sections.push((section.address(), section.address() + section.size(), name));
        }
        for symbol in file.symbols().filter(|symbol| symbol.size() != 0) {
            let name = format!("{:#}", rustc_demangle::demangle(symbol.name().unwrap_or_default()));
            names.symbols.insert(symbol.address(), (symbol.size(), name));
        }
        names
    }

    fn section(&self, address: u64) -> Option<&str> {
        let found = self.sections.iter().find(|(start, end, _)| (*start..*end).contains(&address));
        found.map(|(_, _, name)| name.as_str())
    }

    fn symbol(&self, address: u64) -> Option<(String, u64)> {
        let (start, (size, name)) = self.symbols.range(..=address).next_back()?;
        (address < start + size).then(|| (name.clone(), address - start))
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.identical {
            return writeln!(f, "identical");
        }
        writeln!(f, "different: {} places", self.places)?;
        if self.sizes.0 != self.sizes.1 {
            writeln!(f, "rebuilt {} bytes, published {} bytes", self.sizes.0, self.sizes.1)?;
        }
        for (section, bytes) in &self.by_section {
            writeln!(f, "  {section}: {bytes} bytes differ")?;
        }
        if !self.lines.is_empty() {
            writeln!(f, "manifest, digests or entry (- rebuilt, + published):")?;
            self.lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        for place in &self.differences {
            write!(f, "at offset {:#x}", place.offset)?;
            if let Some(address) = place.address {
                write!(f, ", address {address:#x}")?;
            }
            write!(f, ", {}", place.section)?;
            match &place.symbol {
                Some((name, into)) => writeln!(f, ", {name} + {into:#x}: {} bytes", place.bytes)?,
                None => writeln!(f, ", under no symbol: {} bytes", place.bytes)?,
            }
            writeln!(f, "  rebuilt   {}  {}", place.rebuilt.0, place.rebuilt.1)?;
            writeln!(f, "  published {}  {}", place.published.0, place.published.1)?;
        }
        if !self.differences.is_empty() && self.places > self.differences.len() {
            writeln!(f, "and {} places more", self.places - self.differences.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn rom() -> (Vec<u8>, Vec<u8>) {
        let kernel = samples::kernel(&[0x90; 64]);
        (crate::rom::build(&kernel, &samples::manifest()).unwrap(), kernel)
    }

    #[test]
    fn the_same_bytes_are_identical() {
        let (rom, kernel) = rom();
        assert_eq!(roms(&rom, &rom, &kernel).to_string(), "identical\n");
    }

    #[test]
    fn a_byte_of_each_part_is_named() {
        let (rom, kernel) = rom();
        let firmware = Firmware::parse(&rom).unwrap();
        let copies = firmware.copies().unwrap();
        let manifest = copies.iter().find(|(_, address, _)| *address == MANIFEST.start).unwrap().0;
        let code = copies.iter().find(|(_, address, _)| *address != MANIFEST.start).unwrap();
        let ends = copies.iter().map(|(offset, _, length)| offset + length).max().unwrap();
        for (offset, section, address) in [
            (0, "padding", None),
            (manifest + 10, "manifest", Some(u64::from(MANIFEST.start) + 10)),
            // This kernel's ELF names no sections.
            (code.0, "kernel", Some(u64::from(code.1))),
            (ends + 40, "boot code and tables", None),
        ] {
            let mut published = rom.clone();
            published[offset] ^= 1;
            let comparison = roms(&rom, &published, &kernel);
            assert_eq!((comparison.identical, comparison.places), (false, 1), "{comparison}");
            let place = &comparison.differences[0];
            assert_eq!(
                (place.section.as_str(), place.address, place.bytes),
                (section, address, 1),
                "{comparison}"
            );
            assert_eq!(place.offset, offset);
        }
    }

    #[test]
    fn a_file_that_is_no_rom_and_one_of_another_length_are_compared_as_files() {
        let (rom, kernel) = rom();
        let comparison = roms(&rom, b"not a ROM", &kernel);
        assert_eq!((comparison.identical, comparison.sizes), (false, (rom.len(), 9)));
        assert!(comparison.differences.iter().all(|place| place.section == "file"));
        assert!(!roms(&rom, &rom[..rom.len() - 1], &kernel).identical);
    }
}
