//! The little DER that a guest writes and reads: elements of a tag, a length and contents (ITU-T X.690 §8.1, §10.1).

use alloc::vec::Vec;

/// `INTEGER`.
pub const INTEGER: u8 = 0x02;
/// `BIT STRING`; its first content octet counts unused bits.
pub const BIT_STRING: u8 = 0x03;
/// `OCTET STRING`.
pub const OCTET_STRING: u8 = 0x04;
/// `OBJECT IDENTIFIER`.
pub const OID: u8 = 0x06;
/// `UTF8String`.
pub const UTF8_STRING: u8 = 0x0c;
/// `SEQUENCE`.
pub const SEQUENCE: u8 = 0x30;
/// `SET`.
pub const SET: u8 = 0x31;

/// The element with this tag and the concatenated `parts` as contents, of at most 2^24 - 1 octets.
pub fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let octets = (length as u32).to_be_bytes();
    let header: &[u8] = match length {
        ..=0x7f => &[tag, octets[3]],
        0x80..=0xff => &[tag, 0x81, octets[3]],
        0x100..=0xffff => &[tag, 0x82, octets[2], octets[3]],
        _ => &[tag, 0x83, octets[1], octets[2], octets[3]],
    };
    let mut element = Vec::with_capacity(header.len() + length);
    element.extend_from_slice(header);
    parts.iter().for_each(|part| element.extend_from_slice(part));
    element
}

/// The contents of `bytes`, if they are exactly one element with this tag and a length in its shortest form.
#[cfg(feature = "read")]
pub fn read(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    let (contents, header) = match bytes {
        [first, length @ ..=0x7f, rest @ ..] if *first == tag => (rest, usize::from(*length)),
        [first, 0x81, length, rest @ ..] if *first == tag && *length >= 0x80 => (rest, usize::from(*length)),
        [first, 0x82, high, low, rest @ ..] if *first == tag && *high > 0 => {
            (rest, usize::from(*high) << 8 | usize::from(*low))
        }
        [first, 0x83, high, middle, low, rest @ ..] if *first == tag && *high > 0 => {
            (rest, usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low))
        }
        _ => return None,
    };
    (contents.len() == header).then_some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::asn1::OctetStringRef;
    use der::{Decode, Encode};
    use proptest::prelude::*;

    #[test]
    fn lengths_are_written_and_read_as_another_implementation_does() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0x1_2345] {
            let contents = std::vec![7; length];
            let element = write(OCTET_STRING, &[&contents[..length / 2], &contents[length / 2..]]);
            assert_eq!(element, OctetStringRef::new(&contents).unwrap().to_der().unwrap());
            assert_eq!(read(OCTET_STRING, &element), Some(&contents[..]));
            assert_eq!(read(SEQUENCE, &element), None);
            assert_eq!(read(OCTET_STRING, &element[..element.len() - 1]), None);
            assert_eq!(read(OCTET_STRING, &[&element[..], &[0]].concat()), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_another_implementation_reads(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..3usize) {
            let prefix: &[&[u8]] = &[&[4], &[4, 0x81], &[4, 0x82, 1]];
            let bytes = [prefix[at], &bytes].concat();
            let theirs = <&OctetStringRef>::from_der(&bytes).ok().map(|octets| octets.as_bytes());
            prop_assert_eq!(read(OCTET_STRING, &bytes), theirs);
        }
    }
}
