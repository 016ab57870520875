use super::*;
use proptest::prelude::*;
use std::io::Cursor;

/// A message's head and content, or why there is none.
fn decode(mut decoder: Decoder, pieces: &[&[u8]]) -> Result<(Head, Vec<u8>), Error> {
    let mut content = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut content)?;
    }
    decoder.finish()?;
    Ok((decoder.head().cloned().ok_or(Error::Truncated)?, content))
}

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// RFC 9292 Figures 8, 9, 11 and 13.
const KNOWN_REQUEST: &str = "00034745 54056874 74707300 0a2f6865 6c6c6f2e 74787440 6c0a7573 65722d61 67656e74 34637572 6c2f372e
    31362e33 206c6962 6375726c 2f372e31 362e3320 4f70656e 53534c2f 302e392e 376c207a 6c69622f 312e322e 3304686f 73740f77
    77772e65 78616d70 6c652e63 6f6d0f61 63636570 742d6c61 6e677561 67650665 6e2c206d 690000";
const INDETERMINATE_REQUEST: &str = "02034745 54056874 74707300 0a2f6865 6c6c6f2e 7478740a 75736572 2d616765 6e743463 75726c2f
    372e3136 2e33206c 69626375 726c2f37 2e31362e 33204f70 656e5353 4c2f302e 392e376c 207a6c69 622f312e 322e3304 686f7374
    0f777777 2e657861 6d706c65 2e636f6d 0f616363 6570742d 6c616e67 75616765 06656e2c 206d6900 00000000 00000000 00000000";
const INDETERMINATE_RESPONSE: &str = "03406607 72756e6e 696e670a 22736c65 65702031 35220040 67046c69 6e6b233c 2f737479 6c652e63
    73733e3b 2072656c 3d707265 6c6f6164 3b206173 3d737479 6c65046c 696e6b24 3c2f7363 72697074 2e6a733e 3b207265 6c3d7072
    656c6f61 643b2061 733d7363 72697074 0040c804 64617465 1d4d6f6e 2c203237 204a756c 20323030 39203132 3a32383a 35332047
    4d540673 65727665 72064170 61636865 0d6c6173 742d6d6f 64696669 65641d57 65642c20 3232204a 756c2032 30303920 31393a31
    353a3536 20474d54 04657461 67142233 34616133 38372d64 2d313536 38656230 30220d61 63636570 742d7261 6e676573 05627974
    65730e63 6f6e7465 6e742d6c 656e6774 68023531 04766172 790f4163 63657074 2d456e63 6f64696e 670c636f 6e74656e 742d7479
    70650a74 6578742f 706c6169 6e003348 656c6c6f 20576f72 6c642120 4d792063 6f6e7465 6e742069 6e636c75 64657320 61207472
    61696c69 6e672043 524c462e 0d0a0000";
const KNOWN_RESPONSE: &str =
    "0140c800 1d546869 7320636f 6e74656e 7420636f 6e746169 6e732043 524c462e 0d0a0d07 74726169 6c657204
    74657874";

#[test]
fn rfc_9292_requests() {
    // The last two bytes, and all padding, may be left out.
    for (text, may_end) in [(KNOWN_REQUEST, 2), (INDETERMINATE_REQUEST, 12)] {
        let bytes = hex(text);
        for cut in 0..=may_end {
            let (head, content) = decode(Decoder::request(), &[&bytes[..bytes.len() - cut]]).unwrap();
            let Control::Request { method, scheme, authority, path } = &head.control else {
                panic!("a response")
            };
            assert_eq!(
                (&method[..], &scheme[..], &path[..]),
                (&b"GET"[..], &b"https"[..], &b"/hello.txt"[..])
            );
            assert_eq!(head.field("host"), Some(&b"www.example.com"[..]));
            assert_eq!(head.field("accept-language"), Some(&b"en, mi"[..]));
            assert!(authority.is_empty() && content.is_empty());
        }
        assert!(decode(Decoder::request(), &[&bytes, &[0; 40]]).is_ok());
        assert_eq!(decode(Decoder::request(), &[&bytes, &[0, 0, 7]]), Err(Error::Malformed));
    }
}

