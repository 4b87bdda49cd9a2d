//! A guest whose version can be patched into the built file.
//!
//! It forwards `{"version": "…", "data": <the payload>}`. The version is read at run time from the 16
//! bytes `stamp:0000000000`, which stand once in the module's data. A test that overwrites the ten digits
//! there (with printable ASCII other than quotes and backslashes) has another version of the plugin with
//! another hash, without a compiler.

use hookmill_plugin::{Event, Result, Verdict, transform};
use serde::Serialize;
use serde_json::value::RawValue;

/// What a test overwrites. `#[used]` keeps it in one piece and in the file.
#[used]
static STAMP: [u8; 16] = *b"stamp:0000000000";

#[derive(Debug, Serialize)]
struct Stamped<'a> {
    version: &'a str,
    data: &'a RawValue,
}

/// Forwards the payload with the version that is patched into this file.
#[transform]
fn stamp(event: Event<&RawValue>) -> Result<Verdict> {
    // A black box: the compiler must not know what the bytes are, or it would fold them into the code.
    let stamp = std::hint::black_box(&STAMP);
    let version = std::str::from_utf8(stamp)?.trim_start_matches("stamp:");
    Verdict::forward(&Stamped { version, data: event.payload })
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    #[test]
    fn the_payload_is_stamped() {
        let verdict = testing::run(stamp, "[1.50]", "{}");
        let expected = hookmill_plugin::Outgoing::text(r#"{"version":"0000000000","data":[1.50]}"#);
        assert_eq!(verdict, Ok(Verdict::from(expected)));
    }
}
