//! The program itself: what it prints, and its exit codes as `--help` and docs/CLIENTS.md list them.

use crate::support::CANARY;
use crate::support::amd_sp::{self, AmdSp};
use crate::support::guest::Guest;
use crate::support::server::{Connection, Identity, Server};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use wire::task::{ErrorCode, FinishReason, TaskEvent};

const DONE: TaskEvent =
    TaskEvent::Done { reason: FinishReason::Stop, prompt_tokens: 3, completion_tokens: 2 };

/// A folder with a chat that holds the canary, and a policy that accepts the test's image.
struct Folder {
    folder: TempDir,
    chat: String,
    policy: String,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let chat = folder.path().join("chat.txt");
        fs::write(&chat, format!("12/03/2024, 18:02 - Amara: {CANARY}\n")).expect("the chat is written");
        let policy = amd_sp::write_policy(folder.path());
        Self { chat: chat.display().to_string(), policy, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn summarize(&self, server: &str, more: &[&str]) -> Ran {
        let arguments =
            ["summarize", &self.chat, "--last", "1", "--server", server, "--policy", &self.policy];
        cloister(&[&arguments, more].concat())
    }

    fn verify(&self, server: &str, more: &[&str]) -> Ran {
        cloister(&[&["verify", "--server", server, "--policy", &self.policy], more].concat())
    }
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            err: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }
}

