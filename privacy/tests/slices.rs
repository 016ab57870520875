//! Guests as Kubernetes lists them. The API server here answers with what the API reference says that one answers with
//! (`discovery.k8s.io/v1`, EndpointSliceList), over TLS, and asks for a service account's token.

use privacy::gateway::Guests;
use privacy::gateway::slices::{Config, SliceError, Slices};
use privacy::serve::{self, TlsFiles, answer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// An API server, and the service account of a pod.
struct Cluster {
    account: TempDir,
    server: String,
    /// Status and body of an answer, by the `continue` of the question.
    answers: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    async fn start() -> Self {
        let account = tempfile::tempdir().unwrap();
        let file = |name: &str| account.path().join(name);
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &root);
        for (name, text) in [
            ("ca.crt", root.pem()),
            ("server.pem", certificate.unwrap().pem()),
            ("server.key", key.serialize_pem()),
            ("namespace", "cloister".into()),
            ("token", "first\n".into()),
        ] {
            fs::write(file(name), text).unwrap();
        }
        let tls = TlsFiles { certificate: file("server.pem"), key: file("server.key") };
        let tls = tls.load(account.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        let answers = Arc::<Mutex<BTreeMap<String, (u16, String)>>>::default();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (given, heard, token) = (answers.clone(), asked.clone(), file("token"));
        let service = move |request: hyper::Request<hyper::body::Incoming>| {
            let (given, heard, token) = (given.clone(), heard.clone(), token.clone());
            async move {
                let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
                let expected = format!("Bearer {}", fs::read_to_string(token).unwrap().trim());
                let asked = request.uri().to_string();
                let more =
                    asked.split_once("&continue=").map(|(_, more)| more.to_owned()).unwrap_or_default();
                heard.lock().unwrap().push(asked);
                let (status, body) = match bearer {
                    Some(bearer) if bearer == expected => {
                        given.lock().unwrap().get(&more).cloned().unwrap_or((404, String::new()))
                    }
                    _ => (401, String::new()),
                };
                answer(status.try_into().unwrap(), "application/json", body)
            }
        };
        let stop = CancellationToken::new();
        tokio::spawn(serve::serve(
            listener,
            Some(tokio::sync::watch::channel(tls).1),
            serve::Limits::default(),
            service,
            stop,
            Duration::ZERO,
        ));
        Self { account, server, answers, asked }
    }

    fn config(&self) -> Config {
        Config {
            service: "guests".into(),
            namespace: None,
            port: "guest".into(),
            server: self.server.clone(),
            account: self.account.path().into(),
        }
    }

    fn says(&self, slices: &[Value]) {
        self.answers.lock().unwrap().insert(String::new(), (200, list(slices, "")));
    }
}

fn list(slices: &[Value], more: &str) -> String {
    let mut metadata = json!({ "resourceVersion": "4021" });
    if !more.is_empty() {
        metadata["continue"] = more.into();
    }
    json!({
        "kind": "EndpointSliceList",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata,
        "items": slices,
    })
    .to_string()
}

/// A slice as the controller of Kubernetes writes it.
fn slice(port: u16, endpoints: &[(&str, Value)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, conditions)| {
            json!({
                "addresses": [address],
                "conditions": conditions,
                "nodeName": "node-1",
                "targetRef": { "kind": "Pod", "namespace": "cloister", "name": "guest-7xk2p", "uid": "d6f9" },
                "zone": "zone-a",
            })
        })
        .collect();
    json!({
        "metadata": {
            "name": "guests-x7k2p",
            "generateName": "guests-",
            "namespace": "cloister",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": "guests",
            },
        },
        "addressType": if endpoints.iter().any(|e| e["addresses"][0].as_str().unwrap().contains(':')) { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [
            { "name": "metrics", "port": 9090, "protocol": "TCP" },
            { "name": "guest", "port": port, "protocol": "UDP" },
            { "name": "guest", "port": port, "protocol": "TCP" },
        ],
    })
}

