//! One request and its response: the client's side and the gateway's.

use super::chunks::{Direction, Opener, Sealer, Text};
use super::suite::{Context, HKDF_SHA256};
use super::{Aead, ConfigError, Error, Form, Kem, KeyConfig, SecretKey, Suite};
use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256 as SHA256, KeyType, Salt};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Bytes in front of the encapsulated key (RFC 9458 §4.1).
const FIXED: usize = 7;

/// What stands at the head of an encapsulated request, in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Names the key.
    pub key_id: u8,
    /// The algorithms.
    pub suite: Suite,
    /// The encapsulated key, different for each request.
    pub encapsulated: Vec<u8>,
}

impl Header {
    /// Reads it from the first bytes of a request: the header and its length, or `None` if there are too few. Only keys and
    /// algorithms of `keys` are accepted.
    pub fn parse(bytes: &[u8], keys: &[SecretKey]) -> Result<Option<(Self, usize)>, Error> {
        let Some(key_id) = bytes.first() else { return Ok(None) };
        let mut named = keys.iter().map(SecretKey::config).filter(|key| key.key_id == *key_id);
        let Some(config) = named.next() else { return Err(Error::UnknownKey) };
        let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Ok(None) };
        let [kem, kdf, aead] = [1, 3, 5].map(|at| u16::from_be_bytes([fixed[at], fixed[at + 1]]));
        let suite = match (Kem::from_id(kem), Aead::from_id(aead)) {
            (Some(kem), Some(aead)) if kdf == HKDF_SHA256 => Suite { kem, aead },
            _ => return Err(Error::Algorithms),
        };
        if config.kem != suite.kem || !config.aeads.contains(&suite.aead) {
            return Err(Error::Algorithms);
        }
        let end = FIXED + suite.kem.encapsulated_length();
        let encapsulated = bytes.get(FIXED..end);
        Ok(encapsulated.map(|bytes| (Self { key_id: *key_id, suite, encapsulated: bytes.into() }, end)))
    }

    fn fixed(key_id: u8, suite: Suite) -> [u8; FIXED] {
        let ([a, b], [c, d], [e, f]) =
            (suite.kem.id().to_be_bytes(), HKDF_SHA256.to_be_bytes(), suite.aead.id().to_be_bytes());
        [key_id, a, b, c, d, e, f]
    }
}

/// `info` of the HPKE context (RFC 9458 §4.3).
fn info(form: Form, fixed: &[u8; FIXED]) -> Vec<u8> {
    [form.request_label(), &[0], fixed].concat()
}

/// The client's side.
pub struct ClientExchange {
    response: ResponseSecret,
}

impl ClientExchange {
    /// Starts an exchange: the first bytes of the request (its header), what seals its content, and what opens the
    /// response.
    pub fn start(config: &KeyConfig, form: Form) -> Result<(Vec<u8>, Sealer, Self), Error> {
        let suite = config.suite().map_err(|_: ConfigError| Error::Algorithms)?;
        let fixed = Header::fixed(config.key_id, suite);
        let (encapsulated, context) = suite.send(&config.public, &info(form, &fixed))?;
        let response = ResponseSecret::export(&*context, form, suite, &encapsulated)?;
        let header = [&fixed[..], &encapsulated].concat();
        Ok((header, Sealer::new(Direction::Request(context), form), Self { response }))
    }

    /// Opens the response; at most `limit` bytes of content.
    pub fn response(self, limit: u64) -> Opener {
        let form = self.response.form;
        Opener::new(Text::ResponseNonce(self.response), form, limit)
    }
}

/// The gateway's side.
pub struct ServerExchange {
    response: ResponseSecret,
}

