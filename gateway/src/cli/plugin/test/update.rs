//! Writes into a fixture what it expects from now on, and leaves the rest of its text as it is.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::plugin::Problem;

/// What a fixture can expect.
const EXPECTABLE: [&str; 4] = ["forward", "drop", "invalid", "retry"];

/// The fixture's text with another expectation.
pub(super) fn updated(text: &str, actual: &Value) -> Result<String, Problem> {
    if !EXPECTABLE.iter().any(|name| actual.get(name).is_some()) {
        return Err(format!("it failed in a way that no fixture can expect: {actual}"));
    }
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let found = members.get("expect").and_then(|expect| {
        let before = text.get(..position(text, expect.get())?)?;
        Some((before, text.get(before.len() + expect.get().len()..)?))
    });
    match found {
        Some((before, after)) => {
            let line = before.rsplit('\n').next().unwrap_or_default();
            let indent = line.get(..line.len() - line.trim_start().len()).unwrap_or_default();
            Ok(format!("{before}{}{after}", laid_out(actual, indent)))
        }
        None => {
            // The text is an object, as it was read, so it ends with a brace behind its last member.
            let (before, after) = text.rsplit_once('}').unwrap_or((text, ""));
            let members = before.trim_end();
            Ok(format!("{members},\n  \"expect\": {}\n}}{after}", laid_out(actual, "  ")))
        }
    }
}

/// Where a part of a text begins in it.
fn position(text: &str, part: &str) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)
}

/// A value over several lines, of which all but the first are indented.
fn laid_out(value: &Value, indent: &str) -> String {
    format!("{value:#}").replace('\n', &format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_but_the_expectation_stays_as_it_is_written() {
        let text = "{\n  \"event\": { \"payload\": 1.50 },\n  \"expect\": {\"drop\": \"a\"},\n  \"config\": {}\n}\n";
        assert_eq!(
            updated(text, &json!({ "drop": "b" })).unwrap(),
            "{\n  \"event\": { \"payload\": 1.50 },\n  \"expect\": {\n    \"drop\": \"b\"\n  },\n  \"config\": {}\n}\n"
        );
    }

    #[test]
    fn a_missing_expectation_is_added() {
        for text in
            ["{\"event\":{\"payload\":{}}}", "{\n  \"event\": {\n    \"payload\": {}\n  }\n}\n"]
        {
            let updated = updated(text, &json!({ "forward": [{ "json": 1 }] })).unwrap();
            let value: Value = serde_json::from_str(&updated).unwrap();
            assert_eq!(value["expect"]["forward"][0]["json"], 1, "{updated}");
            assert_eq!(value["event"]["payload"], json!({}), "{updated}");
        }
    }

    #[test]
    fn a_trap_is_never_expected() {
        let problem = updated("{}", &json!({ "plugin_trap": "unreachable" })).unwrap_err();
        assert!(problem.contains("unreachable"), "{problem}");
    }
}
