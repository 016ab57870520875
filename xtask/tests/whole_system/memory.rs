//! What is left in the guest's memory, seen from outside.

use crate::fixture::Fixture;
use crate::qmp::Qmp;
use crate::tls::RawSession;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Shortest run of bytes that counts as a trace.
const RUN: usize = 16;

/// How often any of `needles` occurs in a file.
fn count(file: &Path, needles: &[Vec<u8>]) -> usize {
    const BLOCK: usize = 1 << 20;
    let keep = needles.iter().map(Vec::len).max().unwrap_or(0);
    let mut file = std::fs::File::open(file).unwrap();
    let mut window: Vec<u8> = Vec::new();
    let mut found = 0;
    loop {
        let start = window.len();
        window.resize(start + BLOCK, 0);
        let read = file.read(&mut window[start..]).unwrap();
        window.truncate(start + read);
        if read == 0 {
            return found;
        }
        // Pages of zeros are most of the memory.
        if window.iter().any(|byte| *byte != 0) {
            found += needles.iter().map(|needle| occurrences(&window, start, needle)).sum::<usize>();
        }
        window.drain(..window.len().saturating_sub(keep - 1));
    }
}

/// Occurrences of `needle` that end after the first `seen` bytes of `window`.
fn occurrences(window: &[u8], seen: usize, needle: &[u8]) -> usize {
    let first = needle[0];
    let from = (seen + 1).saturating_sub(needle.len());
    (from..window.len().saturating_sub(needle.len() - 1))
        .filter(|at| window[*at] == first && window[*at..].starts_with(needle))
        .count()
}

#[test]
fn a20_no_prompt_or_answer_is_left_in_guest_ram() {
    let fixture = Fixture::get();
    let socket = fixture.folder.join("qmp.sock");
    let dumps = ["low.dump", "high.dump"].map(|name| fixture.folder.join(name));
    let [low, high] = &dumps;
    let (mut guest, _) = fixture.boot(&["--qmp", socket.to_str().unwrap()]);
    let mut qmp = Qmp::connect(&socket);

    // Another one than `snp_model::hostile::CANARY`, which is in the model's own image and so in the dump.
    let canary = "zaunkoenig-51c0be7d49a2f836";
    let body = format!(
        r#"{{"messages":[{{"sender":"Ines","text":"{canary}"}},{{"sender":"Tomas","text":"dinner at Vera's on Friday at 19:30, {canary}"}}]}}"#
    );
    let (first, second) = body.split_at(body.len() - 10);

    let mut session = RawSession::connect(&guest.server());
    session.send(b"POST /v1/evidence HTTP/1.1\r\nHost: guest\r\nContent-Length: 32\r\n\r\n");
    session.send(&[7; 32]);
    session.wait_for("200 OK");
    let head = format!(
        "POST /v1/tasks/summarize HTTP/1.1\r\nHost: guest\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    session.send(head.as_bytes());
    session.send(first.as_bytes());
    std::thread::sleep(Duration::from_secs(2));

    // The control: while the request is being received, its text is in the guest's memory.
    let prompt = [canary.as_bytes().to_vec()];
    qmp.dump([low, high]);
    assert!(count(high, &prompt) > 0, "the dump does not see the guest's private memory");

    session.send(second.as_bytes());
    let answer = session.wait_for(r#""type":"done""#);
    let text: String = answer
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line.strip_prefix("data:")?).ok())
        .filter_map(|event| Some(event.get("text")?.as_str()?.to_owned()))
        .collect();
    assert!(text.len() >= RUN, "the answer is long enough to look for: {text:?}");
    session.close();
    guest.wait_for("session was wiped", Duration::from_secs(60)).unwrap();
    std::thread::sleep(Duration::from_secs(1));

    let mut traces = prompt.to_vec();
    traces.extend(text.as_bytes().windows(RUN).map(<[u8]>::to_vec));
    traces.extend(canary.as_bytes().windows(RUN).map(<[u8]>::to_vec));
    qmp.dump([low, high]);
    for dump in &dumps {
        assert_eq!(count(dump, &traces), 0, "traces of the prompt or the answer are left in guest memory");
        std::fs::remove_file(dump).unwrap();
    }
    guest.stop().unwrap();
}
