//! The service: connections, evidence, tasks and the engine, brought together one step at a time.

use crate::answer::Answer;
use crate::certificate::{Identity, IdentityError};
use crate::clock::Clock;
use crate::connection::{Claim, Connection, Request, Route, UNSHAPED};
use crate::http::{Refusal, Status};
use crate::platform::{AttestError, Platform};
use crate::prompt;
use crate::task;
use crate::tls::Tls;
use crate::wipe::{self, WipedBuffer};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use attestation::batch;
use attestation::evidence::FreshEvidence;
use attestation::manifest::{Manifest, ManifestDigest};
use attestation::report_data;
use core::fmt::Write;
use inference::{
    GenerationId, Limits, LimitsError, Model, Output, OutputKind, Scheduler, Tokenizer, Workers,
};
use wire::event::{Event, RequestEnd};
use wire::task::{ErrorCode, FinishReason};

/// An identity is replaced after so many connections.
const ROTATE_AFTER_CONNECTIONS: u32 = 4096;
/// An identity is replaced after so many milliseconds of the untrusted clock: twelve hours.
const ROTATE_AFTER_MS: u64 = 12 * 60 * 60 * 1000;
/// After a failed attempt to make a new identity, the next one waits so long.
const ROTATE_AGAIN_MS: u64 = 60 * 1000;
/// Most nonces that one report answers; the rest waits for the next step's.
const BATCH: usize = 256;
/// Prompt tokens that the engine takes at a time, so that a long prompt does not stall the others.
const PREFILL_CHUNK: usize = 64;

/// Names a connection. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// There is no place for another connection: every one is waiting for an answer that is being generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Why the service cannot start.
#[derive(Clone, Debug, PartialEq)]
pub enum StartError {
    /// There is no attested key.
    Identity(IdentityError),
    /// The engine cannot serve within the manifest's limits.
    Limits(LimitsError),
}

/// The service. The caller moves bytes between connections and the network, and calls [`Service::step`].
pub struct Service<'m, P, W> {
    platform: P,
    tls: Tls,
    identity: Identity,
    manifest: Manifest,
    digest: ManifestDigest,
    tokenizer: &'m Tokenizer,
    scheduler: Scheduler<'m, W>,
    outputs: Vec<Output>,
    connections: BTreeMap<ConnectionId, Box<Connection>>,
    /// Connections opened so far, under this identity and under all.
    opened: (u32, u64),
    clock: Clock,
    /// Which record of the answers may leave now.
    tick: u64,
    /// The tick of the engine's last step, and how long it took.
    stepped: (u64, u64),
    rotate_at: u64,
}

impl<'m, P: Platform, W: Workers> Service<'m, P, W> {
    /// Makes the TLS key, has it attested, and sizes the engine. The caller has checked that `model` is the one that
    /// `manifest` names.
    ///
    /// # Errors
    /// When there is no randomness or no report, or the limits do not fit the model.
    pub fn new(
        mut platform: P,
        manifest: Manifest,
        model: &'m Model<'m>,
        workers: W,
    ) -> Result<Self, StartError> {
        let tls = Tls::new(&platform);
        let digest = manifest.digest();
        let identity = Identity::make(&tls, &mut platform, &digest).map_err(StartError::Identity)?;
        let limits = Limits {
            context_tokens: manifest.limits.context_tokens as usize,
            sessions: manifest.limits.sessions as usize,
            prefill_chunk: PREFILL_CHUNK.min(manifest.limits.context_tokens as usize),
            speculation: Limits::SPECULATION,
        };
        let mut scheduler = Scheduler::new(model, limits, workers).map_err(StartError::Limits)?;
        for task in &manifest.tasks {
            let start = prompt::start(&manifest.template, &task.instruction);
            // One that the engine does not take, because it is empty or longer than the context, is not shared.
            let _ = scheduler.share_prefix(&start);
        }
        let mut clock = Clock::default();
        clock.advance(platform.now_ms());
        Ok(Self {
            platform,
            tls,
            identity,
            manifest,
            digest,
            tokenizer: model.tokenizer(),
            scheduler,
            outputs: Vec::new(),
            connections: BTreeMap::new(),
            opened: (0, 0),
            clock,
            tick: 0,
            stepped: (0, 0),
            rotate_at: ROTATE_AFTER_MS,
        })
    }

