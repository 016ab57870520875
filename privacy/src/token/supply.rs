//! A client's supply of tokens: wallet, issuer and the issuer's key, from the `[tokens]` part of its configuration.
//!
//! ```toml
//! [tokens]
//! # The issuer, and its name in the log.
//! issuer = "https://issuer.example"
//! issuer_name = "issuer.example"
//! # The gateway that the tokens are for.
//! gateway = "gateway.example"
//! # The account's credential (a file, mode 0600), and where tokens are kept.
//! credential = "credential"
//! wallet = "wallet.json"
//! # Where proofs of the issuer's key come from: URLs or files.
//! key_mirrors = ["https://log.example/proof/issuer.example.tlog-proof"]
//! # What was seen of keys so far.
//! floors = "keys.json"
//! ```

use super::challenge::{BadName, Challenge};
use super::request::{AnswerError, Pending, RequestError};
use super::structure::{BATCH_REQUEST, BATCH_RESPONSE, MAX_BATCH, Token};
use super::wallet::{BATCH, Wallet, WalletError};
use super::{NK, key};
use crate::clock::{self, ClockError};
use crate::keys::{Floors, IssuerKey, KeyError, Mirror, from_mirrors};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use transparency::entry::{Kind, Name};
use transparency::trust::Trust;
use zeroize::Zeroizing;

/// Longest time that an issuer may take.
const ISSUER_PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 8 + MAX_BATCH * (3 + NK);
/// Most bytes of a refusal that are shown.
const MAX_REASON: usize = 300;

/// The `[tokens]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URL of the issuer; `https`, or `http` to this machine.
    pub issuer: String,
    /// Its name, as its key is logged.
    pub issuer_name: Name,
    /// Name of the gateway that takes the tokens.
    pub gateway: Name,
    /// File of the account's credential.
    pub credential: PathBuf,
    /// File of the wallet.
    pub wallet: PathBuf,
    /// Where proofs of the issuer's key come from.
    pub key_mirrors: Vec<Mirror>,
    /// File of what was seen of keys so far.
    pub floors: PathBuf,
}

