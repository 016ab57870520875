//! The client's part of issuance: blind, and when the answer comes, unblind and check.

use super::challenge::Challenge;
use super::key::TokenKey;
use super::structure::{
    BatchError, INPUT, MAX_BATCH, Token, TokenRequest, TokenResponse, decode_responses, encode_requests,
};
use super::{NK, TOKEN_TYPE};
use blind_rsa_signatures::reexports::rand::CryptoRng;
use blind_rsa_signatures::{BlindSignature, BlindingResult, DefaultRng};
use std::sync::Arc;

/// Why an issuer's answer gives no tokens. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not a batch of answers.
    #[error("the issuer's answer cannot be read: {0}")]
    Unreadable(#[from] BatchError),
    /// Another number of answers than requests.
    #[error(
        "the issuer answered {answered} of {asked} requests: its places do not fit, so no token of it is used"
    )]
    Count {
        /// How many were asked for.
        asked: usize,
        /// How many were answered.
        answered: usize,
    },
    /// A signature that does not hold: the issuer used another key than the one that is logged, or garbled the answer.
    #[error(
        "signature {place} of the issuer does not hold under its logged key: it may try to mark tokens, so none of this \
         answer is used"
    )]
    Signature {
        /// Its place in the batch, from 0.
        place: usize,
    },
}

/// Why no request can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No tokens, or more than a batch holds.
    #[error("a batch has 1 to 64 tokens")]
    Size,
    /// The blinding failed, which the key's check excludes.
    #[error("the issuer's key cannot blind")]
    Blinding,
}

/// Requests that were made and wait for their answer.
pub struct Pending {
    key: Arc<TokenKey>,
    waiting: Vec<([u8; INPUT], BlindingResult)>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({} under {:?})", self.waiting.len(), self.key)
    }
}

impl Pending {
    /// Blinds `count` new tokens for a challenge.
    pub fn new(key: Arc<TokenKey>, challenge: &Challenge, count: usize) -> Result<Self, RequestError> {
        Self::with(key, &challenge.digest(), count, &mut DefaultRng)
    }

    fn with(
        key: Arc<TokenKey>,
        digest: &[u8; 32],
        count: usize,
        random: &mut impl CryptoRng,
    ) -> Result<Self, RequestError> {
        if !(1..=MAX_BATCH).contains(&count) {
            return Err(RequestError::Size);
        }
        let mut waiting = Vec::with_capacity(count);
        for _ in 0..count {
            let mut input = [0; INPUT];
            input[..2].copy_from_slice(&TOKEN_TYPE.to_be_bytes());
            random.fill_bytes(&mut input[2..34]);
            input[34..66].copy_from_slice(digest);
            input[66..].copy_from_slice(key.id());
            let blinded = key.blinding().blind(random, input).map_err(|_| RequestError::Blinding)?;
            waiting.push((input, blinded));
        }
        Ok(Self { key, waiting })
    }

    /// The requests.
    pub fn requests(&self) -> Vec<TokenRequest> {
        let request = |(_, blinded): &(_, BlindingResult)| TokenRequest {
            truncated_key_id: self.key.truncated_id(),
            blinded: blinded.blind_message.0.as_slice().try_into().unwrap_or([0; NK]),
        };
        self.waiting.iter().map(request).collect()
    }

    /// The requests as a batch.
    pub fn batch(&self) -> Vec<u8> {
        encode_requests(&self.requests())
    }

    /// The tokens of an answer, each checked under the key. Places that the issuer left empty give no token; an answer with
    /// one wrong signature gives none at all.
    pub fn finish_batch(self, answer: &[u8]) -> Result<Vec<Token>, AnswerError> {
        let responses = decode_responses(answer)?;
        self.finish(&responses)
    }

