//! One client: its TLS stream, the request that it is sending, and the answer that it is getting.
//!
//! Requests are answered one at a time and in order. What a client sends ahead waits, within a bound.

use crate::answer::Answer;
use crate::certificate::Identity;
use crate::http::{CONTINUE, Head, MAX_HEAD, Method, Parsed, Refusal, Reply, Status, parse};
use crate::tls::{Progress, Tls, TlsStream};
use crate::wipe::WipedBuffer;
use alloc::sync::Arc;
use attestation::report_data::{EXPORTER_LABEL, Exporter, NONCE_LEN, Nonce};
use inference::GenerationId;
use wire::task::ErrorCode;
use zeroize::Zeroizing;

/// Once so many bytes wait for the network, nothing more is encrypted until some have left; and once so many wait to be
/// encrypted, no further request is taken up. A client that asks and does not read so costs a bounded amount of memory.
const MAX_OUTGOING: usize = 16 * 1024;
/// Most plaintext of one record that is sent: with padding, a record and its TCP segment fit an Ethernet frame.
pub(crate) const RECORD: usize = 1023;
/// Lets sizes and times show, to measure what hiding them is worth. No image can have it.
pub(crate) const UNSHAPED: bool = cfg!(feature = "unshaped");
/// A handshake that takes longer, in milliseconds, is given up.
const HANDSHAKE_MS: u64 = 10_000;

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Evidence,
    Summarize,
    Chat,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        match path {
            wire::path::EVIDENCE => Some(Self::Evidence),
            wire::path::SUMMARIZE => Some(Self::Summarize),
            wire::path::CHAT_COMPLETIONS => Some(Self::Chat),
            _ => None,
        }
    }
}

/// A whole request that may be served.
pub(crate) enum Request {
    /// A nonce, which now waits for evidence.
    Evidence,
    /// A task and its body.
    Task(Route, WipedBuffer),
}

/// What the client is waiting for.
enum Exchange {
    /// Nothing: it is the client's turn.
    None,
    /// Evidence for this nonce, with the next report.
    Evidence(Nonce),
    /// The answer of a task.
    Answer(Answer, GenerationId),
}

/// How much a connection may claim when another one needs its place; the lowest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    Handshaking,
    Unattested,
    Idle,
    Generating,
}

/// One client's connection.
pub(crate) struct Connection {
    stream: TlsStream,
    spki: Arc<[u8]>,
    exporter: Option<Zeroizing<Exporter>>,
    attested: bool,
    /// Evidence was asked for in the handshake: it leaves with the server's first flight, framed by its length.
    evidence_first: bool,
    /// Whether the handshake was ever completed.
    had_session: bool,
    /// Decrypted and not yet understood.
    received: WipedBuffer,
    /// Not yet encrypted.
    reply: WipedBuffer,
    exchange: Exchange,
    /// Whether a record of the answer may leave.
    due: bool,
    /// Whether `100 Continue` went out for the request that is arriving.
    continued: bool,
    keep_alive: bool,
    /// No further request is read; the connection ends when everything is sent.
    closing: bool,
    close_sent: bool,
    /// When the client last did something that it is allowed to take its time for.
    waiting_since: u64,
}

impl Connection {
    pub(crate) fn new(tls: &Tls, identity: &Identity, now: u64) -> Result<Self, rustls::Error> {
        Ok(Self {
            stream: TlsStream::new(tls, identity)?,
            spki: identity.spki.clone(),
            exporter: None,
            attested: false,
            evidence_first: false,
            had_session: false,
            received: WipedBuffer::new(),
            reply: WipedBuffer::new(),
            exchange: Exchange::None,
            due: false,
            continued: false,
            keep_alive: true,
            closing: false,
            close_sent: false,
            waiting_since: now,
        })
    }

