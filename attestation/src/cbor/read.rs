//! Reading: only the shortest form of each item, without recursion or allocation.

use super::{ARRAY, BYTES, MAP, TEXT, UNSIGNED};

/// The bytes are not the item that was expected, in its deterministic form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotExpected;

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
