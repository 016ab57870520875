//! What a token is made for: the `TokenChallenge` of RFC 9577 §2.1.
//!
//! Tokens are fetched long before they are used, so no gateway can be asked for a challenge first: client and gateway
//! compute the same one from issuer's and gateway's names, and its digest is in the token. A redemption context would tie
//! a token to a moment; epochs do that here, by the issuer's key.

use super::{Malformed, TOKEN_TYPE, take, take_slice};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use sha2::{Digest, Sha256};

/// A token challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    issuer: String,
    context: Option<[u8; 32]>,
    origins: Vec<String>,
}

/// Names that no challenge can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the names of issuer and gateways must be 1 to 255 printable ASCII characters without commas, quotes and spaces"
)]
pub struct BadName;

fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'"')
}

impl Challenge {
    /// For tokens of this issuer (`issuer_name`) that any of these gateways takes (`origin_info`; none: every origin that
    /// trusts the issuer).
    pub fn new(issuer: &str, origins: &[&str]) -> Result<Self, BadName> {
        if !is_name(issuer) || !origins.iter().all(|origin| is_name(origin)) || origins.len() > 64 {
            return Err(BadName);
        }
        let origins = origins.iter().map(|&origin| origin.to_owned()).collect();
        Ok(Self { issuer: issuer.to_owned(), context: None, origins })
    }

    /// The issuer's name.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The gateways' names.
    pub fn origins(&self) -> &[String] {
        &self.origins
    }

    /// The `redemption_context`, if there is one.
    pub const fn context(&self) -> Option<&[u8; 32]> {
        self.context.as_ref()
    }

    /// The `TokenChallenge` structure.
    pub fn encode(&self) -> Vec<u8> {
        let origins = self.origins.join(",");
        let mut out = TOKEN_TYPE.to_be_bytes().to_vec();
        // Names are at most 255 bytes, 64 of them and their commas below 2^16.
        for text in [self.issuer.as_bytes(), origins.as_bytes()] {
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            out.extend_from_slice(text);
            if out.len() == 4 + self.issuer.len() {
                let context = self.context.as_ref().map_or(&[][..], |context| &context[..]);
                out.push(context.len() as u8);
                out.extend_from_slice(context);
            }
        }
        out
    }

    /// Reads the structure; only type 0x0002 is taken.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let text = |bytes: &mut &[u8]| -> Result<String, Malformed> {
            let length = u16::from_be_bytes(take(bytes)?);
            String::from_utf8(take_slice(bytes, length.into())?.into()).map_err(|_| Malformed)
        };
        if u16::from_be_bytes(take(&mut bytes)?) != TOKEN_TYPE {
            return Err(Malformed);
        }
        let issuer = text(&mut bytes)?;
        let context = match take::<1>(&mut bytes)? {
            [0] => None,
            [32] => Some(take(&mut bytes)?),
            _ => return Err(Malformed),
        };
        let origins = text(&mut bytes)?;
        let origins: Vec<String> = origins.split_terminator(',').map(str::to_owned).collect();
        let decoded = Self { issuer, context, origins };
        if bytes.is_empty() { Ok(decoded) } else { Err(Malformed) }
    }

    /// SHA-256 of the structure: what a token holds of it.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }

    /// The value of `WWW-Authenticate` (RFC 9577 §2.1) with which a gateway asks for a token under this key.
    pub fn www_authenticate(&self, spki: &[u8]) -> String {
        let base64 = |bytes: &[u8]| URL_SAFE.encode(bytes);
        format!("PrivateToken challenge=\"{}\", token-key=\"{}\"", base64(&self.encode()), base64(spki))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of privacypass 0.2.0-pre.4, tests/kat_vectors/public_rs.json (MIT): with and without a context.
    const VECTORS: [&str; 2] = [
        "0002000b497373756572204e616d652067c589a97fd0048838a4ebb44d782d3802db23e0f3055e58bcc36f70be3f3fc00005612c622c63",
        "0002000b497373756572204e616d65000005612c622c63",
    ];

    #[test]
    fn vectors_decode_and_encode() {
        for vector in VECTORS {
            let bytes = hex::decode(vector).unwrap();
            let challenge = Challenge::decode(&bytes).unwrap();
            assert_eq!(challenge.issuer(), "Issuer Name");
            assert_eq!(challenge.origins(), ["a", "b", "c"]);
            assert_eq!(challenge.encode(), bytes);
            for cut in 0..bytes.len() {
                assert_eq!(Challenge::decode(&bytes[..cut]), Err(Malformed), "cut at {cut}");
            }
            assert_eq!(Challenge::decode(&[&bytes[..], &[0]].concat()), Err(Malformed));
        }
    }

    #[test]
    fn own_challenges_encode_and_decode() {
        for origins in [&[][..], &["gateway.example"], &["a.example", "b.example"]] {
            let challenge = Challenge::new("issuer.example", origins).unwrap();
            assert_eq!(Challenge::decode(&challenge.encode()).unwrap(), challenge);
        }
        for bad in ["", "a,b", "a b", "a\"", "ä"] {
            assert_eq!(Challenge::new(bad, &[]), Err(BadName));
            assert_eq!(Challenge::new("issuer.example", &[bad]), Err(BadName));
        }
    }
}
