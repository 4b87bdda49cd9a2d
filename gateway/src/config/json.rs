//! A plugin's config: any TOML value, as the JSON text that the plugin gets.

use serde_json::Value as Json;

use super::tree::{Entries, Node, Value};

/// The JSON text of a value. Keys stay in their order; a date or time becomes a string.
pub(super) fn json_text(node: &Node) -> Result<String, String> {
    let mut text = String::new();
    write(&node.typed(), &mut text)?;
    Ok(text)
}

fn write(value: &Value, text: &mut String) -> Result<(), String> {
    match value {
        Value::Text(string) | Value::Variable(string) | Value::Datetime(string) => {
            write_string(string, text);
        }
        Value::Integer(integer) => text.push_str(&integer.to_string()),
        Value::Float(float) => match serde_json::Number::from_f64(*float) {
            Some(number) => text.push_str(&number.to_string()),
            None => {
                return Err(format!("holds the float {float}, which JSON cannot express"));
            }
        },
        Value::Boolean(boolean) => text.push_str(if *boolean { "true" } else { "false" }),
        Value::List(list) => write_list(list, text)?,
        Value::Table(entries) => write_table(entries, text)?,
        Value::Unset => text.push_str("{}"),
    }
    Ok(())
}

fn write_list(list: &[Node], text: &mut String) -> Result<(), String> {
    text.push('[');
    for (index, node) in list.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write(&node.value, text)?;
    }
    text.push(']');
    Ok(())
}

fn write_table(entries: &Entries, text: &mut String) -> Result<(), String> {
    text.push('{');
    for (index, (key, node)) in entries.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(key, text);
        text.push(':');
        write(&node.value, text)?;
    }
    text.push('}');
    Ok(())
}

fn write_string(string: &str, text: &mut String) {
    text.push_str(&Json::from(string).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    fn convert(document: &str) -> Result<String, String> {
        let entries = tree::parse(document).ok().unwrap();
        json_text(&entries[0].1)
    }

    #[test]
    fn values_become_json_in_their_order() {
        for (toml, json) in [
            (
                "c = { z = 1, a = [true, 2.5], m.x = 'a\"b' }",
                r#"{"z":1,"a":[true,2.5],"m":{"x":"a\"b"}}"#,
            ),
            (
                "[c]\nlast = 1\nfirst = 2\n[c.inner]\nx = 3",
                r#"{"last":1,"first":2,"inner":{"x":3}}"#,
            ),
            ("c = 2026-01-02T03:04:05Z", r#""2026-01-02T03:04:05Z""#),
            ("c = 0xff", "255"),
            ("c = -9223372036854775808", "-9223372036854775808"),
            ("c = 1.0", "1.0"),
            ("c = {}", "{}"),
            ("c = 'é\\u0000'", "\"é\\\\u0000\""),
        ] {
            assert_eq!(convert(toml).as_deref(), Ok(json), "{toml}");
        }
    }

    #[test]
    fn what_json_lacks_is_refused() {
        for toml in ["c = inf", "c = [1.0, nan]", "c = { a = -inf }"] {
            assert!(convert(toml).unwrap_err().contains("JSON cannot express"), "{toml}");
        }
    }
}
