//! Announces large orders in one line.

use hookmill_plugin::{Context, Event, Result, Verdict, config, transform};
use serde::{Deserialize, Serialize};

/// What the plugin reads of an event's data; everything else is left out.
#[derive(Debug, Deserialize)]
pub struct Order {
    id: String,
    customer: String,
    total_cents: u64,
}

/// The plugin's config, which each webhook can set.
#[config]
#[derive(Debug)]
#[serde(default)]
pub struct Config {
    /// Orders below this are not announced.
    minimum_cents: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { minimum_cents: 10_000 }
    }
}

/// What the receiver gets.
#[derive(Debug, Serialize)]
struct Announcement {
    text: String,
}

/// Announces orders that are large enough.
#[transform]
pub fn announce(event: Event<Order>, context: Context<Config>) -> Result<Verdict> {
    let Order { id, customer, total_cents } = event.payload;
    if total_cents < context.config.minimum_cents {
        return Ok(Verdict::drop("a small order"));
    }
    let total = format!("{}.{:02}", total_cents / 100, total_cents % 100);
    Verdict::forward(&Announcement { text: format!("{customer} ordered for {total} ({id})") })
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    /// Runs `fixtures/*.json`; `hookmill plugin test` runs them in the sandbox.
    #[test]
    fn fixtures() {
        testing::fixtures(announce, "fixtures");
    }

    #[test]
    fn the_minimum_itself_is_announced() {
        let order = r#"{ "id": "o_1", "customer": "Ada", "total_cents": 705 }"#;
        let verdict = testing::run(announce, order, r#"{ "minimum_cents": 705 }"#);
        let expected = Announcement { text: "Ada ordered for 7.05 (o_1)".to_owned() };
        assert_eq!(verdict, Verdict::forward(&expected));
    }
}
