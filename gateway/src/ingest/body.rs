//! From a request's body to events, or to a problem that names every wrong field.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::Config;
use crate::event::operational::PREFIX;
use crate::event::{Event, EventId, EventType, InvalidName, to_microsecond};
use crate::problem::{FieldError, Problem};

const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE_LEN: usize = 256;
const MAX_ORDERING_KEY_LEN: usize = 256;

/// Wrong fields that are listed in one answer.
const MAX_ERRORS: usize = 20;

/// The fields of an event, for error messages.
const FIELDS: [&str; 7] =
    ["type", "data", "id", "timestamp", "attributes", "ordering_key", "webhook_url"];

/// An event as a producer sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submitted<'a> {
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    id: Option<String>,
    timestamp: Option<String>,
    attributes: Option<BTreeMap<String, String>>,
    ordering_key: Option<String>,
    webhook_url: Option<String>,
}

/// What the events of a request are for.
pub(super) struct About<'a> {
    pub(super) config: &'a Config,
    pub(super) tenant: &'a Arc<str>,
    /// Reads the `webhook_url` of an event, or says why it cannot be taken.
    pub(super) destination: &'a dyn Fn(&str) -> Result<Url, String>,
}

/// The events in a body, each with whether the producer chose its id.
///
/// # Errors
/// A problem that says all that is wrong.
pub(super) fn parse(
    body: &Bytes,
    about: &About<'_>,
    now: Timestamp,
) -> Result<Vec<(Event, bool)>, Problem> {
    let config = about.config;
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let parsed = if is_list {
        serde_json::from_slice::<Vec<Submitted<'_>>>(body)
    } else {
        serde_json::from_slice::<Submitted<'_>>(body).map(|event| vec![event])
    };
    // The fast way knows just the first thing that is wrong; the slow one finds them all.
    let submitted = parsed.map_err(|error| diagnose(body, &error))?;
    if submitted.is_empty() {
        return Err(Problem::invalid_event("the list is empty; send at least one event"));
    }
    if submitted.len() > config.max_events {
        return Err(Problem::body_too_large(format!(
            "{} events in one request; at most {} are taken (`ingest.max_events`)",
            submitted.len(),
            config.max_events
        )));
    }
    let mut errors = Vec::new();
    let mut events = Vec::with_capacity(submitted.len());
    for (index, submitted) in submitted.into_iter().enumerate() {
        // A slice keeps the whole body in memory, which for one event of many is too much.
        let data = match is_list {
            true => Bytes::copy_from_slice(submitted.data.get().as_bytes()),
            false => body.slice_ref(submitted.data.get().as_bytes()),
        };
        let path = Path { index: is_list.then_some(index) };
        events.extend(check(submitted, data, about, now, path, &mut errors));
    }
    if errors.is_empty() { Ok(events) } else { Err(invalid(errors)) }
}

/// Where in the body an event stands.
#[derive(Clone, Copy)]
struct Path {
    index: Option<usize>,
}

impl Path {
    fn field(self, name: &str) -> String {
        match self.index {
            Some(index) if name.is_empty() => format!("[{index}]"),
            Some(index) => format!("[{index}].{name}"),
            None => name.to_owned(),
        }
    }

    fn error(self, field: &str, detail: impl Into<String>) -> FieldError {
        FieldError { field: self.field(field), detail: detail.into() }
    }
}

fn invalid(mut errors: Vec<FieldError>) -> Problem {
    let count = errors.len();
    errors.truncate(MAX_ERRORS);
    let first = errors.first().map_or_else(String::new, |error| {
        let field = if error.field.is_empty() { "the body" } else { &error.field };
        format!("{field}: {}", error.detail)
    });
    let detail = match count {
        1 => first,
        _ => format!("{first} (and {} more; see `errors`)", count - 1),
    };
    Problem::invalid_event(detail).with_errors(errors)
}

