//! The few kinds of CBOR item that evidence needs, in the one form that RFC 8949 §4.2.1 calls deterministic.
//!
//! Definite lengths and shortest heads only, so an item has one encoding, and reading never recurses or allocates.

#[cfg(feature = "read")]
pub(crate) mod read;

use alloc::vec::Vec;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        let bytes = value.to_be_bytes();
        let (info, argument) = match value {
            0..=23 => (value as u8, &bytes[8..]),
            24..=0xFF => (24, &bytes[7..]),
            0x100..=0xFFFF => (25, &bytes[6..]),
            0x1_0000..=0xFFFF_FFFF => (26, &bytes[4..]),
            _ => (27, &bytes[..]),
        };
        self.0.push(major | info);
        self.0.extend_from_slice(argument);
    }

    pub(crate) fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.head(BYTES, value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.head(TEXT, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn array(&mut self, items: u64) {
        self.head(ARRAY, items);
    }

    pub(crate) fn map(&mut self, entries: u64) {
        self.head(MAP, entries);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::read::{NotExpected, Reader};
    use super::*;
    use proptest::prelude::*;

    /// `{1: ["application/vnd.1", h'DEADBEEF']}`, from veraison/rust-cmw.
    const EXAMPLE: &[u8] = include_bytes!("../tests/data/cmw-collection-cbor-ok-2.cbor");

    #[test]
    fn the_example_of_another_project_is_written_and_read() {
        let mut w = Writer::default();
        w.map(1);
        w.unsigned(1);
        w.array(2);
        w.text("application/vnd.1");
        w.bytes(&[0xDE, 0xAD, 0xBE, 0xEF]);
        assert_eq!(w.finish(), EXAMPLE);

        let mut r = Reader(EXAMPLE);
        assert_eq!((r.map(), r.unsigned(), r.array()), (Ok(1), Ok(1), Ok(2)));
        assert_eq!(r.text(), Ok("application/vnd.1"));
        assert_eq!(r.bytes(), Ok(&[0xDE, 0xAD, 0xBE, 0xEF][..]));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn b5_heads_that_are_not_the_shortest_are_refused() {
        let longer: [&[u8]; 5] = [
            &[0x18, 23],
            &[0x19, 0, 0xFF],
            &[0x1A, 0, 0, 0xFF, 0xFF],
            &[0x1B, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x1F],
        ];
        for head in longer {
            assert_eq!(Reader(head).unsigned(), Err(NotExpected), "{head:02x?}");
        }
        assert_eq!(Reader(&[0x5F, 0x41, 0, 0xFF]).bytes(), Err(NotExpected), "indefinite length");
        assert_eq!(Reader(&[0x5B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]).bytes(), Err(NotExpected));
        assert_eq!(Reader(&[0x62, 0xFF, 0xFF]).text(), Err(NotExpected), "not UTF-8");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, bits in 0u32..64, bytes: Vec<u8>, text: String) {
            let number = number >> bits;
            let mut w = Writer::default();
            w.unsigned(number);
            w.bytes(&bytes);
            w.text(&text);
            let written = w.finish();
            let mut r = Reader(&written);
            prop_assert_eq!(r.unsigned(), Ok(number));
            prop_assert_eq!(r.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(r.text(), Ok(&text[..]));
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn b5_what_is_read_is_the_only_encoding(input: Vec<u8>) {
            let mut r = Reader(&input);
            if let Ok(value) = r.bytes() && r.finish().is_ok() {
                let mut w = Writer::default();
                w.bytes(value);
                prop_assert_eq!(w.finish(), input);
            }
        }
    }
}
