//! The service and its clients in one process, with a transport of plain byte moves.

use super::client::{Client, Response, config, post};
use super::model::{self, Ending};
use super::platform::{Controls, FakePlatform, policy};
use attestation::manifest::Manifest;
use attestation::verifier::{verify_certificate, verify_fresh};
use inference::{Model, SingleThread};
use rustls::ClientConfig;
use service::{ConnectionId, Service};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;
use wire::event::Event;

pub type TestService = Service<'static, FakePlatform, SingleThread>;

pub struct World {
    pub service: TestService,
    pub controls: Rc<Controls>,
    pub manifest: Manifest,
    pub config: Arc<ClientConfig>,
}

/// A client and its connection.
pub struct Peer {
    pub client: Client,
    pub id: ConnectionId,
}

impl World {
    pub fn new() -> Self {
        Self::with(model::manifest(), Ending::Stops)
    }

    pub fn with(manifest: Manifest, ending: Ending) -> Self {
        let weights: &'static [u8] = Vec::leak(model::gguf(ending));
        let model: &'static Model<'static> = Box::leak(Box::new(Model::load(weights).expect("a model")));
        let controls = Rc::new(Controls::default());
        let platform = FakePlatform::new(controls.clone());
        let service =
            Service::new(platform, manifest.clone(), model, SingleThread).expect("the service starts");
        Self { service, controls, manifest, config: Arc::new(config()) }
    }

    /// Opens a connection; not a byte has moved yet.
    pub fn open(&mut self) -> Peer {
        let config = self.config.clone();
        self.open_with(&config)
    }

    pub fn open_with(&mut self, config: &Arc<ClientConfig>) -> Peer {
        Peer { client: Client::new(config), id: self.service.open().expect("there is room") }
    }

    /// Moves bytes both ways once; says whether there were any.
    pub fn exchange(&mut self, peer: &mut Peer) -> bool {
        let sent = peer.client.outgoing();
        self.service.receive(peer.id, &sent);
        let pending = self.service.pending(peer.id).to_vec();
        self.service.sent(peer.id, pending.len());
        peer.client.take(&pending);
        !sent.is_empty() || !pending.is_empty()
    }

    /// Moves bytes and steps until nothing happens any more, with the pace of answers.
    pub fn settle(&mut self, peer: &mut Peer) {
        let mut quiet = 0;
        // Where the clock begins again from 0, one reading of it lets no time pass.
        while quiet < 2 {
            while self.exchange(peer) | self.service.step() {}
            quiet = if self.tick() { 0 } else { quiet + 1 };
        }
    }

    /// Lets so much time pass that a record of every answer may leave; says whether there is an answer.
    pub fn tick(&mut self) -> bool {
        let pace = u64::from(self.manifest.limits.pace_ms);
        self.controls.now_ms.set(self.controls.now_ms.get().wrapping_add(pace));
        self.service.step()
    }

    /// A connection whose handshake is complete.
    pub fn connect(&mut self) -> Peer {
        let mut peer = self.open();
        self.settle(&mut peer);
        assert!(!peer.client.tls.is_handshaking(), "{:?}", peer.client.error);
        peer
    }

    /// A connection whose evidence has been verified.
    pub fn attested(&mut self) -> Peer {
        let mut peer = self.connect();
        let nonce = [7; 32];
        let response = self.ask(&mut peer, &post("/v1/evidence", &nonce));
        assert_eq!(response.status, 200, "{}", response.head);
        self.verify(&peer.client, &nonce, &response.body);
        peer
    }

    /// Checks evidence as a client does.
    pub fn verify(&self, client: &Client, nonce: &[u8; 32], evidence: &[u8]) {
        let (policy, now) = (policy(&self.manifest), SystemTime::now());
        verify_certificate(client.certificate(), &policy, now).expect("the certificate's evidence holds");
        verify_fresh(evidence, nonce, client.certificate(), &client.exporter(), &policy, now)
            .expect("the fresh evidence holds");
    }

    /// Sends a request and waits for its response.
    pub fn ask(&mut self, peer: &mut Peer, request: &[u8]) -> Response {
        peer.client.write(request);
        self.settle(peer);
        peer.client.response().expect("a whole response")
    }

    /// Lets time pass for the service.
    pub fn pass(&mut self, ms: u64) {
        let until = self.controls.now_ms.get() + ms;
        while self.controls.now_ms.get() < until {
            self.controls.now_ms.set((self.controls.now_ms.get() + 500).min(until));
            self.service.step();
        }
    }

    pub fn events(&self) -> Vec<Event> {
        self.controls.events.borrow().clone()
    }
}
