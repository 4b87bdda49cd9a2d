//! Splits an order into one request per item.

use hookmill_plugin::{Event, Outgoing, Result, Verdict, transform};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What the plugin reads of an order.
#[derive(Debug, Deserialize)]
struct Order<'a> {
    /// A string or a number.
    #[serde(borrow)]
    id: &'a RawValue,
    items: Vec<&'a RawValue>,
}

/// What the receiver gets for each item.
#[derive(Debug, Serialize)]
struct Part<'a> {
    /// The order's id, as it is written there.
    order_id: &'a RawValue,
    /// From one.
    position: usize,
    /// How many items the order has.
    count: usize,
    /// The item, byte for byte.
    item: &'a RawValue,
}

/// Sends each item of an order by itself, with the order's id and its position. Each is delivered and
/// retried on its own.
#[transform]
fn line_items(event: Event<Order<'_>>) -> Result<Verdict> {
    let Order { id, items } = event.payload;
    if items.is_empty() {
        return Ok(Verdict::drop("the order has no items"));
    }
    let count = items.len();
    let part = |(position, item)| Outgoing::json(&Part { order_id: id, position, count, item });
    let parts = (1..).zip(items).map(part).collect::<Result<Vec<_>>>()?;
    Verdict::split(parts)
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    #[test]
    fn fixtures() {
        testing::fixtures(line_items, "fixtures");
    }
}
