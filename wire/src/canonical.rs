//! Canonical encoding: every field is its length (`u32`, little-endian) and then its bytes, in a fixed order.
//!
//! Two different values never encode to the same bytes, and one value has one encoding, so a digest of the
//! encoding names the value.

use alloc::vec::Vec;

/// Writes fields one after the other.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Starts with `label`, so that no encoding of one kind is ever read as another.
    pub fn new(label: &str) -> Self {
        let mut writer = Self::default();
        writer.bytes(label.as_bytes());
        writer
    }

    /// Appends one field.
    ///
    /// # Panics
    /// If the field is 4 GiB or longer, which no caller's limits allow.
    pub fn bytes(&mut self, field: &[u8]) -> &mut Self {
        let length = u32::try_from(field.len()).expect("field shorter than 4 GiB");
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(field);
        self
    }

    /// Appends a number as 8 bytes, little-endian.
    pub fn number(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends token ids as one field of 4 bytes each, little-endian.
    pub fn tokens(&mut self, tokens: &[u32]) -> &mut Self {
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// The encoding.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The bytes are not a canonical encoding of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCanonical;

/// Reads fields in the order in which they were written.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts reading; the first field must be `label`.
    pub fn new(bytes: &'a [u8], label: &str) -> Result<Self, NotCanonical> {
        let mut reader = Self(bytes);
        if reader.bytes()? == label.as_bytes() { Ok(reader) } else { Err(NotCanonical) }
    }

    /// The next field.
    pub fn bytes(&mut self) -> Result<&'a [u8], NotCanonical> {
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or(NotCanonical)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| NotCanonical)?;
        let (field, rest) = rest.split_at_checked(length).ok_or(NotCanonical)?;
        self.0 = rest;
        Ok(field)
    }

    /// The next field, which must have `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], NotCanonical> {
        self.bytes()?.try_into().map_err(|_| NotCanonical)
    }

    /// The next field as a number that fits `T`.
    pub fn number<T: TryFrom<u64>>(&mut self) -> Result<T, NotCanonical> {
        T::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| NotCanonical)
    }

    /// The next field as UTF-8 text.
    pub fn text(&mut self) -> Result<&'a str, NotCanonical> {
        core::str::from_utf8(self.bytes()?).map_err(|_| NotCanonical)
    }

    /// The next field as token ids.
    pub fn tokens(&mut self) -> Result<Vec<u32>, NotCanonical> {
        let (chunks, rest) = self.bytes()?.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(NotCanonical);
        }
        Ok(chunks.iter().map(|c| u32::from_le_bytes(*c)).collect())
    }

    /// Ends reading; nothing may be left.
    pub fn finish(self) -> Result<(), NotCanonical> {
        if self.0.is_empty() { Ok(()) } else { Err(NotCanonical) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: Vec<u8>, number: u64, tokens: Vec<u32>, text: String) {
            let mut w = Writer::new("label");
            w.bytes(&bytes).number(number).tokens(&tokens).bytes(text.as_bytes());
            let encoded = w.finish();
            let mut r = Reader::new(&encoded, "label").unwrap();
            prop_assert_eq!(r.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(r.number::<u64>(), Ok(number));
            prop_assert_eq!(r.tokens(), Ok(tokens));
            prop_assert_eq!(r.text(), Ok(&text[..]));
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn b7_fields_cannot_be_moved_into_each_other(fields: Vec<Vec<u8>>, others: Vec<Vec<u8>>) {
            let encode = |fields: &[Vec<u8>]| {
                let mut w = Writer::new("label");
                for field in fields {
                    w.bytes(field);
                }
                w.finish()
            };
            prop_assert_eq!(encode(&fields) == encode(&others), fields == others);
        }
    }

    #[test]
    fn b7_another_label_or_a_number_that_does_not_fit_is_refused() {
        let mut w = Writer::new("label");
        w.number(256);
        let encoded = w.finish();
        assert!(Reader::new(&encoded, "labels").is_err());
        assert!(Reader::new(&encoded, "").is_err());
        assert_eq!(Reader::new(&encoded, "label").unwrap().number::<u8>(), Err(NotCanonical));
        assert_eq!(Reader::new(&encoded, "label").unwrap().number::<u16>(), Ok(256));
        assert_eq!(Reader::new(&encoded, "label").unwrap().array::<4>(), Err(NotCanonical));
        assert_eq!(Reader::new(&encoded, "label").unwrap().finish(), Err(NotCanonical));
    }
}
