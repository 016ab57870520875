//! Nobody is given a key of their own: what a client and a gateway use is in the log.

mod common;

use axum::Router;
use axum::routing::get;
use common::log::{Log, key_entry, name};
use common::{Counter, challenge, serve};
use privacy::keys::{Floors, IssuerKey, KeyError, Mirror, from_mirrors, prove};
use privacy::token::redeem::Redeem;
use privacy::token::structure::{BATCH_RESPONSE, MAX_BATCH, encode_responses};
use privacy::token::supply::{Config, Supply, SupplyError};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use transparency::entry::{Entry, Kind, PublicKey, Revoked, Subject, Version};
use transparency::monitor::{Memory, Monitor};
use transparency::verify::VerifyError;

fn check(log: &Log, proof: &[u8], kind: Kind, whose: &str, floors: &Floors) -> Result<Version, KeyError> {
    prove(proof, kind, &name(whose), &log.trust, floors, SystemTime::now()).map(|proven| proven.version)
}

#[tokio::test]
async fn c1_a_key_without_a_proof_for_its_use_is_not_used() {
    let log = Log::new().await;
    let none = Floors::default();
    let proof = log.log(key_entry(Kind::IssuerKey, "issuer.example", 1, vec![1, 2, 3])).await;
    assert_eq!(check(&log, &proof, Kind::IssuerKey, "issuer.example", &none).unwrap(), Version::new(1, 0, 0));

    use VerifyError as V;
    let refused = |proof: &[u8], kind, whose| check(&log, proof, kind, whose, &none).unwrap_err();
    let kind = refused(&proof, Kind::OhttpKey, "issuer.example");
    assert!(
        matches!(kind, KeyError::Proof(V::Kind { expected: Kind::OhttpKey, found: Kind::IssuerKey })),
        "{kind}"
    );
    let other = refused(&proof, Kind::IssuerKey, "other.example");
    assert!(matches!(other, KeyError::Name { .. }), "{other}");
    let stranger = log.log(key_entry(Kind::IssuerKey, "stranger.example", 1, vec![1])).await;
    assert!(matches!(
        refused(&stranger, Kind::IssuerKey, "stranger.example"),
        KeyError::Proof(V::Name { .. })
    ));
    for end in [0, 10, proof.len() / 2, proof.len() - 1] {
        assert!(
            matches!(refused(&proof[..end], Kind::IssuerKey, "issuer.example"), KeyError::Proof(_)),
            "{end}"
        );
    }
    // Any byte of it, the key's own included.
    let step = proof.len() / 40;
    for place in (0..proof.len()).step_by(step) {
        let mut altered = proof.clone();
        altered[place] ^= 1;
        assert!(
            matches!(refused(&altered, Kind::IssuerKey, "issuer.example"), KeyError::Proof(_)),
            "byte {place}"
        );
    }
    let elsewhere = Log::new().await;
    let theirs = elsewhere.log(key_entry(Kind::IssuerKey, "issuer.example", 1, vec![9])).await;
    assert!(matches!(refused(&theirs, Kind::IssuerKey, "issuer.example"), KeyError::Proof(V::Checkpoint(_))));

    let late = SystemTime::now() + Duration::from_secs(8 * 24 * 3600);
    let stale = prove(&proof, Kind::IssuerKey, &name("issuer.example"), &log.trust, &none, late).unwrap_err();
    assert!(matches!(stale, KeyError::Proof(V::Checkpoint(_))), "{stale}");
    let ended = SystemTime::now() + Duration::from_secs(3601);
    let ended =
        prove(&proof, Kind::IssuerKey, &name("issuer.example"), &log.trust, &none, ended).unwrap_err();
    assert!(matches!(ended, KeyError::Proof(V::KeyDates)), "{ended}");

    let proven =
        prove(&proof, Kind::IssuerKey, &name("issuer.example"), &log.trust, &none, SystemTime::now())
            .unwrap();
    let mut writer = log.writer().await;
    writer.revoke(vec![Revoked { leaf: proven.leaf, reason: name("withdrawn") }]).await.unwrap();
    writer.publish().await.unwrap();
    let revoked = writer.prove(1).await.unwrap().encode();
    assert!(matches!(
        refused(revoked.as_bytes(), Kind::IssuerKey, "issuer.example"),
        KeyError::Proof(V::Revoked(_))
    ));
    // Three bytes are in the log, and are no token key.
    assert!(matches!(IssuerKey::try_from(proven), Err(KeyError::Encoding(_))));
}

