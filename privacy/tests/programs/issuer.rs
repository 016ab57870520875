//! The issuer's program: its folder, its accounts, its provider of identities, and its cap.

use crate::common::challenge;
use crate::support::{ISSUER, Program, run};
use privacy::issuer::epochs::Epochs;
use privacy::token::key::TokenKey;
use privacy::token::request::Pending;
use privacy::token::structure::{BATCH_REQUEST, BATCH_RESPONSE};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Runs the program where it must succeed; gives what it prints.
fn issuer(folder: &Path, arguments: &[&str]) -> String {
    let (code, said, why) = run(ISSUER, arguments, folder);
    assert_eq!((code, why.as_str()), (0, ""), "{arguments:?}");
    said
}

/// Runs it where it must fail, and say this.
fn refused(folder: &Path, arguments: &[&str], expected: &str) {
    let (code, said, why) = run(ISSUER, arguments, folder);
    assert_eq!((code, said.as_str()), (1, ""), "{arguments:?}: {why}");
    assert!(why.starts_with("error: ") && why.contains(expected), "{arguments:?}: {why}");
}

/// A folder of an issuer, with so many tokens for each account.
fn folder(cap: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let init = ["init", "--folder", ".", "--name", "issuer.example", "--cap", cap];
    assert_eq!(issuer(folder.path(), &init), "./issuer.toml\n");
    folder
}

fn append(folder: &Path, text: &str) {
    let config = fs::read_to_string(folder.join("issuer.toml")).unwrap();
    fs::write(folder.join("issuer.toml"), config + text).unwrap();
}

const SERVE: [&str; 5] = ["serve", "--folder", ".", "--listen", "127.0.0.1:0"];

#[test]
fn a_folder_is_made_once_and_keys_follow_each_other() {
    let folder = folder("256");
    let at = folder.path();
    refused(at, &["init", "--folder", ".", "--name", "issuer.example"], "issuer.toml");
    refused(at, &SERVE, "there is no key for this hour: make one with `cloister-issuer new-key`");
    assert_eq!(issuer(at, &["new-key", "--folder", "."]), "./keys/1.json\n");
    assert_eq!(issuer(at, &["new-key", "--folder", "."]), "./keys/2.json\n");
    refused(at, &["new-key", "--folder", "."], "starts in the future already");
    let mode = |file: &str| fs::metadata(at.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("keys/1.pem"), 0o600);
    fs::write(at.join("keys/3.json"), "{}").unwrap();
    refused(at, &SERVE, "3.json");
    fs::remove_file(at.join("keys/3.json")).unwrap();
    // Without arguments that make sense, 2, and the help says which there are.
    for wrong in [&["init", "--folder", "x", "--name", "no name"][..], &["serve"], &["grow"], &[]] {
        assert_eq!(run(ISSUER, wrong, at).0, 2, "{wrong:?}");
    }
    for (wrong, expected) in
        [("cap = 0", "`cap` is at least 1"), ("color = 1", "color"), ("cap =", "issuer.toml")]
    {
        fs::write(at.join("issuer.toml"), format!("name = \"issuer.example\"\n{wrong}\n")).unwrap();
        refused(at, &SERVE, expected);
    }
    refused(at, &["new-key", "--folder", "elsewhere"], "elsewhere");
}

fn account<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["account"], arguments, &["--folder", "."]].concat()
}

#[test]
fn accounts_are_added_listed_and_removed() {
    let folder = folder("256");
    let at = folder.path();
    assert_eq!(issuer(at, &account(&["list"])), "");
    for name in ["ada", "bob"] {
        issuer(at, &account(&["add", name, "--credential", &format!("{name}.credential")]));
    }
    assert_eq!(issuer(at, &account(&["list"])), "ada\nbob\n");
    let credential = fs::read_to_string(at.join("ada.credential")).unwrap();
    assert_eq!(fs::metadata(at.join("ada.credential")).unwrap().permissions().mode() & 0o777, 0o600);
    let file = fs::read_to_string(at.join("accounts.toml")).unwrap();
    assert!(!file.contains(credential.trim().split_once(':').unwrap().1), "the file holds no secret");
    refused(at, &account(&["add", "ada", "--credential", "again"]), "there is an account ada already");
    refused(at, &account(&["add", "eve", "--credential", "bob.credential"]), "bob.credential");
    refused(at, &account(&["add", "e v e", "--credential", "eve"]), "an account's name is 1 to 64");
    assert_eq!(issuer(at, &account(&["list"])), "ada\nbob\n", "a refusal adds nobody");
    issuer(at, &account(&["remove", "ada"]));
    refused(at, &account(&["remove", "ada"]), "there is no account ada");
    assert_eq!(issuer(at, &account(&["list"])), "bob\n");
    fs::write(at.join("accounts.toml"), "[[account]]\nname = 1").unwrap();
    refused(at, &account(&["list"]), "accounts.toml");
}

