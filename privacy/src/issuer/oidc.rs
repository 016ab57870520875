//! Accounts that an OpenID Connect provider vouches for: the bearer credential is a JWT that the provider signed.
//!
//! Its signature, algorithm, issuer, audience and times are checked; the account is its `sub`. The provider's keys come from
//! its JWK set (RFC 7517), over TLS, and are fetched again when a token names one that is not known, but not more often than
//! [`FETCH_PAUSE`]: strangers cannot make this program ask.

use super::accounts::{Account, Authenticate, Authenticating, Denied};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Shortest time between two fetches of the keys.
pub const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// For how long fetched keys are used without asking again.
const FETCH_AGAIN: Duration = Duration::from_secs(3600);
/// Longest time of a fetch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of a JWK set, a discovery document, or a JWT.
const MAX_DOCUMENT: usize = 256 * 1024;
const MAX_JWT: usize = 16 * 1024;
/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 60;

/// The `[oidc]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The provider, as in the `iss` of its tokens; its discovery document is below it.
    pub issuer: String,
    /// What `aud` must hold.
    pub audience: String,
    /// Algorithms that are accepted; signatures with a public key only.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// The JWK set, if it is not asked for by discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// A URL.
    #[error("`{0}` is not an https URL (http is for this machine only)")]
    Url(String),
    /// An algorithm.
    #[error("`algorithms` must name at least one, and none with a shared secret (HS256, HS384, HS512)")]
    Algorithms,
    /// Empty.
    #[error("`audience` must not be empty: a token for any other service would do")]
    Audience,
    /// A document of the provider.
    #[error("{url}: {problem}")]
    Document {
        /// Where.
        url: String,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Default)]
struct Keys {
    set: Option<JwkSet>,
    asked: Option<Instant>,
}

/// A provider.
pub struct Oidc {
    config: Config,
    client: Client,
    keys: Mutex<Keys>,
}

fn url(text: &str) -> Result<Url, OidcError> {
    let bad = || OidcError::Url(text.into());
    let url = Url::parse(text).map_err(|_| bad())?;
    let loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    if url.scheme() == "https" || (url.scheme() == "http" && loopback) { Ok(url) } else { Err(bad()) }
}

impl Oidc {
    /// From a configuration. Nothing is asked yet: the provider may be down when the issuer starts.
    pub fn new(config: Config) -> Result<Self, OidcError> {
        url(&config.issuer)?;
        config.jwks_url.as_deref().map(url).transpose()?;
        let shared = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        if config.algorithms.is_empty()
            || config.algorithms.iter().any(|algorithm| shared.contains(algorithm))
        {
            return Err(OidcError::Algorithms);
        }
        if config.audience.is_empty() {
            return Err(OidcError::Audience);
        }
        let client = Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build();
        let problem = |error: reqwest::Error| error.without_url().to_string();
        let client =
            client.map_err(|e| OidcError::Document { url: config.issuer.clone(), problem: problem(e) })?;
        Ok(Self { config, client, keys: Mutex::default() })
    }

    async fn document<T: serde::de::DeserializeOwned>(&self, at: Url) -> Result<T, OidcError> {
        let failed = |problem: String| OidcError::Document { url: at.to_string(), problem };
        let http = |error: reqwest::Error| failed(error.without_url().to_string());
        let mut response =
            self.client.get(at.clone()).send().await.and_then(|r| r.error_for_status()).map_err(http)?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_DOCUMENT {
                return Err(failed("it is too large".into()));
            }
        }
        serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))
    }

    async fn fetch(&self) -> Result<JwkSet, OidcError> {
        let at = match &self.config.jwks_url {
            Some(jwks) => url(jwks)?,
            None => {
                // OpenID Connect Discovery 1.0 §4.
                let base = self.config.issuer.trim_end_matches('/');
                let at = url(&format!("{base}/.well-known/openid-configuration"))?;
                let found: Discovery = self.document(at.clone()).await?;
                if found.issuer != self.config.issuer {
                    let problem = format!("it is of the issuer {:?}", found.issuer);
                    return Err(OidcError::Document { url: at.to_string(), problem });
                }
                url(&found.jwks_uri)?
            }
        };
        self.document(at).await
    }

    /// The key that a token names, fetched if need be.
    async fn key(&self, id: Option<&str>) -> Result<DecodingKey, Denied> {
        let mut keys = self.keys.lock().await;
        let since = keys.asked.map(|asked| asked.elapsed());
        let known = find(keys.set.as_ref(), id);
        let fetch = match &known {
            Some(_) => since.is_none_or(|since| since > FETCH_AGAIN),
            None => since.is_none_or(|since| since > FETCH_PAUSE),
        };
        if fetch {
            keys.asked = Some(Instant::now());
            match self.fetch().await {
                Ok(set) => keys.set = Some(set),
                Err(error) => eprintln!("error: the OpenID Connect provider's keys: {error}"),
            }
        }
        let unavailable = keys.set.is_none();
        let found = find(keys.set.as_ref(), id);
        found.ok_or(if unavailable { Denied::Unavailable } else { Denied::Refused })
    }

    async fn check(&self, jwt: &str) -> Result<Account, Denied> {
        let refused = |_| Denied::Refused;
        if jwt.len() > MAX_JWT {
            return Err(Denied::Refused);
        }
        let header = decode_header(jwt).map_err(refused)?;
        if !self.config.algorithms.contains(&header.alg) {
            return Err(Denied::Refused);
        }
        let key = self.key(header.kid.as_deref()).await?;
        // One algorithm: a validation with several must be of one family.
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let claims = decode::<Claims>(jwt, &key, &validation).map_err(refused)?.claims;
        if claims.sub.is_empty() {
            return Err(Denied::Refused);
        }
        Ok(Account::new(&self.config.issuer, &claims.sub))
    }
}

fn find(set: Option<&JwkSet>, id: Option<&str>) -> Option<DecodingKey> {
    let set = set?;
    let jwk = match (id, set.keys.as_slice()) {
        (Some(id), _) => set.find(id)?,
        (None, [only]) => only,
        (None, _) => return None,
    };
    DecodingKey::from_jwk(jwk).ok()
}

impl Authenticate for Oidc {
    fn account<'a>(&'a self, bearer: &'a str) -> Authenticating<'a> {
        Box::pin(self.check(bearer))
    }
}
