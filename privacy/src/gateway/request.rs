//! An encapsulated request, from its first bytes to the end of its content.

use super::refusal::Outer;
use super::replay::Replays;
use crate::bhttp;
use crate::ohttp::{self, Form, Header, SecretKey, ServerExchange};
use crate::session::MAX_CONTENT;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Most bytes of a request that is not chunked, and of its parts in front of the content.
const MAX_WHOLE: u64 = 64 * 1024;

/// A request that is still arriving.
pub(super) struct Encapsulated {
    body: Incoming,
    /// `None` once the message was whole.
    opener: Option<ohttp::Opener>,
    pub(super) decoder: bhttp::Decoder,
    /// Content that has arrived and was not yet taken.
    content: Vec<u8>,
    /// What was decrypted is no binary HTTP.
    pub(super) malformed: bool,
}

impl Encapsulated {
    /// Reads as far as the head of the request.
    pub(super) async fn open(
        mut body: Incoming,
        form: Form,
        keys: &[SecretKey],
        replays: &Replays,
    ) -> Result<(Self, ServerExchange), Outer> {
        let mut start = Vec::new();
        let (header, length) = loop {
            if let Some(parsed) = Header::parse(&start, keys)? {
                break parsed;
            }
            start.extend_from_slice(&frame(&mut body).await?.ok_or(ohttp::Error::Truncated)?);
        };
        let limit = if form == Form::Whole { MAX_WHOLE } else { MAX_CONTENT };
        let (opener, exchange) = ServerExchange::accept(&header, form, keys, limit)?;
        let mut request = Self {
            body,
            opener: Some(opener),
            decoder: bhttp::Decoder::request(),
            content: Vec::new(),
            malformed: false,
        };
        let mut plain = Vec::new();
        request.take(start.get(length..).unwrap_or_default(), &mut plain)?;
        while request.decoder.head().is_none() && !request.malformed {
            if !request.read(&mut plain).await? {
                break;
            }
        }
        if !replays.is_first(&header.encapsulated) {
            return Err(Outer::Replayed);
        }
        Ok((request, exchange))
    }

    /// Takes bytes of the message.
    fn take(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Outer> {
        let Some(opener) = &mut self.opener else { return Ok(()) };
        opener.push(bytes, plain)?;
        self.decode(plain);
        Ok(())
    }

    fn decode(&mut self, plain: &mut Vec<u8>) {
        if self.decoder.push(plain, &mut self.content).is_err() {
            self.malformed = true;
        }
        plain.clear();
    }

    /// Reads more; `false` at the end of a message that is whole.
    async fn read(&mut self, plain: &mut Vec<u8>) -> Result<bool, Outer> {
        match frame(&mut self.body).await? {
            Some(bytes) => {
                self.take(&bytes, plain)?;
                Ok(true)
            }
            None => {
                if let Some(opener) = self.opener.take() {
                    opener.finish(plain)?;
                    self.decode(plain);
                    if !self.malformed && self.decoder.finish().is_err() {
                        self.malformed = true;
                    }
                }
                Ok(false)
            }
        }
    }

    /// The next piece of content; `None` at its end. Errors: it will never be whole.
    pub(super) async fn content(&mut self) -> Result<Option<Vec<u8>>, Outer> {
        let mut plain = Vec::new();
        loop {
            if self.malformed {
                return Err(Outer::Ohttp(ohttp::Error::Truncated));
            }
            if !self.content.is_empty() {
                return Ok(Some(std::mem::take(&mut self.content)));
            }
            if self.opener.is_none() {
                return Ok(None);
            }
            self.read(&mut plain).await?;
        }
    }
}

async fn frame(body: &mut Incoming) -> Result<Option<Bytes>, Outer> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Outer::Gone),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_) => return Ok(None),
            },
        }
    }
}
