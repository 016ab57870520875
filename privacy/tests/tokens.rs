//! The way of a token over HTTP, and all that can be wrong with it.

mod common;

use common::{Counter, challenge, till};
use privacy::issuer::signing::SigningKey;
use privacy::keys::IssuerKey;
use privacy::token::NK;
use privacy::token::challenge::Challenge;
use privacy::token::key::{BadKey, TokenKey};
use privacy::token::redeem::{Redeem, Refusal};
use privacy::token::request::Pending;
use privacy::token::structure::{BATCH_REQUEST, REQUEST, RESPONSE, Token, TokenRequest, encode_requests};
use reqwest::StatusCode;

#[tokio::test]
async fn c3_a_token_is_taken_once_also_after_a_restart() {
    let counter = Counter::new(100).await;
    let tokens = counter.buy("ada", 5).await;
    assert_eq!(tokens.len(), 5);
    let file = counter.folder.path().join("spent");
    let gateway = till(&file, vec![counter.key()]).await;
    for token in &tokens[..4] {
        assert_eq!(gateway.redeem(token.bytes()).await, Ok(()));
        assert_eq!(gateway.redeem(token.bytes()).await, Err(Refusal::Spent));
    }
    drop(gateway);
    // Its writer ends when its last user is gone.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let gateway = till(&file, vec![counter.key()]).await;
    for token in &tokens[..4] {
        assert_eq!(gateway.redeem(token.bytes()).await, Err(Refusal::Spent));
    }
    assert_eq!(gateway.redeem(tokens[4].bytes()).await, Ok(()));
}

#[tokio::test]
async fn c3_of_many_at_once_one_takes_the_token() {
    let counter = Counter::new(100).await;
    let tokens = counter.buy("ada", 10).await;
    let gateway = std::sync::Arc::new(till(&counter.folder.path().join("spent"), vec![counter.key()]).await);
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..20 {
        for token in &tokens {
            let (gateway, token) = (gateway.clone(), token.clone());
            tries.spawn(async move { gateway.redeem(token.bytes()).await });
        }
    }
    let results = tries.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), tokens.len());
    assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(Refusal::Spent))), "{results:?}");
}

#[tokio::test]
async fn c3_a_token_of_another_issuer_epoch_or_gateway_or_an_altered_one_is_refused() {
    let (counter, other) = (Counter::new(100).await, Counter::new(100).await);
    let [token] = counter.buy("ada", 1).await.try_into().unwrap();
    let gateway = till(&counter.folder.path().join("spent"), vec![counter.key()]).await;
    let refused = async |bytes: &[u8]| gateway.redeem(bytes).await.unwrap_err();

    assert_eq!(refused(other.buy("ada", 1).await[0].bytes()).await, Refusal::UnknownKey);
    let elsewhere = Challenge::new("issuer.example", &["elsewhere.example"]).unwrap();
    assert_eq!(
        refused(counter.buy_for("ada", 1, &elsewhere).await[0].bytes()).await,
        Refusal::OtherChallenge
    );
    for cut in [0, 1, 2, 34, 98, Token::LENGTH - 1] {
        assert_eq!(refused(&token.bytes()[..cut]).await, Refusal::Malformed, "cut at {cut}");
    }
    assert_eq!(refused(&[&token.bytes()[..], &[0]].concat()).await, Refusal::Malformed);
    for (place, refusal) in [
        (1, Refusal::Malformed),
        (2, Refusal::Signature),
        (34, Refusal::OtherChallenge),
        (66, Refusal::UnknownKey),
        (98, Refusal::Signature),
        (Token::LENGTH - 1, Refusal::Signature),
    ] {
        let mut altered = *token.bytes();
        altered[place] ^= 1;
        assert_eq!(refused(&altered).await, refusal, "byte {place}");
    }

    // Keys are used in their own time only; the key before it stays good through the overlap.
    let key = counter.key();
    for (not_before, not_after) in [(0, common::now()), (common::now() + 60, u64::MAX)] {
        gateway.set_keys(vec![IssuerKey { not_before, not_after, ..key.clone() }]);
        assert_eq!(refused(token.bytes()).await, Refusal::UnknownKey);
    }
    gateway.set_keys(vec![other.key(), key]);
    assert_eq!(gateway.redeem(token.bytes()).await, Ok(()), "nothing of the above has spent it");
}