impl Ran {
    /// Failed with this code, said why in one place, and showed nothing of a message.
    fn failed(&self, code: i32, because: &str) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        assert!(self.err.starts_with("error: ") && self.err.contains(because), "{}", self.err);
        assert!(!self.err.contains(CANARY) && !self.err.contains("panicked"), "{}", self.err);
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn cloister(arguments: &[&str]) -> Ran {
    command(arguments).output().expect("the program runs").into()
}

fn answering(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> String {
    Server::attested(script).address.to_string()
}

#[test]
fn a_summary_of_an_honest_guest_ends_with_three_lines_of_evidence() {
    let amd_sp = AmdSp::honest();
    let guest = Guest::start(move |report_data| Ok(amd_sp.attest(report_data)));
    let ran = Folder::new().summarize(&guest.address.to_string(), &["--max-tokens", "8"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    let [.., image, model, checked] = lines[..] else { panic!("{}", ran.out) };
    assert!(image.starts_with("image ") && image.contains("cloister"), "{image}");
    assert!(model.starts_with("model "), "{model}");
    assert!(checked.contains("DEVELOPMENT ROOT") && checked.contains("protects nothing"), "{checked}");
    assert!(lines.len() > 3, "there is a summary: {}", ran.out);
}

#[test]
fn json_holds_the_summary_and_the_evidence() {
    let server = answering(|connection| {
        connection.start_events();
        connection.text("Dinner\u{1b}[2J at 20:15.");
        connection.event(&DONE);
        connection.chunk(b"");
    });
    let folder = Folder::new();
    let ran = folder.summarize(&server, &["--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON value");
    assert_eq!(json["summary"], "Dinner[2J at 20:15.");
    assert_eq!((&json["complete"], &json["messages_sent"]), (&true.into(), &1.into()));
    assert_eq!((&json["prompt_tokens"], &json["completion_tokens"]), (&3.into(), &2.into()));
    assert_eq!(json["evidence"]["launch_digest"], "a1".repeat(48));

    let ran = folder.verify(&server, &["--json"]);
    let verified: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON value");
    assert_eq!(verified["evidence"], json["evidence"]);
    assert_eq!(
        (&json["evidence"]["protects"], &json["evidence"]["development_root"]),
        (&false.into(), &true.into())
    );
}

#[test]
fn verify_sends_nothing_but_a_nonce() {
    let identity = Identity::honest();
    let server =
        Server::answering(identity, |identity, nonce, exporter| identity.fresh_evidence(nonce, &exporter));
    let ran = Folder::new().verify(&server.address.to_string(), &[]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 3), "{}{}", ran.out, ran.err);
    server.got_nonces_only();
}

#[test]
fn what_the_model_says_does_not_reach_the_terminal_as_commands() {
    let server = answering(|connection| {
        connection.start_events();
        for piece in [
            "\u{1b}",
            "[2Jcalm\u{1b}]0;owned\u{7}\u{9b}31m",
            "\rimage\u{8}\u{7f}\0 \u{202e}\u{2066}end\n\tüber",
        ] {
            connection.text(piece);
        }
        connection.event(&DONE);
        connection.chunk(b"");
    });
    let ran = Folder::new().summarize(&server, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.starts_with("[2Jcalm]0;owned31mimage end\n\tüber\nimage "), "{:?}", ran.out);
    assert!(ran.out.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{:?}", ran.out);
}

#[test]
fn an_answer_that_was_cut_to_length_says_so() {
    let server = answering(|connection| {
        connection.start_events();
        connection.text("Dinner at");
        let reason = FinishReason::Length;
        connection.event(&TaskEvent::Done { reason, prompt_tokens: 3, completion_tokens: 2 });
        connection.chunk(b"");
    });
    let ran = Folder::new().summarize(&server, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("length limit"), "{}", ran.err);
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let server = answering(|connection| {
        connection.start_events();
        // More than a pipe holds.
        (0..50).all(|_| {
            connection.chunk(
                format!("data: {{\"type\":\"delta\",\"text\":\"{}\"}}\n\n", "x".repeat(4096)).as_bytes(),
            )
        });
        connection.event(&DONE);
        connection.chunk(b"");
    });
    let folder = Folder::new();
    let arguments =
        ["summarize", &folder.chat, "--last", "1", "--server", &server, "--policy", &folder.policy];
    let mut child =
        command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().expect("the program ends"));
    ran.failed(9, "cannot write the result");
}

#[test]
fn wrong_arguments_are_2() {
    let folder = Folder::new();
    let wrong: [&[&str]; 8] = [
        &[],
        &["verify"],
        &["verify", "--server", "guest.example", "--policy", &folder.policy],
        &["verify", "--server", ":443", "--policy", &folder.policy],
        &["verify", "--server", "guest.example:https", "--policy", &folder.policy],
        &["verify", "--server", "localhost:1", "--policy", &folder.policy, "--timeout", "0"],
        &[
            "summarize",
            &folder.chat,
            "--last",
            "1",
            "--max-tokens",
            "0",
            "--server",
            "localhost:1",
            "--policy",
            &folder.policy,
        ],
        &["summarize", &folder.chat, "--last", "0", "--server", "localhost:1", "--policy", &folder.policy],
    ];
    for arguments in wrong {
        assert_eq!(cloister(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn a_chat_that_cannot_be_read_is_3() {
    let folder = Folder::new();
    let summarize = |chat: &str| {
        cloister(&["summarize", chat, "--last", "1", "--server", "localhost:1", "--policy", &folder.policy])
    };
    summarize(&folder.path("none.txt")).failed(3, "none.txt");
    summarize(&folder.path("")).failed(3, "directory");
    for (content, because) in [
        (&b"PK\x03\x04"[..], "_chat.txt"),
        (b"\xff\xfe", "UTF-8"),
        (b"the heron lands at dusk", "Export chat"),
        (b"12/03/2024, 18:02 - Anna: <Media omitted>", "nothing to summarise"),
    ] {
        let chat = folder.path("no-chat.txt");
        fs::write(&chat, content).expect("the file is written");
        summarize(&chat).failed(3, because);
    }
}

#[test]
fn a_policy_that_cannot_be_used_is_4() {
    let folder = Folder::new();
    let verify = |policy: &str| cloister(&["verify", "--server", "localhost:1", "--policy", policy]);
    verify(&folder.path("none.toml")).failed(4, "none.toml");
    let policy = fs::read_to_string(&folder.policy).expect("the policy");
    let misspelt = format!("developement_root = \"root.pem\"\n{policy}");
    for bad in [
        "",
        "image = []",
        "relax = [\"pinned-image\"]",
        &policy.replace("root.pem", "policy.toml"),
        &misspelt,
    ] {
        fs::write(folder.path("bad.toml"), bad).expect("the policy is written");
        verify(&folder.path("bad.toml")).failed(4, "bad.toml");
    }
    cloister(&["policy", "--digests", &folder.policy, "--out", &folder.path("out")])
        .failed(4, "digests.json");
    assert!(!Path::new(&folder.path("out")).exists());
}

#[test]
fn a_policy_that_was_made_from_digests_can_be_used() {
    let folder = Folder::new();
    let digests = serde_json::json!({
        "image": { "name": "cloister", "version": "0.1.0" },
        "manifest_digest": "a1".repeat(48),
        "weights_file": "cloister-mini.gguf",
        "launch_digests": [{ "container": "rom", "vcpus": 1, "cpu_type": "EPYC-Genoa", "digest": "b2".repeat(48) }],
    });
    let (file, out) = (folder.path("digests.json"), folder.path("made.toml"));
    fs::write(&file, digests.to_string()).expect("the digests are written");
    let root = folder.path("root.pem");
    let ran = cloister(&["policy", "--digests", &file, "--development-root", &root, "--out", &out]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{}", ran.err);

    // It is another image's policy, so the test's server is rejected, and for that reason only.
    let server = Server::start(Identity::honest().config(), |_| ());
    let verify =
        |policy: &str| cloister(&["verify", "--server", &server.address.to_string(), "--policy", policy]);
    verify(&out).failed(6, &"a1".repeat(48));
    let without_root = cloister(&["policy", "--digests", &file, "--out", &out]);
    assert_eq!(without_root.code, Some(0), "{}", without_root.err);
    verify(&out).failed(6, "development root");
    cloister(&["policy", "--digests", &file, "--development-root", &folder.path("none"), "--out", &out])
        .failed(4, "none");
}

#[test]
fn no_connection_is_5() {
    let folder = Folder::new();
    folder.verify("127.0.0.1:1", &[]).failed(5, "cannot reach");
    let tls12 = Identity::honest().config_with(&[&rustls::version::TLS12], 1);
    folder.verify(&Server::start(tls12, |_| ()).address.to_string(), &[]).failed(5, "no TLS 1.3 session");
}

#[test]
fn rejected_evidence_is_6() {
    let folder = Folder::new();
    let server =
        Server::answering(Identity::honest(), |identity, nonce, _| identity.fresh_evidence(nonce, &[0; 32]));
    let ran = folder.summarize(&server.address.to_string(), &[]);
    ran.failed(6, "nothing was sent");
    assert!(ran.out.is_empty());
    server.got_nonces_only();
}

#[test]
fn a_refusal_is_7() {
    let server = answering(|connection| {
        let message =
            "\u{1b}[2Jsend fewer messages".escape_default().to_string().replace("\\u{1b}", "\\u001b");
        let body = format!("{{\"error\":{{\"code\":\"prompt_too_long\",\"message\":\"{message}\"}}}}");
        connection.answer(422, body.as_bytes());
    });
    let ran = Folder::new().summarize(&server, &[]);
    ran.failed(7, "send fewer messages");
    assert!(!ran.err.contains('\u{1b}'));
}

#[test]
fn an_answer_that_breaks_off_is_8_and_still_says_where_it_came_from() {
    let folder = Folder::new();
    let server = answering(|connection| {
        connection.start_events();
        connection.text("half an ans");
    });
    let ran = folder.summarize(&server, &[]);
    ran.failed(8, "cut off");
    assert!(
        ran.out.starts_with("half an ans\nimage ") && ran.out.contains("DEVELOPMENT ROOT"),
        "{}",
        ran.out
    );
    let ran = folder.summarize(&server, &["--json"]);
    ran.failed(8, "cut off");
    assert!(ran.out.is_empty(), "half an object helps no program");

    let silent = Server::start(Identity::honest().config(), Connection::fall_silent);
    folder.verify(&silent.address.to_string(), &["--timeout", "2"]).failed(8, "did not answer for 2 s");
    let malformed = answering(|connection| {
        connection.start_events();
        connection.event(&TaskEvent::Failed { code: ErrorCode::Internal });
    });
    folder.summarize(&malformed, &[]).failed(7, "could not finish");
}

#[test]
fn help_and_documentation_list_the_same_exit_codes() {
    let words = |text: &str| {
        let start = text.to_lowercase().find("0 done").expect("the codes are listed");
        let list = text[start..].split('.').next().expect("a sentence").replace(['\n', ';', ',', ':'], " ");
        list.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u8>>()
    };
    let help = cloister(&["--help"]);
    assert_eq!(help.code, Some(0));
    let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CLIENTS.md");
    let documentation = fs::read_to_string(documentation).expect("docs/CLIENTS.md");
    let last = documentation.rfind("## Exit codes").expect("a section");
    assert_eq!(words(&help.out), [0, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(words(&documentation[last..]), words(&help.out));
    for command in ["summarize", "verify", "policy"] {
        assert!(help.out.contains(command));
        assert_eq!(cloister(&[command, "--help"]).code, Some(0));
    }
}
