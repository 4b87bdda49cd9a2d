//! Writes an order as a chat message: the example that there is in every language, in Rust.

use std::fmt::Write as _;

use hookmill_plugin::{Context, Event, Failure, Result, Verdict, config, transform};
use serde::{Deserialize, Serialize};

/// What the plugin reads of an order; everything else is left out.
#[derive(Debug, Deserialize)]
struct Order {
    customer: Customer,
    /// ISO 4217, such as `EUR`.
    currency: String,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Customer {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Item {
    name: String,
    quantity: u64,
    /// In the currency's hundredth.
    unit_price_cents: u64,
}

/// The plugin's config: `{"channel": "#orders", "minimum_cents": 3000}`.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
struct Config {
    /// Where the message is to appear; the webhook's own channel when absent.
    channel: Option<String>,
    /// Orders that come to less are dropped.
    minimum_cents: u64,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    text: &'a str,
}

/// Writes an order as a chat message, and drops the small ones.
#[transform]
fn order_message(event: Event<Order>, context: Context<Config>) -> Result<Verdict> {
    let Order { customer, currency, items } = &event.payload;
    if items.is_empty() {
        return Err(Failure::invalid("the order has no items"));
    }
    let Some((pieces, total)) = totals(items) else {
        return Err(Failure::invalid("the order's total is too large"));
    };
    let minimum = context.config.minimum_cents;
    if total < minimum {
        let (total, minimum) = (money(total), money(minimum));
        return Ok(Verdict::drop(format!(
            "the order comes to {total} {currency}, which is less than {minimum}"
        )));
    }
    let plural = if pieces == 1 { "" } else { "s" };
    let (name, total) = (&customer.name, money(total));
    let mut text = format!("{name} ordered {pieces} piece{plural} for {total} {currency}:");
    for Item { quantity, name, .. } in items {
        write!(text, "\n• {quantity} × {name}")?;
    }
    Verdict::forward(&Message { channel: context.config.channel.as_deref(), text: &text })
}

/// How many pieces there are, and what they come to.
fn totals(items: &[Item]) -> Option<(u64, u64)> {
    items.iter().try_fold((0_u64, 0_u64), |(pieces, total), item| {
        let price = item.quantity.checked_mul(item.unit_price_cents)?;
        Some((pieces.checked_add(item.quantity)?, total.checked_add(price)?))
    })
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    #[test]
    fn fixtures() {
        testing::fixtures(order_message, "fixtures");
    }
}
