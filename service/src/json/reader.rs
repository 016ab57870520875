//! A strict pull parser over one document.

use alloc::string::String;
use zeroize::Zeroizing;

/// The bytes are not the JSON that was expected. Says nothing about them, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotJson;

/// Deepest nesting that is followed, so that a body cannot exhaust the stack.
const MAX_DEPTH: u8 = 32;

/// Reads values in the order in which they stand.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    depth: u8,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of a document.
    pub(crate) fn new(document: &'a [u8]) -> Self {
        Self { rest: document, depth: 0 }
    }

    /// Ends reading; only white space may be left.
    pub(crate) fn finish(mut self) -> Result<(), NotJson> {
        if self.peek().is_none() { Ok(()) } else { Err(NotJson) }
    }

    /// Reads an object and calls `member` for each key; `member` must read the value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&str, &mut Self) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.elements(b'{', b'}', |reader| {
            let key = reader.string()?;
            reader.expect(b':')?;
            member(&key, reader)
        })
    }

    /// Reads an array and calls `element` at each value; `element` must read it.
    pub(crate) fn array(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.elements(b'[', b']', element)
    }

    /// Reads `null` as `None`, and anything else with `value`.
    pub(crate) fn optional<T>(
        &mut self,
        value: impl FnOnce(&mut Self) -> Result<T, NotJson>,
    ) -> Result<Option<T>, NotJson> {
        if self.peek() == Some(b'n') { self.literal(b"null").map(|()| None) } else { value(self).map(Some) }
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&mut self) -> Result<bool, NotJson> {
        match self.peek() {
            Some(b't') => self.literal(b"true").map(|()| true),
            _ => self.literal(b"false").map(|()| false),
        }
    }

    /// Reads a number without sign, fraction or exponent.
    pub(crate) fn unsigned<T: TryFrom<u64>>(&mut self) -> Result<T, NotJson> {
        let value: u64 = self.number()?.parse().map_err(|_| NotJson)?;
        T::try_from(value).map_err(|_| NotJson)
    }

    /// Reads any number to single precision. (`core` reads to the last digit of double precision, with 14 KB of tables.)
    pub(crate) fn float(&mut self) -> Result<f32, NotJson> {
        let text = self.number()?;
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let mut power: i32 = exponent.parse().map_err(|_| NotJson)?;
        let (mut digits, mut after_point) = (0u64, false);
        for byte in mantissa.bytes() {
            match byte {
                b'0'..=b'9' if digits < u64::MAX / 16 => {
                    digits = digits * 10 + u64::from(byte - b'0');
                    power = power.saturating_sub(after_point.into());
                }
                b'0'..=b'9' => power = power.saturating_add((!after_point).into()),
                _ => after_point |= byte == b'.',
            }
        }
        let scale = (0..power.unsigned_abs().min(400)).fold(1.0, |scale, _| scale * 10.0);
        let value = match digits {
            0 => 0.0,
            _ if power < 0 => digits as f64 / scale,
            _ => digits as f64 * scale,
        };
        let value = if text.starts_with('-') { -value } else { value };
        if value.is_finite() { Ok(value as f32) } else { Err(NotJson) }
    }

    /// Reads a string into memory that is wiped.
    pub(crate) fn string(&mut self) -> Result<Zeroizing<String>, NotJson> {
        let raw = self.raw_string()?;
        // No escape is shorter than what it stands for, so the string never grows and leaves no copy behind.
        let mut text = Zeroizing::new(String::with_capacity(raw.len()));
        let mut parts = raw;
        while let Some(at) = parts.iter().position(|byte| *byte == b'\\') {
            let (plain, escape) = parts.split_at(at);
            text.push_str(core::str::from_utf8(plain).map_err(|_| NotJson)?);
            let (character, rest) = unescape(escape)?;
            text.push(character);
            parts = rest;
        }
        text.push_str(core::str::from_utf8(parts).map_err(|_| NotJson)?);
        Ok(text)
    }

    /// Reads any value and forgets it.
    pub(crate) fn skip(&mut self) -> Result<(), NotJson> {
        match self.peek().ok_or(NotJson)? {
            b'{' => self.object(|_, reader| reader.skip()),
            b'[' => self.array(Self::skip),
            b'"' => self.string().map(drop),
            b't' | b'f' => self.boolean().map(drop),
            b'n' => self.literal(b"null"),
            _ => self.number().map(drop),
        }
    }

    fn elements(
        &mut self,
        open: u8,
        close: u8,
        mut element: impl FnMut(&mut Self) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.expect(open)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(NotJson);
        }
        if self.peek() != Some(close) {
            element(self)?;
            while self.peek() == Some(b',') {
                self.expect(b',')?;
                element(self)?;
            }
        }
        self.depth -= 1;
        self.expect(close)
    }

    /// The next byte that is not white space; it stays unread.
    fn peek(&mut self) -> Option<u8> {
        let blank = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.rest = self.rest.get(blank..).unwrap_or_default();
        self.rest.first().copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.peek() != Some(byte) {
            return Err(NotJson);
        }
        self.rest = self.rest.get(1..).unwrap_or_default();
        Ok(())
    }

    fn literal(&mut self, text: &[u8]) -> Result<(), NotJson> {
        self.peek();
        self.rest = self.rest.strip_prefix(text).ok_or(NotJson)?;
        Ok(())
    }

    /// The text of a number by RFC 8259 §6: no leading zeros, no bare point, no plus sign.
    fn number(&mut self) -> Result<&'a str, NotJson> {
        self.peek();
        let all = self.rest;
        let rest = all.strip_prefix(b"-").unwrap_or(all);
        let mut rest = match rest {
            [b'0', rest @ ..] => rest,
            _ => digits(rest)?,
        };
        if let Some(fraction) = rest.strip_prefix(b".") {
            rest = digits(fraction)?;
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            let unsigned = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-"));
            rest = digits(unsigned.unwrap_or(exponent))?;
        }
        let (number, rest) = all.split_at(all.len() - rest.len());
        self.rest = rest;
        core::str::from_utf8(number).map_err(|_| NotJson)
    }

    /// What stands between a string's quotes, escapes unresolved.
    fn raw_string(&mut self) -> Result<&'a [u8], NotJson> {
        self.expect(b'"')?;
        let mut at = 0;
        loop {
            match self.rest.get(at).ok_or(NotJson)? {
                b'"' => break,
                b'\\' => at += 2,
                0..0x20 => return Err(NotJson),
                _ => at += 1,
            }
        }
        let (raw, rest) = self.rest.split_at(at);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(raw)
    }
}

