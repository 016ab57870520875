//! The log's files: what is published stays published, whatever happens to the writer.

mod common;

use async_trait::async_trait;
use common::{World, image, name};
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use transparency::checkpoint::SignedCheckpoint;
use transparency::entry::{Entry, Kind, Version};
use transparency::log::config::Config;
use transparency::log::reader::{ReadError, Reader};
use transparency::log::store::{Store, StoreError};
use transparency::log::{AppendError, PublishError, Writer, unix_now};
use transparency::merkle::{Hash, leaf_hash, verify_consistency, verify_inclusion};
use transparency::monitor::{Memory, Monitor, MonitorError};
use transparency::tile::{Row, Tile, TileError, WIDTH};
use transparency::tree::{Edge, HashSource, consistency_proof, inclusion_proof};

/// Tiles of a tree in memory.
#[derive(Default)]
struct Tiles(BTreeMap<String, Vec<Hash>>);

impl HashSource for Tiles {
    type Error = TileError;

    async fn hashes(&self, tile: Tile) -> Result<Vec<Hash>, TileError> {
        self.0.get(&tile.path()).cloned().ok_or(TileError::OutOfRange)
    }
}

fn tiles_of(leaves: &[Hash]) -> (Tiles, Edge) {
    let (mut tiles, mut edge) = (Tiles::default(), Edge::default());
    for leaf in leaves {
        edge.push(*leaf, |tile, hashes| drop(tiles.0.insert(tile.path(), hashes.to_vec())));
    }
    tiles.0.extend(edge.partial().map(|(tile, hashes)| (tile.path(), hashes.to_vec())));
    (tiles, edge)
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

/// Another implementation's hashes, in the order in which it stores them.
struct Theirs(Vec<tlog_tiles::Hash>);

impl tlog_tiles::HashReader for Theirs {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn proofs_from_tiles_hold_and_are_those_of_another_implementation(size in 1_u64..70_000, at: prop::sample::Index, old: prop::sample::Index) {
        let leaves = leaves(size);
        let (tiles, edge) = tiles_of(&leaves);
        let mut theirs = Theirs(Vec::new());
        for (n, leaf) in leaves.iter().enumerate() {
            let hashes = tlog_tiles::stored_hashes_for_record_hash(n as u64, tlog_tiles::Hash(*leaf), &theirs).unwrap();
            theirs.0.extend(hashes);
        }
        prop_assert_eq!(edge.root(), tlog_tiles::tree_hash(size, &theirs).unwrap().0);

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let index = at.index(size as usize) as u64;
        let proof = runtime.block_on(inclusion_proof(index, size, &tiles)).unwrap();
        prop_assert_eq!(verify_inclusion(&leaves[index as usize], index, size, &proof, &edge.root()), Ok(()));
        let expected: Vec<Hash> = tlog_tiles::prove_record(size, index, &theirs).unwrap().iter().map(|h| h.0).collect();
        prop_assert_eq!(&proof, &expected);

        let old = old.index(size as usize) as u64 + 1;
        let proof = runtime.block_on(consistency_proof(old, size, &tiles)).unwrap();
        let (_, older) = tiles_of(&leaves[..old as usize]);
        prop_assert_eq!(verify_consistency((old, &older.root()), (size, &edge.root()), &proof), Ok(()));
        let expected: Vec<Hash> = tlog_tiles::prove_tree(size, old, &theirs).unwrap().iter().map(|h| h.0).collect();
        prop_assert_eq!(&proof, &expected);
        // What is read back from the tiles is the same edge.
        prop_assert_eq!(runtime.block_on(Edge::read(size, &tiles)).unwrap(), edge);
    }

    #[test]
    fn tile_paths_are_those_of_another_implementation(level in 0_u8..8, index: u64, width in 1_usize..=WIDTH) {
        let tile = Tile { row: Row::Hashes(level), index, width };
        prop_assert_eq!(Tile::from_path(&tile.path()), Ok(tile));
        let entries = Tile { row: Row::Entries, ..tile };
        prop_assert_eq!(Tile::from_path(&entries.path()), Ok(entries));
        // Theirs has the tile's height in front, which tlog-tiles fixes at 8 and leaves out.
        let theirs = tlog_tiles::Tile::new(8, level, index, width as u32, false).path();
        prop_assert_eq!(theirs.replacen("tile/8/", "tile/", 1), tile.path());
    }
}

#[test]
fn tiles_that_are_cut_off_too_wide_or_nowhere_are_refused() {
    let tile = Tile::in_tree(Row::Hashes(0), 273, 70_000).unwrap();
    assert_eq!((tile.width, tile.path().as_str()), (112, "tile/0/273.p/112"));
    assert_eq!(Tile::in_tree(Row::Hashes(2), 0, 70_000).unwrap().path(), "tile/2/000.p/1");
    assert_eq!(Tile { row: Row::Entries, index: 1_234_067, width: 256 }.path(), "tile/entries/x001/x234/067");
    for (row, index) in [(0, 274), (0, u64::MAX), (3, 0), (8, 0), (63, 0)] {
        assert_eq!(Tile::in_tree(Row::Hashes(row), index, 70_000), Err(TileError::OutOfRange));
    }
    assert_eq!(tile.hashes(&[0; 32 * 112 - 1]), Err(TileError::Truncated));
    assert_eq!(tile.hashes(&[0; 32 * 111]), Err(TileError::Width { expected: 112, found: 111 }));
    assert_eq!(tile.hashes(&[0; 32 * 256]), Err(TileError::Width { expected: 112, found: 256 }));
    let bundle = Tile { row: Row::Entries, index: 0, width: 2 };
    assert_eq!(bundle.entries(&[0, 1, 7, 0, 0]).unwrap(), [&[7][..], &[]]);
    assert_eq!(bundle.entries(&[0, 1, 7, 0]), Err(TileError::Truncated));
    assert_eq!(bundle.entries(&[0, 1, 7, 0, 9, 1]), Err(TileError::Truncated));
    assert_eq!(bundle.entries(&[0, 1, 7]), Err(TileError::Width { expected: 2, found: 1 }));
    for path in [
        "tile/0/1",
        "tile/00/001",
        "tile/64/000",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/07",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/02",
        "tile/0/../001",
        "tile/x/001",
        "checkpoint",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(Tile::from_path(path), Err(TileError::Path), "{path}");
    }
}

async fn follow(world: &World, memory: Memory) -> Result<(Vec<Entry>, Memory), MonitorError> {
    let reader = Reader::Store(Store::folder(&world.tiles()).unwrap());
    let mut monitor = Monitor::new(world.trust.clone(), memory).unwrap();
    let mut entries = Vec::new();
    monitor
        .follow(&reader, |report| {
            assert!(report.alarms.is_empty(), "{report:?}");
            entries.push(report.entry.unwrap());
        })
        .await?;
    Ok((entries, monitor.memory().clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_have_an_order_and_one_writer() {
    let world = World::new(1, 1).await;
    let mut writer = world.writer().await;
    let second = Writer::open(Config::load(&world.config()).unwrap()).await;
    assert!(matches!(second, Err(AppendError::Store(StoreError::AnotherWriter))), "{second:?}");
    assert!(matches!(writer.prove(1).await, Err(PublishError::Read(ReadError::Missing(_)))));
    writer.append(vec![image(2)]).await.unwrap();
    for (entry, expected) in [
        (image(2), "higher"),
        (image(1), "higher"),
        (Entry { previous: Some([9; 32]), ..image(3) }, "another entry before it"),
    ] {
        let refused = writer.append(vec![image(4), entry]).await.unwrap_err();
        assert!(
            refused.to_string().contains("higher") || refused.to_string().contains(expected),
            "{refused}"
        );
    }
    assert_eq!(writer.checkpoint().size, 2, "a batch is appended whole or not at all");
    let other = Config::load(&world.config()).unwrap();
    drop(writer);
    assert!(matches!(Writer::create(other, unix_now()).await, Err(AppendError::Exists)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_sees_every_entry_and_every_lie() {
    let world = World::new(2, 2).await;
    let mut writer = world.writer().await;
    writer.append((1..=300).map(image).collect()).await.unwrap();
    writer.publish().await.unwrap();
    let (entries, memory) = follow(&world, Memory::default()).await.unwrap();
    assert_eq!(entries.len(), 301);
    let saved = serde_json::to_string(&memory).unwrap();
    writer.append((301..=600).map(image).collect()).await.unwrap();
    assert_eq!(follow(&world, memory.clone()).await.unwrap().0.len(), 0, "not published");
    writer.publish().await.unwrap();
    let memory = serde_json::from_str(&saved).unwrap();
    let (entries, newest) = follow(&world, memory).await.unwrap();
    assert_eq!(entries.len(), 300);
    assert_eq!(entries[0].version, Version::new(0, 301, 0));
    // The partial tiles that full ones replaced are gone.
    assert!(
        !world.tiles().join("tile/entries/001.p").exists() || !world.tiles().join("tile/0/001.p/45").exists()
    );

    // Another history for the same log, cosigned: as if all witnesses were in it.
    let other = World::new(2, 2).await;
    let mut forged = other.writer().await;
    forged.append((1..=700).map(|minor| image(minor + 1)).collect()).await.unwrap();
    forged.publish().await.unwrap();
    let lying = Reader::Store(Store::folder(&other.tiles()).unwrap());
    let mut monitor = Monitor::new(other.trust.clone(), newest.clone()).unwrap();
    let fork = monitor.follow(&lying, |_| ()).await.unwrap_err();
    assert!(
        fork.is_misbehaviour() && matches!(fork, MonitorError::Forked { seen: 601, size: 701 }),
        "{fork}"
    );
    let small = World::new(2, 2).await;
    small.writer().await.publish().await.unwrap();
    let mut monitor = Monitor::new(small.trust.clone(), newest).unwrap();
    let reader = Reader::Store(Store::folder(&small.tiles()).unwrap());
    let set_back = monitor.follow(&reader, |_| ()).await.unwrap_err();
    assert!(matches!(set_back, MonitorError::SetBack { seen: 601, size: 1 }), "{set_back}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_log_that_was_set_back_gets_no_cosignature() {
    let world = World::new(1, 1).await;
    let mut writer = world.writer().await;
    writer.append(vec![image(1)]).await.unwrap();
    writer.publish().await.unwrap();
    let copy = world.folder.path().join("copy");
    let copied = Command::new("cp").arg("-r").arg(world.tiles()).arg(&copy).status().unwrap();
    assert!(copied.success());
    writer.append(vec![image(2)]).await.unwrap();
    writer.publish().await.unwrap();
    drop(writer);
    std::fs::remove_dir_all(world.tiles()).unwrap();
    std::fs::rename(copy, world.tiles()).unwrap();
    let mut writer = world.writer().await;
    let refused = writer.publish().await.unwrap_err();
    assert!(refused.to_string().contains("set back"), "{refused}");
    // Growing past what was cosigned does not help: the witness remembers another tree.
    writer.append(vec![image(3)]).await.unwrap();
    let refused = writer.publish().await.unwrap_err();
    assert!(refused.to_string().contains("422"), "{refused}");
}

/// A store whose writes fail after a number of them, in the middle of a batch: a full disk.
#[derive(Debug)]
struct Full {
    objects: Arc<InMemory>,
    room: Arc<AtomicUsize>,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that fills up")
    }
}

#[async_trait]
impl ObjectStore for Full {
    async fn put_opts(
        &self,
        path: &ObjectPath,
        bytes: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let full = || Error::Generic { store: "full", source: "no space left on device".into() };
        let left = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1));
        left.map_err(|_| full())?;
        self.objects.put_opts(path, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &ObjectPath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &ObjectPath, options: GetOptions) -> StoreResult<GetResult> {
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<ObjectPath>>,
    ) -> BoxStream<'static, StoreResult<ObjectPath>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> StoreResult<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> StoreResult<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_a_full_store_at_any_write_loses_nothing_and_room_heals_it() {
    let world = World::new(1, 1).await;
    let objects = Arc::new(InMemory::new());
    let room = Arc::new(AtomicUsize::new(usize::MAX));
    let config = || {
        let mut config = Config::load(&world.config()).unwrap();
        config.store = Store::objects(Arc::new(Full { objects: objects.clone(), room: room.clone() }));
        config
    };
    let mut writer = Writer::create(config(), unix_now()).await.unwrap();
    writer.publish().await.unwrap();
    let (mut minor, mut published) = (0, 1);
    for step in 0..60 {
        // A batch that crosses a tile's border needs a dozen writes; each of them is the one that fails, in turn.
        room.store(step % 15, Ordering::Relaxed);
        let batch: Vec<Entry> = (minor + 1..=minor + 90).map(image).collect();
        let appended = writer.append(batch).await;
        let done = match &appended {
            Ok(_) => writer.publish().await.is_ok(),
            Err(_) => false,
        };
        room.store(usize::MAX, Ordering::Relaxed);
        // As after a crash, or going on with the same writer.
        if step % 2 == 0 {
            drop(writer);
            writer = Writer::open(config()).await.unwrap();
        }
        assert!(writer.checkpoint().size >= published);
        if appended.is_ok() {
            minor += 90;
        }
        if done {
            published = writer.checkpoint().size;
        }
        let shown = Reader::Store(config().store).checkpoint().await.unwrap().checkpoint.size;
        assert!(shown >= published, "what was published is shown");
    }
    writer.append(vec![image(minor + 1)]).await.unwrap();
    writer.publish().await.unwrap();
    let mut monitor = Monitor::new(world.trust.clone(), Memory::default()).unwrap();
    let mut count = 0;
    monitor
        .follow(&Reader::Store(config().store), |report| {
            assert!(report.alarms.is_empty(), "{report:?}");
            count += 1;
        })
        .await
        .unwrap();
    assert_eq!(count, writer.checkpoint().size);
    assert!(minor > 0 && count == u64::from(minor) + 2);
    // In an object store, where there are no locks, a second writer's checkpoint is refused.
    let mut second = Writer::open(config()).await.unwrap();
    writer.append(vec![image(minor + 2)]).await.unwrap();
    let refused = second.append(vec![image(minor + 3)]).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::AnotherWriter))), "{refused:?}");
    // So are its tiles, if it held the log before and does not know that another one took it.
    let mut third = Writer::open(config()).await.unwrap();
    third.append(vec![image(minor + 3)]).await.unwrap();
    let refused = writer.append(vec![image(minor + 4)]).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::AnotherWriter))), "{refused:?}");
    third.publish().await.unwrap();
    let mut monitor = Monitor::new(world.trust.clone(), Memory::default()).unwrap();
    let mut last = 0;
    monitor
        .follow(&Reader::Store(config().store), |report| {
            assert!(report.alarms.is_empty(), "{report:?}");
            last = report.index;
        })
        .await
        .unwrap();
    assert_eq!(last + 1, third.checkpoint().size);
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_a_writer_killed_200_times_loses_nothing_that_was_published() {
    let world = World::new(1, 1).await;
    world.writer().await.publish().await.unwrap();
    let reader = Reader::Store(Store::folder(&world.tiles()).unwrap());
    let (mut minor, mut seen): (u32, SignedCheckpoint) = (0, reader.checkpoint().await.unwrap());
    let mut acknowledged = BTreeMap::new();
    let mut interrupted = 0;
    for round in 0..200_u64 {
        // Entries of which some may be in the log already, if the last writer died after it had signed.
        let newest = match reader.entry(seen.checkpoint.size - 1, seen.checkpoint.size).await {
            Ok(entry) => Entry::decode(&entry).unwrap(),
            Err(error) => panic!("{error}"),
        };
        let start = if newest.kind() == Kind::Image { newest.version.parts()[1].max(minor) } else { minor };
        let batch: Vec<Entry> = (start + 1..=start + 40).map(image).collect();
        minor = start + 40;
        let file = world.folder.path().join("batch.json");
        std::fs::write(&file, serde_json::to_vec(&batch).unwrap()).unwrap();
        let mut writer = Command::new(env!("CARGO_BIN_EXE_cloister-log"))
            .args(["append", "--config"])
            .arg(world.config())
            .arg("--entry")
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Spread over the whole of a run, which takes some tens of milliseconds, and beyond.
        tokio::time::sleep(Duration::from_micros(round * 7_919 % 100_000)).await;
        writer.kill().unwrap();
        let output = writer.wait_with_output().unwrap();
        interrupted += u32::from(!output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        let now = reader.checkpoint().await.unwrap();
        transparency::verify::verify_signatures(&now, &world.trust).unwrap();
        let (old, new) = (&seen.checkpoint, &now.checkpoint);
        let proof = consistency_proof(old.size, new.size, &reader).await.unwrap();
        assert_eq!(
            verify_consistency((old.size, &old.root), (new.size, &new.root), &proof),
            Ok(()),
            "{round}"
        );
        // A writer that said so has signed it; it is in the log from then on.
        for line in said.lines().filter_map(|line| line.strip_prefix("appended ")) {
            if let Some((index, leaf)) = line.split_once(' ').filter(|(_, leaf)| leaf.len() == 64) {
                acknowledged.insert(index.parse::<u64>().unwrap(), leaf.to_owned());
            }
        }
        if said.contains("published ") {
            assert!(new.size > old.size, "{said}");
        }
        seen = now;
    }
    assert!(interrupted > 20, "too few writers were interrupted ({interrupted}) to say anything");
    let mut writer = world.writer().await;
    writer.append(vec![Entry { role: name("last"), ..image(1) }]).await.unwrap();
    writer.publish().await.unwrap();
    drop(writer);
    let mut monitor = Monitor::new(world.trust.clone(), Memory::default()).unwrap();
    let mut leaves = Vec::new();
    monitor.follow(&reader, |report| leaves.push(hex::encode(report.leaf))).await.unwrap();
    for (index, leaf) in acknowledged {
        assert_eq!(leaves[index as usize], leaf, "an entry that the writer had acknowledged");
    }
}
