//! Guests as Kubernetes lists them: the EndpointSlices of a Service (`discovery.k8s.io/v1`, Kubernetes API reference, "EndpointSlice
//! v1"), asked for again and again with the pod's own service account.
//!
//! DNS says who is ready, and resolvers remember it; the slices say at once, and without a change of names, that a guest is on its
//! way out: `conditions.ready` is false or `conditions.terminating` true from the moment on at which its pod is deleted.

use reqwest::{Certificate, Client, StatusCode, Url, redirect};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Where a pod finds its service account (Kubernetes, "Accessing the Kubernetes API from a Pod").
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const SERVER: &str = "https://kubernetes.default.svc";
/// Longest time for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of one answer.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Most answers to one question; each says whether there is more.
const MAX_PAGES: usize = 16;

/// The `[kubernetes]` section of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Service whose endpoints are guests.
    pub service: String,
    /// Its namespace; without it, that of this pod.
    pub namespace: Option<String>,
    /// Name of its port.
    pub port: String,
    /// The API server.
    #[serde(default = "server")]
    pub server: String,
    /// Folder with `token`, `ca.crt` and `namespace` of the service account.
    #[serde(default = "account")]
    pub account: PathBuf,
}

fn server() -> String {
    SERVER.into()
}

fn account() -> PathBuf {
    ACCOUNT.into()
}

/// Why there is no list, for the gateway's operator.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// A file of the service account.
    #[error(
        "cannot use {path}: {problem}; does the pod have a service account (automountServiceAccountToken: true)?"
    )]
    Account {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Names that cannot be in the path of a request.
    #[error("{0:?} is no name of a Kubernetes namespace or Service")]
    Name(String),
    /// Not an API server's URL.
    #[error("{0} is no https URL of a Kubernetes API server")]
    Server(String),
    /// The API server does not answer.
    #[error("the Kubernetes API server does not answer: {0}")]
    Unreachable(String),
    /// It does not let the account do this.
    #[error(
        "the Kubernetes API server refuses with status {0}: the pod's service account needs a Role that may `list` \
         `endpointslices` of the API group discovery.k8s.io"
    )]
    Forbidden(u16),
    /// It refuses otherwise.
    #[error("the Kubernetes API server refuses with status {0}")]
    Refused(u16),
    /// The answer is no list of slices.
    #[error("the Kubernetes API server's answer is no EndpointSliceList: {0}")]
    Format(String),
}

/// A Service's slices.
#[derive(Debug)]
pub struct Slices {
    url: Url,
    port: String,
    token: PathBuf,
    client: Client,
}

#[derive(Deserialize)]
struct List {
    metadata: Metadata,
    items: Vec<Slice>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "continue", default)]
    more: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    address_type: String,
    // Lists may be null: Go writes an empty one so.
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Endpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl Conditions {
    /// Whether it takes new sessions. What is not said counts as ready, serving, and not terminating. All three count: a Service
    /// with `publishNotReadyAddresses` calls everything ready.
    fn takes_sessions(&self) -> bool {
        self.ready.unwrap_or(true) && self.serving.unwrap_or(true) && !self.terminating.unwrap_or(false)
    }
}

#[derive(Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

/// Names of namespaces and Services are DNS labels (RFC 1123).
fn label(text: &str) -> Result<&str, SliceError> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    fits.then_some(text).ok_or_else(|| SliceError::Name(text.to_owned()))
}

fn read(path: &Path) -> Result<Zeroizing<String>, SliceError> {
    std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| SliceError::Account { path: path.into(), problem: error.to_string() })
}

impl Slices {
    /// The slices of a Service, with the certificate authority of the service account and no other.
    pub fn new(config: &Config) -> Result<Self, SliceError> {
        let namespace = match &config.namespace {
            Some(namespace) => namespace.clone(),
            None => read(&config.account.join("namespace"))?.trim().to_owned(),
        };
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{}\
             &limit=500&resourceVersion=0",
            label(&namespace)?,
            label(&config.service)?
        );
        let url = Url::parse(&config.server).and_then(|server| server.join(&path));
        let url = url.map_err(|_| SliceError::Server(config.server.clone()))?;
        let file = config.account.join("ca.crt");
        let problem =
            |error: reqwest::Error| SliceError::Account { path: file.clone(), problem: error.to_string() };
        let roots = Certificate::from_pem_bundle(read(&file)?.as_bytes()).map_err(problem)?;
        let client = Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none()).https_only(true);
        let client = client.tls_certs_only(roots).build().map_err(problem)?;
        Ok(Self { url, port: config.port.clone(), token: config.account.join("token"), client })
    }

    /// Who takes new sessions now.
    pub async fn list(&self) -> Result<BTreeSet<SocketAddr>, SliceError> {
        let (mut found, mut more) = (BTreeSet::new(), String::new());
        for _ in 0..MAX_PAGES {
            let list = self.page(&more).await?;
            list.items.iter().for_each(|slice| self.add(slice, &mut found));
            more = list.metadata.more;
            if more.is_empty() {
                return Ok(found);
            }
        }
        Err(SliceError::Format(format!("it has more than {MAX_PAGES} parts")))
    }

    async fn page(&self, more: &str) -> Result<List, SliceError> {
        let unreachable = |error: reqwest::Error| SliceError::Unreachable(error.without_url().to_string());
        let mut url = self.url.clone();
        if !more.is_empty() {
            url.query_pairs_mut().append_pair("continue", more);
        }
        // Read each time: Kubernetes replaces it before it expires.
        let token = read(&self.token)?;
        let mut response =
            self.client.get(url).bearer_auth(token.trim()).send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(SliceError::Forbidden(status.as_u16()));
            }
            status => return Err(SliceError::Refused(status.as_u16())),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(SliceError::Format(format!("it is longer than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| SliceError::Format(error.to_string()))
    }

    fn add(&self, slice: &Slice, found: &mut BTreeSet<SocketAddr>) {
        let is_tcp = |port: &Port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|port| port.name.as_deref().unwrap_or_default() == self.port && is_tcp(port));
        let Some(port) = port.and_then(|port| port.port) else { return };
        if !["IPv4", "IPv6"].contains(&slice.address_type.as_str()) {
            return;
        }
        for endpoint in
            slice.endpoints.iter().flatten().filter(|endpoint| endpoint.conditions.takes_sessions())
        {
            // No meaning is defined for addresses beyond the first.
            let address = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok());
            found.extend(address.map(|address| SocketAddr::new(address, port)));
        }
    }
}