#[tokio::test]
async fn c1_an_older_key_is_refused_once_a_newer_one_was_seen() {
    let log = Log::new().await;
    let first = log.log(key_entry(Kind::OhttpKey, "gateway.example", 1, vec![1])).await;
    let second = log.log(key_entry(Kind::OhttpKey, "gateway.example", 2, vec![2])).await;
    let file = log.folder.path().join("floors.json");
    let mirrors = |proofs: &[&[u8]]| -> Vec<Mirror> {
        let write = |(place, proof): (usize, &&[u8])| {
            let path = log.folder.path().join(format!("mirror{place}"));
            std::fs::write(&path, proof).unwrap();
            Mirror::File(path)
        };
        proofs.iter().enumerate().map(write).collect()
    };
    let gateway = name("gateway.example");
    let mut floors = Floors::load(&file).unwrap();
    let ask = async |mirrors: &[Mirror], floors: &mut Floors| {
        from_mirrors(mirrors, Kind::OhttpKey, &gateway, &log.trust, floors).await.map(|proven| proven.key.key)
    };
    assert_eq!(ask(&mirrors(&[&first]), &mut floors).await.unwrap(), [1]);
    // One mirror lags, one lies: the newest that can be used is used.
    assert_eq!(ask(&mirrors(&[&first, b"lie", &second, &first]), &mut floors).await.unwrap(), [2]);
    floors.save(&file).unwrap();
    let mut floors = Floors::load(&file).unwrap();
    let error = ask(&mirrors(&[&first]), &mut floors).await.unwrap_err();
    let KeyError::NoMirror(1, last) = error else { panic!("{error}") };
    assert!(matches!(*last, KeyError::Rollback { .. }), "{last}");
    assert_eq!(ask(&mirrors(&[&second]), &mut floors).await.unwrap(), [2]);
    assert!(matches!(ask(&[], &mut floors).await, Err(KeyError::NoMirrors)));

    // The same version with another key, as a log with two faces would show it.
    let other =
        prove(&second, Kind::OhttpKey, &gateway, &log.trust, &Floors::default(), SystemTime::now()).unwrap();
    let mut seen = Floors::default();
    seen.remember(Kind::OhttpKey, &privacy::keys::Proven { leaf: [0; 32], ..other });
    assert!(matches!(ask(&mirrors(&[&second]), &mut seen).await, Err(KeyError::TwoKeys { .. })));
}

#[tokio::test]
async fn c1_a_mirror_over_plain_http_is_good_enough_and_a_bad_one_says_what_is_wrong() {
    let log = Log::new().await;
    let proof = log.log(key_entry(Kind::OhttpKey, "gateway.example", 1, vec![1])).await;
    let huge = vec![b'x'; transparency::proof::MAX_PROOF_TEXT + 1];
    let router = Router::new()
        .route("/proof", get(|| std::future::ready(proof)))
        .route("/huge", get(|| std::future::ready(huge)));
    let url = serve(router).await;
    let at = |path: &str| vec![Mirror::from(format!("{url}{path}"))];
    let (gateway, mut floors) = (name("gateway.example"), Floors::default());
    let mut ask = async |mirrors: Vec<Mirror>| {
        let asked = from_mirrors(&mirrors, Kind::OhttpKey, &gateway, &log.trust, &mut floors).await;
        asked.map(|proven| proven.key.key).map_err(|error| match error {
            KeyError::NoMirror(_, last) => *last,
            other => other,
        })
    };
    assert_eq!(ask(at("/proof")).await.unwrap(), [1]);
    for bad in [
        at("/none"),
        at("/huge"),
        vec![Mirror::from("http://127.0.0.1:1/".to_owned())],
        vec![Mirror::File("/nowhere".into())],
    ] {
        let error = ask(bad).await.unwrap_err();
        assert!(matches!(error, KeyError::Mirror { .. }), "{error}");
    }
}

