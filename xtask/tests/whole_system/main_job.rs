//! The main job and the peers that must get along with the guest.

use crate::fixture::{Fixture, cloister, sample, summarize};
use crate::tls;
use std::time::Duration;

#[test]
fn a_summary_arrives_in_an_attested_session() {
    let (mut guest, policy) = Fixture::get().boot(&[]);
    let output = summarize(&sample(), &guest.server(), &policy, "12", &[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));

    // A summary, then three lines of evidence that name image and model and say what the session is worth.
    let lines: Vec<&str> = shown.lines().collect();
    let (summary, evidence) = lines.split_at(lines.len() - 3);
    assert!(summary.iter().any(|line| line.split_whitespace().count() >= 3), "{shown}");
    assert!(evidence[0].starts_with("image ") && evidence[1].starts_with("model "), "{shown}");
    assert!(evidence[2].starts_with("checked ") && evidence[2].contains("protects nothing"), "{shown}");

    let output = summarize(&sample(), &guest.server(), &policy, "3", &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["messages_sent"], 3);
    assert!(!json["summary"].as_str().unwrap().is_empty());
    assert_eq!(json["evidence"]["development_root"], true);
    // REQUIREMENTS B11, harvest now and decrypt later.
    assert_eq!(json["evidence"]["key_exchange"], "X25519MLKEM768");

    let output =
        cloister(&["verify", "--server", &guest.server(), "--policy", policy.to_str().unwrap(), "--json"]);
    assert!(output.status.success());

    // What the operator sees has numbers, and no word of the chat or line of the summary.
    guest.wait_for("request", Duration::from_secs(10)).unwrap();
    let log = guest.output();
    let chat = std::fs::read_to_string(sample()).unwrap();
    for word in chat.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() >= 7) {
        assert!(!log.contains(word), "the operator's log contains {word:?} from the chat:\n{log}");
    }
    for line in summary.iter().filter(|line| line.len() >= 16) {
        assert!(!log.contains(line), "the operator's log contains {line:?} from the summary:\n{log}");
    }
    assert!(guest.stop().unwrap().success(), "the launcher ends cleanly when it is asked to");
}

#[test]
fn b11_openssl_completes_a_tls13_handshake_and_no_older_one() {
    let (guest, _) = Fixture::get().boot(&[]);
    let good = tls::handshake(&guest.server(), &["-tls1_3"]);
    let report = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success(), "{report}");
    assert!(report.contains("New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384"), "{report}");
    // Versions of OpenSSL write its name in capitals or not.
    assert!(report.to_lowercase().contains("peer signature type: ed25519"), "{report}");

    let old = tls::handshake(&guest.server(), &["-tls1_2"]);
    assert!(!old.status.success(), "TLS 1.2 is refused");
}

#[test]
fn the_guest_speaks_the_openai_chat_api() {
    let (guest, _) = Fixture::get().boot(&[]);
    let mut session = tls::RawSession::connect(&guest.server());
    let post = |path: &str, body: &[u8]| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: guest\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let chat = |stream: bool| {
        let request = serde_json::json!({
            "model": "cloister-mini",
            "messages": [{ "role": "user", "content": "Nadia: dinner at Luigi's at 17:42?" }],
            "max_tokens": 8,
            "stream": stream,
        });
        post(wire::path::CHAT_COMPLETIONS, request.to_string().as_bytes())
    };

    session.send(&chat(false));
    session.wait_for("evidence_required");
    session.send(&post(wire::path::EVIDENCE, &[7; 32]));
    session.wait_for("200 OK");
    session.send(&chat(false));
    let received = session.wait_for("\"usage\"");
    let json = &received[received.find("{\"id\"").expect("a chat completion")..];
    let completion: serde_json::Value =
        serde_json::Deserializer::from_str(json).into_iter().next().unwrap().unwrap();
    assert_eq!(completion["object"], "chat.completion");
    assert_eq!(completion["choices"][0]["message"]["role"], "assistant");
    assert!(completion["usage"]["completion_tokens"].as_u64().unwrap() <= 8);

    session.send(&chat(true));
    let received = session.wait_for("[DONE]");
    assert!(received.contains("\"object\":\"chat.completion.chunk\""), "{received}");
    session.close();
}