/// Makes an event of what was submitted, or adds what is wrong to `errors`.
fn check(
    submitted: Submitted<'_>,
    data: Bytes,
    about: &About<'_>,
    now: Timestamp,
    path: Path,
    errors: &mut Vec<FieldError>,
) -> Option<(Event, bool)> {
    let before = errors.len();
    let event_type =
        parse_type(&submitted.event_type).map_err(|why| errors.push(path.error("type", why)));
    let given_id = submitted.id.is_some();
    let id = match submitted.id {
        None => Ok(EventId::generate()),
        Some(text) => parse_id(&text).map_err(|why| errors.push(path.error("id", why))),
    };
    let timestamp = match submitted.timestamp {
        None => Ok(now),
        Some(text) => {
            parse_timestamp(&text).map_err(|why| errors.push(path.error("timestamp", why)))
        }
    };
    if is_deeper(&data, about.config.max_depth) {
        let limit = about.config.max_depth;
        let why = format!("is nested deeper than {limit} levels (`ingest.max_depth`)");
        errors.push(path.error("data", why));
    }
    let attributes = submitted.attributes.unwrap_or_default();
    check_attributes(&attributes, path, errors);
    if let Some(key) = &submitted.ordering_key
        && !(1..=MAX_ORDERING_KEY_LEN).contains(&key.len())
    {
        let why = format!("must have 1 to {MAX_ORDERING_KEY_LEN} bytes; it has {}", key.len());
        errors.push(path.error("ordering_key", why));
    }
    let webhook_url = submitted.webhook_url.map(|text| (about.destination)(&text)).transpose();
    let webhook_url = webhook_url.map_err(|why| errors.push(path.error("webhook_url", why)));
    if errors.len() > before {
        return None;
    }
    let event = Event {
        tenant: Arc::clone(about.tenant),
        id: id.ok()?,
        event_type: event_type.ok()?,
        timestamp: timestamp.ok()?,
        accepted_at: now,
        data,
        attributes: attributes.into_iter().collect(),
        ordering_key: submitted.ordering_key,
        webhook_url: webhook_url.ok()?,
    };
    Some((event, given_id))
}

fn parse_type(text: &str) -> Result<EventType, String> {
    let event_type = EventType::parse(text).map_err(|InvalidName(why)| why)?;
    if event_type.is_operational() {
        return Err(format!(
            "{text:?} begins with `{PREFIX}`, as only what the gateway tells of itself does; \
             choose another first name"
        ));
    }
    Ok(event_type)
}

fn parse_id(text: &str) -> Result<EventId, String> {
    let id = EventId::parse(text).map_err(|InvalidName(why)| why)?;
    if id.looks_like_part() {
        return Err(format!(
            "{text:?} is the id of a part of another event; use the id before its last `-`"
        ));
    }
    Ok(id)
}

fn parse_timestamp(text: &str) -> Result<Timestamp, String> {
    text.parse().map(to_microsecond).map_err(|_| {
        format!("{text:?} is not an RFC 3339 time; write it as in \"2026-01-31T09:30:00Z\"")
    })
}

fn check_attributes(
    attributes: &BTreeMap<String, String>,
    path: Path,
    errors: &mut Vec<FieldError>,
) {
    if attributes.len() > MAX_ATTRIBUTES {
        let why = format!("has {} entries; at most {MAX_ATTRIBUTES} are taken", attributes.len());
        errors.push(path.error("attributes", why));
    }
    for (name, value) in attributes {
        if name.is_empty() || name.len() > MAX_ATTRIBUTE_LEN || value.len() > MAX_ATTRIBUTE_LEN {
            let why =
                format!("names must have 1 to {MAX_ATTRIBUTE_LEN} bytes, values at most that many");
            errors.push(path.error(&format!("attributes.{name}"), why));
        }
    }
}

/// Whether valid JSON is nested deeper than this.
fn is_deeper(json: &[u8], max: usize) -> bool {
    // Counting is many times faster than following strings, and most payloads open fewer brackets in all.
    let is_bracket = |byte: &&u8| matches!(byte, b'[' | b'{');
    json.iter().filter(is_bracket).count() > max && depth(json) > max
}

