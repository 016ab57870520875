//! The way to a guest from a client's file: relay, gateway and tokens, whose keys are in the log.
//!
//! ```toml
//! [way]
//! relay = "https://relay.example/gateway"
//! # The gateway's name in the log, and where proofs of its key come from: URLs or files.
//! gateway = "gateway.example"
//! key_mirrors = ["https://log.example/proof/gateway.example.tlog-proof"]
//! # What was seen of its keys so far.
//! floors = "gateway-keys.json"
//! # relay_roots = "relay-ca.pem"   # in place of the system's roots
//! # requests = true                # for a relay that holds requests back until they are whole
//! ```
//!
//! `[tokens]` beside it is [`privacy::token::supply`]'s, `[log]` is the policy's.

use crate::policy::ClientPolicy;
use crate::session::{Session, SessionError, Step};
use privacy::keys::{Floors, KeyError, Mirror, from_mirrors};
use privacy::ohttp::{ConfigError, KeyConfig, decode_list};
use privacy::token::supply::{self, Supply, SupplyError, Taken};
use privacy::transport::{Mode, TransportError, Way, WayError};
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use transparency::entry::{Kind, Name};
use transparency::trust::Trust;

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It does not say what is needed.
    #[error("{path}: {problem}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The gateway's key.
    #[error("the gateway's key: {0}")]
    Key(#[from] KeyError),
    /// The logged key is no key configuration.
    #[error("the gateway's logged key: {0}")]
    Config(#[from] ConfigError),
    /// Relay.
    #[error(transparent)]
    Way(#[from] WayError),
    /// Tokens.
    #[error("tokens: {0}")]
    Supply(#[from] SupplyError),
    /// There is a way, and no session on it.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// The `[way]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaySection {
    relay: String,
    relay_roots: Option<PathBuf>,
    gateway: Name,
    key_mirrors: Vec<Mirror>,
    floors: PathBuf,
    #[serde(default)]
    requests: bool,
}

/// What a client's file says of the way.
#[derive(Deserialize)]
struct File {
    way: Option<WaySection>,
    tokens: Option<supply::Config>,
    log: Option<Trust>,
}

/// A way to guests that can be opened.
#[derive(Debug)]
pub struct Prepared {
    section: WaySection,
    supply: Supply,
    trust: Trust,
}

impl Prepared {
    /// Reads the way from a policy's file; `None` if it has no `[way]`.
    pub fn load(path: &Path) -> Result<Option<Self>, OpenError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| OpenError::Read { path: path.into(), source })?;
        let format = |problem: String| OpenError::Format { path: path.into(), problem };
        let file: File = toml::from_str(&text).map_err(|error| format(error.to_string()))?;
        let Some(mut section) = file.way else { return Ok(None) };
        let tokens = file.tokens.ok_or_else(|| format("[way] needs a [tokens] section beside it".into()))?;
        let trust =
            file.log.ok_or_else(|| format("[way] needs a [log] section that proves its keys".into()))?;
        if tokens.gateway != section.gateway {
            return Err(format("[way] and [tokens] name different gateways".into()));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        section.floors = folder.join(&section.floors);
        section.relay_roots = section.relay_roots.map(|roots| folder.join(roots));
        for mirror in &mut section.key_mirrors {
            if let Mirror::File(file) = mirror {
                *file = folder.join(&file);
            }
        }
        let supply = Supply::new(tokens.below(folder), trust.clone())?;
        Ok(Some(Self { section, supply, trust }))
    }

    /// A session with a guest behind the gateway, and whether its token had to be fetched right before ([`Taken::hurried`]).
    ///
    /// Where the gateway says that it has another key by now, the mirrors are asked once more. Only a newer key with its proof
    /// changes anything, so nobody on the way can hand the client a key by saying so; and the token that went along with the old
    /// key is not used again.
    pub async fn session(
        &self,
        policy: Arc<ClientPolicy>,
        patience: Duration,
        mut progress: impl FnMut(Step),
    ) -> Result<(Session, bool), OpenError> {
        let key = self.key().await?;
        let stale = match self.through(&key, policy.clone(), patience, &mut progress).await {
            Err(OpenError::Session(stale @ SessionError::Way(TransportError::StaleKey))) => stale,
            result => return result,
        };
        let newer = self.key().await?;
        if newer == key {
            return Err(stale.into());
        }
        self.through(&newer, policy, patience, progress).await
    }

    async fn through(
        &self,
        key: &KeyConfig,
        policy: Arc<ClientPolicy>,
        patience: Duration,
        progress: impl FnMut(Step),
    ) -> Result<(Session, bool), OpenError> {
        let WaySection { relay, relay_roots, requests, .. } = &self.section;
        let mode = if *requests { Mode::Requests } else { Mode::Duplex };
        let way = Way::new(relay, relay_roots.as_deref(), key.clone(), mode)?;
        let Taken { token, hurried } = self.supply.token().await?;
        Ok((Session::through(&way, &token, policy, patience, progress).await?, hurried))
    }

    /// The gateway's key as the mirrors prove it now.
    async fn key(&self) -> Result<KeyConfig, OpenError> {
        let WaySection { gateway, key_mirrors, floors: file, .. } = &self.section;
        let mut floors = Floors::load(file)?;
        let before = floors.clone();
        let proven = from_mirrors(key_mirrors, Kind::OhttpKey, gateway, &self.trust, &mut floors).await?;
        if floors != before {
            floors.save(file)?;
        }
        Ok(decode_list(&proven.key.key)?.into_iter().next().ok_or(ConfigError::Unsupported)?)
    }
}
