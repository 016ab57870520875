//! Accounts that an OpenID Connect provider vouches for.

mod common;

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use privacy::issuer::accounts::{Account, Authenticate, Denied};
use privacy::issuer::oidc::{Config, Oidc, OidcError};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

struct Provider {
    url: String,
    key: EncodingKey,
    asked: Arc<AtomicU32>,
}

impl Provider {
    async fn new() -> Self {
        let rsa = openssl::rsa::Rsa::generate(2048).unwrap();
        let base64 = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one",
                          "n": base64(rsa.n().to_vec()), "e": base64(rsa.e().to_vec()) });
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let discovery = json!({ "issuer": &url, "jwks_uri": format!("{url}/keys") }).to_string();
        let keys = move || {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(json!({ "keys": [jwk] }).to_string())
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(|| std::future::ready(discovery)))
            .route("/keys", get(keys));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, key: EncodingKey::from_rsa_der(&rsa.private_key_to_der().unwrap()), asked }
    }

    fn config(&self) -> Config {
        let algorithms = vec![Algorithm::RS256, Algorithm::ES256];
        Config { issuer: self.url.clone(), audience: "tokens".into(), algorithms, jwks_url: None }
    }

    fn claims(&self) -> Value {
        let now = common::now();
        json!({ "iss": self.url, "aud": "tokens", "sub": "ada", "iat": now, "exp": now + 600 })
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::RS256) };
        encode(&header, claims, &self.key).unwrap()
    }
}

#[tokio::test]
async fn an_id_token_is_an_account_and_nothing_else_is() {
    let provider = Provider::new().await;
    let oidc = Oidc::new(provider.config()).unwrap();
    let good = provider.sign(&provider.claims());
    assert_eq!(oidc.account(&good).await, Ok(Account::new(&provider.url, "ada")));
    let changed = |name: &str, value: Value| {
        let mut claims = provider.claims();
        claims[name] = value;
        provider.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = provider.claims();
        claims.as_object_mut().unwrap().remove(name);
        provider.sign(&claims)
    };
    assert_eq!(
        oidc.account(&changed("aud", json!(["x", "tokens"]))).await,
        Ok(Account::new(&provider.url, "ada"))
    );
    assert_ne!(oidc.account(&changed("sub", json!("bob"))).await, oidc.account(&good).await);
    let now = common::now();
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let shared = EncodingKey::from_secret(b"tokens");
    let other =
        EncodingKey::from_rsa_der(&openssl::rsa::Rsa::generate(2048).unwrap().private_key_to_der().unwrap());
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::RS256) };
    for (what, jwt) in [
        ("expired", changed("exp", json!(now - 120))),
        ("not yet good", changed("nbf", json!(now + 120))),
        ("another audience", changed("aud", json!("mail"))),
        ("another issuer", changed("iss", json!("https://other.example"))),
        ("an empty name", changed("sub", json!(""))),
        ("no end", without("exp")),
        ("no audience", without("aud")),
        ("no issuer", without("iss")),
        ("no name", without("sub")),
        ("no signature", format!("{head}.{body}.")),
        ("the algorithm none", format!("{}.{body}.", part(json!({ "alg": "none", "typ": "JWT" })))),
        ("another body", format!("{head}.{}.{signature}", part(json!({ "sub": "eve" })))),
        ("a shared secret", encode(&Header::new(Algorithm::HS256), &provider.claims(), &shared).unwrap()),
        ("another key", encode(&header, &provider.claims(), &other).unwrap()),
        ("garbage", "a.b.c".into()),
        ("nothing", String::new()),
        ("too much", "a".repeat(100_000)),
    ] {
        assert_eq!(oidc.account(&jwt).await, Err(Denied::Refused), "{what}");
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);
    // Unknown keys do not make it ask at strangers' pace.
    let unknown = Header { kid: Some("two".into()), ..Header::new(Algorithm::RS256) };
    let unknown = encode(&unknown, &provider.claims(), &provider.key).unwrap();
    for _ in 0..20 {
        assert_eq!(oidc.account(&unknown).await, Err(Denied::Refused));
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_provider_that_is_down_is_no_refusal_of_the_account() {
    let provider = Provider::new().await;
    let config = Config { jwks_url: Some("http://127.0.0.1:1/keys".into()), ..provider.config() };
    let oidc = Oidc::new(config).unwrap();
    assert_eq!(oidc.account(&provider.sign(&provider.claims())).await, Err(Denied::Unavailable));
}

#[tokio::test]
async fn a_configuration_that_would_take_anything_is_refused() {
    let provider = Provider::new().await;
    let config = provider.config();
    let refused = |config: Config| Oidc::new(config).err();
    let shared = Config { algorithms: vec![Algorithm::HS256], ..config.clone() };
    assert!(matches!(refused(shared), Some(OidcError::Algorithms)));
    assert!(matches!(refused(Config { algorithms: vec![], ..config.clone() }), Some(OidcError::Algorithms)));
    assert!(matches!(
        refused(Config { audience: String::new(), ..config.clone() }),
        Some(OidcError::Audience)
    ));
    for url in ["http://accounts.example", "accounts.example", ""] {
        assert!(matches!(refused(Config { issuer: url.into(), ..config.clone() }), Some(OidcError::Url(_))));
        let jwks = Config { jwks_url: Some(url.into()), ..config.clone() };
        assert!(matches!(refused(jwks), Some(OidcError::Url(_))));
    }
}
