//! Secrets: written out, named by an environment variable, or kept in a file.

use std::io;

use super::item::Item;
use super::reader::Place;
use super::section::{Section, missing};
use super::values::{KIB, non_empty, parsed, wrong};

/// The largest file that a secret is read from: no secret is longer, and a device never ends.
const MAX_FILE_BYTES: u64 = 64 * KIB;

/// What `parse` makes of a secret in one of its three forms: `"…"`, `{ env = "VARIABLE" }` or
/// `{ file = "path" }`. None, and refused, when there is none to be had.
pub(super) fn secret<T>(
    item: Item<'_>,
    parse: impl FnOnce(&str, &Place) -> Result<T, String>,
) -> Option<T> {
    if item.text().is_some() {
        let place = item.place.clone();
        let (value, _) = item.read(parsed(|text| parse(text, &place)))?;
        return Some(value);
    }
    if !item.is_table() {
        return item.refuse(|node| {
            wrong(node, "a string, `{ env = \"VARIABLE\" }` or `{ file = \"path\" }`")
        });
    }
    item.section(|section| {
        let text = reference(section)?;
        match parse(&text, &section.place) {
            Ok(value) => Some(value),
            Err(message) => section.refuse_whole(message),
        }
    })?
}

/// What `parse` makes of a secret that has to be there. `example` is what to write when it is missing.
pub(super) fn required_secret<T>(
    section: &mut Section<'_>,
    key: &'static str,
    example: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    match section.item(key) {
        Some(item) => secret(item, |text, _| parse(text)),
        None => section.refuse(key, missing(key, example)),
    }
}

/// Reads the forms that are tables.
fn reference(section: &mut Section<'_>) -> Option<String> {
    let is_empty = section.is_empty();
    let variable = section.optional("env", non_empty);
    let file = section.optional("file", non_empty);
    match (variable, file) {
        (Some(variable), None) => from_variable(section, &variable),
        (None, Some(file)) => from_file(section, &file),
        (Some(_), Some(_)) => section.refuse("file", "stands beside `env`; keep one of the two"),
        (None, None) => {
            // What is there instead is refused already.
            if !is_empty {
                return None;
            }
            section.refuse_whole(
                "is an empty table; put `env = \"VARIABLE\"` or `file = \"path\"` there",
            )
        }
    }
}

fn from_variable(section: &mut Section<'_>, name: &str) -> Option<String> {
    let problem = match section.reader.named_variable(name) {
        Some(Ok(text)) if !text.is_empty() => return Some(text),
        Some(Ok(_)) => "is empty".to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "is not set".to_owned(),
    };
    section.refuse("env", format!("the environment variable {name} {problem}"))
}

fn from_file(section: &mut Section<'_>, file: &str) -> Option<String> {
    let (path, bytes) = section.reader.read_file(file, MAX_FILE_BYTES);
    match text_of(bytes) {
        Ok(text) => Some(text),
        Err(problem) => section.refuse("file", format!("{} {problem}", path.display())),
    }
}

/// The text in a file without the newline at its end, which editors and `echo` add.
fn text_of(bytes: io::Result<Vec<u8>>) -> Result<String, String> {
    let bytes = bytes.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is longer than {MAX_FILE_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(text.to_owned())
}
