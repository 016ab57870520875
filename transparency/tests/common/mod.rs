//! A log with witnesses, all on this machine.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use transparency::entry::{Entry, File, Image, Launch, Name, PublicKey, Subject, Version};
use transparency::key::{Algorithm, SignerKey, VerifierKey};
use transparency::log::config::{Config, ConfigFile, WitnessAt};
use transparency::log::{Writer, unix_now};
use transparency::trust::{Accept, Trust, TrustFile};
use transparency::witness::{WatchedLog, Witness};

pub const ORIGIN: &str = "log.example/cloister";

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// An image of this version.
pub fn image(minor: u32) -> Entry {
    let launch =
        Launch { container: name("rom"), vcpus: 1, cpu_type: name("EPYC-Genoa"), digest: [0xA1; 48] };
    Entry {
        name: name("cloister"),
        role: name("guest"),
        version: Version::new(0, minor, 0),
        previous: None,
        subject: Subject::Image(Image {
            manifest_digest: [0xB2; 48],
            model: name("mini.gguf"),
            weights_root: [0xC3; 48],
            launches: vec![launch],
            files: vec![File { name: name("cloister.rom"), size: 1 << 20, sha384: [0xD4; 48] }],
            source_commit: vec![7; 20],
        }),
    }
}

/// A gateway's key with the image's name and role.
pub fn ohttp_key(minor: u32) -> Entry {
    let key = PublicKey { key: vec![1, 2, 3], not_before: 0, not_after: u64::MAX };
    Entry { subject: Subject::OhttpKey(key), ..image(minor) }
}

/// Keys of a witness: Ed25519, and for even numbers ML-DSA-44 as well.
pub fn witness_keys(number: u8) -> Vec<SignerKey> {
    let name = format!("witness.example/w{number}");
    let key = |algorithm| SignerKey::from_seed(&name, algorithm, [100 + number; 32]).unwrap();
    let mut keys = vec![key(Algorithm::CosignatureEd25519)];
    if number.is_multiple_of(2) {
        keys.push(key(Algorithm::CosignatureMlDsa44));
    }
    keys
}

fn public(keys: &[SignerKey]) -> Vec<VerifierKey> {
    keys.iter().map(|key| key.public().clone()).collect()
}

/// A witness on a free port. It watches logs with this origin and any of `keys`.
pub async fn serve_witness(number: u8, state: &Path, keys: Vec<VerifierKey>) -> WitnessAt {
    let logs = vec![WatchedLog { origin: ORIGIN.into(), keys }];
    let witness = Witness::new(witness_keys(number), logs, state).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let keys = witness.public_keys().cloned().collect();
    tokio::spawn(transparency::serve::run(listener, transparency::serve::witness(Arc::new(witness))));
    WitnessAt { url, keys }
}

/// The folder of a package that this one depends on, which Cargo has on this machine.
pub fn package(name: &str) -> PathBuf {
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        // Packages for other systems need not be on this machine.
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == name).unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().into()
}

/// A log and its witnesses.
pub struct World {
    pub folder: TempDir,
    pub trust: Trust,
}

impl World {
    /// A log with so many witnesses, of which `threshold` must cosign.
    pub async fn new(witnesses: u8, threshold: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Witnesses need the log's keys and the log theirs; addresses are known last.
        let later = "http://127.0.0.1:1".parse::<url::Url>().unwrap();
        let listed = (0..witnesses)
            .map(|number| WitnessAt { url: later.clone(), keys: public(&witness_keys(number)) })
            .collect();
        let path = folder.path().join("log");
        let config = ConfigFile::create(&path, ORIGIN, "tiles", listed, threshold).unwrap();
        let keys = public(&config.keys);
        let mut trusted = config.trust.file().clone();
        Writer::create(config, unix_now()).await.unwrap();

        let text = std::fs::read_to_string(path.join("log.toml")).unwrap();
        let mut file: ConfigFile = toml::from_str(&text).unwrap();
        file.witnesses.clear();
        for number in 0..witnesses {
            let state = folder.path().join(format!("witness{number}"));
            file.witnesses.push(serve_witness(number, &state, keys.clone()).await);
        }
        std::fs::write(path.join("log.toml"), toml::to_string(&file).unwrap()).unwrap();

        let kind = transparency::entry::Kind::Image;
        trusted.accept = vec![Accept {
            kind,
            name: name("cloister"),
            role: name("guest"),
            minimum_version: Version::default(),
            minimum_revocations: 0,
        }];
        Self { folder, trust: trusted.try_into().unwrap() }
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("log/log.toml")
    }

    pub fn tiles(&self) -> PathBuf {
        self.folder.path().join("log/tiles")
    }

    pub async fn writer(&self) -> Writer {
        Writer::open(Config::load(&self.config()).unwrap()).await.unwrap()
    }

    /// The trust with something changed.
    pub fn trusting(&self, change: impl FnOnce(&mut TrustFile)) -> Trust {
        let mut file = self.trust.file().clone();
        change(&mut file);
        file.try_into().unwrap()
    }
}
