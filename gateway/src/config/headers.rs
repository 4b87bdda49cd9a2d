//! The headers that a webhook sends with each request, and those that it cannot set.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};

use super::secret::secret;
use super::section::Section;
use crate::sign;

/// Headers that belong to somebody else, with whom.
const TAKEN: &[(&str, &str)] = &[
    ("connection", HOP),
    ("keep-alive", HOP),
    ("proxy-authenticate", HOP),
    ("proxy-authorization", HOP),
    ("proxy-connection", HOP),
    ("te", HOP),
    ("trailer", HOP),
    ("transfer-encoding", HOP),
    ("upgrade", HOP),
    ("expect", "the gateway sends its body without asking"),
    ("host", "it follows from `url`"),
    ("content-length", "it follows from the body"),
    ("content-encoding", "it follows from the body"),
    (
        "content-type",
        "it follows from `body`, or a plugin sets it",
    ),
    (sign::ID_HEADER, SIGNATURE),
    (sign::TIMESTAMP_HEADER, SIGNATURE),
    (sign::SIGNATURE_HEADER, SIGNATURE),
];

const HOP: &str = "it belongs to the connection, not to the request";
const SIGNATURE: &str = "it is part of the signature";

/// Reads the `headers` of a webhook. Names become lower case; values may be secrets.
pub(super) fn headers(webhook: &mut Section<'_>) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    // A header's name has hyphens, which a variable's cannot have.
    let new_key = |name: &str| name.replace('_', "-");
    webhook.map("headers", new_key, |name, item| {
        let name = match header_name(name) {
            Ok(name) => name,
            Err(message) => return item.refuse(|_| message),
        };
        if !seen.insert(name.clone()) {
            return item.refuse(|_| "is given twice; names of headers ignore case".to_owned());
        }
        let value = secret(item, |value, _| header_value(value))?;
        Some((name, value))
    })
}

fn header_name(name: &str) -> Result<String, String> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| "is not the name of a header; letters, digits and `-` are usual".to_owned())?;
    let name = name.as_str();
    match TAKEN.iter().find(|(taken, _)| *taken == name) {
        Some((_, why)) => Err(format!("cannot be set: {why}")),
        None => Ok(name.to_owned()),
    }
}

fn header_value(value: &str) -> Result<String, String> {
    // The value may be a secret, so the message does not repeat it.
    match HeaderValue::from_str(value) {
        Ok(_) => Ok(value.to_owned()),
        Err(_) => Err(
            "has a character that a header cannot carry; visible ASCII and spaces are possible"
                .to_owned(),
        ),
    }
}
