//! The keywords of JSON Schema (2020-12) that hold schemas, and what in the instance those apply to.

use serde_json::{Map, Value};

/// What a schema inside another applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// What the outer schema applies to.
    Same,
    /// The member of this name.
    Member(&'a str),
    /// Any of the members.
    Members,
    /// The names of the members.
    Names,
    /// Any of the items.
    Items,
}

/// How a keyword holds schemas.
#[derive(Clone, Copy)]
enum Form {
    One,
    List,
    Map,
}

/// Where the schemas of a keyword apply, when it is not a member of their own name.
const KEYWORDS: &[(&str, Form, Target<'_>)] = &[
    ("allOf", Form::List, Target::Same),
    ("anyOf", Form::List, Target::Same),
    ("oneOf", Form::List, Target::Same),
    ("not", Form::One, Target::Same),
    ("if", Form::One, Target::Same),
    ("then", Form::One, Target::Same),
    ("else", Form::One, Target::Same),
    ("dependentSchemas", Form::Map, Target::Same),
    ("dependencies", Form::Map, Target::Same),
    ("patternProperties", Form::Map, Target::Members),
    ("additionalProperties", Form::One, Target::Members),
    ("unevaluatedProperties", Form::One, Target::Members),
    ("propertyNames", Form::One, Target::Names),
    ("items", Form::One, Target::Items),
    ("additionalItems", Form::One, Target::Items),
    ("unevaluatedItems", Form::One, Target::Items),
    ("prefixItems", Form::List, Target::Items),
    ("contains", Form::One, Target::Items),
];

/// The schemas directly inside a schema, but for the one that `$ref` leads to.
pub(super) fn inner(schema: &Map<String, Value>) -> impl Iterator<Item = (&Value, Target<'_>)> {
    let members = schema.get("properties").and_then(Value::as_object);
    let members = members.into_iter().flatten();
    let members = members.map(|(name, schema)| (schema, Target::Member(name)));
    let others = KEYWORDS.iter().filter_map(|&(keyword, form, target)| {
        Some(held(schema.get(keyword)?, form).into_iter().map(move |schema| (schema, target)))
    });
    members.chain(others.flatten())
}

fn held(value: &Value, form: Form) -> Vec<&Value> {
    match (form, value) {
        (Form::One, value) => vec![value],
        (Form::List, Value::Array(schemas)) => schemas.iter().collect(),
        (Form::Map, Value::Object(schemas)) => schemas.values().collect(),
        // The validator says what is wrong with it.
        (Form::List | Form::Map, _) => Vec::new(),
    }
}

/// Whether a schema looks at its neighbours a second time, to find what they left unseen.
pub(super) fn looks_twice(schema: &Map<String, Value>) -> bool {
    ["unevaluatedProperties", "unevaluatedItems"]
        .iter()
        .any(|keyword| schema.contains_key(*keyword))
}

/// How many patterns a schema has itself.
pub(super) fn patterns(schema: &Map<String, Value>) -> usize {
    let of_members = schema.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
    of_members + usize::from(schema.contains_key("pattern"))
}

/// The schema that `$ref` leads to, if there is one.
///
/// # Errors
/// When it leads out of the document, or nowhere.
pub(super) fn referred<'a>(
    schema: &Map<String, Value>,
    document: &'a Value,
) -> Result<Option<&'a Value>, String> {
    let Some(Value::String(reference)) = schema.get("$ref") else {
        return Ok(None);
    };
    let pointer = reference.strip_prefix('#').and_then(decoded);
    let pointer = pointer.filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
    let Some(pointer) = pointer else {
        return Err(format!(
            "refers to {reference:?}; a place within the schema is needed, such as \"#/$defs/NAME\""
        ));
    };
    let found = document.pointer(&pointer);
    found.map(Some).ok_or_else(|| format!("refers to {reference:?}, which is not in it"))
}

/// The text of a URI's fragment; none when it is not one.
fn decoded(fragment: &str) -> Option<String> {
    let mut bytes = fragment.bytes();
    let mut text = Vec::with_capacity(fragment.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        text.push(match byte {
            b'%' => {
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_lead_to_places_within() {
        let document = json!({ "$defs": { "a b": 1, "c/d": 2, "ü": 3 } });
        let target = |reference: &str| {
            let schema = json!({ "$ref": reference });
            referred(schema.as_object().unwrap(), &document).map(|found| found.unwrap().clone())
        };
        assert_eq!(target("#"), Ok(document.clone()));
        assert_eq!(target("#/$defs/a%20b"), Ok(json!(1)));
        assert_eq!(target("#/$defs/c~1d"), Ok(json!(2)));
        assert_eq!(target("#/%24defs/%C3%BC"), Ok(json!(3)));
        assert!(target("#/$defs/x").unwrap_err().contains("which is not in it"));
        for outside in ["https://example.com/", "other.json#/a", "#anchor", "#/%zz", "#/%C3", ""] {
            assert!(target(outside).unwrap_err().contains("a place within"), "{outside}");
        }
    }
}
