//! Reshapes an order into a short summary.

use hookmill_plugin::{Context, Event, Failure, Result, Verdict, config, transform};
use serde::{Deserialize, Serialize};

/// What the plugin reads of an order; everything else is left out.
#[derive(Debug, Deserialize)]
pub struct Order {
    id: String,
    customer: Customer,
    /// ISO 4217, such as `EUR`.
    currency: String,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Customer {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Item {
    sku: String,
    name: String,
    quantity: u64,
    /// In the currency's hundredth.
    unit_price_cents: u64,
}

/// The plugin's config: `{"include_lines": true}`.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
pub struct Config {
    /// Whether the summary has a line for each item.
    include_lines: bool,
}

/// What the receiver gets.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    order_id: &'a str,
    customer: &'a str,
    currency: &'a str,
    /// How many different items were ordered.
    item_count: usize,
    /// How many pieces were ordered.
    quantity: u64,
    total_cents: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<Line<'a>>>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    sku: &'a str,
    name: &'a str,
    quantity: u64,
    total_cents: u64,
}

/// Sums an order up: who ordered, how many pieces, and what they come to.
#[transform]
pub fn order_summary(event: Event<Order>, context: Context<Config>) -> Result<Verdict> {
    let order = &event.payload;
    let lines = order.items.iter().map(line).collect::<Result<Vec<_>>>()?;
    let quantity = sum(lines.iter().map(|line| line.quantity))?;
    let total_cents = sum(lines.iter().map(|line| line.total_cents))?;
    Verdict::forward(&Summary {
        order_id: &order.id,
        customer: &order.customer.name,
        currency: &order.currency,
        item_count: lines.len(),
        quantity,
        total_cents,
        lines: context.config.include_lines.then_some(lines),
    })
}

fn line(item: &Item) -> Result<Line<'_>> {
    let total_cents = item.quantity.checked_mul(item.unit_price_cents).ok_or_else(too_large)?;
    Ok(Line { sku: &item.sku, name: &item.name, quantity: item.quantity, total_cents })
}

fn sum(mut numbers: impl Iterator<Item = u64>) -> Result<u64> {
    numbers.try_fold(0_u64, u64::checked_add).ok_or_else(too_large)
}

/// The order itself is wrong, so no retry and no correction of the plugin would help.
fn too_large() -> Failure {
    Failure::invalid("the order's totals do not fit 64 bits")
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    #[test]
    fn fixtures() {
        testing::fixtures(order_summary, "fixtures");
    }

    #[test]
    fn unknown_config_is_refused() {
        let order = r#"{"id":"1","customer":{"name":"A"},"currency":"EUR","items":[]}"#;
        let failure = testing::run(order_summary, order, r#"{"lines":true}"#).unwrap_err();
        assert!(failure.message().contains("unknown field `lines`"));
    }
}
