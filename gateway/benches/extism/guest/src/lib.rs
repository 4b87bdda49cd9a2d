//! The transform of the plugin `order-summary` with `include_lines`, as a guest of Extism.

use extism_pdk::{FnResult, plugin_fn};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    id: String,
    customer: Customer,
    currency: String,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Customer {
    name: String,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    name: String,
    quantity: u64,
    unit_price_cents: u64,
}

#[derive(Serialize)]
struct Summary<'a> {
    order_id: &'a str,
    customer: &'a str,
    currency: &'a str,
    item_count: usize,
    quantity: u64,
    total_cents: u64,
    lines: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    sku: &'a str,
    name: &'a str,
    quantity: u64,
    total_cents: u64,
}

#[plugin_fn]
pub fn transform(input: String) -> FnResult<String> {
    let order: Order = serde_json::from_str(&input)?;
    let lines: Vec<_> = order
        .items
        .iter()
        .map(|item| Line {
            sku: &item.sku,
            name: &item.name,
            quantity: item.quantity,
            total_cents: item.quantity * item.unit_price_cents,
        })
        .collect();
    Ok(serde_json::to_string(&Summary {
        order_id: &order.id,
        customer: &order.customer.name,
        currency: &order.currency,
        item_count: lines.len(),
        quantity: lines.iter().map(|line| line.quantity).sum(),
        total_cents: lines.iter().map(|line| line.total_cents).sum(),
        lines,
    })?)
}
