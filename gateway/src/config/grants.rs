//! `[grants]` of a plugin's manifest: what it may do beside transforming.

use super::section::Section;
use super::values::{flag, parsed};
use crate::transform::{AllowedUrl, Grants};

/// Reads the grants; what is left out is not granted.
pub(super) fn grants(section: &mut Section<'_>) -> Grants {
    let switch = |section: &mut Section<'_>, key| section.optional(key, flag).unwrap_or_default();
    let clock = switch(section, "clock");
    let random = switch(section, "random");
    let secrets =
        section.list("secrets", "names of secrets", |item| Some(item.read(parsed(secret_name))?.0));
    let kv = switch(section, "kv");
    let http = section.list("http", "URLs", |item| Some(item.read(parsed(AllowedUrl::parse))?.0));
    Grants {
        clock,
        random,
        secrets: secrets.unwrap_or_default(),
        kv,
        http: http.unwrap_or_default(),
    }
}

/// The name of a secret that plugins may be granted. It is a variable's name too, so it has no `-`.
pub(super) fn secret_name(name: &str) -> Result<String, String> {
    const MAX_LEN: usize = 64;
    if name.is_empty() || name.len() > MAX_LEN {
        return Err(format!("has a name of {} bytes; from 1 to {MAX_LEN} are allowed", name.len()));
    }
    match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_')) {
        Some(bad) => {
            Err(format!("has the character {bad:?} in its name; `a-z`, `0-9` and `_` are allowed"))
        }
        None => Ok(name.to_owned()),
    }
}
