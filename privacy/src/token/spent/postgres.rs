//! PostgreSQL: `INSERT … ON CONFLICT DO NOTHING`, one row for each token.

use super::{STORE_PATIENCE, Spend, Store, StoreError, Written};
use crate::clock;
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Durable on this server, and on synchronous standbys if there are any, before it answers.
const SESSION: &str = "SET synchronous_commit = on; SET statement_timeout = 2500; SET default_transaction_isolation = 'read committed'";
const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS cloister_spent (id bytea PRIMARY KEY, forget_at bigint NOT NULL)";
const FORGET: &str = "DELETE FROM cloister_spent WHERE forget_at < $1";
const SPEND: &str = "INSERT INTO cloister_spent (id, forget_at) SELECT * FROM unnest($1::bytea[], $2::bigint[]) \
                     ON CONFLICT DO NOTHING RETURNING id";
/// `fsync`, and whether the table is one that a crash empties.
const CHECK: &str = "SELECT current_setting('fsync'), pg_is_in_recovery(), \
                     (SELECT relpersistence::text FROM pg_class WHERE oid = 'cloister_spent'::regclass)";
/// How often old epochs are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

pub struct Postgres {
    config: Config,
    tls: MakeRustlsConnect,
    session: Option<Session>,
    forgotten: Instant,
}

struct Session {
    client: Client,
    insert: Statement,
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        // Its text names a severity and a message; of the message, nothing comes from a client.
        Self::Failed(error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned()))
    }
}

impl Postgres {
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let mut config = Config::from_str(url)?;
        config.connect_timeout(STORE_PATIENCE).application_name("cloister-gateway");
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::Failed(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = MakeRustlsConnect::new(tls);
        let mut store = Self { config, tls, session: None, forgotten: Instant::now() };
        let connecting = tokio::time::timeout(STORE_PATIENCE, store.connect()).await;
        store.session = Some(connecting.map_err(|_| StoreError::TimeOut)??);
        Ok(store)
    }

    async fn connect(&mut self) -> Result<Session, StoreError> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(connection);
        client.batch_execute(SESSION).await?;
        match client.batch_execute(TABLE).await {
            // Two gateways that make it at the same time.
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                client.batch_execute(TABLE).await?
            }
            other => other?,
        }
        let row = client.query_one(CHECK, &[]).await?;
        if row.try_get::<_, &str>(0)? != "on" {
            return Err(StoreError::Forgets(
                "PostgreSQL runs with fsync off: a crash loses spent tokens".into(),
            ));
        }
        if row.try_get::<_, bool>(1)? {
            return Err(StoreError::Failed("this PostgreSQL server is a standby; name the primary".into()));
        }
        if row.try_get::<_, Option<&str>>(2)? != Some("p") {
            return Err(StoreError::Forgets(
                "the table cloister_spent is unlogged or temporary: a crash empties it".into(),
            ));
        }
        Self::forget(&client).await?;
        self.forgotten = Instant::now();
        let insert = client.prepare(SPEND).await?;
        Ok(Session { client, insert })
    }

    async fn forget(client: &Client) -> Result<(), StoreError> {
        let now = clock::now()?;
        client.execute(FORGET, &[&i64::try_from(now).unwrap_or(0)]).await?;
        Ok(())
    }
}

impl Store for Postgres {
    fn spend<'a>(&'a mut self, spends: &'a [Spend]) -> Written<'a> {
        Box::pin(async move {
            // Taken out, so that a session whose answer did not come in time is never used again.
            let session = match self.session.take() {
                Some(session) if !session.client.is_closed() => session,
                _ => self.connect().await?,
            };
            if self.forgotten.elapsed() > FORGET_EVERY {
                Self::forget(&session.client).await?;
                self.forgotten = Instant::now();
            }
            // They ascend, so that two gateways with the same tokens wait for each other in one order.
            let ids: Vec<&[u8]> = spends.iter().map(|spend| &spend.id[..]).collect();
            let forget: Vec<i64> =
                spends.iter().map(|spend| i64::try_from(spend.forget()).unwrap_or(i64::MAX)).collect();
            let rows = session.client.query(&session.insert, &[&ids, &forget]).await?;
            let new =
                rows.iter().map(|row| row.try_get::<_, Vec<u8>>(0)).collect::<Result<HashSet<_>, _>>()?;
            self.session = Some(session);
            Ok(spends.iter().map(|spend| new.contains(&spend.id[..])).collect())
        })
    }
}
