//! Lays JSON text out for people, or on one line, without touching a value: members keep their order and
//! numbers their digits, which parsing and printing would not promise.

/// Deeper levels are indented no further: hostile nesting must not multiply the output.
const DEEPEST_INDENT: usize = 32;

/// The same JSON, one member or element a line. The text must be valid JSON.
pub(super) fn pretty(json: &str) -> String {
    lay_out(json, true)
}

/// The same JSON on one line. The text must be valid JSON.
pub(super) fn compact(json: &str) -> String {
    lay_out(json, false)
}

fn lay_out(json: &str, indented: bool) -> String {
    let mut out = String::with_capacity(json.len());
    let mut depth = 0_usize;
    let mut chars = json.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        if indented {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth.min(DEEPEST_INDENT)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                copy_string(&mut chars, &mut out);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(if indented { ": " } else { ":" }),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// Copies the rest of a string, its closing quote included.
fn copy_string(chars: &mut impl Iterator<Item = char>, out: &mut String) {
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            '"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_numbers_their_digits() {
        let json = r#" {"b": 19.990,"a":[ ],"c" :[1,{"d":"a,\"}{ b"}]} "#;
        assert_eq!(
            pretty(json),
            "{\n  \"b\": 19.990,\n  \"a\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"a,\\\"}{ b\"\n    }\n  ]\n}"
        );
        assert_eq!(compact(&pretty(json)), r#"{"b":19.990,"a":[],"c":[1,{"d":"a,\"}{ b"}]}"#);
    }

    #[test]
    fn deep_nesting_does_not_multiply_the_output() {
        let json = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(pretty(&json).len() < 2 * 10_000 * (DEEPEST_INDENT * 2 + 2));
    }
}