    /// Takes bytes from the network.
    pub(crate) fn receive(&mut self, bytes: &[u8], request_bytes: usize, now: u64) {
        let idle = self.received.is_empty();
        self.stream.receive(bytes, &mut self.received);
        // One request and another one sent ahead.
        let bound = (MAX_HEAD.saturating_add(request_bytes)).saturating_mul(2);
        if self.closing {
            self.received.clear();
        } else if self.received.len() > bound {
            self.received.clear();
            self.end();
        }
        let established = !self.had_session && self.is_established();
        if !self.evidence_first
            && let Some(nonce) = self.stream.asks_for_evidence()
        {
            self.evidence_first = true;
            self.exporter = self.stream.export(EXPORTER_LABEL);
            self.exchange = Exchange::Evidence(nonce);
        }
        if established {
            self.had_session = true;
            self.exporter = self.exporter.take().or_else(|| self.stream.export(EXPORTER_LABEL));
        }
        // A client has the idle time for its next request from its first byte on, not from its last.
        if established || idle && !self.received.is_empty() {
            self.waiting_since = now;
        }
    }

    /// The next request, if a whole one has arrived and the one before is answered. Requests that cannot be served are
    /// answered on the way; `refused` is called for each.
    pub(crate) fn next_request(
        &mut self,
        request_bytes: usize,
        refused: &mut dyn FnMut(),
    ) -> Option<Request> {
        while !self.closing && matches!(self.exchange, Exchange::None) && self.reply.len() < MAX_OUTGOING {
            let head = match parse(self.received.as_slice()) {
                Parsed::Incomplete => return None,
                Parsed::Head(head) => head,
                Parsed::Refused(refusal) => {
                    refused();
                    self.refuse_and_close(refusal, false);
                    return None;
                }
            };
            let Head { method, length, content_length, keep_alive, expects_continue, .. } = head;
            let route = self.admit(&head);
            let head_only = method == Method::Head;
            let body = usize::try_from(content_length.unwrap_or(0)).unwrap_or(usize::MAX);
            if body > request_bytes {
                refused();
                self.refuse_and_close(TOO_LARGE.with_numbers(body as u64, request_bytes as u64), head_only);
                return None;
            }
            let end = length + body;
            if self.received.len() < end {
                match route {
                    // RFC 9110 §10.1.1: a final status instead of 100 if the body would be refused anyway.
                    Err(refusal) if expects_continue => {
                        refused();
                        self.refuse_and_close(refusal, head_only);
                    }
                    Ok(_) if expects_continue && !self.continued => {
                        self.continued = true;
                        self.reply.push(CONTINUE);
                    }
                    _ => {}
                }
                return None;
            }
            let mut content = WipedBuffer::new();
            content.push(self.received.as_slice().get(length..end).unwrap_or_default());
            self.received.consume(end);
            self.continued = false;
            self.keep_alive = keep_alive;
            match route {
                Ok(Route::Evidence) => match <[u8; NONCE_LEN]>::try_from(content.as_slice()) {
                    Ok(nonce) => {
                        self.exchange = Exchange::Evidence(nonce);
                        return Some(Request::Evidence);
                    }
                    Err(_) => {
                        refused();
                        self.refuse(NONCE, false);
                    }
                },
                Ok(route) => return Some(Request::Task(route, content)),
                Err(refusal) => {
                    refused();
                    self.refuse(refusal, head_only);
                }
            }
        }
        None
    }

    fn admit(&self, head: &Head<'_>) -> Result<Route, Refusal> {
        let route = Route::of(head.path).ok_or(NOT_FOUND)?;
        if head.method != Method::Post {
            return Err(NOT_POST);
        }
        if head.content_length.is_none() {
            return Err(NO_LENGTH);
        }
        if route != Route::Evidence && !self.attested {
            return Err(NO_EVIDENCE);
        }
        Ok(route)
    }

