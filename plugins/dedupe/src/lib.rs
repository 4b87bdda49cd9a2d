//! Drops repeats of an event within a window of time.
//!
//! ```json
//! { "key": "/order/id", "window_seconds": 3600 }
//! ```
//!
//! Events of the same type whose value at `key` is the same are repeats of the first one. The window begins
//! with the first; a repeat does not prolong it. What was seen is kept for each webhook apart: an event goes
//! once to each.
//!
//! The gateway does an operation once for each delivery, so an event whose run was cut short after it was noted
//! is not mistaken for its own repeat.

use std::time::Duration;

use hookmill_plugin::json::Pointer;
use hookmill_plugin::{Context, Event, Failure, Result, Verdict, config, kv, transform};
use serde_json::value::RawValue;

/// The longest value that events are told apart by, in bytes: it is part of a key, and keys are short.
const MAX_VALUE_BYTES: usize = 256;

/// The plugin's config.
#[config]
#[derive(Debug)]
struct Config {
    /// Where the value stands by which events are the same. Those without one are all passed on.
    key: Pointer,
    /// How long a repeat is dropped after the first.
    #[serde(default = "one_day")]
    window_seconds: u64,
}

fn one_day() -> u64 {
    24 * 60 * 60
}

/// Drops events that repeat an earlier one within a window of time, and passes all others on.
#[transform]
fn dedupe(event: Event<&RawValue>, context: Context<Config>) -> Result<Verdict> {
    let Config { key, window_seconds } = &context.config;
    let Some(value) = key.get(event.payload) else {
        return Ok(Verdict::unchanged());
    };
    let value = value.get();
    if value.len() > MAX_VALUE_BYTES {
        let len = value.len();
        return Err(Failure::retry(format!(
            "the value at {key} has {len} bytes; choose one of at most {MAX_VALUE_BYTES}"
        )));
    }
    let seen = format!("{}/{}/{value}", context.webhook_id, event.event_type);
    let window = Duration::from_secs(*window_seconds);
    if kv::set_if_absent(&seen, &event.id, Some(window))? {
        return Ok(Verdict::unchanged());
    }
    let first = kv::get(&seen)?.unwrap_or_default();
    Ok(Verdict::drop(format!("repeats {first}: the same {key}")))
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing::{self, Host};

    use super::*;

    const CONFIG: &str = r#"{"key":"/id","window_seconds":60}"#;

    #[test]
    fn fixtures() {
        testing::fixtures(dedupe, "fixtures");
    }

    #[test]
    fn a_repeat_is_dropped_within_the_window() {
        let host = Host::new();
        let is_passed_on =
            |payload: &str| matches!(host.run(dedupe, payload, CONFIG), Ok(Verdict::Forward(_)));
        assert!(is_passed_on(r#"{"id":7}"#));
        assert!(!is_passed_on(r#"{"id":7,"other":1}"#));
        assert!(is_passed_on(r#"{"id":"7"}"#), "a string is not a number");
        host.advance(Duration::from_secs(59));
        assert!(!is_passed_on(r#"{"id":7}"#));
        host.advance(Duration::from_secs(1));
        assert!(is_passed_on(r#"{"id":7}"#));
    }

    #[test]
    fn webhooks_and_types_are_apart() {
        let host = Host::new();
        let run = |webhook: &str, event_type: &str| {
            let mut event = testing::event(r#"{"id":7}"#);
            event.event_type = event_type.to_owned();
            let mut context = testing::context(CONFIG);
            context.webhook_id = webhook.to_owned();
            matches!(host.run_with(dedupe, event, context), Ok(Verdict::Forward(_)))
        };
        assert!(
            run("wh_a", "order.paid") && run("wh_b", "order.paid") && run("wh_a", "order.sent")
        );
        assert!(!run("wh_a", "order.paid"));
    }

    #[test]
    fn a_value_that_is_too_long_for_a_key_is_told() {
        let payload = format!(r#"{{"id":"{}"}}"#, "x".repeat(300));
        let failure = testing::run(dedupe, &payload, CONFIG).unwrap_err();
        assert!(failure.message().contains("at /id has 302 bytes"), "{failure}");
    }
}