/// Reads one digit or more and returns what follows.
fn digits(bytes: &[u8]) -> Result<&[u8], NotJson> {
    match bytes.iter().take_while(|byte| byte.is_ascii_digit()).count() {
        0 => Err(NotJson),
        count => Ok(&bytes[count..]),
    }
}

/// Resolves the escape at the start of `bytes` and returns what follows it.
fn unescape(bytes: &[u8]) -> Result<(char, &[u8]), NotJson> {
    let (kind, rest) = match bytes {
        [b'\\', kind, rest @ ..] => (kind, rest),
        _ => return Err(NotJson),
    };
    let character = match kind {
        b'"' | b'\\' | b'/' => char::from(*kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return code_point(rest),
        _ => return Err(NotJson),
    };
    Ok((character, rest))
}

/// Reads what follows `\u`: four digits, or the two halves of a surrogate pair (RFC 8259 §7).
fn code_point(bytes: &[u8]) -> Result<(char, &[u8]), NotJson> {
    let (first, rest) = hex4(bytes)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, rest));
    }
    let (second, rest) = hex4(rest.strip_prefix(b"\\u").ok_or(NotJson)?)?;
    if !(0xd800..0xdc00).contains(&first) || !(0xdc00..0xe000).contains(&second) {
        return Err(NotJson);
    }
    let value = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Ok((char::from_u32(value).ok_or(NotJson)?, rest))
}

