//! `cloister-image`: builds the image and computes its launch digests.
#![forbid(unsafe_code)]

use image_builder::freestanding::{self, Program};

fn main() {
    match freestanding::build(Program::Kernel) {
        Ok(path) => println!("{}", path.display()),
        Err(error) => eprintln!("cloister-image: {error}"),
    }
}
