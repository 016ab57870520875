//! The structures that travel: `Token` (RFC 9577 §2.2), `TokenRequest` and `TokenResponse` (RFC 9578 §6), and batches of
//! the two (draft-ietf-privacypass-batched-tokens-09 §6, "generic").

use super::{Malformed, NK, TOKEN_TYPE, take, take_slice};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of what is signed: type, nonce, challenge digest, key id.
pub const INPUT: usize = 2 + 32 + 32 + 32;

/// Most requests in a batch.
pub const MAX_BATCH: usize = 64;

/// Media type of a request for one token (RFC 9578 §8.3.2).
pub const REQUEST: &str = "application/private-token-request";
/// Media type of the answer to it (RFC 9578 §8.3.3).
pub const RESPONSE: &str = "application/private-token-response";
/// Media type of a request for a batch.
pub const BATCH_REQUEST: &str = "application/private-token-generic-batch-request";
/// Media type of the answer to it.
pub const BATCH_RESPONSE: &str = "application/private-token-generic-batch-response";

/// A token. Whoever holds it can spend it, so it is never shown and is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<[u8; Token::LENGTH]>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Bytes of a token.
    pub const LENGTH: usize = INPUT + NK;

    /// Reads the `Token` structure; its signature is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: [u8; Self::LENGTH] = bytes.try_into().map_err(|_| Malformed)?;
        if bytes[..2] == TOKEN_TYPE.to_be_bytes() { Ok(Self(bytes.into())) } else { Err(Malformed) }
    }

    /// Reads an `Authorization` value, `PrivateToken token="…"` (RFC 9577 §2.2).
    pub fn from_authorization(value: &str) -> Result<Self, Malformed> {
        let (scheme, rest) = value.trim().split_once(' ').ok_or(Malformed)?;
        let token = rest.trim().strip_prefix("token=").ok_or(Malformed)?;
        let token = token.strip_prefix('"').map_or(Some(token), |t| t.strip_suffix('"')).ok_or(Malformed)?;
        if !scheme.eq_ignore_ascii_case("PrivateToken") {
            return Err(Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| Malformed)?;
        Self::parse(&Zeroizing::new(bytes))
    }

    /// As the value of `Authorization`.
    pub fn authorization(&self) -> Zeroizing<String> {
        format!("PrivateToken token=\"{}\"", URL_SAFE.encode(self.bytes())).into()
    }

    /// The structure.
    pub fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// What is signed. It names the token: two tokens with the same input are the same token.
    pub fn input(&self) -> &[u8; INPUT] {
        self.part()
    }

    /// SHA-256 of the challenge that it was made for.
    pub fn challenge_digest(&self) -> &[u8; 32] {
        self.part_at::<34, 32>()
    }

    /// SHA-256 of the public key that it is signed under.
    pub fn key_id(&self) -> &[u8; 32] {
        self.part_at::<66, 32>()
    }

    /// The signature.
    pub fn authenticator(&self) -> &[u8; NK] {
        self.part_at::<INPUT, NK>()
    }

    fn part<const N: usize>(&self) -> &[u8; N] {
        self.part_at::<0, N>()
    }

    fn part_at<const AT: usize, const N: usize>(&self) -> &[u8; N] {
        const { assert!(AT + N <= Self::LENGTH) };
        self.0[AT..].first_chunk().expect("within the token")
    }
}

/// Asks for one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Last byte of the key's id.
    pub truncated_key_id: u8,
    /// The blinded message.
    pub blinded: [u8; NK],
}

impl TokenRequest {
    /// Bytes of a request.
    pub const LENGTH: usize = 2 + 1 + NK;

    /// The structure.
    pub fn encode(&self) -> Vec<u8> {
        [&TOKEN_TYPE.to_be_bytes()[..], &[self.truncated_key_id], &self.blinded].concat()
    }

    /// Reads the structure.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        let request = Self::take(&mut rest)?;
        if rest.is_empty() { Ok(request) } else { Err(Malformed) }
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        if u16::from_be_bytes(take(bytes)?) != TOKEN_TYPE {
            return Err(Malformed);
        }
        let [truncated_key_id] = take(bytes)?;
        Ok(Self { truncated_key_id, blinded: take(bytes)? })
    }
}

/// A blind signature: the `TokenResponse`.
pub type TokenResponse = [u8; NK];

/// The `GenericBatchTokenRequest` of these requests.
pub fn encode_requests(requests: &[TokenRequest]) -> Vec<u8> {
    vector(&requests.iter().flat_map(TokenRequest::encode).collect::<Vec<_>>())
}

/// Why a batch cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not the structure.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No or too many requests.
    #[error("a batch has 1 to 64 token requests")]
    Size,
}

/// Reads a `GenericBatchTokenRequest` of 1 to [`MAX_BATCH`] requests of type 0x0002.
pub fn decode_requests(bytes: &[u8]) -> Result<Vec<TokenRequest>, BatchError> {
    let mut items = whole_vector(bytes)?;
    if items.is_empty() || items.len() > MAX_BATCH * TokenRequest::LENGTH {
        return Err(BatchError::Size);
    }
    let mut requests = Vec::new();
    while !items.is_empty() {
        requests.push(TokenRequest::take(&mut items)?);
    }
    Ok(requests)
}

