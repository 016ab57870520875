//! How many tokens each account has had in an epoch: durable, so that a restart gives nobody new ones.

use super::accounts::Account;
use redb::{Database, ReadableTable, TableDefinition, TableHandle};
use std::path::Path;

const PREFIX: &str = "issued-";

type Table<'a> = TableDefinition<'a, &'static [u8; 32], u32>;

/// The counts.
#[derive(Debug)]
pub struct Quota {
    database: Database,
    cap: u32,
}

/// The counts cannot be read or written; no tokens are issued then.
#[derive(Debug, thiserror::Error)]
#[error("the counts of issued tokens: {0}")]
pub struct QuotaError(Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for QuotaError {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

fn table_name(key_id: &[u8; 32]) -> String {
    format!("{PREFIX}{}", hex::encode(key_id))
}

impl Quota {
    /// Opens or makes the file; `cap` is the most tokens of an account in an epoch.
    pub fn open(path: &Path, cap: u32) -> Result<Self, QuotaError> {
        Ok(Self { database: Database::create(path)?, cap })
    }

    /// The most tokens of an account in an epoch.
    pub const fn cap(&self) -> u32 {
        self.cap
    }

    /// Counts up to `asked` more tokens of an account under a key; gives how many it may have. They count from now on,
    /// whatever happens next.
    pub fn take(&self, key_id: &[u8; 32], account: Account, asked: u32) -> Result<u32, QuotaError> {
        let writing = self.database.begin_write()?;
        let given = {
            let name = table_name(key_id);
            let mut table = writing.open_table(Table::new(&name))?;
            let had = table.get(&account.0)?.map_or(0, |count| count.value());
            let given = asked.min(self.cap.saturating_sub(had));
            if given > 0 {
                table.insert(&account.0, had + given)?;
            }
            given
        };
        writing.commit()?;
        Ok(given)
    }

    /// Forgets the counts under all keys but these.
    pub fn keep_only(&self, key_ids: &[[u8; 32]]) -> Result<(), QuotaError> {
        let kept: Vec<String> = key_ids.iter().map(table_name).collect();
        let writing = self.database.begin_write()?;
        let tables: Vec<String> = writing.list_tables()?.map(|table| table.name().to_owned()).collect();
        for name in tables.iter().filter(|name| name.starts_with(PREFIX) && !kept.contains(name)) {
            writing.delete_table(Table::new(name))?;
        }
        writing.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_a_cap_holds_across_a_restart_and_for_each_epoch_and_account() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quota");
        let (ada, bob) = (Account::new("static", "ada"), Account::new("static", "bob"));
        let (first, second) = ([1; 32], [2; 32]);
        let quota = Quota::open(&path, 10).unwrap();
        assert_eq!(quota.take(&first, ada, 7).unwrap(), 7);
        drop(quota);
        let quota = Quota::open(&path, 10).unwrap();
        assert_eq!(quota.take(&first, ada, 7).unwrap(), 3);
        assert_eq!(quota.take(&first, ada, 7).unwrap(), 0);
        assert_eq!(quota.take(&first, bob, 7).unwrap(), 7);
        assert_eq!(quota.take(&second, ada, 11).unwrap(), 10);
        quota.keep_only(&[second]).unwrap();
        assert_eq!(quota.take(&second, ada, 1).unwrap(), 0);
        assert_eq!(quota.take(&first, bob, 10).unwrap(), 10);
    }
}
