//! The whole way: client, relay, gateway, issuer, and the real image in the model, with somebody listening in between.

use crate::fixture::{Fixture, cloister, failure, sample};
use crate::tap::tap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use xtask::build;
use xtask::log::Log;
use xtask::privacy::Privacy;

/// Where the client seems to be: the relay is reached from there.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn c5_the_relay_sees_no_text_and_the_gateway_no_address() {
    let fixture = Fixture::get();
    let folder = build::target().unwrap().join("whole-system/way");
    let log = Log::start(&folder.join("log")).unwrap();
    let proof = log.publish(&fixture.folder).unwrap();
    let (mut guest, _) = fixture.boot(&["--proof", proof.to_str().unwrap()]);
    let policy = log.policy("0.1.0", &fixture.root()).unwrap();
    let (guest_at, gateway_to_guest) = tap(&guest.server(), Ipv4Addr::LOCALHOST);
    let between = Mutex::new(None);
    let privacy = Privacy::start(&folder.join("privacy"), &log, &guest_at, &|gateway| {
        let (at, capture) = tap(gateway, Ipv4Addr::LOCALHOST);
        *between.lock().unwrap() = Some(capture);
        Ok(at)
    })
    .unwrap();
    let relay_to_gateway = between.into_inner().unwrap().unwrap();
    let (relay_at, client_to_relay) = tap(privacy.relay.address(), CLIENT);
    privacy.extend(&policy, &relay_at).unwrap();
    let policy = policy.to_str().unwrap();

    let chat = sample();
    let summarize = [
        "summarize",
        chat.to_str().unwrap(),
        "--last",
        "12",
        "--policy",
        policy,
        "--json",
        "--timeout",
        "300",
    ];
    let output = cloister(&summarize);
    assert!(output.status.success(), "{}", failure(&output).1);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let summary = answer["summary"].as_str().unwrap().to_owned();
    assert!(answer["complete"].as_bool().unwrap() && summary.len() > 16, "{answer}");
    assert_eq!(answer["evidence"]["log"]["witnesses"][0], "cloister.localhost/witness");
    // A token that was made for nobody, or none at all, opens nothing: what is in the wallet is good, once each.
    let verify = ["verify", "--policy", policy];
    assert!(cloister(&verify).status.success());

    // The captures are complete when the connections have ended.
    let relay_output = privacy.relay.output();
    let gateway_output = privacy.gateway.output();
    privacy.stop().unwrap();
    assert!(guest.stop().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(20);
    let captures = [&client_to_relay, &relay_to_gateway, &gateway_to_guest];
    while captures.iter().any(|capture| capture.len() < 4_000) {
        assert!(Instant::now() < deadline, "the captures are empty: {:?}", captures.map(|c| c.len()));
        std::thread::sleep(Duration::from_millis(100));
    }

    // No word of the chat and no line of the summary: not at the relay, not on the way to the gateway, not to the guest.
    let chat = std::fs::read_to_string(&chat).unwrap();
    let words = chat.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() >= 7);
    let lines = summary.lines().map(str::trim).filter(|line| line.len() >= 16);
    for text in words.chain(lines) {
        for capture in captures {
            assert!(!capture.holds(text.as_bytes()), "{text:?} was on the wire");
        }
    }
    // What only client and gateway may know is sealed at the relay: token and session.
    for text in ["PrivateToken", "cloister-session", "/v1/session"] {
        assert!(
            !client_to_relay.holds(text.as_bytes()) && !relay_to_gateway.holds(text.as_bytes()),
            "{text}"
        );
    }
    // The relay was reached from the client's address, and nothing of it got further, in any form.
    assert!(relay_to_gateway.holds(b"message/ohttp-chunked-req"), "the capture is not of what it should be");
    let address = CLIENT.octets();
    let mapped = CLIENT.to_ipv6_mapped().to_string();
    for capture in [&relay_to_gateway, &gateway_to_guest] {
        for form in
            [CLIENT.to_string().as_bytes(), mapped.as_bytes(), b"127.0.0.2", b"forwarded", b"x-real-ip"]
        {
            assert!(!capture.holds(form), "{}", String::from_utf8_lossy(form));
        }
    }
    assert!(!relay_to_gateway.holds(&address), "the address as four bytes");
    // And neither writes an address down.
    for output in [relay_output, gateway_output] {
        assert!(output.is_empty(), "{output}");
    }
}
