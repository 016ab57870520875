//! An issuer with its accounts on this machine, and gateways that take its tokens.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod gateway;
pub mod log;
pub mod stores;

use privacy::issuer::accounts::Accounts;
use privacy::issuer::epochs::{EpochKey, Epochs, Schedule};
use privacy::issuer::quota::Quota;
use privacy::issuer::service::{Issuer, router};
use privacy::keys::IssuerKey;
use privacy::token::challenge::Challenge;
use privacy::token::key::TokenKey;
use privacy::token::request::Pending;
use privacy::token::spent::Spent;
use privacy::token::structure::{BATCH_REQUEST, BATCH_RESPONSE, Token};
use privacy::token::till::Till;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use transparency::entry::Name;

pub const SCHEDULE: Schedule = Schedule { epoch_hours: 24, overlap_hours: 6 };

pub fn now() -> u64 {
    privacy::clock::now().unwrap()
}

pub fn challenge() -> Challenge {
    Challenge::new("issuer.example", &["gateway.example"]).unwrap()
}

/// An issuer that serves on a free port, with the accounts `ada` and `bob`.
pub struct Counter {
    pub folder: TempDir,
    pub url: String,
    pub issuer: Arc<Issuer>,
    pub epochs: Epochs,
}

impl Counter {
    pub async fn new(cap: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        let name: Name = "issuer.example".parse().unwrap();
        Epochs::add(&keys, &name, SCHEDULE, now()).unwrap();
        let mut accounts = Accounts::load(&folder.path().join("accounts.toml")).unwrap();
        for name in ["ada", "bob"] {
            accounts.add(name, &folder.path().join(name)).unwrap();
        }
        let epochs = Epochs::load(&keys).unwrap();
        let quota = Quota::open(&folder.path().join("quota"), cap).unwrap();
        let issuer = Arc::new(Issuer::new(epochs.clone(), Box::new(accounts), quota));
        let url = serve(router(issuer.clone())).await;
        Self { folder, url, issuer, epochs }
    }

    /// The key in use.
    pub fn current(&self) -> &Arc<EpochKey> {
        self.epochs.current(now()).unwrap()
    }

    /// Its public part, as the log would prove it.
    pub fn key(&self) -> IssuerKey {
        let key = self.current();
        let public = TokenKey::parse(key.signing.public().spki()).unwrap();
        let (version, not_before, not_after) = (key.entry.version, key.not_before, key.not_after);
        IssuerKey { key: public.into(), version, not_before, not_after }
    }

    pub fn credential(&self, account: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(account)).unwrap().trim().to_owned()
    }

    /// A request with this body.
    pub async fn post(&self, credential: &str, media_type: &str, body: Vec<u8>) -> reqwest::Response {
        let request = reqwest::Client::new().post(format!("{}/token-request", self.url));
        let request = request.bearer_auth(credential).header("content-type", media_type);
        request.body(body).send().await.unwrap()
    }

    /// Tokens for an account.
    pub async fn buy(&self, account: &str, count: usize) -> Vec<Token> {
        self.buy_for(account, count, &challenge()).await
    }

    pub async fn buy_for(&self, account: &str, count: usize, challenge: &Challenge) -> Vec<Token> {
        let pending = Pending::new(self.key().key, challenge, count).unwrap();
        let response = self.post(&self.credential(account), BATCH_REQUEST, pending.batch()).await;
        assert_eq!(response.headers()["content-type"], BATCH_RESPONSE, "{}", response.status());
        pending.finish_batch(&response.bytes().await.unwrap()).unwrap()
    }
}

/// Serves on a free port until the runtime ends.
pub async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// What a gateway asks, with its spent tokens in a file.
pub async fn till(file: &Path, keys: Vec<IssuerKey>) -> Till {
    let spent = Spent::open(&format!("redb:{}", file.display())).await.unwrap();
    Till::new(&[challenge()], keys, spent)
}
