//! The headers that a webhook sends with each request, and those that it cannot set.

use std::collections::BTreeSet;

use super::secret::secret;
use super::section::Section;
use crate::delivery::{is_header_name, is_header_value, reserved_header};

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

/// The name of a header that a webhook may set, in lower case.
pub(super) fn header_name(name: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    if !is_header_name(&name) {
        return Err("is not the name of a header; letters, digits and `-` are usual".to_owned());
    }
    match reserved_header(&name) {
        Some(why) => Err(format!("cannot be set: {why}")),
        None => Ok(name),
    }
}

/// The value of a header.
pub(super) fn header_value(value: &str) -> Result<String, String> {
    // The value may be a secret, so the message does not repeat it.
    if is_header_value(value) {
        return Ok(value.to_owned());
    }
    Err("has a character that a header cannot carry; visible ASCII and spaces are possible"
        .to_owned())
}
