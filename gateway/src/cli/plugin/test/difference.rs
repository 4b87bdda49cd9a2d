//! The difference between what a fixture expects and what came out, for people.

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::cli::terminal::{Paint, printable};
use crate::transform::Judgement;

/// Lines around a difference that are shown too.
const CONTEXT_LINES: usize = 3;

/// What differs, indented.
pub(super) fn difference(judgement: &Judgement, paint: Paint) -> String {
    match &judgement.expected {
        Some(expected) => between(expected, &judgement.actual, paint),
        None => format!(
            "    it expects nothing; --update writes what came out:\n{}",
            indented(&format!("{:#}", judgement.actual))
        ),
    }
}

fn between(expected: &Value, actual: &Value, paint: Paint) -> String {
    let (expected, actual) = (format!("{expected:#}\n"), format!("{actual:#}\n"));
    let diff = TextDiff::from_lines(&expected, &actual);
    let mut text = format!(
        "    {} is what the fixture expects, {} what came out\n",
        paint.bad("-"),
        paint.good("+")
    );
    for (index, group) in diff.grouped_ops(CONTEXT_LINES).iter().enumerate() {
        if index > 0 {
            text.push_str(&format!("    {}\n", paint.faint("…")));
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let line = printable(change.value().trim_end_matches('\n'));
            let line = match change.tag() {
                ChangeTag::Equal => format!("  {line}"),
                ChangeTag::Delete => paint.bad(&format!("- {line}")),
                ChangeTag::Insert => paint.good(&format!("+ {line}")),
            };
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {}\n", printable(line))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_near_a_difference_is_shown() {
        let numbers: Vec<_> = (0..20).collect();
        let text = between(
            &json!({ "a": 1, "b": numbers, "c": 1 }),
            &json!({ "a": 2, "b": numbers, "c": 2 }),
            Paint::plain(),
        );
        assert!(text.contains("    - "), "{text}");
        assert!(text.contains("    -   \"a\": 1,\n    +   \"a\": 2,\n"), "{text}");
        assert!(text.contains("    -   \"c\": 1\n    +   \"c\": 2\n"), "{text}");
        assert!(text.contains("    …\n") && !text.contains(" 10,"), "{text}");
    }
}