    /// The platform that the service was given.
    pub fn platform(&mut self) -> &mut P {
        &mut self.platform
    }

    /// Takes on a client. If all places are taken, the one that has been waiting longest for its own client goes:
    /// unfinished handshakes first, then clients without evidence, then idle ones (REQUIREMENTS A17).
    ///
    /// # Errors
    /// When every connection is waiting for an answer that is being generated.
    pub fn open(&mut self) -> Result<ConnectionId, Full> {
        self.clock.advance(self.platform.now_ms());
        if self.connections.len() >= self.manifest.limits.connections as usize {
            let claims = self.connections.iter().map(|(id, connection)| (connection.claim(), *id));
            let ((claim, _), id) = claims.min().ok_or(Full)?;
            if claim == Claim::Generating {
                return Err(Full);
            }
            self.close(id);
        }
        let connection = Connection::new(&self.tls, &self.identity, self.clock.now()).map_err(|_| Full)?;
        self.opened = (self.opened.0.saturating_add(1), self.opened.1 + 1);
        let id = ConnectionId(self.opened.1);
        self.connections.insert(id, Box::new(connection));
        self.emit(Event::ConnectionOpened { open: self.open_connections() });
        Ok(id)
    }

    /// Takes bytes that arrived on a connection. Bytes for one that is gone are ignored.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.clock.advance(self.platform.now_ms());
        let now = self.clock.now();
        let request_bytes = self.manifest.limits.request_bytes as usize;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let was_broken = connection.is_broken();
        connection.receive(bytes, request_bytes, now);
        if connection.is_broken() && !was_broken && !connection.had_session() {
            self.platform.emit(Event::HandshakeFailed {});
        }
        self.serve(id);
    }

    /// Bytes for the network. Nothing for a connection that is gone.
    pub fn pending(&self, id: ConnectionId) -> &[u8] {
        self.connections.get(&id).map_or(&[], |connection| connection.pending())
    }

    /// The first `count` pending bytes are on their way.
    pub fn sent(&mut self, id: ConnectionId, count: usize) {
        let now = self.clock.now();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.sent(count, now);
            self.serve(id);
        }
    }

    /// Whether the caller should end the connection to the client and then [`Service::close`] it.
    pub fn wants_close(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_none_or(|connection| connection.is_over())
    }

    /// Forgets a connection: its keys, and all that was said over it, are wiped; what is being generated for it stops.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.cancel(&connection);
        let had_session = connection.had_session();
        drop(connection);
        wipe::stack();
        self.emit(Event::ConnectionClosed { open: self.open_connections() });
        if had_session {
            self.emit(Event::SessionWiped {});
        }
    }

    /// Does what is due: evidence for everyone who waits, one step of the engine, timeouts, a new identity. Returns
    /// whether anything was done, so that the caller can rest if not.
    pub fn step(&mut self) -> bool {
        self.clock.advance(self.platform.now_ms());
        let evidence = self.give_evidence();
        let sent = self.pace();
        let generated = self.generate();
        let dropped = self.drop_timed_out();
        let rotated = self.rotate();
        evidence || generated || sent || dropped || rotated
    }

    fn emit(&mut self, event: Event) {
        self.platform.emit(event);
    }

    fn open_connections(&self) -> u32 {
        u32::try_from(self.connections.len()).unwrap_or(u32::MAX)
    }

    /// Takes up the requests that have arrived on a connection and sends what can be sent.
    fn serve(&mut self, id: ConnectionId) {
        let request_bytes = self.manifest.limits.request_bytes as usize;
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if connection.has_left() {
                let left = connection.generation();
                connection.leave();
                let _ = connection.flush(self.clock.now());
                if let Some((generation, tokens)) = left {
                    self.abandon(generation, tokens);
                }
                return;
            }
            let platform = &mut self.platform;
            let mut refused = || platform.emit(Event::RequestEnded { end: RequestEnd::Refused, tokens: 0 });
            let request = connection.next_request(request_bytes, &mut refused);
            if let Some(Request::Task(route, body)) = &request {
                let begun = self.begin(id, *route, body);
                if let (Err(refusal), Some(connection)) = (begun, self.connections.get_mut(&id)) {
                    self.platform.emit(Event::RequestEnded { end: RequestEnd::Refused, tokens: 0 });
                    connection.refuse(refusal, false);
                }
            }
            let now = self.clock.now();
            if let Some(answer) = self.connections.get_mut(&id).and_then(|connection| connection.flush(now)) {
                let (reason, tokens) = answer.end();
                let complete = reason == Some(FinishReason::Stop);
                let end = if complete { RequestEnd::Complete } else { RequestEnd::Length };
                self.emit(Event::RequestEnded { end, tokens: about(tokens).into() });
                continue;
            }
            if request.is_none() {
                return;
            }
        }
    }

    /// Hands a task to the engine.
    fn begin(&mut self, id: ConnectionId, route: Route, body: &WipedBuffer) -> Result<(), Refusal> {
        let task = task::prepare(route, body.as_slice(), &self.manifest, self.tokenizer, self.tls.random)?;
        let prompt_tokens = u32::try_from(task.generation.prompt.len()).unwrap_or(u32::MAX);
        let name = self.completion_id()?;
        let generation = self.scheduler.submit(task.generation).map_err(task::refusal)?;
        self.emit(Event::RequestStarted { tokens: about(prompt_tokens) });
        match self.connections.get_mut(&id) {
            Some(connection) => {
                let answer =
                    Answer::new(task.shape, name, &self.manifest, prompt_tokens, connection.keeps_alive());
                connection.answer(answer, generation);
            }
            None => self.abandon(generation, 0),
        }
        Ok(())
    }

    /// 96 random bits in hexadecimal: a counter would tell one client how many others there are.
    fn completion_id(&self) -> Result<String, Refusal> {
        let mut random = [0; 12];
        self.tls.random.fill(&mut random).map_err(|_| task::INTERNAL)?;
        let mut id = String::with_capacity(24);
        for byte in random {
            let _ = write!(id, "{byte:02x}");
        }
        Ok(id)
    }

    fn cancel(&mut self, connection: &Connection) {
        if let Some((generation, tokens)) = connection.generation() {
            self.abandon(generation, tokens);
        }
    }

    fn abandon(&mut self, generation: GenerationId, tokens: u32) {
        self.scheduler.cancel(generation);
        self.emit(Event::RequestEnded { end: RequestEnd::ClientGone, tokens: about(tokens).into() });
    }

    /// Answers the nonces that wait with one report over the batch's root.
    fn give_evidence(&mut self) -> bool {
        let awaited = self.connections.iter().filter_map(|(id, connection)| {
            let (nonce, spki, exporter) = connection.awaited_evidence()?;
            Some((*id, report_data::fresh(nonce, spki, exporter, &self.digest)))
        });
        let (waiting, leaves): (Vec<_>, Vec<_>) = awaited.take(BATCH).unzip();
        if waiting.is_empty() {
            return false;
        }
        let tree = batch::Tree::new(&leaves);
        let attested = match self.platform.attest(&tree.root()) {
            Ok(attested) => attested,
            // They keep waiting; the idle time bounds how long.
            Err(AttestError::Throttled) => return false,
            Err(AttestError::Failed) => {
                for id in waiting {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.refuse(NO_REPORT, false);
                    }
                    self.serve(id);
                }
                return true;
            }
        };
        for (index, id) in waiting.iter().enumerate() {
            let Some(path) = tree.path(index) else { continue };
            let evidence = FreshEvidence {
                report: attested.report.clone(),
                certificates: attested.certificates.clone(),
                index: u32::try_from(index).unwrap_or(u32::MAX),
                path,
            };
            if let Some(connection) = self.connections.get_mut(id) {
                connection.give_evidence(&evidence.encode());
            }
            self.serve(*id);
        }
        self.emit(Event::EvidenceIssued { sessions: u32::try_from(waiting.len()).unwrap_or(u32::MAX) });
        true
    }

    /// One step of the engine, and what it gave to the connections it belongs to.
    fn generate(&mut self) -> bool {
        // A step that would last beyond the next tick, if it takes as long as the one before, waits for that tick: a late record
        // would show the step. The first after a tick never waits, so the engine gets on at any pace.
        let left = self.pace_ms() - self.clock.now() % self.pace_ms();
        if self.scheduler.is_idle() || self.stepped.0 == self.tick && self.stepped.1 >= left && !UNSHAPED {
            return false;
        }
        let (mut outputs, before) = (core::mem::take(&mut self.outputs), self.platform.now_ms());
        self.scheduler.step(&mut outputs);
        self.stepped = (self.tick, self.platform.now_ms().saturating_sub(before));
        for output in &mut outputs {
            self.deliver(*output);
            // The next step writes over this place, but nobody knows when that will be.
            output.kind = OutputKind::Finished(inference::FinishReason::Stop);
        }
        outputs.clear();
        self.outputs = outputs;
        true
    }

    /// Adds to the answer that it belongs to.
    fn deliver(&mut self, Output { id, kind }: Output) {
        let Some(answer) = self.connections.values_mut().find_map(|connection| connection.answer_of(id))
        else {
            return;
        };
        match kind {
            OutputKind::Token(token) => answer.token(self.tokenizer.decode(token)),
            OutputKind::Finished(inference::FinishReason::Stop) => answer.finish(FinishReason::Stop),
            OutputKind::Finished(inference::FinishReason::Length) => answer.finish(FinishReason::Length),
        }
    }

    fn pace_ms(&self) -> u64 {
        self.manifest.limits.pace_ms.max(1).into()
    }

    /// When it is time, lets one record of every answer leave, whatever there is to say (REQUIREMENTS C6). The clock is the host's,
    /// and so is the pace: it could as well hold the records back.
    fn pace(&mut self) -> bool {
        let tick = self.clock.now() / self.pace_ms();
        if core::mem::replace(&mut self.tick, tick) == tick && !UNSHAPED {
            return false;
        }
        let answers = self.connections.iter_mut().filter_map(|(id, c)| c.tick().then_some(*id));
        let answers: Vec<ConnectionId> = answers.collect();
        answers.iter().for_each(|id| self.serve(*id));
        !answers.is_empty() && !UNSHAPED
    }

    fn drop_timed_out(&mut self) -> bool {
        let (now, idle_ms) = (self.clock.now(), self.manifest.limits.idle_ms.into());
        let connections = self.connections.iter();
        let late =
            connections.filter(|(_, connection)| connection.has_timed_out(now, idle_ms)).map(|(id, _)| *id);
        let late: Vec<ConnectionId> = late.collect();
        for id in &late {
            self.close(*id);
        }
        !late.is_empty()
    }

    /// Replaces the identity when it is due. Connections keep the one that they began with.
    fn rotate(&mut self) -> bool {
        if self.opened.0 < ROTATE_AFTER_CONNECTIONS && self.clock.now() < self.rotate_at {
            return false;
        }
        self.opened.0 = 0;
        match Identity::make(&self.tls, &mut self.platform, &self.digest) {
            Ok(identity) => {
                self.identity = identity;
                self.rotate_at = self.clock.now().saturating_add(ROTATE_AFTER_MS);
                self.emit(Event::CertificateRotated {});
            }
            // The old identity is as good as before; what is fresh is the evidence for each nonce.
            Err(_) => self.rotate_at = self.clock.now().saturating_add(ROTATE_AGAIN_MS),
        }
        true
    }
}

/// What the operator is told of a number of tokens: up to which power of two it goes, from 64 (REQUIREMENTS C6).
fn about(tokens: u32) -> u32 {
    tokens.max(64).checked_next_power_of_two().unwrap_or(u32::MAX)
}

const NO_REPORT: Refusal = Refusal::new(
    Status::Unavailable,
    ErrorCode::Internal,
    "the AMD-SP gave no report, so there is no evidence; try again, or ask the operator",
);
