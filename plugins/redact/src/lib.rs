//! Removes or masks fields of a payload.
//!
//! ```json
//! {
//!   "remove": ["/customer/email", "/items/*/cost"],
//!   "mask": [{ "path": "/card/number", "keep_last": 4 }]
//! }
//! ```
//!
//! Everything else stays as it was written: the order of members, and every digit of a number. That is
//! why the text is rewritten along the paths, and never turned into a tree of values, which would round
//! numbers beyond 64 bits and sort or merge members. Blanks are only lost next to what is rewritten.

mod path;
mod rewrite;

use hookmill_plugin::{Context, Event, Outgoing, Verdict, config, transform};
use serde_json::value::RawValue;

use path::Path;
use rewrite::{Action, Rule, rewrite};

/// The plugin's config.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
struct Config {
    /// Where the values stand that are left out, keys included. An item of a list is left out too,
    /// and those after it move up.
    remove: Vec<Path>,
    /// Where the values stand that are made unreadable.
    mask: Vec<Mask>,
}

/// A value that is made unreadable: a string of four asterisks in its place.
#[config]
#[derive(Debug)]
struct Mask {
    /// Where it stands.
    path: Path,
    /// How many of the last characters of a string or number stay readable. A value that is not more
    /// than twice as long is masked whole: what is left would give too much of it away.
    #[serde(default)]
    keep_last: usize,
}

/// Removes or masks fields of the payload, and leaves everything else as it was written.
#[transform]
fn redact(event: Event<&RawValue>, context: Context<Config>) -> Verdict {
    let Config { remove, mask } = &context.config;
    let removals = remove.iter().map(|path| Rule::new(path, Action::Remove));
    let masks = mask.iter().map(|mask| Rule::new(&mask.path, Action::Mask(mask.keep_last)));
    let rules: Vec<Rule<'_>> = removals.chain(masks).collect();
    Verdict::from(Outgoing::text(rewrite(event.payload, &rules)))
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    #[test]
    fn fixtures() {
        testing::fixtures(redact, "fixtures");
    }

    #[test]
    fn a_path_to_the_whole_payload_is_refused() {
        let failure = testing::run(redact, "{}", r#"{"remove":[""]}"#).unwrap_err();
        assert!(failure.message().contains("the whole payload"), "{failure}");
    }
}
