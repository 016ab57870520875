//! The research environment, as a script uses it.

use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// What the commands print, and whether all of them were carried out.
fn research(arguments: &[&str], commands: &str) -> (bool, Vec<Value>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["demo", "--research", "--json"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    // Every line is an object.
    (output.status.success(), lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn an_auditor_looks_at_the_image_and_attacks_it_from_a_script() {
    let script = "image\nexits\nverify\nexits\nbytes 00ff\nlies remap\nhost a2-int80\nverify\nhost honest\nverify\nquit\n";
    let (good, lines) = research(&[], script);
    assert!(good, "{lines:#?}");
    let of = |name: &str| lines.iter().filter(|line| !line[name].is_null()).cloned().collect::<Vec<_>>();

    // The image is the one that the builder computed a digest for.
    let image = &of("measured")[0];
    assert_eq!(image["machine"], "rom, 2 vCPUs, EPYC-Genoa", "{image}");
    // What it needed its host for is counted by reason, and more after a client was there.
    let exits = of("exits");
    assert!(exits[0]["exits"]["port"]["boot"].as_u64().unwrap() > 0, "{exits:?}");
    assert!(exits[1]["exits"]["message"]["since"].as_u64().unwrap() > 0, "{exits:?}");
    // Clients, before and after an attack that ended the guest.
    let codes: Vec<_> = of("client").iter().map(|client| client["code"].as_i64()).collect();
    assert_eq!(codes, [Some(0), Some(0)]);
    assert_eq!(of("answer").len(), 1);
    assert_eq!(of("lie").len(), 1);
    let reason = of("reason")[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("UnexpectedVector"), "{reason}");
    assert_eq!(of("guest")[0]["guest"], "ended");
    // No event tells more than numbers.
    for event in of("event") {
        assert!(event["event"].is_string() && event["detail"].is_u64() && event["value"].is_u64(), "{event}");
    }

    // A word that is no command, and a host that is none.
    let (good, lines) = research(&["--hostile", "a10-no-memory"], "sesame\nhost nobody\n");
    let errors: Vec<&str> = lines.iter().filter_map(|line| line["error"].as_str()).collect();
    assert!(
        !good && errors.len() == 2 && errors[0].contains("sesame") && errors[1].contains("nobody"),
        "{errors:?}"
    );
    assert!(lines.iter().any(|line| line["reason"].as_str().is_some_and(|why| why.contains("MemoryLayout"))));
}