#[tokio::test]
async fn c2_an_account_has_a_cap_and_others_have_theirs() {
    let counter = Counter::new(40).await;
    assert_eq!(counter.buy("ada", 32).await.len(), 32);
    // The rest of the cap: fewer than were asked for, and the client counts those that it got.
    assert_eq!(counter.buy("ada", 32).await.len(), 8);
    let pending = Pending::new(counter.key().key, &challenge(), 1).unwrap();
    let response = counter.post(&counter.credential("ada"), BATCH_REQUEST, pending.batch()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(counter.buy("bob", 32).await.len(), 32);
}

#[tokio::test]
async fn c1_bad_requests_have_a_clear_status_and_cost_nothing() {
    let counter = Counter::new(3).await;
    let credential = counter.credential("ada");
    let request = Pending::new(counter.key().key, &challenge(), 1).unwrap().requests().remove(0);
    let status = async |credential: &str, media_type: &str, body: Vec<u8>| {
        counter.post(credential, media_type, body).await.status()
    };
    let batch = |requests: &[TokenRequest]| encode_requests(requests);
    let good = batch(std::slice::from_ref(&request));
    for wrong in ["", "ada:", "ada:AAAA", "eve:AAAA", &counter.credential("bob").replace("bob", "ada")] {
        assert_eq!(status(wrong, BATCH_REQUEST, good.clone()).await, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let no_credential =
        reqwest::Client::new().post(format!("{}/token-request", counter.url)).send().await.unwrap();
    assert_eq!(no_credential.status(), StatusCode::UNAUTHORIZED);
    for media_type in ["text/plain", "", RESPONSE] {
        let found = status(&credential, media_type, good.clone()).await;
        assert_eq!(found, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{media_type}");
    }
    let oversized = batch(&vec![request.clone(); 65]);
    let found = status(&credential, BATCH_REQUEST, oversized).await;
    assert!(matches!(found, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY), "{found}");
    let huge = status(&credential, BATCH_REQUEST, vec![0; 1 << 20]).await;
    assert_eq!(huge, StatusCode::PAYLOAD_TOO_LARGE);
    let other_key = TokenRequest { truncated_key_id: request.truncated_key_id ^ 1, ..request.clone() };
    let above = TokenRequest { blinded: [0xFF; NK], ..request.clone() };
    for (what, body) in [
        ("empty", Vec::new()),
        ("no requests", batch(&[])),
        ("cut off", good[..good.len() - 1].into()),
        ("trailing", [&good[..], &[0]].concat()),
        ("not under this key", batch(&[request.clone(), other_key])),
        ("not below the modulus", batch(&[above])),
    ] {
        let found = status(&credential, BATCH_REQUEST, body).await;
        assert_eq!(found, StatusCode::UNPROCESSABLE_ENTITY, "{what}");
    }
    let found = status(&credential, REQUEST, good[2..good.len() - 1].into()).await;
    assert_eq!(found, StatusCode::UNPROCESSABLE_ENTITY);
    // One of the three was used by the number that could not be signed, none by the rest.
    let single = counter.post(&credential, REQUEST, request.encode()).await;
    assert_eq!(
        (single.status(), single.headers()["content-type"].to_str().unwrap()),
        (StatusCode::OK, RESPONSE)
    );
    assert_eq!(counter.buy("ada", 3).await.len(), 1);
}

#[tokio::test]
async fn c1_the_directory_names_the_key_in_use() {
    let counter = Counter::new(3).await;
    let url = format!("{}/.well-known/private-token-issuer-directory", counter.url);
    let response = reqwest::get(url).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/private-token-issuer-directory");
    let directory: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(directory["issuer-request-uri"], "/token-request");
    let key = directory["token-keys"][0]["token-key"].as_str().unwrap();
    use base64::Engine;
    let key = base64::engine::general_purpose::URL_SAFE.decode(key).unwrap();
    assert_eq!(key, counter.key().key.spki());
}

/// Keys that could be one user's own are not read: other sizes and exponents, other encodings of the same key.
#[test]
fn c1_a_key_has_one_size_one_exponent_and_one_encoding() {
    let good = SigningKey::generate().unwrap();
    let spki = good.public().spki();
    assert!(TokenKey::parse(spki).is_ok());
    let rsa = |bits, exponent| {
        let exponent = openssl::bn::BigNum::from_u32(exponent).unwrap();
        let key = openssl::rsa::Rsa::generate_with_e(bits, &exponent).unwrap();
        TokenKey::from_rsa_spki(&key.public_key_to_der().unwrap()).map(|_| ())
    };
    assert_eq!(rsa(2048, 65537), Ok(()));
    assert_eq!(rsa(2048, 3), Err(BadKey::Parameters));
    assert_eq!(rsa(3072, 65537), Err(BadKey::Parameters));
    for place in 0..74 {
        let mut altered = spki.to_vec();
        altered[place] ^= 1;
        assert!(TokenKey::parse(&altered).is_err(), "byte {place}");
    }
    assert_eq!(TokenKey::parse(&[spki, &[0]].concat()).map(|_| ()), Err(BadKey::Encoding));
    assert_eq!(TokenKey::parse(&[]).map(|_| ()), Err(BadKey::Encoding));
}

/// Our tokens are those of another implementation: it issues to our client, and our issuer to its client.
#[tokio::test]
async fn privacypass_takes_part() {
    use privacypass::auth::authenticate::TokenChallenge;
    use privacypass::{Deserialize, Serialize, TokenType};
    let counter = Counter::new(10).await;
    let key = counter.key().key;
    let origins = ["gateway.example".to_owned()];
    let theirs = TokenChallenge::new(TokenType::Public, "issuer.example", None, &origins);
    assert_eq!(theirs.serialize().unwrap(), challenge().encode());

    let public = privacypass::public_tokens::PublicKey::from_spki(key.spki()).unwrap();
    let mut random = blind_rsa_signatures::DefaultRng;
    let (request, state) =
        privacypass::public_tokens::TokenRequest::new(&mut random, public, &theirs).unwrap();
    let response =
        counter.post(&counter.credential("ada"), REQUEST, request.tls_serialize_detached().unwrap()).await;
    let bytes = response.bytes().await.unwrap();
    let response = privacypass::public_tokens::TokenResponse::tls_deserialize(&mut &bytes[..]).unwrap();
    let token = response.issue_token(&state).unwrap().tls_serialize_detached().unwrap();
    let gateway = till(&counter.folder.path().join("spent"), vec![counter.key()]).await;
    assert_eq!(gateway.redeem(&token).await, Ok(()));
    assert_eq!(gateway.redeem(&token).await, Err(Refusal::Spent));
}
