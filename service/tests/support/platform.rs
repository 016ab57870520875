//! A platform whose AMD-SP signs with a development chain, and whose clock and AMD-SP the test controls.

use attestation::development::Chain;
use attestation::manifest::Manifest;
use attestation::verifier::{Digest, Image, NonEmpty, Policy, PolicyFile};
use rustls::crypto::SecureRandom;
use service::{AttestError, Attested, Platform};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::SystemTime;
use wire::event::Event;

pub const LAUNCH_DIGEST: [u8; 48] = [0xa1; 48];

/// One chain for all tests of a binary: RSA keys take their time.
pub static CHAIN: LazyLock<Chain> = LazyLock::new(|| Chain::generate(SystemTime::now()).expect("a chain"));

/// What the test sees and sets; shared with the platform inside the service.
#[derive(Default)]
pub struct Controls {
    pub now_ms: Cell<u64>,
    pub events: RefCell<Vec<Event>>,
    /// What the AMD-SP answers instead of a report.
    pub refuse: Cell<Option<AttestError>>,
    /// The `report_data` of every report so far.
    pub reported: RefCell<Vec<[u8; 64]>>,
}

pub struct FakePlatform {
    pub controls: Rc<Controls>,
    /// Tells the time of the host instead of the test's.
    pub real_clock: bool,
    /// Shows events on standard output as well.
    pub prints_events: bool,
    started: std::time::Instant,
}

impl FakePlatform {
    pub fn new(controls: Rc<Controls>) -> Self {
        Self { controls, real_clock: false, prints_events: false, started: std::time::Instant::now() }
    }
}

impl Platform for FakePlatform {
    fn random(&self) -> &'static dyn SecureRandom {
        rustls::crypto::aws_lc_rs::default_provider().secure_random
    }

    fn now_ms(&self) -> u64 {
        match self.real_clock {
            true => self.started.elapsed().as_millis() as u64,
            false => self.controls.now_ms.get(),
        }
    }

    fn attest(&mut self, report_data: &[u8; 64]) -> Result<Attested, AttestError> {
        if let Some(error) = self.controls.refuse.get() {
            return Err(error);
        }
        self.controls.reported.borrow_mut().push(*report_data);
        let mut report = CHAIN.unsigned_report(report_data, &LAUNCH_DIGEST);
        CHAIN.sign(&mut report).expect("the chain signs");
        Ok(Attested { report: report.to_vec(), certificates: CHAIN.certificate_table() })
    }

    fn emit(&mut self, event: Event) {
        if self.prints_events {
            println!("{event:?}");
        }
        self.controls.events.borrow_mut().push(event);
    }
}

/// A client's policy that accepts an image with this manifest on the development chain.
pub fn policy(manifest: &Manifest) -> Policy {
    Policy::accepting(NonEmpty::from(image(manifest))).with_development_root(CHAIN.ark_der())
}

/// The same as a file; `root` is the path of the development root.
pub fn policy_toml(manifest: &Manifest, root: &str) -> String {
    let mut file = PolicyFile::pinning(NonEmpty::from(image(manifest)));
    file.development_root = Some(root.into());
    file.to_toml().expect("a policy can be written")
}

fn image(manifest: &Manifest) -> Image {
    Image {
        name: manifest.image.clone(),
        version: manifest.version.clone(),
        model: manifest.model.name.clone(),
        manifest_digest: Digest::try_from(manifest.digest()).expect("a digest"),
        launch_digests: NonEmpty::from(Digest::try_from(LAUNCH_DIGEST).expect("a digest")),
    }
}
