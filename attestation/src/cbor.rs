//! The few kinds of CBOR item that evidence needs, in the one form that RFC 8949 §4.2.1 calls deterministic.
//!
//! Definite lengths and shortest heads only, so an item has one encoding, and reading never recurses or allocates.

use alloc::vec::Vec;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// The bytes are not the item that was expected, in its deterministic form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotExpected;

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

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], NotExpected> {
        let length = usize::try_from(length).map_err(|_| NotExpected)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NotExpected)?;
        self.0 = rest;
        Ok(taken)
    }

    fn head(&mut self, major: u8) -> Result<u64, NotExpected> {
        let &[first] = self.take(1)? else { return Err(NotExpected) };
        if first >> 5 != major {
            return Err(NotExpected);
        }
        let info = first & 0x1F;
        let (width, least) = match info {
            0..=23 => return Ok(info.into()),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return Err(NotExpected),
        };
        let value = self.take(width)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        if value >= least { Ok(value) } else { Err(NotExpected) }
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, NotExpected> {
        self.head(UNSIGNED)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], NotExpected> {
        let length = self.head(BYTES)?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, NotExpected> {
        let length = self.head(TEXT)?;
        core::str::from_utf8(self.take(length)?).map_err(|_| NotExpected)
    }

    pub(crate) fn array(&mut self) -> Result<u64, NotExpected> {
        self.head(ARRAY)
    }

    pub(crate) fn map(&mut self) -> Result<u64, NotExpected> {
        self.head(MAP)
    }

    pub(crate) fn finish(self) -> Result<(), NotExpected> {
        if self.0.is_empty() { Ok(()) } else { Err(NotExpected) }
    }
}
