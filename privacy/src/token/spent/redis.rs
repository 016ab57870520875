//! Redis or Valkey: `SET id NX PXAT end`.
//!
//! Redis forgets unless it is told not to, so each connection first asks how it is set up, and is refused unless an answer
//! means that the token is on disk: `appendonly yes`, `appendfsync always`, `no-appendfsync-on-rewrite no`, and no eviction. A
//! replica that takes over may lack the last writes; PostgreSQL with a synchronous standby does not have that gap.

use super::{Spend, Store, StoreError, Written};
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError, cmd, pipe};

/// Where a URL says that the operator answers for durability, as where `CONFIG` is forbidden.
const UNCHECKED: &str = "?durability=unchecked";
/// Before a token's id.
const PREFIX: &[u8] = b"cloister:spent:";

/// What must be set, and why.
const SETTINGS: [(&str, &str, &str); 4] = [
    ("appendonly", "yes", "only the append-only file keeps what was written last"),
    ("appendfsync", "always", "otherwise a crash loses up to a second of spent tokens"),
    ("no-appendfsync-on-rewrite", "no", "otherwise nothing is synced while the file is rewritten"),
    ("maxmemory-policy", "noeviction", "any other policy drops spent tokens when memory is short"),
];

pub struct Redis {
    client: Client,
    checked: bool,
    connection: Option<MultiplexedConnection>,
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Redis {
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let (url, checked) = url.strip_suffix(UNCHECKED).map_or((url, true), |url| (url, false));
        let mut store = Self { client: Client::open(url)?, checked, connection: None };
        if !checked {
            eprintln!(
                "note: the durability of the Redis store is not checked, as its URL asks; its operator answers for it"
            );
        }
        let connecting = tokio::time::timeout(super::STORE_PATIENCE, store.connect()).await;
        store.connection = Some(connecting.map_err(|_| StoreError::TimeOut)??);
        Ok(store)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        if self.checked {
            for (name, needed, why) in SETTINGS {
                let found: Vec<String> =
                    cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await?;
                let found = found.get(1).map_or("nothing", String::as_str);
                if found != needed {
                    return Err(StoreError::Forgets(format!(
                        "Redis says {name} {found}, and it must be {needed}: {why}"
                    )));
                }
            }
        }
        Ok(connection)
    }

    async fn write(
        connection: &mut MultiplexedConnection,
        spends: &[Spend],
    ) -> Result<Vec<bool>, StoreError> {
        let mut pipe = pipe();
        for spend in spends {
            let key = [PREFIX, &spend.id].concat();
            let forget = spend.forget().saturating_mul(1000).min(i64::MAX as u64 / 2);
            pipe.cmd("SET").arg(key).arg(1).arg("NX").arg("PXAT").arg(forget);
        }
        let answers: Vec<Option<String>> = pipe.query_async(connection).await?;
        Ok(answers.iter().map(Option::is_some).collect())
    }
}

impl Store for Redis {
    fn spend<'a>(&'a mut self, spends: &'a [Spend]) -> Written<'a> {
        Box::pin(async move {
            // Taken out, so that a connection whose answer did not come in time is never read again.
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let new = Self::write(&mut connection, spends).await?;
            self.connection = Some(connection);
            Ok(new)
        })
    }
}
