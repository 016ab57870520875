//! What an observer of the network sees of the real image's answers.

use crate::fixture::{Fixture, sample, summarize};
use xtask::capture::{Observer, Record};

/// Records of an answer are a multiple of this, see `models/manifest.toml`.
const ANSWER_RECORDS: usize = 40;

/// What came and went after the handshake, as `(from_client, length)`.
fn exchange(records: &[Record]) -> Vec<(bool, usize)> {
    records.iter().filter(|record| record.is_encrypted).map(|r| (r.from_client, r.length)).collect()
}

#[test]
fn c6_answers_of_different_lengths_look_the_same_on_the_wire() {
    let (guest, policy) = Fixture::get().boot(&[]);
    let observer = Observer::before(&guest.server()).unwrap();
    let seen = |max_tokens: &str, last: &str| {
        let options = ["--max-tokens", max_tokens, "--json"];
        let output = summarize(&sample(), observer.address(), &policy, last, &options);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let records = observer.latest();
        // One record with every tick, all of one size, from the request on; their number is a multiple.
        let asked = records.iter().rposition(|record| record.from_client && record.length > 4000).unwrap();
        let answer: Vec<&Record> = records[asked + 1..].iter().filter(|record| !record.from_client).collect();
        let of_one_size = answer.iter().take_while(|record| record.length == 1024 + 16).count();
        assert!(of_one_size > 0 && of_one_size.is_multiple_of(ANSWER_RECORDS), "{of_one_size}: {answer:?}");
        (json["completion_tokens"].as_u64().unwrap(), exchange(&records), of_one_size)
    };
    // How long the engine takes in the model hangs on what else this machine does, so several are compared.
    let short: Vec<_> = (0..2).map(|_| seen("2", "3")).collect();
    let long: Vec<_> = (0..2).map(|_| seen("16", "4")).collect();
    assert!(short.iter().all(|(tokens, ..)| *tokens == 2) && long.iter().all(|(tokens, ..)| *tokens > 8));
    let pair = short.iter().find_map(|short| Some((short, long.iter().find(|long| long.2 == short.2)?)));
    let ((_, short, _), (_, long, _)) = pair.expect("two of the same multiple");
    assert_eq!(short, long);
}
