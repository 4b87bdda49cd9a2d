//! What a plugin says of itself, checked: nothing of it is trusted either.

use super::Limits;
use super::contract::exports::hookmill::plugin::transformer as guest;

/// The longest name, version or capability, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// The longest description, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 4 << 10;

/// The longest schema that a plugin may describe its config with, in bytes.
const MAX_SCHEMA_BYTES: usize = 64 << 10;

/// The most capabilities, and the most extensions.
const MAX_ENTRIES: usize = 32;

/// All that may be handed over at once.
const MAX_BYTES: usize = 128 << 10;

/// The limits of `describe`: its own time, and no more text than is looked at.
pub(super) fn limits(limits: &Limits) -> Limits {
    Limits { time: limits.describe_time, output_bytes: MAX_BYTES, parts: 0, ..limits.clone() }
}

/// Checks the size of a description.
///
/// # Errors
/// What is too much of it, as the end of a sentence about the plugin.
pub(super) fn check(described: &guest::Description) -> Result<(), String> {
    let guest::Description { name, version, description, config_schema, capabilities, extensions } =
        described;
    let schema_bytes = config_schema.as_ref().map_or(0, String::len);
    for (what, bytes, limit) in [
        ("name", name.len(), MAX_NAME_BYTES),
        ("version", version.len(), MAX_NAME_BYTES),
        ("description", description.len(), MAX_DESCRIPTION_BYTES),
        ("config schema", schema_bytes, MAX_SCHEMA_BYTES),
    ] {
        if bytes > limit {
            return Err(format!("its {what} is {bytes} bytes long; at most {limit} are allowed"));
        }
    }
    for (what, count) in [("capabilities", capabilities.len()), ("extensions", extensions.len())] {
        if count > MAX_ENTRIES {
            return Err(format!("it names {count} {what}; at most {MAX_ENTRIES} are allowed"));
        }
    }
    if let Some(long) = capabilities.iter().find(|name| name.len() > MAX_NAME_BYTES) {
        let bytes = long.len();
        return Err(format!(
            "it names a capability of {bytes} bytes; at most {MAX_NAME_BYTES} are allowed"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> guest::Description {
        guest::Description {
            name: "name".to_owned(),
            version: "1".to_owned(),
            description: String::new(),
            config_schema: None,
            capabilities: Vec::new(),
            extensions: Vec::new(),
        }
    }

    #[test]
    fn every_text_and_list_is_bounded() {
        assert_eq!(check(&described()), Ok(()));
        let with = |change: fn(&mut guest::Description)| {
            let mut changed = described();
            change(&mut changed);
            check(&changed).unwrap_err()
        };
        for (error, expected) in [
            (with(|it| it.name = "x".repeat(129)), "its name is 129 bytes long"),
            (with(|it| it.version = "x".repeat(129)), "its version is 129 bytes long"),
            (with(|it| it.description = "x".repeat(4097)), "its description is 4097 bytes long"),
            (
                with(|it| it.config_schema = Some("x".repeat(65_537))),
                "its config schema is 65537 bytes long; at most 65536",
            ),
            (with(|it| it.capabilities = vec!["x".to_owned(); 33]), "names 33 capabilities"),
            (with(|it| it.capabilities = vec!["x".repeat(129)]), "a capability of 129 bytes"),
            (
                with(|it| it.extensions = vec![("x".to_owned(), "y".to_owned()); 33]),
                "names 33 extensions",
            ),
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }
}