    /// Answers a request that is not served.
    pub(crate) fn refuse(&mut self, refusal: Refusal, head_only: bool) {
        self.exchange = Exchange::None;
        if self.evidence_first && !self.attested {
            // No evidence, in that framing.
            self.reply.push(&0_u32.to_be_bytes());
            return self.end();
        }
        Reply { out: &mut self.reply, keep_alive: self.keep_alive, head_only }.refusal(refusal);
        self.answered();
    }

    fn refuse_and_close(&mut self, refusal: Refusal, head_only: bool) {
        self.keep_alive = false;
        self.received.clear();
        self.refuse(refusal, head_only);
    }

    /// What evidence for this connection has to bind, if it is waiting for evidence.
    pub(crate) fn awaited_evidence(&self) -> Option<(&Nonce, &[u8], &Exporter)> {
        match (&self.exchange, &self.exporter) {
            (Exchange::Evidence(nonce), Some(exporter)) => Some((nonce, &self.spki, exporter)),
            _ => None,
        }
    }

    /// Answers the nonce; from here on the connection may ask for tasks.
    pub(crate) fn give_evidence(&mut self, evidence: &[u8]) {
        self.exchange = Exchange::None;
        if !core::mem::replace(&mut self.attested, true) && self.evidence_first {
            self.reply.push(&u32::try_from(evidence.len()).unwrap_or(u32::MAX).to_be_bytes());
            return self.reply.push(evidence);
        }
        let reply = Reply { out: &mut self.reply, keep_alive: self.keep_alive, head_only: false };
        reply.whole(Status::Ok, "application/cmw+cbor", evidence);
        self.answered();
    }

    /// Whether the connection stays open after the current answer.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Starts the answer of a task.
    pub(crate) fn answer(&mut self, answer: Answer, generation: GenerationId) {
        self.exchange = Exchange::Answer(answer, generation);
    }

    /// The answer that `generation` belongs to.
    pub(crate) fn answer_of(&mut self, generation: GenerationId) -> Option<&mut Answer> {
        match &mut self.exchange {
            Exchange::Answer(answer, id) if *id == generation => Some(answer),
            _ => None,
        }
    }

    /// The generation whose answer is on its way, and how many tokens it has given.
    pub(crate) fn generation(&self) -> Option<(GenerationId, u32)> {
        match &self.exchange {
            Exchange::Answer(answer, id) => Some((*id, answer.completion_tokens())),
            _ => None,
        }
    }

    /// Lets one record of the answer leave; whether there is an answer. Those that a slow reader had no room for are not
    /// made up for.
    pub(crate) fn tick(&mut self) -> bool {
        self.due = matches!(self.exchange, Exchange::Answer(..));
        self.due
    }

    /// Moves what there is to say towards the network, as far as there is room; the answer, if that was its end.
    pub(crate) fn flush(&mut self, now: u64) -> Option<Answer> {
        let early = self.evidence_first && self.stream.progress() == Progress::Handshaking;
        if !self.is_established() && !early && self.stream.progress() != Progress::PeerClosed {
            return None;
        }
        let mut ended = None;
        let nothing_waited = self.stream.pending().is_empty();
        while self.stream.pending().len() < MAX_OUTGOING {
            if let Exchange::Answer(answer, _) = &mut self.exchange {
                if !core::mem::take(&mut self.due) {
                    break;
                }
                if answer.write_record(&mut self.reply)
                    && let Exchange::Answer(answer, _) =
                        core::mem::replace(&mut self.exchange, Exchange::None)
                {
                    ended = Some(answer);
                    self.answered();
                }
            }
            if self.reply.is_empty() {
                break;
            }
            let length = self.reply.len().min(RECORD);
            self.stream.send(self.reply.as_slice().get(..length).unwrap_or_default());
            self.reply.consume(length);
        }
        if self.reply.is_empty() && self.closing && !self.close_sent {
            self.close_sent = true;
            self.stream.close();
        }
        if nothing_waited && !self.stream.pending().is_empty() {
            self.waiting_since = now;
        }
        ended
    }