/// How deep valid JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Finds all that keeps a body from being events, in words for the producer.
fn diagnose(body: &[u8], error: &serde_json::Error) -> Problem {
    let value = match serde_json::from_slice::<Value>(body) {
        Ok(value) => value,
        Err(error) if error.is_eof() && body.trim_ascii().is_empty() => {
            drop(error);
            return Problem::invalid_json("the body is empty; send an event as JSON");
        }
        Err(error) => return Problem::invalid_json(error.to_string()),
    };
    let mut errors = Vec::new();
    match &value {
        Value::Array(events) => {
            for (index, event) in events.iter().enumerate() {
                diagnose_event(event, Path { index: Some(index) }, &mut errors);
            }
        }
        event => diagnose_event(event, Path { index: None }, &mut errors),
    }
    if errors.is_empty() {
        // Such as a field that stands twice.
        errors.push(FieldError { field: String::new(), detail: error.to_string() });
    }
    invalid(errors)
}

fn diagnose_event(event: &Value, path: Path, errors: &mut Vec<FieldError>) {
    let Value::Object(fields) = event else {
        let why = format!("is {}; an event is an object with `type` and `data`", kind(event));
        errors.push(path.error("", why));
        return;
    };
    for required in ["type", "data"] {
        if !fields.contains_key(required) {
            errors.push(path.error(required, "is missing"));
        }
    }
    for (name, value) in fields {
        let wanted = match name.as_str() {
            "data" => continue,
            "type" if value.is_string() => continue,
            "id" | "timestamp" | "ordering_key" if value.is_string() || value.is_null() => continue,
            "type" | "id" | "timestamp" | "ordering_key" => "a string is needed",
            "attributes" => {
                diagnose_attributes(value, path, errors);
                continue;
            }
            unknown => {
                errors.push(path.error(unknown, unknown_field(unknown)));
                continue;
            }
        };
        errors.push(path.error(name, format!("is {}; {wanted}", kind(value))));
    }
}

fn diagnose_attributes(value: &Value, path: Path, errors: &mut Vec<FieldError>) {
    match value {
        Value::Null => {}
        Value::Object(entries) => {
            for (name, value) in entries.iter().filter(|(_, value)| !value.is_string()) {
                let why = format!("is {}; attributes are strings", kind(value));
                errors.push(path.error(&format!("attributes.{name}"), why));
            }
        }
        other => {
            let why = format!("is {}; an object of strings is needed", kind(other));
            errors.push(path.error("attributes", why));
        }
    }
}

