//! Templates: text with placeholders for what an event says.

use hookmill_plugin::json::Pointer;
use hookmill_plugin::{Event, config};
use serde_json::value::RawValue;

use crate::markup::escape_into;

/// Text with placeholders in braces: `{type}`, `{id}`, `{tenant}`, `{timestamp}`, `{attributes.NAME}`,
/// `{payload}`, and JSON pointers into the payload such as `{/customer/name}`. A brace that is text is
/// written twice.
///
/// The values are escaped; the text around them is not, so that it can use Slack's markup.
#[config]
#[derive(Debug)]
#[serde(try_from = "String")]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Type,
    Id,
    Tenant,
    Timestamp,
    Attribute(String),
    Payload,
    Pointer(Pointer),
}

impl Template {
    /// The type in bold, and the whole payload.
    pub(crate) fn type_and_payload() -> Self {
        let text = |text: &str| Piece::Text(text.to_owned());
        Self { pieces: vec![text("*"), Piece::Type, text("*\n"), Piece::Payload] }
    }

    /// The text for this event, with `missing` for values that are absent or null.
    pub(crate) fn render(&self, event: &Event<&RawValue>, missing: &str) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Type => escape_into(&event.event_type, &mut text),
                Piece::Id => escape_into(&event.id, &mut text),
                Piece::Tenant => escape_into(&event.tenant, &mut text),
                Piece::Timestamp => escape_into(&event.timestamp, &mut text),
                Piece::Attribute(name) => {
                    escape_into(event.attribute(name).unwrap_or(missing), &mut text);
                }
                Piece::Payload => write_value(Some(event.payload), missing, &mut text),
                Piece::Pointer(pointer) => {
                    write_value(pointer.get(event.payload), missing, &mut text);
                }
            }
        }
        text
    }
}

/// Strings are written without quotes, everything else as the JSON text that it is.
fn write_value(value: Option<&RawValue>, missing: &str, text: &mut String) {
    let json = value.map_or("null", RawValue::get);
    match json.bytes().next() {
        Some(b'"') => {
            let value: String = serde_json::from_str(json).unwrap_or_default();
            escape_into(&value, text);
        }
        Some(b'n') => escape_into(missing, text),
        _ => escape_into(json, text),
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some((name, after)) = placeholder(from) {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
                pieces.push(parse(name)?);
                rest = after;
            } else {
                return Err(format!("a brace stands alone in `{text}`: write it twice"));
            }
        }
        literal.push_str(rest);
        pieces.push(Piece::Text(literal));
        Ok(Self { pieces })
    }
}

/// What stands between the braces that a text begins with, and what comes after.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('{')?.split_once('}')
}

fn parse(name: &str) -> Result<Piece, String> {
    match name {
        "type" => Ok(Piece::Type),
        "id" => Ok(Piece::Id),
        "tenant" => Ok(Piece::Tenant),
        "timestamp" => Ok(Piece::Timestamp),
        "payload" => Ok(Piece::Payload),
        _ => match name.strip_prefix("attributes.") {
            Some(attribute) => Ok(Piece::Attribute(attribute.to_owned())),
            None if name.starts_with('/') => {
                name.parse().map(Piece::Pointer).map_err(|error| format!("{error}"))
            }
            None => Err(format!("there is no placeholder `{{{name}}}`")),
        },
    }
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    fn render(template: &str) -> String {
        let template = Template::try_from(template.to_owned()).unwrap();
        let payload = r#"{"s":"R&D \"x\"","n":19.990,"o":{"a":[1]},"z":null}"#;
        let mut event = testing::event(serde_json::from_str(payload).unwrap());
        event.attributes = vec![("region".to_owned(), "<eu>".to_owned())];
        template.render(&event, "?")
    }

    #[test]
    fn placeholders_are_replaced_by_escaped_values() {
        let rows = [
            ("<b> & {type}", "<b> & order.paid"),
            ("{/s}|{/n}|{/o}", "R&amp;D \"x\"|19.990|{\"a\":[1]}"),
            ("{/z}{/absent}{attributes.zone}", "???"),
            ("{attributes.region}{tenant}", "&lt;eu&gt;acme"),
            ("{{{/n}}} }}{{", "{19.990} }{"),
            ("", ""),
        ];
        for (template, expected) in rows {
            assert_eq!(render(template), expected);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for template in ["{", "a}", "{type", "{kind}", "{}", "{/~}"] {
            assert!(Template::try_from(template.to_owned()).is_err(), "{template}");
        }
    }
}
