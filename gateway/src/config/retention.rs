//! `[retention]`, for all tenants and for one: how long what is finished is kept.

use std::time::Duration;

use super::section::Section;
use super::tree::Node;
use super::values::{DAY, GIB, KIB, SECOND, duration, size};
use crate::pipeline;
use crate::snapshot::Retention;

/// The longest time that anything can be told to be kept.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Reads the settings for all tenants.
pub(super) fn for_all(section: &mut Section<'_>) -> pipeline::RetentionConfig {
    let default = pipeline::RetentionConfig::default();
    let tenants = ages(section, &default.tenants);
    let idempotency = section.optional("idempotency", duration(SECOND..=30 * DAY));
    pipeline::RetentionConfig {
        tenants,
        idempotency: idempotency.unwrap_or(default.idempotency),
        max_bytes: max_bytes(section).unwrap_or(default.max_bytes),
    }
}

/// Reads the settings of a tenant; what it leaves out is as for all.
pub(super) fn for_one(section: &mut Section<'_>, all: &Retention) -> Retention {
    let ages = ages(section, all);
    Retention { max_bytes: max_bytes(section).unwrap_or(None), ..ages }
}

fn ages(section: &mut Section<'_>, default: &Retention) -> Retention {
    let age = duration(SECOND..=LONGEST);
    let events = section.optional("events", age).unwrap_or(default.events);
    let payloads = section.optional("payloads", no_longer_than(events));
    let attempts = section.optional("attempts", no_longer_than(events));
    let undelivered = section.optional("undelivered", or("never", duration(SECOND..=LONGEST)));
    // As long as the events, unless less is enough for all.
    let part = |all: Duration| if all < default.events { all.min(events) } else { events };
    Retention {
        events,
        payloads: payloads.unwrap_or(part(default.payloads)),
        attempts: attempts.unwrap_or(part(default.attempts)),
        undelivered: undelivered.unwrap_or(default.undelivered),
        max_bytes: None,
    }
}

fn max_bytes(section: &mut Section<'_>) -> Option<Option<u64>> {
    section.optional("max_bytes", or("unlimited", size(64 * KIB..=1024 * 1024 * GIB)))
}

fn no_longer_than(events: Duration) -> impl FnOnce(&Node) -> Result<Duration, String> {
    move |node| {
        let age = duration(SECOND..=LONGEST)(node)?;
        if age > events {
            return Err(
                "is longer than `events` beside it, and nothing is left of an event after that; \
                 lower it, or raise that"
                    .to_owned(),
            );
        }
        Ok(age)
    }
}

/// A value, or a word for none.
fn or<T>(
    word: &'static str,
    parse: impl FnOnce(&Node) -> Result<T, String>,
) -> impl FnOnce(&Node) -> Result<Option<T>, String> {
    move |node| {
        if node.text() == Some(word) {
            return Ok(None);
        }
        parse(node).map(Some).map_err(|message| format!("{message}, or \"{word}\""))
    }
}
