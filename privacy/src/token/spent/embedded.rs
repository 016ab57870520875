//! The embedded store: a redb file, for one gateway.
//!
//! One table for each epoch, so that forgetting it is one step. The end of the newest epoch that was forgotten stays, and
//! no token of it or before is taken any more, wherever the clock goes.

use super::{Spend, Store, StoreError, Written};
use crate::clock;
use redb::{Database, Durability, ReadableTable, TableDefinition, TableHandle};
use std::path::PathBuf;
use std::sync::Arc;

const PREFIX: &str = "spent-";
/// Its one value, under the empty key: end of the newest epoch that was forgotten.
const FORGOTTEN: TableDefinition<(), u64> = TableDefinition::new("forgotten");

/// An open file.
pub struct Embedded(Arc<Database>);

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(failed)?.map_err(failed)
}

fn epoch_table(epoch_end: u64) -> String {
    format!("{PREFIX}{epoch_end:020}")
}

impl Embedded {
    /// Opens or makes the file; only one process can have it open.
    pub async fn open(path: PathBuf) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let now = clock::now()?;
        let open = move || {
            let database = Database::create(path)?;
            forget(&database, now)?;
            Ok(database)
        };
        match blocking(open).await {
            Ok(database) => Ok(Self(Arc::new(database))),
            Err(StoreError::Failed(why)) => Err(StoreError::Failed(format!("{shown}: {why}"))),
            Err(other) => Err(other),
        }
    }
}

/// Forgets epochs that ended long ago.
fn forget(database: &Database, now: u64) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    {
        let mut forgotten = writing.open_table(FORGOTTEN)?;
        let mut newest = forgotten.get(())?.map_or(0, |value| value.value());
        let tables: Vec<String> = writing.list_tables()?.map(|table| table.name().to_owned()).collect();
        for name in tables {
            let Some(end) = name.strip_prefix(PREFIX).and_then(|end| end.parse::<u64>().ok()) else {
                continue;
            };
            if end.saturating_add(super::KEPT) < now {
                writing.delete_table(TableDefinition::<&[u8; 32], ()>::new(&name))?;
                newest = newest.max(end);
            }
        }
        forgotten.insert((), newest)?;
    }
    writing.commit()?;
    Ok(())
}

fn spend(database: &Database, spends: &[Spend]) -> Result<Vec<bool>, redb::Error> {
    let mut writing = database.begin_write()?;
    writing.set_durability(Durability::Immediate)?;
    let mut new = Vec::with_capacity(spends.len());
    {
        let forgotten = writing.open_table(FORGOTTEN)?.get(())?.map_or(0, |value| value.value());
        for spend in spends {
            if spend.epoch_end <= forgotten {
                new.push(false);
                continue;
            }
            let name = epoch_table(spend.epoch_end);
            let mut table = writing.open_table(TableDefinition::<&[u8; 32], ()>::new(&name))?;
            new.push(table.insert(&spend.id, ())?.is_none());
        }
    }
    writing.commit()?;
    Ok(new)
}

impl Store for Embedded {
    fn spend<'a>(&'a mut self, spends: &'a [Spend]) -> Written<'a> {
        let (database, spends) = (self.0.clone(), spends.to_vec());
        Box::pin(blocking(move || spend(&database, &spends)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_an_epoch_that_was_forgotten_is_spent_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::create(folder.path().join("spent")).unwrap();
        let old = Spend { id: [1; 32], epoch_end: 1_000 };
        let young = Spend { id: [1; 32], epoch_end: 2_000_000 };
        assert_eq!(spend(&database, &[old]).unwrap(), [true]);
        assert_eq!(spend(&database, &[young]).unwrap(), [true], "another epoch's token");
        forget(&database, 1_000 + super::super::KEPT).unwrap();
        assert_eq!(spend(&database, &[old]).unwrap(), [false], "not yet forgotten");
        forget(&database, 1_001 + super::super::KEPT).unwrap();
        let never_seen = Spend { id: [2; 32], epoch_end: 1_000 };
        assert_eq!(spend(&database, &[old, never_seen]).unwrap(), [false, false]);
        assert_eq!(spend(&database, &[young, Spend { id: [2; 32], ..young }]).unwrap(), [false, true]);
    }
}