fn hex4(bytes: &[u8]) -> Result<(u32, &[u8]), NotJson> {
    let (digits, rest) = bytes.split_first_chunk::<4>().ok_or(NotJson)?;
    let value = digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?));
    Ok((value.ok_or(NotJson)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Rebuilds a document with our reader, so that it can be compared with `serde_json`'s reading.
    fn read(reader: &mut Reader<'_>) -> Result<Value, NotJson> {
        Ok(match reader.peek().ok_or(NotJson)? {
            b'{' => {
                let mut members = serde_json::Map::new();
                reader.object(|key, reader| {
                    members.insert(key.into(), read(reader)?);
                    Ok(())
                })?;
                Value::Object(members)
            }
            b'[' => {
                let mut elements = alloc::vec::Vec::new();
                reader.array(|reader| {
                    elements.push(read(reader)?);
                    Ok(())
                })?;
                Value::Array(elements)
            }
            b'"' => Value::String((*reader.string()?).clone()),
            b't' | b'f' => Value::Bool(reader.boolean()?),
            b'n' => reader.optional(|_| Ok(())).map(|_| Value::Null)?,
            _ => match reader.number()?.parse::<u64>() {
                Ok(number) => Value::from(number),
                // serde_json keeps integers apart from floats; the service reads floats only as such.
                Err(_) => Value::Null,
            },
        })
    }

    fn ours(document: &[u8]) -> Result<Value, NotJson> {
        let mut reader = Reader::new(document);
        let value = read(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    fn without_other_numbers(value: Value) -> Value {
        match value {
            Value::Number(number) if !number.is_u64() => Value::Null,
            Value::Array(all) => all.into_iter().map(without_other_numbers).collect(),
            Value::Object(all) => {
                Value::Object(all.into_iter().map(|(k, v)| (k, without_other_numbers(v))).collect())
            }
            other => other,
        }
    }

    fn agrees_with_serde_json(document: &[u8]) {
        let theirs = serde_json::from_slice::<Value>(document).map(without_other_numbers);
        match (ours(document), theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{}", document.escape_ascii()),
            (Err(NotJson), Err(_)) => {}
            (ours, theirs) => panic!("{}: {ours:?} but {theirs:?}", document.escape_ascii()),
        }
    }

    #[test]
    fn numbers_beyond_double_precision_are_small_or_refused() {
        let float = |text: &str| Reader::new(text.as_bytes()).float();
        let long = alloc::format!("0.{}5e400", "0".repeat(400));
        for (text, value) in
            [("0e400", 0.0), ("1e-400", 0.0), ("-0.5E+00", -0.5), (long.as_str(), 0.5), ("12e-1", 1.2)]
        {
            assert_eq!(float(text), Ok(value), "{text}");
        }
        for text in ["1e400", "-1e309", "1e99999999999", "1e-99999999999"] {
            assert_eq!(float(text), Err(NotJson), "{text}");
        }
    }

    #[test]
    fn agrees_with_serde_json_on_the_edges() {
        for document in [
            "",
            " ",
            "{",
            "}",
            "{}",
            " {} ",
            "{}x",
            "[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "0",
            "00",
            "01",
            "-",
            "-0",
            "1.",
            ".1",
            "1.5",
            "1e",
            "1e5",
            "1E+5",
            "1e-",
            "+1",
            "18446744073709551615",
            "18446744073709551616",
            "1x",
            "true",
            "tru",
            "truex",
            "false",
            "null",
            "nul",
            "\"",
            "\"\\\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u0041\"",
            "\"\\u+041\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ud83dx\"",
            "\"\\ude00\"",
            "\"\\ud83d\\u0041\"",
            "\"\\ud83d\\ud83d\"",
            "\"\\u0000\"",
            "\"\n\"",
            "\"\t\"",
            "\"\u{7f}\"",
            "\"é\"",
            "[[[[]]]]",
            "{\"a\":{\"b\":[1,{\"c\":null}]}}",
            "\u{feff}{}",
            "'a'",
            "// c\n1",
            "\"\\b\\f\\n\\r\\t\\/\\\\\"",
            "[1,2",
            "NaN",
            "Infinity",
            "{\"a\":1,\"a\":2}",
        ] {
            agrees_with_serde_json(document.as_bytes());
        }
        for document in [&b"\"\xff\""[..], b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\xff", b"\"a\0\""] {
            agrees_with_serde_json(document);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(ours(nested(MAX_DEPTH.into()).as_bytes()).is_ok());
        assert_eq!(ours(nested(usize::from(MAX_DEPTH) + 1).as_bytes()), Err(NotJson));
        assert_eq!(ours("[".repeat(100_000).as_bytes()), Err(NotJson));
    }

    #[test]
    fn a20_strings_never_grow_while_they_are_read() {
        for raw in
            [r#""\u0041\u00e9\u20ac\ud83d\ude00\n\\plain""#, r#""plain""#, r#""\n""#, r#""\ud83d\ude00""#]
        {
            let text = Reader::new(raw.as_bytes()).string().unwrap();
            assert!(text.len() <= raw.len() - 2 && text.capacity() == raw.len() - 2);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_documents(
            document in "[\\[\\]{}:,\" \\\\/a-cutrefnls0-9.+-]{0,24}", text in any::<String>(),
        ) {
            agrees_with_serde_json(document.as_bytes());
            agrees_with_serde_json(&serde_json::to_vec(&text).unwrap());
        }

        #[test]
        fn agrees_with_serde_json_on_escapes(document in "\"(\\\\u[dD][89abcdef89][0-9a-f]{2}|\\\\[a-z/\"]|x){0,6}\"") {
            agrees_with_serde_json(document.as_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            agrees_with_serde_json(&bytes);
        }
    }
}
