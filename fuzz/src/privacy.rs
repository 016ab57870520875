//! What relays, gateways and issuers read from anybody, and what clients read from them.

use crate::bytes::Bytes;
use privacy::bhttp;
use privacy::ohttp::{
    self, ClientExchange, Form, Header, Kem, KeyConfig, Opener, Sealer, SecretKey, ServerExchange,
};
use privacy::token::challenge::Challenge;
use privacy::token::key::TokenKey;
use privacy::token::structure::{
    Token, TokenRequest, decode_requests, decode_responses, encode_requests, encode_responses,
};
use privacy::token::{NK, TOKEN_TYPE};
use std::sync::OnceLock;

/// Most content that an exchange takes.
const LIMIT: u64 = 4096;

/// A message in one piece, and in pieces whose lengths the input chooses, must be the same to the reader.
fn agree<T: PartialEq + core::fmt::Debug>(
    data: &[u8],
    mut read: impl FnMut(&[&[u8]]) -> Option<T>,
) -> Option<T> {
    let whole = read(&[data]);
    let step = usize::from(data.last().copied().unwrap_or_default() % 13) + 1;
    assert_eq!(read(&data.chunks(step).collect::<Vec<_>>()), whole, "it depends on how the bytes arrive");
    whole
}

/// Binary HTTP, as request and as response.
pub fn bhttp(data: &[u8]) {
    for decoder in [bhttp::Decoder::request, bhttp::Decoder::response] {
        agree(data, |pieces| {
            let (mut decoder, mut content) = (decoder(), Vec::new());
            for piece in pieces {
                decoder.push(piece, &mut content).ok()?;
                assert!(content.len() <= data.len());
            }
            decoder.finish().ok()?;
            let head = decoder.head().expect("a message has a head");
            Some((format!("{head:?}"), content))
        });
    }
}

/// Messages.
pub fn bhttp_seeds() -> Vec<Vec<u8>> {
    let mut request = bhttp::request_head("POST", "guest", "/session", &[("authorization", "PrivateToken")]);
    bhttp::content(b"what the client says", &mut request);
    let mut ended = request.clone();
    ended.extend([0, 0, 0]);
    vec![request, ended, bhttp::response(200, &[("content-type", "text/plain")], b"what the guest says")]
}

/// Lists of key configurations.
pub fn ohttp_keys(data: &[u8]) {
    if let Ok(configs) = ohttp::decode_list(data) {
        assert_eq!(ohttp::decode_list(&ohttp::encode_list(&configs)), Ok(configs));
    }
    if let Ok(config) = KeyConfig::decode(data) {
        assert_eq!(KeyConfig::decode(&config.encode()), Ok(config.clone()));
        let _ = ClientExchange::start(&config, Form::Chunked);
    }
}

fn keys() -> &'static [SecretKey] {
    static KEYS: OnceLock<Vec<SecretKey>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let key = |(id, kem)| SecretKey::generate(id, kem).expect("the system has random numbers");
        [(1, Kem::X25519), (2, Kem::XWing)].into_iter().map(key).collect()
    })
}

/// A list, and its one configuration.
pub fn ohttp_key_seeds() -> Vec<Vec<u8>> {
    // Not the keys of this run: every run begins with the same bytes.
    let secret = |byte| vec![byte; 32].into();
    let key = SecretKey::new(1, Kem::X25519, secret(7)).expect("any 32 bytes are a key");
    let config = key.config();
    vec![ohttp::encode_list([config]), config.encode()]
}

/// Opens what somebody may have changed on its way; only what was sealed may come out, and the end only if nothing is missing.
fn open(mut opener: Opener, sealed: &[u8], pieces: usize, sent: &[u8], unchanged: bool) {
    let mut content = Vec::new();
    let read = sealed.chunks(pieces).try_for_each(|piece| opener.push(piece, &mut content));
    let whole = read.and_then(|()| opener.finish(&mut content)).is_ok();
    assert!(sent.starts_with(&content), "what nobody sealed was opened");
    if whole {
        assert!(content == sent, "a message that was cut was taken for whole");
    } else {
        assert!(!unchanged || sent.len() as u64 > LIMIT, "an honest message was refused");
    }
}

/// Changes on the way.
fn change(script: &mut Bytes<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..script.u8() & 3 {
        let (at, kind, byte) = (usize::from(script.u16()) % (bytes.len() + 1), script.u8(), script.u8());
        match kind % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, byte),
            2 if at < bytes.len() => bytes[at] ^= byte,
            _ => bytes.extend_from_within(at..),
        }
    }
}