impl Config {
    /// The same with relative paths below `folder`.
    pub fn below(mut self, folder: &Path) -> Self {
        for path in [&mut self.credential, &mut self.wallet, &mut self.floors] {
            *path = folder.join(&path);
        }
        for mirror in &mut self.key_mirrors {
            if let Mirror::File(path) = mirror {
                *path = folder.join(&path);
            }
        }
        self
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum SupplyError {
    /// The names.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The URL.
    #[error(
        "the issuer's URL {0} is not one, or it would carry the account's credential over the network without TLS"
    )]
    Url(String),
    /// The credential.
    #[error("cannot read the account's credential {}: {problem}", path.display())]
    Credential {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The issuer's key.
    #[error("the issuer's key: {0}")]
    Key(#[from] KeyError),
    /// The wallet.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The issuer's answer.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The issuer cannot be reached.
    #[error("the issuer cannot be reached: {0}")]
    Unreachable(String),
    /// The issuer refuses the account.
    #[error("the issuer does not know this account's credential")]
    Account,
    /// The account had all its tokens.
    #[error("the issuer gives this account no more tokens in this epoch: {0}")]
    Exhausted(String),
    /// The issuer signs with another key than the one that its proof names.
    #[error(
        "the issuer does not sign under the logged key that was offered: ask the mirrors again later ({0})"
    )]
    OtherKey(String),
    /// Any other refusal.
    #[error("the issuer refuses with status {status}: {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// Another media type.
    #[error("the issuer's answer is of the media type {0:?}, not a batch of tokens")]
    MediaType(String),
    /// The answer holds no token.
    #[error("the issuer's answer holds no token")]
    Nothing,
    /// The clock is before 1970.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

/// A token, and whether it had to be fetched first.
#[derive(Debug)]
pub struct Taken {
    /// The token. It is out of the wallet.
    pub token: Token,
    /// The wallet was empty, so that a batch was fetched right before use: who sees both issuer and gateway could guess
    /// from the time who this is. Say so to the user.
    pub hurried: bool,
}

/// A client's supply.
pub struct Supply {
    config: Config,
    trust: Trust,
    wallet: Wallet,
    challenge: Challenge,
    url: Url,
}

impl std::fmt::Debug for Supply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supply").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Supply {
    /// From a configuration; `trust` must accept the issuer's key.
    pub fn new(config: Config, trust: Trust) -> Result<Self, SupplyError> {
        let challenge = Challenge::new(&config.issuer_name.to_string(), &[&config.gateway.to_string()])?;
        let bad = || SupplyError::Url(config.issuer.clone());
        let url = Url::parse(&config.issuer).and_then(|url| url.join("/token-request")).map_err(|_| bad())?;
        let loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(bad());
        }
        let wallet = Wallet::new(&config.wallet);
        Ok(Self { config, trust, wallet, challenge, url })
    }

    /// What the tokens are made for.
    pub const fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// How many tokens there are.
    pub fn count(&self) -> Result<usize, SupplyError> {
        Ok(self.wallet.count(&self.challenge.digest(), clock::now()?)?)
    }

    /// A token for one session. With an empty wallet, a batch is fetched first.
    pub async fn token(&self) -> Result<Taken, SupplyError> {
        let digest = self.challenge.digest();
        match self.wallet.take(&digest, clock::now()?) {
            Ok(token) => Ok(Taken { token, hurried: false }),
            Err(WalletError::Empty) => {
                self.fetch().await?;
                Ok(Taken { token: self.wallet.take(&digest, clock::now()?)?, hurried: true })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Fetches a batch if its hour has come; gives how many tokens came.
    pub async fn fetch_if_due(&self) -> Result<usize, SupplyError> {
        if self.wallet.due(&self.challenge.digest(), clock::now()?)? { self.fetch().await } else { Ok(0) }
    }

    /// Fetches a batch now; gives how many tokens came.
    pub async fn fetch(&self) -> Result<usize, SupplyError> {
        let key = self.key().await?;
        let pending = Pending::new(key.key.clone(), &self.challenge, BATCH)?;
        let answer = self.post(pending.batch()).await?;
        let tokens = pending.finish_batch(&answer)?;
        if tokens.is_empty() {
            return Err(SupplyError::Nothing);
        }
        self.wallet.add(&tokens, key.not_after, clock::now()?)?;
        Ok(tokens.len())
    }

    /// The issuer's key, from the mirrors.
    async fn key(&self) -> Result<IssuerKey, SupplyError> {
        let mut floors = Floors::load(&self.config.floors)?;
        let (before, name) = (floors.clone(), &self.config.issuer_name);
        let mirrors = &self.config.key_mirrors;
        let proven = from_mirrors(mirrors, Kind::IssuerKey, name, &self.trust, &mut floors).await?;
        if floors != before {
            floors.save(&self.config.floors)?;
        }
        Ok(proven.try_into()?)
    }

    fn credential(&self) -> Result<HeaderValue, SupplyError> {
        let path = &self.config.credential;
        let problem = |problem: String| SupplyError::Credential { path: path.clone(), problem };
        let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| problem(error.to_string()))?);
        let bearer = Zeroizing::new(format!("Bearer {}", text.trim()));
        let mut value = HeaderValue::from_str(&bearer)
            .map_err(|_| problem("it has characters that no credential has".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn post(&self, batch: Vec<u8>) -> Result<Vec<u8>, SupplyError> {
        let unreachable = |error: reqwest::Error| SupplyError::Unreachable(error.without_url().to_string());
        let client = Client::builder().timeout(ISSUER_PATIENCE).redirect(reqwest::redirect::Policy::none());
        let request = client.build().map_err(unreachable)?.post(self.url.clone());
        let request = request.header(AUTHORIZATION, self.credential()?).header(CONTENT_TYPE, BATCH_REQUEST);
        let mut response = request.body(batch).send().await.map_err(unreachable)?;
        let (status, mut body) = (response.status(), Vec::new());
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let limit = if status.is_success() { MAX_ANSWER } else { MAX_REASON };
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk[..chunk.len().min(limit + 1 - body.len())]);
            if body.len() > limit {
                break;
            }
        }
        let reason = || -> String {
            let text = String::from_utf8_lossy(&body[..body.len().min(MAX_REASON)]);
            text.chars().filter(|c| !c.is_control()).collect()
        };
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT if media_type == BATCH_RESPONSE => Ok(body),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Err(SupplyError::MediaType(media_type)),
            StatusCode::UNAUTHORIZED => Err(SupplyError::Account),
            StatusCode::TOO_MANY_REQUESTS => Err(SupplyError::Exhausted(reason())),
            StatusCode::UNPROCESSABLE_ENTITY => Err(SupplyError::OtherKey(reason())),
            _ => Err(SupplyError::Refused { status: status.as_u16(), reason: reason() }),
        }
    }
}

impl From<key::BadKey> for SupplyError {
    fn from(error: key::BadKey) -> Self {
        Self::Key(error.into())
    }
}