#[test]
fn a_provider_of_identities_that_cannot_be_trusted_is_refused_at_the_start() {
    for (oidc, expected) in [
        ("issuer = \"http://id.example\"\naudience = \"tokens\"", "not an https URL"),
        ("issuer = \"id.example\"\naudience = \"tokens\"", "not an https URL"),
        ("issuer = \"https://id.example\"\naudience = \"\"", "`audience` must not be empty"),
        ("issuer = \"https://id.example\"\naudience = \"a\"\nalgorithms = []", "must name at least one"),
        (
            "issuer = \"https://id.example\"\naudience = \"a\"\nalgorithms = [\"RS256\", \"HS256\"]",
            "none with a shared secret",
        ),
        ("issuer = \"https://id.example\"\naudience = \"a\"\nalgorithms = [\"none\"]", "none"),
        (
            "issuer = \"https://id.example\"\naudience = \"a\"\njwks_url = \"http://id.example/keys\"",
            "not an https URL",
        ),
        ("issuer = \"https://id.example\"", "missing field `audience`"),
        ("issuer = \"https://id.example\"\naudience = \"a\"\nkeys = 1", "keys"),
    ] {
        let folder = folder("256");
        issuer(folder.path(), &["new-key", "--folder", "."]);
        append(folder.path(), &format!("\n[oidc]\n{oidc}\n"));
        refused(folder.path(), &SERVE, expected);
    }
}

/// Asks for so many tokens: the status, and how many signatures came.
async fn ask(program: &Program, folder: &Path, bearer: &str, count: usize) -> (u16, usize) {
    let epochs = Epochs::load(&folder.join("keys")).unwrap();
    let key = epochs.current(crate::common::now()).unwrap();
    let key = Arc::new(TokenKey::parse(key.signing.public().spki()).unwrap());
    let pending = Pending::new(key, &challenge(), count).unwrap();
    let request = reqwest::Client::new().post(format!("http://{}/token-request", program.address));
    let request = request.bearer_auth(bearer).header("content-type", BATCH_REQUEST).body(pending.batch());
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let is_batch = response.headers().get("content-type").is_some_and(|kind| kind == BATCH_RESPONSE);
    let body = response.bytes().await.unwrap();
    (status, if is_batch { pending.finish_batch(&body).unwrap().len() } else { 0 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_the_program_holds_each_account_to_its_cap_in_each_epoch_and_across_a_restart() {
    let folder = folder("10");
    let at = folder.path();
    issuer(at, &["new-key", "--folder", "."]);
    let bearers = ["ada", "bob"].map(|name| {
        issuer(at, &["account", "add", name, "--folder", ".", "--credential", name]);
        fs::read_to_string(at.join(name)).unwrap().trim().to_owned()
    });
    let [ada, bob] = &bearers;
    let program = Program::start(ISSUER, &SERVE, at);
    assert_eq!(ask(&program, at, ada, 8).await, (200, 8));
    assert_eq!(ask(&program, at, "ada:AAAA", 1).await, (401, 0));
    assert_eq!(ask(&program, at, ada, 8).await, (206, 2));
    assert_eq!(ask(&program, at, ada, 1).await, (429, 0));
    drop(program);
    let program = Program::start(ISSUER, &SERVE, at);
    assert_eq!(ask(&program, at, ada, 1).await, (429, 0), "a restart gives no new tokens");
    assert_eq!(ask(&program, at, bob, 8).await, (200, 8), "others have theirs");
    drop(program);
    // Another key is another epoch.
    fs::remove_dir_all(at.join("keys")).unwrap();
    fs::create_dir(at.join("keys")).unwrap();
    issuer(at, &["new-key", "--folder", "."]);
    let program = Program::start(ISSUER, &SERVE, at);
    assert_eq!(ask(&program, at, ada, 16).await, (206, 10));
    // Nobody is named in what it says of itself.
    assert_eq!(program.said(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_or_another_one_gives_nobody_tokens_and_is_told_of() {
    let documents = [
        // Nobody listens there.
        (None, "openid-configuration"),
        (
            Some("{\"issuer\":\"https://other.example\",\"jwks_uri\":\"https://other.example/keys\"}"),
            "https://other.example",
        ),
        (Some("not JSON"), "openid-configuration"),
    ];
    // A JWT of nobody's: its header alone makes the issuer ask for the provider's keys.
    let bearer = "eyJhbGciOiJSUzI1NiIsImtpZCI6Im9uZSJ9.e30.AAAA";
    for (document, expected) in documents {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        match document {
            None => drop(listener),
            Some(document) => {
                let get = axum::routing::get(move || std::future::ready(document));
                let router = axum::Router::new().route("/.well-known/openid-configuration", get);
                tokio::spawn(async move { axum::serve(listener, router).await });
            }
        }
        let folder = folder("10");
        let at = folder.path();
        issuer(at, &["new-key", "--folder", "."]);
        append(at, &format!("\n[oidc]\nissuer = \"{url}\"\naudience = \"tokens\"\n"));
        let program = Program::start(ISSUER, &SERVE, at);
        assert_eq!(ask(&program, at, bearer, 1).await, (503, 0), "{document:?}");
        assert!(program.said().contains(expected), "{document:?}: {}", program.said());
        assert!(!program.said().contains(bearer), "a credential is nothing for a log");
        // Accounts of a file do not count beside a provider.
        issuer(at, &["account", "add", "ada", "--folder", ".", "--credential", "ada"]);
        let ada = fs::read_to_string(at.join("ada")).unwrap();
        assert_eq!(ask(&program, at, ada.trim(), 1).await, (401, 0));
    }
}