#[tokio::test]
async fn c1_a_monitor_raises_the_alarm_over_many_keys_at_one_time() {
    let log = Log::new().await;
    let mut entries = Vec::new();
    let day = 24 * 3600;
    let times = [(0, 30), (24, 54), (48, 78), (50, 78), (100, 130)];
    for (number, (start, end)) in times.into_iter().enumerate() {
        let public = PublicKey { key: vec![1], not_before: day + start * 3600, not_after: day + end * 3600 };
        let entry = key_entry(Kind::IssuerKey, "issuer.example", number as u32 + 1, vec![1]);
        entries.push(Entry { subject: Subject::IssuerKey(public), ..entry });
    }
    for entry in entries {
        log.log(entry).await;
    }
    let store = transparency::log::store::Store::folder(&log.tiles()).unwrap();
    let mut monitor = Monitor::new(log.trust.clone(), Memory::default()).unwrap();
    let mut alarmed = Vec::new();
    let report = |report: transparency::monitor::Report| {
        if !report.alarms.is_empty() {
            assert!(report.alarms[0].contains("keys of issuer-key/issuer.example"), "{:?}", report.alarms);
            alarmed.push(report.entry.unwrap().version.parts()[0]);
        }
    };
    monitor.follow(&transparency::log::reader::Reader::Store(store), report).await.unwrap();
    // The keys of epochs overlap in pairs; the fourth is a third one from the hour 50 to 54.
    assert_eq!(alarmed, [4]);
}

/// A client with the issuer at `url`, whose key's proof is in `mirror`.
fn client(counter: &Counter, log: &Log, url: &str, mirror: PathBuf) -> Supply {
    let folder = tempfile::tempdir_in(log.folder.path()).unwrap().keep();
    let config = Config {
        issuer: url.into(),
        issuer_name: name("issuer.example"),
        gateway: name("gateway.example"),
        credential: counter.folder.path().join("ada"),
        wallet: "wallet.json".into(),
        key_mirrors: vec![Mirror::File(mirror)],
        floors: "keys.json".into(),
    };
    Supply::new(config.below(&folder), log.trust.clone()).unwrap()
}

async fn logged(counter: &Counter, log: &Log) -> PathBuf {
    let proof = log.log(counter.current().entry.clone()).await;
    let path = log.folder.path().join("issuer.tlog-proof");
    std::fs::write(&path, proof).unwrap();
    path
}

#[tokio::test]
async fn c1_a_client_has_tokens_under_the_logged_key_and_a_gateway_takes_them() {
    let (counter, log) = (Counter::new(64).await, Log::new().await);
    let mirror = logged(&counter, &log).await;
    let supply = client(&counter, &log, &counter.url, mirror.clone());
    assert_eq!(supply.fetch_if_due().await.unwrap(), 32);
    assert_eq!(supply.count().unwrap(), 32);
    assert_eq!(supply.fetch_if_due().await.unwrap(), 0, "its hour has not come");
    let proof = std::fs::read(&mirror).unwrap();
    let proven = prove(
        &proof,
        Kind::IssuerKey,
        &name("issuer.example"),
        &log.trust,
        &Floors::default(),
        SystemTime::now(),
    );
    let spent = log.folder.path().join("spent");
    let till = common::till(&spent, vec![proven.unwrap().try_into().unwrap()]).await;
    assert_eq!(*supply.challenge(), challenge());
    for _ in 0..32 {
        let taken = supply.token().await.unwrap();
        assert!(!taken.hurried);
        assert_eq!(till.redeem(taken.token.bytes()).await, Ok(()));
    }
    // Empty: a batch comes at once, and the user is told what that means.
    assert!(supply.token().await.unwrap().hurried);
    let mut last = Ok(());
    while last.is_ok() {
        last = supply.token().await.map(|_| ()).map_err(|error| error.to_string());
    }
    assert!(last.unwrap_err().contains("64 tokens of this epoch"));
}

