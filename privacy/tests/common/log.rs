//! A log with a witness, both in this process.

use privacy::keys::{GATEWAY_ROLE, ISSUER_ROLE};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use transparency::entry::{Entry, Kind, Name, PublicKey, Subject, Version};
use transparency::key::{Algorithm, SignerKey};
use transparency::log::config::{Config, ConfigFile, WitnessAt};
use transparency::log::{Writer, unix_now};
use transparency::trust::{Accept, Trust};
use transparency::witness::{WatchedLog, Witness};

pub const ORIGIN: &str = "log.example/cloister";

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The entry of a key that is good now.
pub fn key_entry(kind: Kind, whose: &str, version: u32, key: Vec<u8>) -> Entry {
    let now = unix_now();
    let public = PublicKey { key, not_before: now - 60, not_after: now + 3600 };
    let (role, subject) = match kind {
        Kind::IssuerKey => (ISSUER_ROLE, Subject::IssuerKey(public)),
        _ => (GATEWAY_ROLE, Subject::OhttpKey(public)),
    };
    let version = Version::new(version, 0, 0);
    Entry { name: name(whose), role: name(role), version, previous: None, subject }
}

/// A log whose proofs a witness cosigns.
pub struct Log {
    pub folder: TempDir,
    pub trust: Trust,
}

impl Log {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let witness_key =
            SignerKey::from_seed("witness.example/w", Algorithm::CosignatureEd25519, [7; 32]).unwrap();
        let later = "http://127.0.0.1:1".parse().unwrap();
        let listed = vec![WitnessAt { url: later, keys: vec![witness_key.public().clone()] }];
        let path = folder.path().join("log");
        let config = ConfigFile::create(&path, ORIGIN, "tiles", listed, 1).unwrap();
        let keys: Vec<_> = config.keys.iter().map(|key| key.public().clone()).collect();
        let mut trusted = config.trust.file().clone();
        Writer::create(config, unix_now()).await.unwrap();

        let watched = vec![WatchedLog { origin: ORIGIN.into(), keys }];
        let witness = Witness::new(vec![witness_key], watched, &folder.path().join("witness")).unwrap();
        let public = witness.public_keys().cloned().collect();
        let url = super::serve(transparency::serve::witness(Arc::new(witness))).await;
        let text = std::fs::read_to_string(path.join("log.toml")).unwrap();
        let mut file: ConfigFile = toml::from_str(&text).unwrap();
        file.witnesses = vec![WitnessAt { url: url.parse().unwrap(), keys: public }];
        std::fs::write(path.join("log.toml"), toml::to_string(&file).unwrap()).unwrap();

        let accept = |kind, whose, role| Accept {
            kind,
            name: name(whose),
            role: name(role),
            minimum_version: Version::default(),
            minimum_revocations: 0,
        };
        trusted.accept = vec![
            accept(Kind::IssuerKey, "issuer.example", ISSUER_ROLE),
            accept(Kind::IssuerKey, "other.example", ISSUER_ROLE),
            accept(Kind::OhttpKey, "gateway.example", GATEWAY_ROLE),
        ];
        Self { folder, trust: trusted.try_into().unwrap() }
    }

    /// Appends an entry, and gives its proof.
    pub async fn log(&self, entry: Entry) -> Vec<u8> {
        let mut writer = self.writer().await;
        let [signed] = writer.append(vec![entry]).await.unwrap().try_into().unwrap();
        writer.publish().await.unwrap();
        writer.prove(signed.index).await.unwrap().encode().into_bytes()
    }

    pub async fn writer(&self) -> Writer {
        Writer::open(Config::load(&self.folder.path().join("log/log.toml")).unwrap()).await.unwrap()
    }

    pub fn tiles(&self) -> PathBuf {
        self.folder.path().join("log/tiles")
    }
}