#[test]
fn rfc_9292_responses() {
    let (head, content) = decode(Decoder::response(), &[&hex(INDETERMINATE_RESPONSE)]).unwrap();
    assert_eq!((head.status(), head.field("server")), (Some(200), Some(&b"Apache"[..])));
    assert_eq!(content, b"Hello World! My content includes a trailing CRLF.\r\n");
    let (head, content) = decode(Decoder::response(), &[&hex(KNOWN_RESPONSE)]).unwrap();
    assert_eq!(head.status(), Some(200));
    assert_eq!(content, b"This content contains CRLF.\r\n");
    // RFC 9458 Appendix A's response: all that may be missing is.
    let (head, _) = decode(Decoder::response(), &[&[1, 0x40, 0xc8]]).unwrap();
    assert_eq!(head.status(), Some(200));
}

#[test]
fn c4_content_that_has_begun_must_end() {
    let mut message = response_head(200, &[("a", "b")]);
    content(b"twelve bytes", &mut message);
    let begun = message.len();
    message.extend_from_slice(&END);
    assert_eq!(decode(Decoder::response(), &[&message]).unwrap().1, b"twelve bytes");
    let head = response_head(200, &[("a", "b")]).len();
    for end in 0..message.len() {
        // Nothing but empty parts may be missing: all fields, or content and trailer, or the trailer.
        let may_end = end == 3 || end == head || end > begun;
        assert_eq!(decode(Decoder::response(), &[&message[..end]]).is_ok(), may_end, "cut at {end}");
    }
}

#[test]
fn c8_heads_are_bounded_and_well_formed() {
    let mut decoder = Decoder::request();
    let endless = request_head("POST", "", "/", &[("x", &"y".repeat(2 * MAX_HEAD))]);
    assert_eq!(decoder.push(&endless, &mut Vec::new()), Err(Error::TooLarge));
    let mut many = Decoder::request();
    let fields: Vec<(&str, &str)> = vec![("abc", "def"); 4000];
    assert_eq!(many.push(&request_head("POST", "", "/", &fields), &mut Vec::new()), Err(Error::TooLarge));
    for (name, value) in [("Upper", "x"), ("a b", "x"), ("a", "x\r\ny"), ("a:", "x")] {
        let head = request_head("POST", "", "/", &[(name, value)]);
        assert_eq!(Decoder::request().push(&head, &mut Vec::new()), Err(Error::Malformed), "{name}");
    }
    for bytes in [&[9_u8][..], &[3, 0x40, 0xc8], &[0, 0, 0, 0, 0, 0], &[0xff; 9]] {
        assert!(decode(Decoder::request(), &[bytes]).is_err());
    }
    assert!(decode(Decoder::response(), &[&[1, 0x42, 0x58]]).is_err(), "status 600");
    // A field that is there twice has no value.
    let twice = request_head("POST", "", "/", &[("a", "1"), ("a", "2")]);
    assert_eq!(decode(Decoder::request(), &[&twice, &END]).unwrap().0.field("a"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_bhttp_crate_reads_and_writes_the_same_messages(
        path in "/[a-z]{0,20}",
        value in "[ -~]{0,40}",
        body in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 1_usize..30,
    ) {
        let mut ours = request_head("POST", "example.com", &path, &[("name", &value)]);
        content(&body, &mut ours);
        ours.extend_from_slice(&END);
        let theirs = bhttp::Message::read_bhttp(&mut Cursor::new(&ours[..])).unwrap();
        prop_assert_eq!(theirs.control().path().unwrap(), path.as_bytes());
        prop_assert_eq!(theirs.header().get(b"name").unwrap(), value.as_bytes());
        prop_assert_eq!(theirs.content(), &body[..]);

        for mode in [bhttp::Mode::KnownLength, bhttp::Mode::IndeterminateLength] {
            let mut written = Vec::new();
            theirs.write_bhttp(mode, &mut written).unwrap();
            let pieces: Vec<&[u8]> = written.chunks(cut).collect();
            let (head, content) = decode(Decoder::request(), &pieces).unwrap();
            prop_assert_eq!(head.field("name"), Some(value.as_bytes()));
            prop_assert_eq!(content, body.clone());
        }
    }

    #[test]
    fn c8_no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(Decoder::request(), &[&bytes]);
        let _ = decode(Decoder::response(), &[&bytes]);
    }
}
