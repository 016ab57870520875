//! Text out of tokens: a code point can be split over several tokens, and a stream must be valid UTF-8 at every point.

use crate::wipe::WipedBuffer;

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Holds back the bytes of an incomplete code point. What can never become UTF-8 is replaced by U+FFFD.
#[derive(Default)]
pub(crate) struct Utf8Stream {
    held: WipedBuffer,
}

impl Utf8Stream {
    /// Takes a token's bytes and appends to `text` what is complete.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut WipedBuffer) {
        self.held.push(bytes);
        while !self.held.is_empty() {
            let (valid, invalid) = match core::str::from_utf8(self.held.as_slice()) {
                Ok(all) => (all.len(), Some(0)),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            text.push(self.held.as_slice().get(..valid).unwrap_or_default());
            self.held.consume(valid);
            match invalid {
                Some(0) => {}
                Some(count) => {
                    text.push(REPLACEMENT);
                    self.held.consume(count);
                }
                // The end of the bytes is the start of a code point: wait for the rest.
                None => break,
            }
        }
    }

    /// The stream has ended: a code point that is still incomplete stays so.
    pub(crate) fn finish(&mut self, text: &mut WipedBuffer) {
        if !self.held.is_empty() {
            text.push(REPLACEMENT);
            self.held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn streamed(pieces: &[Vec<u8>]) -> Vec<u8> {
        let (mut stream, mut text) = (Utf8Stream::default(), WipedBuffer::new());
        for piece in pieces {
            stream.push(piece, &mut text);
            assert!(core::str::from_utf8(text.as_slice()).is_ok());
        }
        stream.finish(&mut text);
        text.as_slice().to_vec()
    }

    proptest! {
        #[test]
        fn any_split_reads_as_the_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(0xf0), Just(0x9f), Just(0x98), Just(0x80), Just(0xe2), Just(0xc3)], 0..4), 0..12),
        ) {
            let whole = pieces.concat();
            let expected = String::from_utf8_lossy(&whole);
            prop_assert_eq!(streamed(&pieces), expected.as_bytes());
        }
    }

    #[test]
    fn nothing_is_sent_before_a_code_point_is_complete() {
        let (mut stream, mut text) = (Utf8Stream::default(), WipedBuffer::new());
        for byte in &"😀".as_bytes()[..3] {
            stream.push(&[*byte], &mut text);
            assert!(text.is_empty());
        }
        stream.push(&"😀".as_bytes()[3..], &mut text);
        assert_eq!(text.as_slice(), "😀".as_bytes());
    }
}
