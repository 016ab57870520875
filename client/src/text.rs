//! Text of others, made fit to be shown.

/// Leaves out what could steer a terminal or change the order in which text is read: control characters other than
/// line breaks and tabs, and the marks that embed or override a direction (UAX #9; CVE-2021-42574). Letters,
/// joiners and single marks of direction stay, as many scripts need them.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control() && !turns(*c)).collect()
}

fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_people_write_stays_and_what_steers_a_terminal_goes() {
        for text in ["Anna:\n\t“näher” 日本語", "می\u{200c}خواهم", "👩\u{200d}👩\u{200d}👧", "\u{200f}שלום"]
        {
            assert_eq!(printable(text), text);
        }
        // Clear screen, window title, C1's CSI, carriage return, backspace, right-to-left override.
        let steering = "a\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1m\r\u{8}\u{7f}\0\u{202e}b";
        assert_eq!(printable(steering), "a[2J]0;t1mb");
    }
}
