//! A guest whose config schema can be patched into the built file.
//!
//! It forwards `{"version": …, "config": …}`: the `title` of its schema, and its config. The schema is read at
//! run time from what follows `schema:` in the module's data, 4,089 blanks at first. A test that overwrites the
//! blanks with JSON has a plugin with that schema, without a compiler; blanks alone are no schema.

use hookmill_plugin::schemars::Schema;
use hookmill_plugin::{Config, Context, Event, Result, Verdict, transform};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

const MARK: &[u8; 7] = b"schema:";

/// What a test overwrites. `#[used]` keeps it in one piece and in the file.
#[used]
static SCHEMA: [u8; 4096] = {
    let mut bytes = [b' '; 4096];
    let (mark, _) = bytes.split_at_mut(MARK.len());
    mark.copy_from_slice(MARK);
    bytes
};

/// The schema, if one was patched in.
fn schema() -> Option<Schema> {
    // A black box: the compiler must not know what the bytes are, or it would fold them into the code.
    let bytes = std::hint::black_box(&SCHEMA).strip_prefix(MARK)?;
    let value: Value = serde_json::from_slice(bytes).ok()?;
    Schema::try_from(value).ok()
}

#[derive(Debug, Deserialize)]
struct Any(Box<RawValue>);

impl Config for Any {
    fn schema() -> Option<Schema> {
        schema()
    }
}

#[derive(Debug, Serialize)]
struct Described<'a> {
    version: Option<Value>,
    config: &'a RawValue,
}

/// Forwards the title of the schema, and the config.
#[transform]
fn described(_: Event<&RawValue>, context: Context<Any>) -> Result<Verdict> {
    let version = schema().and_then(|schema| schema.get("title").cloned());
    Verdict::forward(&Described { version, config: &context.config.0 })
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::{Outgoing, testing};

    use super::*;

    #[test]
    fn as_it_is_built_it_has_no_schema() {
        assert!(schema().is_none());
        let expected = Outgoing::text(r#"{"version":null,"config":{"a":1.50}}"#);
        assert_eq!(testing::run(described, "7", r#"{"a":1.50}"#), Ok(Verdict::from(expected)));
    }
}
