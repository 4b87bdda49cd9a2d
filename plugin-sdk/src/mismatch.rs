//! Says where a payload or a config does not fit the types of a transform.
//!
//! serde_json knows the line and column of a mismatch, but in a payload of one long line that helps
//! nobody. So the text is read once more, up to that place, for the JSON pointer of the value. Only
//! calls that fail pay for it.

use crate::failure::Failure;

/// The failure for `text`, the payload or config as `what` says, that gave `error`.
#[cold]
#[inline(never)]
pub(crate) fn mismatch(what: &str, text: &str, error: &serde_json::Error) -> Failure {
    let pointer = pointer_at(text, offset(text, error.line(), error.column()));
    let place = if pointer.is_empty() { "" } else { " at " };
    Failure::Retry(format!("{what} does not fit{place}{pointer}: {error}"))
}

/// The number of bytes before a place: `line` counts from one, `column` is the bytes read in it.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let lines = text.split_inclusive('\n').take(line.saturating_sub(1));
    lines.map(str::len).sum::<usize>().saturating_add(column)
}

/// One level of the value that is being read.
enum Level<'a> {
    /// In an object: the key whose value is being read, as it is written.
    Object(Option<&'a str>),
    /// In an array: the index of the value that is being read.
    Array(usize),
}

/// The JSON pointer of the value that the byte before `end` belongs to. Keys keep their escapes.
fn pointer_at(text: &str, end: usize) -> String {
    let mut levels: Vec<Level<'_>> = Vec::new();
    let mut bytes = text.bytes().enumerate().take(end);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' => levels.push(Level::Object(None)),
            b'[' => levels.push(Level::Array(0)),
            b'}' | b']' => {
                levels.pop();
            }
            b',' => match levels.last_mut() {
                Some(Level::Object(key)) => *key = None,
                Some(Level::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let start = at + 1;
                let string = text.get(start..start + string_length(&mut bytes));
                if let Some(Level::Object(key @ None)) = levels.last_mut() {
                    *key = string;
                }
            }
            _ => {}
        }
    }
    write_pointer(&levels)
}

/// Reads to the end of a string, past its closing quote, and gives its length without that.
fn string_length(bytes: &mut impl Iterator<Item = (usize, u8)>) -> usize {
    let mut length = 0;
    while let Some((_, byte)) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => {
                bytes.next();
                length += 2;
            }
            _ => length += 1,
        }
    }
    length
}

fn write_pointer(levels: &[Level<'_>]) -> String {
    let mut pointer = String::new();
    for level in levels {
        match level {
            Level::Object(None) => break,
            Level::Object(Some(key)) => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Level::Array(index) => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "only read from JSON")]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    struct Item {
        #[expect(dead_code, reason = "only read from JSON")]
        #[serde(rename = "a/b")]
        price: u64,
    }

    fn place(text: &str) -> String {
        let error = serde_json::from_str::<Order>(text).unwrap_err();
        pointer_at(text, offset(text, error.line(), error.column()))
    }

    #[test]
    fn the_pointer_names_the_value_that_does_not_fit() {
        let rows = [
            (r#"{"items":[{"a/b":1},{"a/b":-1}]}"#, "/items/1/a~1b"),
            (r#"{"items":[{"a/b":1},{"a/b":"x"}]}"#, "/items/1/a~1b"),
            (r#"{"items":[{"c":"}]\"{","a/b":null}]}"#, "/items/0/a~1b"),
            (r#"{"items":[{"c":1}]}"#, "/items/0"),
            ("{\n \"x\": [1, 2],\n \"items\":\n  7\n}", "/items"),
            ("{}", ""),
            ("7", ""),
        ];
        for (text, pointer) in rows {
            assert_eq!(place(text), pointer, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_json_does_no_harm() {
        for text in ["", "{", "}}]", "\"\\", "{\"a", "[,,", "{\"é\":[\"\u{1F600}"] {
            for end in 0..=text.len() + 1 {
                let _pointer = pointer_at(text, end);
            }
        }
    }
}
