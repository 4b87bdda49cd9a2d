//! A guest that misbehaves as its config says, or, if that says nothing, as the payload says.
//!
//! Both have the same members, none of them required: `{"do": "loop"}`. What there is to do, and how much
//! of it (`count`), is said in `deed.rs`. An event that says nothing is forwarded unchanged.

mod deed;

use deed::Deed;
use hookmill_plugin::{Config, Context, Event, Failure, Result, Verdict, transform};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What to do, in a config or in a payload. Other members are nobody's business.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Order {
    r#do: Option<Deed>,
    /// How many, how long or how large, as the deed says.
    count: Option<usize>,
    /// What is said along with it.
    message: Option<String>,
}

/// Nobody checks beforehand what it is told.
impl Config for Order {}

/// Does what it is told, however bad.
#[transform]
fn misbehave(event: Event<&RawValue>, context: Context<Order>) -> Result<Verdict> {
    let order = match context.config {
        Order { r#do: None, .. } => order_in(event.payload)?,
        order => order,
    };
    let deed = order.r#do.unwrap_or(Deed::Forward);
    deed.perform(order.count, &order.message.unwrap_or_default())
}

/// A payload that is no object says nothing.
fn order_in(payload: &RawValue) -> Result<Order, Failure> {
    if payload.get().starts_with('{') {
        Ok(serde_json::from_str(payload.get())?)
    } else {
        Ok(Order::default())
    }
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::{Outgoing, testing};

    use super::*;

    #[test]
    fn the_config_comes_before_the_payload() {
        let payload = r#"{"do":"retry","message":"later"}"#;
        let unchanged = Ok(Verdict::from(Outgoing::text(payload)));
        assert_eq!(testing::run(misbehave, payload, r#"{"do":"forward"}"#), unchanged);
        let later = Err(Failure::retry("later"));
        assert_eq!(testing::run(misbehave, payload, "{}"), later);
        assert!(testing::run(misbehave, "[7]", "{}").is_ok());
    }

    #[test]
    fn harmless_deeds_do_as_they_say() {
        let run = |config| testing::run(misbehave, "{}", config);
        assert_eq!(run(r#"{"do":"drop","message":"no"}"#), Ok(Verdict::drop("no")));
        assert_eq!(run(r#"{"do":"invalid","message":"no"}"#), Err(Failure::invalid("no")));
        let parts = run(r#"{"do":"many_parts","count":3}"#).unwrap();
        assert!(matches!(parts, Verdict::Forward(parts) if parts.len() == 3));
        let (_, messages) = testing::capture_logs(|| run(r#"{"do":"log_flood","count":5}"#));
        assert_eq!(messages.len(), 5);
        assert!(run(r#"{"do":"zero_parts"}"#).is_err());
    }
}
