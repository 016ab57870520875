//! An OHTTP client in Python, whose HPKE is pyhpke's, talks to the gateway over HTTP/1.1.

use privacy::gateway::{Gateway, Guests, Limits};
use privacy::ohttp::{Kem, SecretKey};
use privacy::serve::{self, serve};
use privacy::token::redeem::{Redeem, Redeeming, Refusal};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What is installed, as pip names it.
const PACKAGES: [&str; 2] = ["pyhpke==0.6.5", "cryptography==50.0.2"];

struct Nobody;

impl Redeem for Nobody {
    fn redeem<'a>(&'a self, _: &'a [u8]) -> Redeeming<'a> {
        Box::pin(async { Err(Refusal::Signature) })
    }
}

/// A Python with the packages, made once in the target folder.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pyhpke");
    let (python, done) = (venv.join("bin/python"), venv.join("installed"));
    if !done.is_file() {
        let run = |command: &mut Command| {
            let output = command.output().expect("python3 with its venv module");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
        std::fs::write(done, "").expect("the target folder can be written");
    }
    python
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_python_is_understood_and_understands() {
    let key = SecretKey::generate(7, Kem::X25519).unwrap();
    let config = hex::encode(key.config().encode());
    let guests = Arc::new(Guests::new(Vec::new()));
    let gateway = Arc::new(Gateway::new(
        vec![key],
        Arc::new(Nobody),
        "PrivateToken challenge=\"AAAA\"".into(),
        guests,
        Limits::default(),
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let service = move |request| gateway.clone().handle(request);
    let (limits, stop) = (serve::Limits::default(), CancellationToken::new());
    tokio::spawn(serve(listener, None, limits, service, stop, Duration::ZERO));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ohttp_client.py");
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python()).arg(script).args([url, config]).output().expect("python starts")
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Nothing is there; and no session without a token.
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "404 401");
}
