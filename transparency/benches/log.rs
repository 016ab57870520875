//! What the log costs: a proof's size and the time to check it, and appends against the size of the log.
//!
//! `cargo bench -p transparency --bench log` prints a line of JSON for each figure; `-- --largest 10000000` goes on to ten
//! million entries. The large logs are synthetic: their full entry bundles are hashed and thrown away, as nobody reads
//! them here, and nothing is written to a disk. The appends to a folder are real, with `fsync`.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use transparency::checkpoint::{Checkpoint, SignedCheckpoint};
use transparency::entry::{Entry, File, Image, Kind, Launch, Model, Name, Subject, Version};
use transparency::key::{Algorithm, SignerKey};
use transparency::log::config::{Config, ConfigFile, WitnessAt};
use transparency::log::reader::Reader;
use transparency::log::store::Store;
use transparency::log::{Writer, prove, unix_now};
use transparency::proof::Proof;
use transparency::trust::{Accept, Trust, TrustFile, Witness};
use transparency::verify::verify;

const ORIGIN: &str = "log.example/bench";
/// Entries of a batch: what one checkpoint and one round of cosignatures is for.
const BATCH: u64 = 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let largest = arguments.iter().position(|argument| argument == "--largest");
    let largest =
        largest.and_then(|at| arguments.get(at + 1)).map_or(100_000, |n| n.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        folder().await;
        let (writer, store) = synthetic(largest).await;
        proofs(&writer, &store).await;
    });
}

fn figure(name: &str, value: f64, unit: &str) {
    println!("{}", serde_json::json!({ "name": name, "value": value, "unit": unit }));
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn witness_keys(number: u8, algorithms: &[Algorithm]) -> Vec<SignerKey> {
    let name = format!("witness.example/w{number}");
    let key = |a: &Algorithm| SignerKey::from_seed(&name, *a, [number; 32]).expect("a key");
    algorithms.iter().map(key).collect()
}

fn config() -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = witness_keys(1, &[Algorithm::CosignatureEd25519]).iter().map(|k| k.public().clone()).collect();
    let witness = WitnessAt { url: "http://localhost".parse().expect("a URL"), keys };
    let config = ConfigFile::create(folder.path(), ORIGIN, "tiles", vec![witness], 1).expect("a log");
    (folder, config)
}

/// Small entries of 100 names, as of many models.
fn batch(from: u64, count: u64) -> Vec<Entry> {
    let entry = |n: u64| Entry {
        name: name(&format!("model-{}", n % 100)),
        role: name("weights"),
        version: Version::new(1, (n >> 32) as u32, n as u32),
        previous: None,
        subject: Subject::Model(Model {
            weights_root: [7; 48],
            files: vec![File { name: name("model.gguf"), size: n, sha384: [8; 48] }],
        }),
    };
    (from..from + count).map(entry).collect()
}

/// Appends to a folder, each batch durable before the next.
async fn folder() {
    for count in [1, 16, 256, BATCH] {
        let (_folder, config) = config();
        let mut writer = Writer::create(config, unix_now()).await.expect("a log");
        let rounds = if count == 1 { 40 } else { 16 };
        let start = Instant::now();
        for round in 0..rounds {
            writer.append(batch(round * count, count)).await.expect("appended");
        }
        let rate = (rounds * count) as f64 / start.elapsed().as_secs_f64();
        figure(&format!("appends to a folder with fsync, in batches of {count}"), rate, "entries/s");
    }
}

/// Fills a log and times batches on the way, then gives it with its store.
async fn synthetic(largest: u64) -> (Writer, Store) {
    let (folder, mut config) = config();
    let store = Store::objects(Arc::new(WithoutEntries(Arc::new(InMemory::new()))));
    config.store = store.clone();
    let mut writer = Writer::create(config, unix_now()).await.expect("a log");
    drop(folder);
    let (mut next, mut measure) = (0, 10_000);
    while next < largest {
        if next >= measure {
            writer = timed(writer, &mut next, measure).await;
            measure *= 10;
        }
        writer.append(batch(next, BATCH)).await.expect("appended");
        next += BATCH;
    }
    let writer = timed(writer, &mut next, largest).await;
    (writer, store)
}

