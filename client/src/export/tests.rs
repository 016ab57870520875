//! Exports in the shapes that phones make them.

use super::*;

fn pairs(text: &str) -> Vec<(String, String)> {
    read(text.as_bytes()).unwrap().into_iter().map(|m| (m.sender, m.text)).collect()
}

fn pair(sender: &str, text: &str) -> (String, String) {
    (sender.into(), text.into())
}

#[test]
fn android_24_hours_with_system_lines_media_and_long_messages() {
    let chat = "12/03/2024, 18:02 - Messages and calls are end-to-end encrypted. Tap to learn more.\n\
        12/03/2024, 18:02 - Anna created group \"Trip: Rome\"\n\
        12/03/2024, 18:03 - Anna: shall we meet at 19:30?\nI can bring:\n- salad\n- bread\n\
        12/03/2024, 18:04 - Ben Müller: <Media omitted>\n\
        12/03/2024, 18:05 - Ben Müller: IMG-20240312-WA0003.jpg (file attached)\nthe menu\n\
        12/03/2024, 18:06 - +49 170 1234567: ok: see you <This message was edited>\n\
        12/03/2024, 18:07 - Anna: This message was deleted\n";
    assert_eq!(
        pairs(chat),
        [
            pair("Anna", "shall we meet at 19:30?\nI can bring:\n- salad\n- bread"),
            pair("Ben Müller", "the menu"),
            pair("+49 170 1234567", "ok: see you"),
        ]
    );
}

#[test]
fn ios_with_marks_and_narrow_spaces() {
    let chat = "\u{feff}[3/12/24, 6:02:11\u{202f}PM] Trip: \u{200e}Messages and calls are end-to-end encrypted.\r\n\
        [3/12/24, 6:02:40\u{202f}PM] Anna: hello\r\nsecond line\r\n\
        \u{200e}[3/12/24, 6:03:01\u{202f}PM] Ben: \u{200e}image omitted\r\n\
        [3/12/24, 6:03:59\u{202f}PM] Ben: fine \u{200e}<This message was edited>\r\n";
    assert_eq!(pairs(chat), [pair("Anna", "hello\nsecond line"), pair("Ben", "fine")]);
}

#[test]
fn dates_and_times_of_many_languages() {
    for start in [
        "[12.03.24, 18:02:11] ",
        "12.03.24, 18:02 - ",
        "2024-03-12, 6:02 p.m. - ",
        "[2024-03-12, 6:02:11 PM] ",
        "3/12/24, 6:02 AM - ",
        "12/3/24 6:02 p. m. - ",
        "12/3/2024, 6:02 a.\u{a0}m. - ",
        "12/03/2024 à 18:02 - ",
        "12/03/2024 18:02 - ",
        "12-03-2024 18:02 - ",
        "2024/03/12 18:02 - ",
        "12. 3. 2024, 18:02 - ",
        "2024. 3. 12. 오후 6:02 - ",
    ] {
        assert_eq!(pairs(&format!("{start}Anna: yes")), [pair("Anna", "yes")], "{start}");
    }
}

#[test]
fn what_only_resembles_a_header_belongs_to_the_message() {
    let chat = "12/03/2024, 18:02 - Anna: dates:\n14/03/2024 maybe\n45/99/2024, 18:02 - no\n12/03/2024, 99:02 - no\n[note] x: y";
    assert_eq!(
        pairs(chat),
        [pair(
            "Anna",
            "dates:\n14/03/2024 maybe\n45/99/2024, 18:02 - no\n12/03/2024, 99:02 - no\n[note] x: y"
        )]
    );
}

#[test]
fn what_is_no_chat_is_refused_with_a_reason() {
    assert_eq!(read(b"PK\x03\x04rest"), Err(ExportError::Archive));
    assert_eq!(read(b"\xff\xfe1\x002\x00"), Err(ExportError::NotText));
    assert_eq!(read(b""), Err(ExportError::NotAChat));
    assert_eq!(read(b"Dear all,\nplease find attached: nothing\n"), Err(ExportError::NotAChat));
    assert_eq!(read(b"12/03/2024, 18:02 - Anna: <Media omitted>"), Err(ExportError::Empty));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(\\PC|\\n|[0-9/:,.\\[\\] -]){0,200}") {
        if let Ok(messages) = read(text.as_bytes()) {
            for message in messages {
                assert!(!message.sender.is_empty() && !message.text.is_empty());
            }
        }
    }

    #[test]
    fn whatever_people_write_survives(words in "[a-z]{1,8}( [a-z]{1,8}){0,6}", sender in "[A-Z][a-z]{1,8}") {
        let chat = format!("12/03/2024, 18:02 - {sender}: {words}\n");
        assert_eq!(pairs(&chat), [pair(&sender, &words)]);
    }
}
