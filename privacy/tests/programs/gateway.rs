//! What a running gateway makes of new keys.

use crate::common::gateway::{tokens, write};
use crate::common::log::{Log, key_entry};
use crate::support::{GATEWAY, Program, until};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use privacy::bhttp::{self, Decoder};
use privacy::gateway::keys::KemName;
use privacy::issuer::signing::SigningKey;
use privacy::ohttp::{ClientExchange, Form, KeyConfig};
use privacy::session::OPEN;
use privacy::token::structure::Token;
use std::fs;
use transparency::entry::Kind;

/// Asks for a session in the form that opens none: the status inside, and the value of `WWW-Authenticate`.
async fn ask(gateway: &Program, config: &KeyConfig, token: Option<&Token>) -> (u16, Option<String>) {
    let (mut body, sealer, exchange) = ClientExchange::start(config, Form::Whole).unwrap();
    let authorization = token.map(Token::authorization);
    let fields: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
    let mut message = bhttp::request_head("POST", "", OPEN, &fields);
    message.extend_from_slice(&bhttp::END);
    sealer.finish(&message, &mut body).unwrap();
    let request = reqwest::Client::new().post(format!("http://{}/", gateway.address));
    let response =
        request.header("content-type", Form::Whole.request_type()).body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut opener, mut plain, mut content) = (exchange.response(1 << 20), Vec::new(), Vec::new());
    opener.push(&response.bytes().await.unwrap(), &mut plain).unwrap();
    opener.finish(&mut plain).unwrap();
    let mut decoder = Decoder::response();
    decoder.push(&plain, &mut content).unwrap();
    let head = decoder.head().unwrap();
    let challenge = head.field("www-authenticate").map(|value| String::from_utf8(value.to_vec()).unwrap());
    (head.status().unwrap(), challenge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_asks_for_tokens_under_the_key_that_the_issuer_has_now() {
    let (log, folder) = (Log::new().await, tempfile::tempdir().unwrap());
    let at = folder.path();
    let [first, second] = [(); 2].map(|()| SigningKey::generate().unwrap());
    let publish = async |file: &str, version, key: &SigningKey| {
        let entry = key_entry(Kind::IssuerKey, "issuer.example", version, key.public().spki().to_vec());
        fs::write(at.join(file), log.log(entry).await).unwrap();
    };
    let names = |challenge: &str, key: &SigningKey| challenge.contains(&URL_SAFE.encode(key.public().spki()));
    publish("current", 1, &first).await;
    let listen = "address = \"127.0.0.1:0\"";
    let mirrors = ["current", "previous"];
    let config = write(at, &log.trust, "127.0.0.1:1", KemName::X25519, "redb:spent", &mirrors, listen);
    let gateway = Program::start(GATEWAY, &["serve", "--config", "gateway.toml"], at);

    let (status, challenge) = ask(&gateway, &config, None).await;
    let challenge = challenge.unwrap();
    assert!(status == 401 && names(&challenge, &first), "{status} {challenge}");
    let under_first = tokens(&first, 2);
    let under_second = tokens(&second, 2);
    // 400: a good token, and then no session in this form.
    assert_eq!(ask(&gateway, &config, Some(&under_first[0])).await.0, 400);
    assert_eq!(ask(&gateway, &config, Some(&under_second[0])).await.0, 401, "of a key that is not in use");

    // A mirror that lies changes nothing, and is told of.
    let proof = fs::read(at.join("current")).unwrap();
    fs::write(at.join("current"), "no proof").unwrap();
    gateway.hang_up();
    until("a complaint", async || gateway.said().contains("stays in use").then_some(())).await;
    assert!(names(&ask(&gateway, &config, None).await.1.unwrap(), &first));

    // The issuer's next key: it is asked for, and the old one's tokens are still good.
    fs::write(at.join("previous"), proof).unwrap();
    publish("current", 2, &second).await;
    gateway.hang_up();
    until("the new key", async || {
        let challenge = ask(&gateway, &config, None).await.1.unwrap();
        (names(&challenge, &second) && !names(&challenge, &first)).then_some(())
    })
    .await;
    assert_eq!(ask(&gateway, &config, Some(&under_second[1])).await.0, 400);
    assert_eq!(ask(&gateway, &config, Some(&under_first[1])).await.0, 400);
    assert_eq!(ask(&gateway, &config, Some(&under_first[1])).await.0, 401, "spent");
    assert!(!gateway.said().contains("panicked"));
}