/// Appends what the input says, sealed, to `out`; what it was.
fn seal(script: &mut Bytes<'_>, mut sealer: Sealer, form: Form, out: &mut Vec<u8>) -> Vec<u8> {
    let mut sent = Vec::new();
    for _ in 0..script.u8() & 3 {
        let length = script.u8().into();
        let piece = script.some(length);
        if form == Form::Chunked {
            sealer.seal(piece, out).expect("it can be sealed");
            sent.extend_from_slice(piece);
        }
    }
    let length = usize::from(script.u8()) * 20;
    let mut last = script.some(length).to_vec();
    last.resize(length, 0);
    sealer.finish(&last, out).expect("it can be sealed");
    sent.extend_from_slice(&last);
    sent
}

/// A request and its response, with pieces and changes on the way that the input chooses.
pub fn ohttp_exchange(data: &[u8]) {
    let mut script = Bytes(data);
    let choice = script.u8();
    // X-Wing costs ten times as much and differs in the header only.
    let key = &keys()[usize::from(choice & 31 == 31)];
    let form = if choice & 32 == 0 { Form::Chunked } else { Form::Whole };
    let pieces = usize::from(script.u8()) + 1;

    let (mut request, sealer, client) = ClientExchange::start(key.config(), form).expect("the key is good");
    let sent = seal(&mut script, sealer, form, &mut request);
    let honest = request.clone();
    change(&mut script, &mut request);
    let Ok(Some((header, at))) = Header::parse(&request, keys()) else {
        assert!(request != honest, "an honest header was refused");
        return;
    };
    let Ok((opener, server)) = ServerExchange::accept(&header, form, keys(), LIMIT) else {
        assert!(request != honest, "an honest key was refused");
        return;
    };
    open(opener, &request[at..], pieces, &sent, request == honest);
    if request != honest {
        return;
    }

    let (mut response, sealer) = server.respond().expect("it was accepted");
    let sent = seal(&mut script, sealer, form, &mut response);
    let honest = response.clone();
    change(&mut script, &mut response);
    open(client.response(LIMIT), &response, pieces, &sent, response == honest);
}

/// Exchanges: nothing changed, a piece lost, a byte changed, in both forms.
pub fn ohttp_exchange_seeds() -> Vec<Vec<u8>> {
    let exchange = |choice: u8, changes: &[u8]| {
        let seal = [&[2, 3, b'a', b'b', b'c', 1, b'd', 1][..], &[7; 20], changes].concat();
        [&[choice, 8][..], &seal, &seal].concat()
    };
    vec![
        exchange(0, &[0]),
        exchange(31, &[0]),
        exchange(32, &[0]),
        exchange(0, &[1, 90, 0, 0, 0]),
        exchange(0, &[1, 60, 0, 2, 1]),
        exchange(0, &[1, 45, 0, 3, 0]),
        exchange(32, &[1, 60, 0, 1, 9]),
    ]
}

/// Tokens, challenges, requests for tokens and their answers, and the issuer's key.
pub fn token(data: &[u8]) {
    if let Ok(token) = Token::parse(data) {
        assert_eq!(token.bytes(), data);
        let again = Token::from_authorization(&token.authorization()).expect("it was written for that");
        assert_eq!(again.bytes(), data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Token::from_authorization(text);
    }
    if let Ok(challenge) = Challenge::decode(data) {
        assert_eq!(challenge.encode(), data, "two encodings of one challenge");
        let _ = challenge.www_authenticate(data);
    }
    if let Ok(request) = TokenRequest::decode(data) {
        assert_eq!(request.encode(), data, "two encodings of one request");
    }
    if let Ok(requests) = decode_requests(data) {
        assert_eq!(encode_requests(&requests), data, "two encodings of one batch");
    }
    if let Ok(responses) = decode_responses(data) {
        assert_eq!(encode_responses(&responses), data, "two encodings of one answer");
    }
    if let Ok(key) = TokenKey::parse(data) {
        assert_eq!(key.spki(), data, "two encodings of one key");
    }
    let _ = TokenKey::from_rsa_spki(data);
}

/// One of each.
pub fn token_seeds() -> Vec<Vec<u8>> {
    let challenge = Challenge::new("issuer.example", &["gateway.example", "other.example"]).expect("names");
    let request = TokenRequest { truncated_key_id: 7, blinded: [9; NK] };
    let token = [&TOKEN_TYPE.to_be_bytes()[..], &[1; Token::LENGTH - 2]].concat();
    let authorization = Token::parse(&token).expect("a token").authorization().as_bytes().to_vec();
    vec![
        challenge.encode(),
        encode_requests(&[request.clone(), request.clone()]),
        encode_responses(&[Some([3; NK]), None]),
        request.encode(),
        token,
        authorization,
        token_key(),
    ]
}

/// A `SubjectPublicKeyInfo` of RSASSA-PSS with SHA-384 (RFC 9578 §8.2.2) around a number of 2048 bits.
fn token_key() -> Vec<u8> {
    let head = hex_bytes(
        "30820156304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108\
         300d06096086480165030402020500a2030201300382010f003082010a0282010100",
    );
    [&head[..], &[0xc5; 256], &[2, 3, 1, 0, 1]].concat()
}

fn hex_bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
