//! Where a log's files are: a folder, or an object store.
//!
//! In a folder every write is `fsync`ed with its directory before it counts, and a lock keeps a second writer out. In an
//! object store a write is durable when it is answered, and the signed state is only ever replaced by whoever read it:
//! a second writer's replacement fails.

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that are written at the same time.
const CONCURRENT: usize = 16;
/// The lock's name in a log's folder. Object paths of the log never start with a dot.
const LOCK: &str = ".lock";

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or object store cannot be used.
    #[error("cannot use {place}: {problem}")]
    Open {
        /// Which.
        place: String,
        /// Why.
        problem: String,
    },
    /// Reading or writing failed; a full disk is one reason.
    #[error("cannot {verb} {path}: {source}")]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: String,
        /// The store's reason.
        source: Error,
    },
    /// Somebody else is writing to this log.
    #[error("another program is writing to this log; a log has one writer at a time")]
    AnotherWriter,
}

/// A folder that is this program's alone. The system gives it back when the program ends, however it ends.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes a folder; `None` if another program has it.
    pub fn take(folder: &Path) -> std::io::Result<Option<Self>> {
        let file = File::options().create(true).append(true).open(folder.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    /// Closing would do, were it not for children of this process that have not yet become another program.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// A log's files.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    folder: Option<PathBuf>,
}

/// What a file held when it was read, to replace it only if it is still the same.
#[derive(Clone, Debug, Default)]
pub struct Seen(Option<UpdateVersion>);

impl Seen {
    fn tag(&self) -> Option<&str> {
        self.0.as_ref().and_then(|version| version.e_tag.as_deref())
    }
}

impl Store {
    /// The files in a folder, which is made if it is not there.
    pub fn folder(folder: &Path) -> Result<Self, StoreError> {
        let failed = |problem: String| StoreError::Open { place: folder.display().to_string(), problem };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        let objects = LocalFileSystem::new_with_prefix(folder).map_err(|error| failed(error.to_string()))?;
        Ok(Self { objects: Arc::new(objects.with_fsync(true)), folder: Some(folder.to_owned()) })
    }

    /// The files of a URL: `s3://`, `gs://`, `az://` and what else `object_store` knows. Credentials and endpoints come
    /// from the variables that the provider's own tools use (`AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, …).
    pub fn url(url: &url::Url) -> Result<Self, StoreError> {
        let options = std::env::vars().map(|(key, value)| (key.to_ascii_lowercase(), value));
        let (objects, path) = object_store::parse_url_opts(url, options)
            .map_err(|error| StoreError::Open { place: url.to_string(), problem: error.to_string() })?;
        Ok(Self { objects: Arc::new(PrefixStore::new(objects, path)), folder: None })
    }

    /// The files of an object store that the caller has.
    pub fn objects(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, folder: None }
    }

    /// Keeps other writers of this machine out, as long as the returned lock lives. An object store has no locks; there
    /// [`Store::replace`] keeps them out.
    pub fn lock(&self) -> Result<Option<Lock>, StoreError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        match Lock::take(folder) {
            Ok(Some(lock)) => Ok(Some(lock)),
            Ok(None) => Err(StoreError::AnotherWriter),
            Err(error) => {
                Err(StoreError::Open { place: folder.display().to_string(), problem: error.to_string() })
            }
        }
    }

    /// A file's bytes; `None` if there is no such file.
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.see(path).await?.map(|(bytes, _)| bytes))
    }

    /// A file's bytes, with what is needed to replace it.
    pub async fn see(&self, path: &str) -> Result<Option<(Vec<u8>, Seen)>, StoreError> {
        let failed = |source| StoreError::File { verb: "read", path: path.to_owned(), source };
        match self.objects.get(&ObjectPath::from(path)).await {
            Ok(found) => {
                let version =
                    UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                let bytes = found.bytes().await.map_err(failed)?;
                Ok(Some((bytes.to_vec(), Seen(Some(version)))))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }

    /// Writes files; they are durable when this returns. Each is there whole or not at all.
    pub async fn write(&self, files: Vec<(String, Vec<u8>)>) -> Result<(), StoreError> {
        stream::iter(files)
            .map(|(path, bytes)| async move {
                let put = self.objects.put(&ObjectPath::from(path.as_str()), PutPayload::from(bytes)).await;
                put.map(drop).map_err(|source| StoreError::File { verb: "write", path, source })
            })
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await
    }

    /// Writes files that nobody changes once a checkpoint is signed over them, while this writer holds the log: while the file
    /// `holds` is still as it was seen.
    ///
    /// What lies there already was left by a writer who did not sign, as signing takes the log away from all others; it is
    /// replaced only if nobody replaced it since it was looked at, and that was before the log was last seen to be held. So a
    /// writer who has lost the log, however slow it is, changes nothing that its successor signs.
    pub async fn write_once(
        &self,
        files: Vec<(String, Vec<u8>)>,
        holds: (&str, &Seen),
    ) -> Result<(), StoreError> {
        if !self.is_shared() {
            return self.write(files).await;
        }
        let write = |(path, bytes): (String, Vec<u8>)| async move {
            let made = self.replace(&path, &Seen::default(), bytes.clone()).await;
            if !matches!(made, Err(StoreError::AnotherWriter)) {
                return made.map(drop);
            }
            let (there, left) = self.see(&path).await?.ok_or(StoreError::AnotherWriter)?;
            if there == bytes {
                return Ok(());
            }
            let held = self.see(holds.0).await?.map(|(_, seen)| seen).unwrap_or_default();
            if held.tag() != holds.1.tag() {
                return Err(StoreError::AnotherWriter);
            }
            self.replace(&path, &left, bytes).await.map(drop)
        };
        stream::iter(files).map(write).buffer_unordered(CONCURRENT).try_collect().await
    }

    /// Whether writers on other machines can write here, too, and no lock keeps them out.
    pub const fn is_shared(&self) -> bool {
        self.folder.is_none()
    }

    /// Replaces a file that was `seen`, or makes it if none was.
    pub async fn replace(&self, path: &str, seen: &Seen, bytes: Vec<u8>) -> Result<Seen, StoreError> {
        let mode = match (&self.folder, &seen.0) {
            (Some(_), _) => PutMode::Overwrite,
            (None, None) => PutMode::Create,
            (None, Some(version)) => PutMode::Update(version.clone()),
        };
        let put = self.objects.put_opts(&ObjectPath::from(path), PutPayload::from(bytes), mode.into()).await;
        match put {
            Ok(put) => Ok(Seen(Some(put.into()))),
            Err(Error::Precondition { .. } | Error::AlreadyExists { .. }) => Err(StoreError::AnotherWriter),
            Err(source) => Err(StoreError::File { verb: "write", path: path.into(), source }),
        }
    }

    /// Removes the files under a path, as far as that works: for what is not needed any more.
    pub async fn remove_below(&self, path: &str) {
        let prefix = ObjectPath::from(path);
        let found: Result<Vec<_>, _> = self.objects.list(Some(&prefix)).try_collect().await;
        for object in found.unwrap_or_default() {
            let _ = self.objects.delete(&object.location).await;
        }
    }
}