    /// The tokens of these answers.
    pub fn finish(self, responses: &[Option<TokenResponse>]) -> Result<Vec<Token>, AnswerError> {
        let (asked, answered) = (self.waiting.len(), responses.len());
        if asked != answered {
            return Err(AnswerError::Count { asked, answered });
        }
        let mut tokens = Vec::with_capacity(asked);
        for (place, ((input, blinding), response)) in self.waiting.iter().zip(responses).enumerate() {
            let Some(response) = response else { continue };
            let wrong = AnswerError::Signature { place };
            let signature = BlindSignature(response.to_vec());
            let signature = self.key.blinding().finalize(&signature, blinding, input).map_err(|_| wrong)?;
            let token = Token::parse(&[&input[..], &signature.0].concat()).map_err(|_| wrong)?;
            // By the library that gateways use, too: a token that counts is one that will be taken.
            if !self.key.verifies(&token) {
                return Err(wrong);
            }
            tokens.push(token);
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blind_rsa_signatures::reexports::rand::{TryCryptoRng, TryRng};
    use serde::Deserialize;
    use std::convert::Infallible;

    /// RFC 9578 Appendix B.2, as the RFC's authors published it (ietf-wg-privacypass/base-drafts,
    /// draft-ietf-privacypass-protocol.md; code components under the Revised BSD Licence).
    const RFC_9578: &str = include_str!("../../tests/data/rfc9578_type2.json");
    /// Batches by another implementation, cloudflare/pat-go, as privacypass 0.2.0-pre.4 (MIT) has them in
    /// tests/kat_vectors/generic_go.json; those with type 2 only.
    const BATCHES: &str = include_str!("../../tests/data/batches_type2.json");

    fn hex<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }

    #[derive(Deserialize)]
    struct Issuance {
        #[serde(rename = "pkS", deserialize_with = "hex")]
        spki: Vec<u8>,
        #[serde(rename = "token_challenge", deserialize_with = "hex")]
        challenge: Vec<u8>,
        #[serde(deserialize_with = "hex")]
        nonce: Vec<u8>,
        #[serde(deserialize_with = "hex")]
        blind: Vec<u8>,
        #[serde(deserialize_with = "hex")]
        salt: Vec<u8>,
        #[serde(deserialize_with = "hex")]
        token: Vec<u8>,
    }

    #[derive(Deserialize)]
    struct Vector {
        #[serde(rename = "skS", deserialize_with = "hex")]
        secret: Vec<u8>,
        #[serde(deserialize_with = "hex")]
        token_request: Vec<u8>,
        #[serde(deserialize_with = "hex")]
        token_response: Vec<u8>,
        #[serde(flatten)]
        issuance: Issuance,
    }

    /// The random numbers of a vector: nonce, salt, blind.
    struct Scripted(Vec<u8>);

    impl Scripted {
        fn new(issuances: &[Issuance]) -> Self {
            let number = |i: &Issuance| i.blind.iter().rev().copied().collect::<Vec<_>>();
            Self(
                issuances
                    .iter()
                    .flat_map(|i| [i.nonce.clone(), i.salt.clone(), number(i)].concat())
                    .collect(),
            )
        }
    }

    impl TryRng for Scripted {
        type Error = Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
        }
        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            let bytes: Vec<u8> = self.0.drain(..out.len()).collect();
            out.copy_from_slice(&bytes);
            Ok(())
        }
    }

    impl TryCryptoRng for Scripted {}

    fn pending(issuances: &[Issuance]) -> Pending {
        let key = Arc::new(TokenKey::parse(&issuances[0].spki).unwrap());
        let digest = Challenge::decode(&issuances[0].challenge).unwrap().digest();
        let mut random = Scripted::new(issuances);
        let pending = Pending::with(key, &digest, issuances.len(), &mut random).unwrap();
        assert!(random.0.is_empty(), "other numbers were drawn than the vector has");
        pending
    }

    #[test]
    fn rfc_9578_vectors() {
        let vectors: Vec<Vector> = serde_json::from_str(RFC_9578).unwrap();
        assert_eq!(vectors.len(), 5);
        for vector in vectors {
            let issuances = [vector.issuance];
            let pending = pending(&issuances);
            let [request] = pending.requests().try_into().unwrap();
            assert_eq!(request.encode(), vector.token_request);
            assert_eq!(TokenRequest::decode(&vector.token_request), Ok(request));
            let response: TokenResponse = vector.token_response.try_into().unwrap();
            let [token] = pending.finish(&[Some(response)]).unwrap().try_into().unwrap();
            assert_eq!(token.bytes()[..], issuances[0].token);
            assert_eq!(vector.secret[..10], *b"-----BEGIN");
        }
    }

    #[cfg(feature = "issuer")]
    #[test]
    fn rfc_9578_vectors_are_signed_as_the_rfc_says() {
        for vector in serde_json::from_str::<Vec<Vector>>(RFC_9578).unwrap() {
            let key = crate::issuer::signing::SigningKey::from_pem(&vector.secret).unwrap();
            assert_eq!(key.public().spki(), vector.issuance.spki);
            let request = TokenRequest::decode(&vector.token_request).unwrap();
            assert_eq!(key.sign(&request.blinded).unwrap()[..], vector.token_response);
        }
    }

    #[test]
    fn batches_of_other_implementations() {
        #[derive(Deserialize)]
        struct Batch {
            issuance: Vec<Issuance>,
            #[serde(deserialize_with = "hex")]
            token_request: Vec<u8>,
            #[serde(deserialize_with = "hex")]
            token_response: Vec<u8>,
        }
        let batches: Vec<Batch> = serde_json::from_str(BATCHES).unwrap();
        assert_eq!(batches.len(), 2);
        for batch in batches {
            // Keys and challenges differ within a batch, which clients of one issuer never have: one by one.
            let requests = super::super::structure::decode_requests(&batch.token_request).unwrap();
            assert_eq!(encode_requests(&requests), batch.token_request);
            let responses = decode_responses(&batch.token_response).unwrap();
            assert_eq!(super::super::structure::encode_responses(&responses), batch.token_response);
            assert_eq!((requests.len(), responses.len()), (batch.issuance.len(), batch.issuance.len()));
            for ((issuance, request), response) in batch.issuance.into_iter().zip(requests).zip(responses) {
                let expected = issuance.token.clone();
                let pending = pending(&[issuance]);
                assert_eq!(pending.requests(), [request]);
                assert_eq!(pending.finish(&[response]).unwrap()[0].bytes()[..], expected);
            }
        }
    }

    #[test]
    fn c1_a_signature_that_does_not_hold_gives_no_token_of_its_batch() {
        let vectors: Vec<Vector> = serde_json::from_str(RFC_9578).unwrap();
        for vector in vectors {
            let right: TokenResponse = vector.token_response.try_into().unwrap();
            let issuances = [vector.issuance];
            let mut wrong = right;
            wrong[255] ^= 1;
            for (place, response) in [wrong, [0; NK], [0xFF; NK]].into_iter().enumerate() {
                let refused = Err(AnswerError::Signature { place: 0 });
                assert_eq!(pending(&issuances).finish(&[Some(response)]), refused, "{place}");
            }
            let count = Err(AnswerError::Count { asked: 1, answered: 2 });
            assert_eq!(pending(&issuances).finish(&[Some(right), Some(right)]), count);
            assert_eq!(pending(&issuances).finish(&[]), Err(AnswerError::Count { asked: 1, answered: 0 }));
            assert_eq!(pending(&issuances).finish(&[None]), Ok(Vec::new()));
        }
    }
}
