//! Variable-length integers (RFC 9000 §16), which chunks and Binary HTTP both use.

/// Reads one from the front of `bytes`: value and length; `None` if there are too few bytes.
pub(crate) fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = 1 << (bytes.first()? >> 6);
    let encoded = bytes.get(..length)?;
    let value = encoded.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    // The two highest bits of the encoding are its length.
    Some((value & mask(length), length))
}

/// The bits that hold the value.
const fn mask(length: usize) -> u64 {
    u64::MAX >> (64 - 8 * length + 2)
}

/// Appends the shortest encoding. Values of 2^62 and above do not exist on the wire; none is made here.
pub(crate) fn write_varint(value: usize, out: &mut Vec<u8>) {
    let value = value as u64;
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value & mask(8) | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9000_examples() {
        // RFC 9000 Appendix A.1.
        let examples: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in examples {
            assert_eq!(read_varint(bytes), Some((value, bytes.len())));
            for end in 0..bytes.len() {
                assert_eq!(read_varint(&bytes[..end]), None);
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for value in [0, 1, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, 1 << 40] {
            let mut out = Vec::new();
            write_varint(value, &mut out);
            assert_eq!(read_varint(&out), Some((value as u64, out.len())));
        }
    }
}