async fn timed(mut writer: Writer, next: &mut u64, size: u64) -> Writer {
    let mut times = Vec::new();
    for _ in 0..31 {
        let entries = batch(*next, BATCH);
        let start = Instant::now();
        writer.append(entries).await.expect("appended");
        times.push(start.elapsed().as_secs_f64() * 1e6 / BATCH as f64);
        *next += BATCH;
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    figure(
        &format!("an append to a log of {size} entries, in batches of {BATCH}, without a disk"),
        median,
        "us",
    );
    writer
}

/// Makes and checks proofs in the largest log, with several witnesses who all must have cosigned.
async fn proofs(writer: &Writer, store: &Store) {
    let reader = Reader::Store(store.clone());
    // The one entry that is kept is an image in the last, partial bundle.
    let size = writer.checkpoint().size;
    let start = Instant::now();
    let mut made = 0;
    while start.elapsed().as_millis() < 300 {
        transparency::tree::inclusion_proof(size / 2, size, &reader).await.expect("a proof");
        made += 1;
    }
    let time = start.elapsed().as_secs_f64() * 1e6 / f64::from(made);
    figure(&format!("making an inclusion proof in a log of {size} entries"), time, "us");

    const BOTH: [Algorithm; 2] = [Algorithm::CosignatureEd25519, Algorithm::CosignatureMlDsa44];
    for (label, algorithms, witnesses) in [
        ("2 witnesses with Ed25519", &BOTH[..1], 2),
        ("2 witnesses with Ed25519 and ML-DSA-44", &BOTH, 2),
        ("3 witnesses with Ed25519 and ML-DSA-44", &BOTH, 3),
        ("5 witnesses with Ed25519 and ML-DSA-44", &BOTH, 5),
    ] {
        let (proof, trust) = proof(algorithms, witnesses).await;
        let text = proof.encode();
        figure(&format!("size of an image's proof, {label}"), text.len() as f64, "bytes");
        let mut times = Vec::new();
        for _ in 0..501 {
            let start = Instant::now();
            verify(text.as_bytes(), Kind::Image, &trust, SystemTime::now()).expect("a good proof");
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        figure(&format!("check of an image's proof, {label}"), times[times.len() / 2], "us");
    }
}

/// The proof of an image with twelve launch digests in a log of 100,000 entries, and who trusts it. The log signs with the
/// same kinds of keys as its witnesses.
async fn proof(algorithms: &[Algorithm], count: u8) -> (Proof, Trust) {
    let (_folder, mut config) = config();
    let store = Store::objects(Arc::new(InMemory::new()));
    config.store = store.clone();
    config.keys.truncate(algorithms.len());
    let log_keys = config.keys.iter().map(|key| key.public().clone()).collect();
    let mut writer = Writer::create(config, unix_now()).await.expect("a log");
    let mut launches: Vec<Launch> = (0..12)
        .map(|n| Launch {
            container: name("rom"),
            vcpus: n,
            cpu_type: name("EPYC-Genoa"),
            digest: [n as u8 + 1; 48],
        })
        .collect();
    launches.sort_by(|a, b| a.machine().cmp(&b.machine()));
    let image = Image {
        manifest_digest: [1; 48],
        model: name("cloister-mini.gguf"),
        weights_root: [2; 48],
        launches,
        files: vec![File { name: name("cloister.rom"), size: 1 << 20, sha384: [3; 48] }],
        source_commit: vec![4; 20],
    };
    let image = Entry {
        name: name("cloister"),
        role: name("guest"),
        version: Version::new(0, 1, 0),
        previous: None,
        subject: Subject::Image(image),
    };
    let index = writer.append(vec![image]).await.expect("appended")[0].index;
    for round in 0..10 {
        writer.append(batch(round * 10_000, 10_000)).await.expect("appended");
    }
    let checkpoint: Checkpoint = writer.checkpoint().clone();
    let reader = Reader::Store(store);
    let now = unix_now();
    let mut signatures: Vec<_> =
        writer.config().keys.iter().map(|key| checkpoint.sign(key, now).expect("signed")).collect();
    let mut witnesses = Vec::new();
    for number in 1..=count {
        let keys = witness_keys(number, algorithms);
        signatures.extend(keys.iter().map(|key| checkpoint.sign(key, now).expect("signed")));
        witnesses.push(Witness { keys: keys.iter().map(|key| key.public().clone()).collect() });
    }
    let proof = prove(&reader, SignedCheckpoint { checkpoint, signatures }, index, 0).await.expect("a proof");
    let accept = Accept {
        kind: Kind::Image,
        name: name("cloister"),
        role: name("guest"),
        minimum_version: Version::new(0, 1, 0),
        minimum_revocations: 0,
    };
    let threshold = witnesses.len();
    let file =
        TrustFile { witnesses, accept: vec![accept], ..TrustFile::new(ORIGIN.into(), log_keys, threshold) };
    (proof, file.try_into().expect("a trust"))
}

/// Memory that forgets full entry bundles.
#[derive(Debug)]
struct WithoutEntries(Arc<InMemory>);

impl fmt::Display for WithoutEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory without entries")
    }
}

#[async_trait]
impl ObjectStore for WithoutEntries {
    async fn put_opts(
        &self,
        path: &ObjectPath,
        bytes: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let forgotten = path.as_ref().starts_with("tile/entries/") && !path.as_ref().contains(".p/");
        let bytes = if forgotten { PutPayload::default() } else { bytes };
        self.0.put_opts(path, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &ObjectPath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &ObjectPath, options: GetOptions) -> StoreResult<GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<ObjectPath>>,
    ) -> BoxStream<'static, StoreResult<ObjectPath>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}