fn conditions(ready: bool, serving: bool, terminating: bool) -> Value {
    json!({ "ready": ready, "serving": serving, "terminating": terminating })
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

async fn listed(slices: &Slices) -> Vec<SocketAddr> {
    slices.list().await.unwrap().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slices_of_a_service_say_who_takes_sessions() {
    let cluster = Cluster::start().await;
    let slices = Slices::new(&cluster.config()).unwrap();
    let mut fqdn = slice(8443, &[("guest.example", conditions(true, true, false))]);
    fqdn["addressType"] = "FQDN".into();
    let mut no_port = slice(8443, &[("10.0.0.9", conditions(true, true, false))]);
    no_port["ports"] = Value::Null;
    let mut empty = slice(8443, &[]);
    empty["endpoints"] = Value::Null;
    cluster.says(&[
        slice(
            8443,
            &[
                ("10.0.0.1", conditions(true, true, false)),
                ("10.0.0.2", conditions(false, false, false)),
                // On its way out: still serving, but not for new sessions.
                ("10.0.0.3", conditions(false, true, true)),
                // `publishNotReadyAddresses` calls everything ready.
                ("10.0.0.4", conditions(true, true, true)),
                ("10.0.0.5", conditions(true, false, false)),
                // What is not said is ready, serving and not terminating.
                ("10.0.0.6", json!({})),
                ("10.0.0.7", json!({ "ready": null })),
            ],
        ),
        slice(9443, &[("fd00::1", conditions(true, true, false))]),
        fqdn,
        no_port,
        empty,
    ]);
    let expected = ["10.0.0.1:8443", "10.0.0.6:8443", "10.0.0.7:8443", "[fd00::1]:9443"];
    assert_eq!(listed(&slices).await, addresses(&expected));
    let asked = cluster.asked.lock().unwrap().pop().unwrap();
    assert!(
        asked.ends_with(
            "/apis/discovery.k8s.io/v1/namespaces/cloister/endpointslices\
             ?labelSelector=kubernetes.io%2Fservice-name%3Dguests&limit=500&resourceVersion=0"
        ),
        "{asked}"
    );

    // In several parts, and with a token that was replaced meanwhile.
    fs::write(cluster.account.path().join("token"), "second").unwrap();
    {
        let mut answers = cluster.answers.lock().unwrap();
        let part = |address: &str, more: &str| {
            (200, list(&[slice(8443, &[(address, conditions(true, true, false))])], more))
        };
        answers.insert(String::new(), part("10.0.0.1", "next"));
        answers.insert("next".into(), part("10.0.0.2", ""));
    }
    assert_eq!(listed(&slices).await, addresses(&["10.0.0.1:8443", "10.0.0.2:8443"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_list_is_refused_by_name() {
    let cluster = Cluster::start().await;
    let slices = Slices::new(&cluster.config()).unwrap();
    let refused = async |status: u16, body: &str| {
        cluster.answers.lock().unwrap().insert(String::new(), (status, body.to_owned()));
        slices.list().await.unwrap_err()
    };
    let forbidden = refused(403, "{}").await;
    assert!(matches!(forbidden, SliceError::Forbidden(403)) && forbidden.to_string().contains("Role"));
    assert!(matches!(refused(500, "").await, SliceError::Refused(500)));
    assert!(matches!(refused(302, "").await, SliceError::Refused(302)));
    for body in ["", "[]", "{\"metadata\":{}}", "{\"metadata\":{},\"items\":[{\"endpoints\":[]}]}"] {
        assert!(matches!(refused(200, body).await, SliceError::Format(_)), "{body}");
    }
    // A list without an end.
    let endless = list(&[], "next");
    cluster.answers.lock().unwrap().insert("next".into(), (200, endless.clone()));
    assert!(matches!(refused(200, &endless).await, SliceError::Format(_)));
    let huge = refused(200, &" ".repeat(9 * 1024 * 1024)).await;
    assert!(matches!(huge, SliceError::Format(_)), "{huge}");

    // Another authority's server gets no token.
    let other = Cluster::start().await;
    let impostor = Config { server: other.server.clone(), ..cluster.config() };
    let error = Slices::new(&impostor).unwrap().list().await.unwrap_err();
    assert!(matches!(error, SliceError::Unreachable(_)), "{error}");
    assert!(other.asked.lock().unwrap().is_empty());
    let plain = Config { server: cluster.server.replace("https", "http"), ..cluster.config() };
    assert!(matches!(Slices::new(&plain).unwrap().list().await, Err(SliceError::Unreachable(_))));

    for service in ["", "Guests", "a/b", "a&b"] {
        let config = Config { service: service.into(), ..cluster.config() };
        assert!(matches!(Slices::new(&config), Err(SliceError::Name(_))), "{service:?}");
    }
    fs::remove_file(cluster.account.path().join("token")).unwrap();
    assert!(matches!(slices.list().await, Err(SliceError::Account { .. })));
    fs::remove_file(cluster.account.path().join("ca.crt")).unwrap();
    assert!(matches!(Slices::new(&cluster.config()), Err(SliceError::Account { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_terminates_is_drained_and_one_that_returns_is_used() {
    let cluster = Cluster::start().await;
    // Two guests on one address would be one endpoint: another address of this machine, the same port.
    let one = TcpListener::bind("127.0.77.101:0").await.unwrap();
    let port = one.local_addr().unwrap().port();
    let _two = TcpListener::bind(("127.0.77.102", port)).await.unwrap();
    let slices = |first: Value| {
        slice(port, &[("127.0.77.101", first), ("127.0.77.102", conditions(true, true, false))])
    };
    cluster.says(&[slices(conditions(true, true, false))]);
    let guests = Guests::new(Vec::new()).with_slices(Slices::new(&cluster.config()).unwrap());
    guests.probe().await;
    assert_eq!(guests.count(), (2, 2));
    // Until both have a session.
    let mut held = BTreeMap::new();
    while held.len() < 2 {
        let (stream, claim) = guests.connect().await.unwrap();
        held.entry(stream.peer_addr().unwrap().ip()).or_insert((stream, claim));
    }

    cluster.says(&[slices(conditions(false, true, true))]);
    guests.probe().await;
    assert_eq!(guests.count(), (1, 1));
    for _ in 0..20 {
        let (stream, _) = guests.connect().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip().to_string(), "127.0.77.102");
    }
    // Its session goes on.
    let (stream, _) = &held[&"127.0.77.101".parse().unwrap()];
    stream.writable().await.unwrap();
    assert!(stream.try_write(b"still here").is_ok());

    // While Kubernetes does not answer, what it said holds.
    cluster.answers.lock().unwrap().insert(String::new(), (503, String::new()));
    guests.probe().await;
    assert_eq!(guests.count(), (1, 1));
    cluster.says(&[slices(conditions(true, true, false))]);
    guests.probe().await;
    assert_eq!(guests.count(), (2, 2));

    // Nobody is there: that is an answer, too.
    cluster.says(&[]);
    guests.probe().await;
    assert_eq!(guests.count(), (0, 0));
    assert!(guests.connect().await.is_none());
}
