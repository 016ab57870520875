//! The same source in another folder gives the same image.
//!
//! The second folder is kept between runs below the target folder, so that only the first run builds all of it.

mod samples;

use image_builder::checkout::Checkout;
use image_builder::freestanding::{self, Program};
use image_builder::rom;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// What lies in a checkout's root folder but is no source.
const NOT_SOURCES: [&str; 3] = ["target", "out", ".git"];

/// Makes `to` a copy of `from`; files that are the same already stay untouched, for cargo looks at their times.
fn mirror(from: &Path, to: &Path, left_out: &[&str]) {
    fs::create_dir_all(to).unwrap();
    let names = |folder: &Path| -> BTreeSet<OsString> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| !left_out.iter().any(|other| name == other)).collect()
    };
    let wanted = names(from);
    for name in names(to).difference(&wanted) {
        let path = to.join(name);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    for name in wanted {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            mirror(&from, &to, &[]);
        } else if fs::read(&from).ok() != fs::read(&to).ok() {
            fs::copy(&from, &to).unwrap();
        }
    }
}

#[test]
fn two_folders_give_the_same_rom() {
    let here = Checkout::find().unwrap();
    let folder = here.target().join("another folder");
    mirror(here.root(), &folder, &NOT_SOURCES);
    let there = Checkout::at(&folder).unwrap();

    let rom_of = |kernel: &Path| rom::build(&fs::read(kernel).unwrap(), &samples::manifest()).unwrap();
    let mine = freestanding::build(Program::Kernel).unwrap_or_else(|error| panic!("{error}"));
    let other = freestanding::build_in(&there, Program::Kernel, &folder.join("target/elsewhere"))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(mine, other);
    assert!(
        rom_of(&mine) == rom_of(&other),
        "{} and {} give different ROMs",
        mine.display(),
        other.display()
    );

    let rom = rom_of(&mine);
    for path in [here.root(), &folder] {
        let path = path.to_str().unwrap().as_bytes();
        assert!(!rom.windows(path.len()).any(|part| part == path), "the ROM holds a path of this machine");
    }
}