#[tokio::test]
async fn c1_an_issuer_that_signs_under_another_key_gives_no_token() {
    let (counter, other, log) = (Counter::new(64).await, Counter::new(64).await, Log::new().await);
    let mirror = logged(&counter, &log).await;
    // Another issuer's URL with this account's name: another key, so requests are refused or signatures do not hold.
    std::fs::copy(other.folder.path().join("ada"), counter.folder.path().join("ada")).unwrap();
    let supply = client(&counter, &log, &other.url, mirror.clone());
    let error = supply.fetch().await.unwrap_err();
    assert!(matches!(error, SupplyError::OtherKey(_) | SupplyError::Answer(_)), "{error}");
    assert_eq!(supply.count().unwrap(), 0);
}

#[tokio::test]
async fn c1_whatever_an_issuer_answers_only_tokens_that_hold_are_counted() {
    let (counter, log) = (Counter::new(64).await, Log::new().await);
    let mirror = logged(&counter, &log).await;
    let answers: [(&str, u16, &str, Vec<u8>); 8] = [
        ("wrong", 200, BATCH_RESPONSE, encode_responses(&[Some([1; 256]); 32])),
        ("fewer", 200, BATCH_RESPONSE, encode_responses(&[Some([1; 256]); 31])),
        ("none", 206, BATCH_RESPONSE, encode_responses(&[None; 32])),
        ("many", 200, BATCH_RESPONSE, encode_responses(&[None; MAX_BATCH + 1])),
        ("huge", 200, BATCH_RESPONSE, vec![0; 1 << 20]),
        ("text", 200, "text/plain", encode_responses(&[None; 32])),
        ("busy", 503, "text/plain", b"later\x1b[31m".into()),
        ("away", 302, "text/plain", Vec::new()),
    ];
    for (what, status, media_type, body) in answers {
        let answer = move || {
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            let headers = [("content-type", media_type), ("location", "http://127.0.0.1:1/")];
            std::future::ready((status, headers, body.clone()))
        };
        let url = serve(Router::new().route("/token-request", axum::routing::post(answer))).await;
        let supply = client(&counter, &log, &url, mirror.clone());
        let error = supply.fetch().await.unwrap_err();
        let as_it_is = match what {
            "wrong" | "fewer" | "many" | "huge" => matches!(error, SupplyError::Answer(_)),
            "none" => matches!(error, SupplyError::Nothing),
            "text" => matches!(error, SupplyError::MediaType(_)),
            _ => matches!(&error, SupplyError::Refused { reason, .. } if !reason.contains('\x1b')),
        };
        assert!(as_it_is, "{what}: {error}");
        assert_eq!(supply.count().unwrap(), 0, "{what}");
    }
    let nobody = client(&counter, &log, "http://127.0.0.1:1", mirror.clone());
    assert!(matches!(nobody.fetch().await, Err(SupplyError::Unreachable(_))));
    let without_proof = client(&counter, &log, &counter.url, "/nowhere".into());
    assert!(matches!(without_proof.fetch().await, Err(SupplyError::Key(KeyError::NoMirror(..)))));
    std::fs::write(counter.folder.path().join("ada"), "ada:wrong").unwrap();
    let wrong = client(&counter, &log, &counter.url, mirror);
    assert!(matches!(wrong.fetch().await, Err(SupplyError::Account)));
}

#[tokio::test]
async fn c1_a_credential_does_not_travel_in_the_clear() {
    let (counter, log) = (Counter::new(1).await, Log::new().await);
    let supply = client(&counter, &log, "https://issuer.example", "/nowhere".into());
    drop(supply);
    for url in ["http://issuer.example", "http://10.0.0.1:80", "ftp://127.0.0.1", "issuer.example", ""] {
        let folder = log.folder.path().to_path_buf();
        let config = Config {
            issuer: url.into(),
            issuer_name: name("issuer.example"),
            gateway: name("gateway.example"),
            credential: folder.clone(),
            wallet: folder.clone(),
            key_mirrors: Vec::new(),
            floors: folder,
        };
        assert!(matches!(Supply::new(config, log.trust.clone()), Err(SupplyError::Url(_))), "{url}");
    }
}