    fn answered(&mut self) {
        if !self.keep_alive {
            self.end();
        }
    }

    fn end(&mut self) {
        self.closing = true;
    }

    /// Bytes for the network.
    pub(crate) fn pending(&self) -> &[u8] {
        self.stream.pending()
    }

    /// The first `count` pending bytes are on their way.
    pub(crate) fn sent(&mut self, count: usize, now: u64) {
        if count > 0 {
            self.stream.sent(count);
            self.waiting_since = now;
        }
    }

    /// Whether nothing more will be sent.
    pub(crate) fn is_over(&self) -> bool {
        let ended = match self.stream.progress() {
            Progress::Broken => true,
            Progress::PeerClosed => self.close_sent,
            Progress::Established => self.close_sent,
            Progress::Handshaking => false,
        };
        ended && self.pending().is_empty()
    }

    /// Whether the handshake was completed and the connection has not broken since.
    pub(crate) fn is_established(&self) -> bool {
        self.stream.progress() == Progress::Established
    }

    /// Whether the handshake was ever completed.
    pub(crate) fn had_session(&self) -> bool {
        self.had_session
    }

    /// Whether the client has broken the protocol.
    pub(crate) fn is_broken(&self) -> bool {
        self.stream.progress() == Progress::Broken
    }

    /// Whether the client has said that it is leaving; its answer is then of no use to anyone.
    pub(crate) fn has_left(&self) -> bool {
        matches!(self.stream.progress(), Progress::Broken | Progress::PeerClosed)
    }

    /// Ends the exchange because the client has left.
    pub(crate) fn leave(&mut self) {
        self.exchange = Exchange::None;
        self.received.clear();
        self.reply.clear();
        self.end();
    }

    /// How much this connection may claim when another one needs its place, and since when.
    pub(crate) fn claim(&self) -> (Claim, u64) {
        let claim = if self.generation().is_some() {
            Claim::Generating
        } else if !self.is_established() {
            Claim::Handshaking
        } else if !self.attested {
            Claim::Unattested
        } else {
            Claim::Idle
        };
        (claim, self.waiting_since)
    }

    /// Whether the client has let its time pass: for the handshake, for its next request, or for taking what was sent.
    pub(crate) fn has_timed_out(&self, now: u64, idle_ms: u64) -> bool {
        let allowed = match self.stream.progress() {
            Progress::Handshaking => idle_ms.min(HANDSHAKE_MS),
            _ => idle_ms,
        };
        // While the model works and everything so far is sent, it is the client that waits for the guest.
        let waits_for_client = self.generation().is_none() || !self.pending().is_empty();
        waits_for_client && now.saturating_sub(self.waiting_since) > allowed
    }
}

const NOT_FOUND: Refusal = Refusal::new(
    Status::NotFound,
    ErrorCode::NotFound,
    "there is no such path; this guest serves /v1/evidence, /v1/tasks/summarize and /v1/chat/completions",
);
const NOT_POST: Refusal =
    Refusal::new(Status::MethodNotAllowed, ErrorCode::MethodNotAllowed, "this path takes POST only");
const NO_LENGTH: Refusal =
    Refusal::new(Status::LengthRequired, ErrorCode::BadRequest, "the request needs a Content-Length");
const NO_EVIDENCE: Refusal = Refusal::new(
    Status::Forbidden,
    ErrorCode::EvidenceRequired,
    "ask for evidence on this connection first: POST 32 bytes of nonce to /v1/evidence and check the answer",
);
const TOO_LARGE: Refusal = Refusal::new(
    Status::ContentTooLarge,
    ErrorCode::BodyTooLarge,
    "the request body is larger than this image allows; send fewer or shorter messages",
);
const NONCE: Refusal =
    Refusal::new(Status::BadRequest, ErrorCode::BadRequest, "the body must be a nonce of exactly 32 bytes");