impl ServerExchange {
    /// Accepts a request by its header: what opens its content, of at most `limit` bytes, and what seals the response.
    pub fn accept(
        header: &Header,
        form: Form,
        keys: &[SecretKey],
        limit: u64,
    ) -> Result<(Opener, Self), Error> {
        let named = |key: &&SecretKey| key.config().key_id == header.key_id;
        let key = keys.iter().find(named).ok_or(Error::UnknownKey)?;
        let info = info(form, &Header::fixed(header.key_id, header.suite));
        let context = header.suite.receive(key.secret(), &header.encapsulated, &info)?;
        let response = ResponseSecret::export(&*context, form, header.suite, &header.encapsulated)?;
        Ok((Opener::new(Text::Open(Direction::Request(context)), form, limit), Self { response }))
    }

    /// Starts the response: its first bytes (the nonce), and what seals its content.
    pub fn respond(self) -> Result<(Vec<u8>, Sealer), Error> {
        let mut nonce = vec![0; self.response.suite.aead.key_length()];
        SystemRandom::new().fill(&mut nonce).map_err(|_| Error::Seal)?;
        let form = self.response.form;
        let keys = self.response.keys(&nonce)?;
        Ok((nonce, Sealer::new(Direction::Response(keys), form)))
    }
}

#[cfg(test)]
impl ServerExchange {
    /// Both sides export the same secret, so a test can open a response whose request it cannot have made.
    pub(super) fn into_client(self) -> ClientExchange {
        ClientExchange { response: self.response }
    }
}

/// What the keys of a response come from (RFC 9458 §4.4).
pub(super) struct ResponseSecret {
    form: Form,
    suite: Suite,
    encapsulated: Vec<u8>,
    secret: Zeroizing<Vec<u8>>,
}

impl ResponseSecret {
    fn export(context: &dyn Context, form: Form, suite: Suite, encapsulated: &[u8]) -> Result<Self, Error> {
        let mut secret = Zeroizing::new(vec![0; suite.aead.key_length()]);
        context.export(form.response_label(), &mut secret).ok_or(Error::Seal)?;
        Ok(Self { form, suite, encapsulated: encapsulated.into(), secret })
    }

    /// Bytes of the response's nonce.
    pub(super) fn nonce_length(&self) -> usize {
        self.suite.aead.key_length()
    }

    pub(super) fn keys(&self, nonce: &[u8]) -> Result<ResponseKeys, Error> {
        let aead = self.suite.aead;
        let salt = [&self.encapsulated, nonce].concat();
        let prk = Salt::new(SHA256, &salt).extract(&self.secret);
        let (mut key, mut base) = (Zeroizing::new(vec![0; aead.key_length()]), [0; NONCE_LEN]);
        let expand = |label: &[u8], out: &mut [u8]| {
            let labels = [label];
            prk.expand(&labels, Length(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| Error::Seal)
        };
        expand(b"key", &mut key)?;
        expand(b"nonce", &mut base)?;
        let key = UnboundKey::new(aead.algorithm(), &key).map_err(|_| Error::Seal)?;
        Ok(ResponseKeys { key: LessSafeKey::new(key), base, counter: 0 })
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Key, nonce and counter of a response's chunks (draft §6.2).
pub(super) struct ResponseKeys {
    key: LessSafeKey,
    base: [u8; NONCE_LEN],
    counter: u64,
}

impl ResponseKeys {
    fn nonce(&mut self) -> Option<Nonce> {
        let mut nonce = self.base;
        for (byte, count) in nonce.iter_mut().rev().zip(self.counter.to_be_bytes().iter().rev()) {
            *byte ^= count;
        }
        // No nonce twice under a key.
        self.counter = self.counter.checked_add(1)?;
        Some(Nonce::assume_unique_for_key(nonce))
    }

    pub(super) fn seal(&mut self, text: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        let nonce = self.nonce()?;
        let mut sealed = text.to_vec();
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).ok()?;
        Some(sealed)
    }

    pub(super) fn open(&mut self, text: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        let nonce = self.nonce()?;
        let mut opened = text.to_vec();
        let length = self.key.open_in_place(nonce, Aad::from(aad), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}
