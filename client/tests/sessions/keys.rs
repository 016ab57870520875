//! Gateways whose key has changed since the client's mirror was written.

use crate::log::{name, now, proof, trust_file};
use crate::support::PATIENCE;
use crate::support::amd_sp::{self, AmdSp};
use crate::support::guest::Guest;
use client::session::{Session, SessionError, Step};
use client::way::{OpenError, Prepared};
use privacy::gateway::{self, Gateway, Guests};
use privacy::keys::GATEWAY_ROLE;
use privacy::ohttp::{Kem, SecretKey, encode_list};
use privacy::serve::{self, serve};
use privacy::token::challenge::Challenge;
use privacy::token::redeem::{Redeem, Redeeming};
use privacy::token::structure::Token;
use privacy::token::wallet::Wallet;
use privacy::transport::TransportError;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use transparency::entry::{Entry, Kind, PublicKey, Subject, Version};

/// Takes everything, and remembers it.
#[derive(Default)]
struct Seen(Mutex<Vec<Vec<u8>>>);

impl Redeem for Seen {
    fn redeem<'a>(&'a self, token: &'a [u8]) -> Redeeming<'a> {
        self.0.lock().expect("a list").push(token.into());
        Box::pin(async { Ok(()) })
    }
}

/// A client whose wallet has three tokens, and a gateway that has `key`.
struct Scene {
    folder: TempDir,
    prepared: Prepared,
    seen: Arc<Seen>,
    _guest: Guest,
}

impl Scene {
    async fn new(key: &SecretKey) -> Self {
        let amd_sp = AmdSp::honest();
        let guest = Guest::start(move |report_data| Ok(amd_sp.attest(report_data)));
        let (seen, guests) =
            (Arc::new(Seen::default()), Arc::new(Guests::new(vec![guest.address.to_string()])));
        guests.probe().await;
        let gateway = Gateway::new(
            vec![key.clone()],
            seen.clone(),
            "PrivateToken".into(),
            guests,
            gateway::Limits::default(),
        );
        let gateway = Arc::new(gateway);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = move |request| gateway.clone().handle(request);
        let limits = serve::Limits::default();
        tokio::spawn(serve(listener, None, limits, service, CancellationToken::new(), Duration::ZERO));

        let folder = tempfile::tempdir().expect("a folder");
        let challenge = Challenge::new("issuer.example", &["gateway.example"]).expect("a challenge");
        let token = |number| {
            let mut bytes = [0; Token::LENGTH];
            (bytes[1], bytes[2]) = (2, number);
            bytes[34..66].copy_from_slice(&challenge.digest());
            Token::parse(&bytes).expect("a token")
        };
        let wallet = Wallet::new(&folder.path().join("wallet.json"));
        wallet.add(&[token(1), token(2), token(3)], now() + 3600, now()).expect("a wallet");
        let trust = trust_file(Kind::OhttpKey, "gateway.example", GATEWAY_ROLE, 0);
        let trust = toml::to_string(&trust).expect("a trust").replace("[[", "[[log.");
        let policy = folder.path().join("policy.toml");
        let text = format!(
            "[way]\nrelay = \"http://{address}/\"\ngateway = \"gateway.example\"\nkey_mirrors = [\"mirror\"]\n\
             floors = \"floors\"\n\n[tokens]\nissuer = \"https://issuer.invalid\"\nissuer_name = \"issuer.example\"\n\
             gateway = \"gateway.example\"\ncredential = \"none\"\nwallet = \"wallet.json\"\nkey_mirrors = []\n\
             floors = \"floors\"\n\n[log]\n{trust}"
        );
        fs::write(&policy, text).expect("written");
        let prepared = Prepared::load(&policy).expect("a policy").expect("a way");
        Self { folder, prepared, seen, _guest: guest }
    }

    /// The mirror has this key from now on.
    fn publish(&self, key: &SecretKey) {
        publish(&self.folder.path().join("mirror"), key);
    }

    async fn session(&self, progress: impl FnMut(Step)) -> Result<Session, OpenError> {
        let policy = Arc::new(amd_sp::policy().into());
        self.prepared.session(policy, PATIENCE, progress).await.map(|(session, _)| session)
    }

    fn tokens_left(&self) -> usize {
        let text = fs::read_to_string(self.folder.path().join("wallet.json")).expect("a wallet");
        text.matches("not_after").count()
    }
}

fn publish(mirror: &PathBuf, key: &SecretKey) {
    let public =
        PublicKey { key: encode_list([key.config()]), not_before: now() - 60, not_after: now() + 3600 };
    let entry = Entry {
        name: name("gateway.example"),
        role: name(GATEWAY_ROLE),
        version: Version::new(key.config().key_id.into(), 0, 0),
        previous: None,
        subject: Subject::OhttpKey(public),
    };
    fs::write(mirror, proof(&entry, now(), &[])).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_client_asks_its_mirrors_again_when_the_gateway_has_another_key() {
    let [old, new] = [1, 2].map(|id| SecretKey::generate(id, Kem::XWing).expect("a key"));
    let scene = Scene::new(&new).await;
    scene.publish(&old);
    // The mirror gets the new key while the client is on its way with the old one.
    let mirror = scene.folder.path().join("mirror");
    let mut tries = 0;
    let session = scene.session(|step| {
        if matches!(step, Step::Connecting) {
            tries += 1;
            publish(&mirror, &new);
        }
    });
    session.await.expect("a session under the new key");
    assert_eq!(tries, 2);
    // Another token than the one that was sealed to the old key; the gateway saw one.
    assert_eq!(scene.tokens_left(), 1);
    assert_eq!(scene.seen.0.lock().expect("a list").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_client_whose_mirrors_have_no_newer_key_says_so_and_asks_once() {
    let [old, new] = [1, 2].map(|id| SecretKey::generate(id, Kem::XWing).expect("a key"));
    let scene = Scene::new(&new).await;
    scene.publish(&old);
    let mut tries = 0;
    let refused = scene.session(|step| tries += usize::from(matches!(step, Step::Connecting))).await;
    let stale = OpenError::Session(SessionError::Way(TransportError::StaleKey));
    assert_eq!(refused.err().expect("there is no such key").to_string(), stale.to_string());
    assert_eq!((tries, scene.tokens_left()), (1, 2));
    assert!(scene.seen.0.lock().expect("a list").is_empty());
}