/// The `GenericBatchTokenResponse` of these answers, each at its request's place; `None` where none was given.
pub fn encode_responses(responses: &[Option<TokenResponse>]) -> Vec<u8> {
    let mut items = Vec::new();
    for response in responses {
        match response {
            Some(signature) => {
                items.push(1);
                items.extend_from_slice(&TOKEN_TYPE.to_be_bytes());
                items.extend_from_slice(signature);
            }
            None => items.push(0),
        }
    }
    vector(&items)
}

/// Reads a `GenericBatchTokenResponse` of at most [`MAX_BATCH`] answers.
pub fn decode_responses(bytes: &[u8]) -> Result<Vec<Option<TokenResponse>>, BatchError> {
    let mut items = whole_vector(bytes)?;
    let mut responses = Vec::new();
    while !items.is_empty() {
        if responses.len() == MAX_BATCH {
            return Err(BatchError::Size);
        }
        responses.push(match take::<1>(&mut items)? {
            [0] => None,
            [1] if u16::from_be_bytes(take(&mut items)?) == TOKEN_TYPE => Some(take(&mut items)?),
            _ => return Err(Malformed.into()),
        });
    }
    Ok(responses)
}

/// A vector `<V>`: its length as an RFC 9000 §16 integer, then its bytes.
fn vector(items: &[u8]) -> Vec<u8> {
    let length = items.len();
    let prefix = match length {
        0..0x40 => vec![length as u8],
        0x40..0x4000 => (length as u16 | 0x4000).to_be_bytes().into(),
        // MAX_BATCH requests or answers are far below 2^30 bytes.
        _ => (length as u32 | 0x8000_0000).to_be_bytes().into(),
    };
    [&prefix, items].concat()
}

/// Reads a vector that is all there is, with its length in the fewest bytes.
fn whole_vector(mut bytes: &[u8]) -> Result<&[u8], Malformed> {
    let whole = bytes;
    let [first] = take(&mut bytes)?;
    let more = take_slice(&mut bytes, (1 << (first >> 6)) - 1)?;
    let length = more.iter().fold(u64::from(first & 0x3F), |length, byte| length << 8 | u64::from(*byte));
    let items = take_slice(&mut bytes, usize::try_from(length).map_err(|_| Malformed)?)?;
    if bytes.is_empty() && vector(items) == whole { Ok(items) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(fill: u8) -> TokenRequest {
        TokenRequest { truncated_key_id: fill, blinded: [fill; NK] }
    }

    #[test]
    fn authorization_is_read_as_it_is_written() {
        let mut bytes = [7; Token::LENGTH];
        bytes[..2].copy_from_slice(&[0, 2]);
        let token = Token::parse(&bytes).unwrap();
        let value = token.authorization();
        assert_eq!(Token::from_authorization(&value), Ok(token.clone()));
        // RFC 9577 §2.2 lets the value be a token of HTTP, without quotes.
        assert_eq!(Token::from_authorization(&value.replace('"', "")), Ok(token));
        for bad in [
            "",
            "PrivateToken",
            "Bearer token=\"AAI=\"",
            "PrivateToken token=\"AAI=\"",
            "PrivateToken token=\"AA",
        ] {
            assert_eq!(Token::from_authorization(bad), Err(Malformed), "{bad}");
        }
        bytes[1] = 1;
        assert_eq!(Token::parse(&bytes), Err(Malformed));
        assert!(!format!("{:?}", Token::parse(&[&[0, 2][..], &[7; 352]].concat())).contains('7'));
    }

    #[test]
    fn c2_a_length_in_more_bytes_than_it_needs_is_refused() {
        let canonical = encode_requests(&[request(1)]);
        let long = [&(TokenRequest::LENGTH as u32 | 0x8000_0000).to_be_bytes()[..], &canonical[2..]].concat();
        assert_eq!(decode_requests(&canonical), Ok(vec![request(1)]));
        assert_eq!(decode_requests(&long), Err(Malformed.into()));
    }

    #[test]
    fn c2_a_batch_of_none_or_too_many_is_refused() {
        assert_eq!(decode_requests(&encode_requests(&[])), Err(BatchError::Size));
        let most = vec![request(2); MAX_BATCH];
        assert_eq!(decode_requests(&encode_requests(&most)), Ok(most));
        assert_eq!(
            decode_requests(&encode_requests(&vec![request(2); MAX_BATCH + 1])),
            Err(BatchError::Size)
        );
        let answers = vec![Some([3; NK]); MAX_BATCH + 1];
        assert_eq!(decode_responses(&encode_responses(&answers)), Err(BatchError::Size));
    }

    proptest! {
        #[test]
        fn batches_are_read_as_they_are_written(answers in prop::collection::vec(prop::option::of(any::<u8>()), 0..MAX_BATCH)) {
            let answers: Vec<_> = answers.into_iter().map(|fill| fill.map(|fill| [fill; NK])).collect();
            let bytes = encode_responses(&answers);
            prop_assert_eq!(decode_responses(&bytes), Ok(answers));
            for cut in 0..bytes.len().min(700) {
                prop_assert_eq!(decode_responses(&bytes[..cut]), Err(Malformed.into()));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(requests) = decode_requests(&bytes) {
                prop_assert_eq!(encode_requests(&requests), bytes.clone());
            }
            if let Ok(answers) = decode_responses(&bytes) {
                prop_assert_eq!(encode_responses(&answers), bytes);
            }
        }
    }
}