fn unknown_field(name: &str) -> String {
    let nearest = FIELDS
        .iter()
        .map(|field| (strsim::damerau_levenshtein(field, name), field))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    match nearest {
        Some((_, field)) => format!("is not a field of an event; did you mean `{field}`?"),
        None => format!("is not a field of an event; those are {}", FIELDS.join(", ")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(body: &str) -> Result<Vec<(Event, bool)>, Problem> {
        let config = Config { max_events: 3, max_depth: 4, ..Config::default() };
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let destination = |text: &str| Url::parse(text).map_err(|error| error.to_string());
        let about = About { config: &config, tenant: &"acme".into(), destination: &destination };
        parse(&Bytes::copy_from_slice(body.as_bytes()), &about, now)
    }

    fn errors(body: &str) -> Vec<(String, String)> {
        let problem = parsed(body).unwrap_err();
        problem.errors().iter().map(|e| (e.field.clone(), e.detail.clone())).collect()
    }

    #[test]
    fn data_is_kept_byte_for_byte() {
        let data = "{ \"b\" :1.50,\"a\":\"\\u00e9\" ,\"a\":[ ]}";
        let body = format!(" {{\"data\":{data},\"type\":\"order.paid\"}} ");
        let events = parsed(&body).unwrap();
        assert_eq!(events[0].0.data, data);
        assert!(!events[0].1);
        let list = format!("[{body},{body}]");
        let events = parsed(&list).unwrap();
        assert_eq!(events[1].0.data, data);
    }

    #[test]
    fn all_fields_are_taken() {
        let events = parsed(
            r#"{"type":"a","data":null,"id":"x-1","timestamp":"2022-04-05T14:46:17.123456789+02:00",
                "attributes":{"b":"2","a":"1"},"ordering_key":"k"}"#,
        )
        .unwrap();
        let (event, given) = &events[0];
        assert!(given);
        assert_eq!(event.id.as_str(), "x-1");
        assert_eq!(event.timestamp.to_string(), "2022-04-05T12:46:17.123456Z");
        assert_eq!(event.attributes.len(), 2);
        assert_eq!(event.ordering_key.as_deref(), Some("k"));
    }

    #[test]
    fn every_wrong_field_is_named() {
        for (body, expected) in [
            ("{}", vec![("type", "is missing"), ("data", "is missing")]),
            (r#"{"typ":"a","data":1,"type":"a"}"#, vec![("typ", "did you mean `type`?")]),
            (r#"{"webhook":1,"data":1,"type":"a"}"#, vec![("webhook", "those are type, data")]),
            (r#"{"type":5,"data":1}"#, vec![("type", "is a number; a string is needed")]),
            (r#"{"type":"a b","data":1}"#, vec![("type", "has the name \"a b\"")]),
            (
                r#"{"type":"hookmill.delivery.failed","data":1}"#,
                vec![("type", "begins with `hookmill.`, as only what the gateway tells")],
            ),
            (r#"{"type":"a","data":1,"id":"a.b"}"#, vec![("id", "has the character '.'")]),
            (r#"{"type":"a","data":1,"timestamp":"now"}"#, vec![("timestamp", "RFC 3339")]),
            (
                r#"{"type":"a","data":1,"attributes":{"n":1}}"#,
                vec![("attributes.n", "is a number; attributes are strings")],
            ),
            (r#"{"type":"a","data":[[[[[1]]]]]}"#, vec![("data", "nested deeper than 4")]),
            (
                r#"{"type":"a","data":1,"ordering_key":""}"#,
                vec![("ordering_key", "1 to 256 bytes")],
            ),
            (
                r#"[{"type":"a","data":1},{"type":"","data":1},7]"#,
                vec![("[2]", "is a number; an event is an object")],
            ),
            (
                r#"[{"type":"","data":1},{"type":"a","data":1,"id":""}]"#,
                vec![("[0].type", "empty name"), ("[1].id", "must not be empty")],
            ),
            (r#"{"type":"a","type":"b","data":1}"#, vec![("", "duplicate field `type`")]),
        ] {
            let found = errors(body);
            assert_eq!(found.len(), expected.len(), "{body}: {found:?}");
            for ((field, detail), (expected_field, part)) in found.iter().zip(&expected) {
                assert_eq!(field, expected_field, "{body}");
                assert!(detail.contains(part), "{body}: {detail}");
            }
        }
    }

    #[test]
    fn what_is_not_json_and_what_is_too_much_is_refused() {
        for (body, code) in [
            ("", "invalid_json"),
            ("{\"type\":", "invalid_json"),
            ("type=a", "invalid_json"),
            ("[]", "invalid_event"),
            ("[{\"type\":\"a\",\"data\":1}]x", "invalid_json"),
        ] {
            let problem = serde_json::to_value(parsed(body).unwrap_err()).unwrap();
            assert_eq!(problem["code"], code, "{body}: {problem}");
        }
        let many = format!("[{}]", [r#"{"type":"a","data":1}"#; 4].join(","));
        let problem = serde_json::to_value(parsed(&many).unwrap_err()).unwrap();
        assert_eq!(problem["code"], "body_too_large");
    }

    #[test]
    fn ids_of_parts_are_refused() {
        let part = EventId::generate().of_part(2);
        let found = errors(&format!(r#"{{"type":"a","data":1,"id":"{part}"}}"#));
        assert!(found[0].1.contains("part of another event"), "{found:?}");
    }

    proptest! {
        #[test]
        fn no_body_panics(body in ".{0,200}") {
            drop(parsed(&body));
        }

        #[test]
        fn brackets_in_strings_do_not_count(text in "[\\[\\]{}\"\\\\a]{0,20}") {
            let json = serde_json::to_string(&[text]).unwrap();
            prop_assert_eq!(depth(json.as_bytes()), 1);
        }
    }
}
