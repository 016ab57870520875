//! A log's beginning in an object store, where no lock keeps two programs apart that begin one at the same place.

mod common;

use async_trait::async_trait;
use common::{ORIGIN, image, witness_keys};
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::sync::Notify;
use transparency::entry::Kind;
use transparency::log::config::{Config, ConfigFile, WitnessAt};
use transparency::log::store::{Store, StoreError};
use transparency::log::{AppendError, Writer, unix_now};

/// Whose turn it is to read or write; whoever likes, once the plan is used up.
#[derive(Debug, Default)]
struct Plan {
    turns: Mutex<VecDeque<usize>>,
    changed: Notify,
}

impl Plan {
    fn of(turns: impl IntoIterator<Item = usize>) -> Arc<Self> {
        Arc::new(Self { turns: Mutex::new(turns.into_iter().collect()), changed: Notify::new() })
    }

    async fn turn(&self, me: usize) {
        loop {
            let changed = self.changed.notified();
            if self.takes(me) {
                return;
            }
            changed.await;
        }
    }

    fn takes(&self, me: usize) -> bool {
        let mut turns = self.turns.lock().unwrap();
        let mine = turns.front().is_none_or(|next| *next == me);
        if mine {
            turns.pop_front();
            self.changed.notify_waiters();
        }
        mine
    }

    /// `me` has nothing more to do.
    fn leave(&self, me: usize) {
        self.turns.lock().unwrap().retain(|next| *next != me);
        self.changed.notify_waiters();
    }
}

/// A store that one of several writers uses, in its turns.
#[derive(Debug)]
struct InTurns {
    objects: Arc<InMemory>,
    plan: Arc<Plan>,
    me: usize,
}

impl fmt::Display for InTurns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store for several writers")
    }
}

#[async_trait]
impl ObjectStore for InTurns {
    async fn put_opts(
        &self,
        path: &ObjectPath,
        bytes: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.plan.turn(self.me).await;
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
        self.plan.turn(self.me).await;
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

/// Two operators, each with keys of their own for the same log.
fn operators() -> [TempDir; 2] {
    [(); 2].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        let keys = witness_keys(1).iter().map(|key| key.public().clone()).collect();
        let witness = WitnessAt { url: "http://127.0.0.1:1".parse().unwrap(), keys };
        ConfigFile::create(folder.path(), ORIGIN, "tiles", vec![witness], 1).unwrap();
        folder
    })
}

fn config(operator: &Path, objects: &Arc<InMemory>, plan: &Arc<Plan>, me: usize) -> Config {
    let mut config = Config::load(&operator.join("log.toml")).unwrap();
    let store = InTurns { objects: objects.clone(), plan: plan.clone(), me };
    config.store = Store::objects(Arc::new(store));
    config
}

async fn begin(
    operator: &Path,
    objects: &Arc<InMemory>,
    plan: &Arc<Plan>,
    me: usize,
) -> Result<Writer, AppendError> {
    let begun = Writer::create(config(operator, objects, plan, me), unix_now() - me as u64).await;
    plan.leave(me);
    begun
}

/// What the one who began it has is a whole log.
async fn holds(mut writer: Writer, config: Config) {
    assert_eq!(writer.revocations().await.unwrap().number, 0);
    writer.append(vec![image(1)]).await.unwrap();
    drop(writer);
    let again = Writer::open(config).await.unwrap();
    assert_eq!((again.checkpoint().size, again.newest(Kind::Image, "cloister", "guest")), (2, Some(1)));
}

#[tokio::test]
async fn d4_of_two_who_begin_a_log_at_once_one_has_it_in_every_order_of_their_steps() {
    const STEPS: u32 = 9;
    let operators = operators();
    let mut won = [0; 2];
    for order in 0..1 << STEPS {
        let plan = Plan::of((0..STEPS).map(|step| (order >> step & 1) as usize));
        let objects = Arc::new(InMemory::new());
        let (first, second) = tokio::join!(
            begin(operators[0].path(), &objects, &plan, 0),
            begin(operators[1].path(), &objects, &plan, 1),
        );
        let (winner, writer, refused) = match (first, second) {
            (Ok(writer), Err(refused)) => (0, writer, refused),
            (Err(refused), Ok(writer)) => (1, writer, refused),
            other => panic!("{order:b}: {other:?}"),
        };
        assert!(
            matches!(refused, AppendError::Exists | AppendError::Store(StoreError::AnotherWriter)),
            "{order:b}: {refused}"
        );
        won[winner] += 1;
        holds(writer, config(operators[winner].path(), &objects, &Plan::of([]), winner)).await;
    }
    assert!(won.iter().all(|times| *times > 50), "{won:?}: both had the chance");
}

#[tokio::test]
async fn d4_a_beginning_that_was_broken_off_keeps_nobody_from_beginning_again() {
    let operators = operators();
    // It writes its claim, and after that any number of tiles; then the machine is gone.
    for steps in 2..=4 {
        let (objects, plan) = (Arc::new(InMemory::new()), Plan::of([vec![0; steps], vec![1]].concat()));
        let first = config(operators[0].path(), &objects, &plan, 0);
        let dead = tokio::spawn(Writer::create(first, unix_now()));
        while plan.turns.lock().unwrap().len() > 1 {
            tokio::task::yield_now().await;
        }
        dead.abort();
        assert!(dead.await.unwrap_err().is_cancelled());
        plan.leave(1);
        let none = Writer::open(config(operators[0].path(), &objects, &plan, 0)).await;
        assert!(matches!(none, Err(AppendError::NoLog)), "{none:?}");
        let writer = begin(operators[1].path(), &objects, &plan, 1).await.unwrap();
        holds(writer, config(operators[1].path(), &objects, &plan, 1)).await;
        let late = begin(operators[0].path(), &objects, &plan, 0).await;
        assert!(matches!(late, Err(AppendError::Exists)), "{late:?}");
    }
}
