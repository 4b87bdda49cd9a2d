//! The first act: sample events, each beside what becomes of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::columns::side_by_side;
use super::ledger::{Ledger, deliveries, message_key, settled, state};
use super::stage::{ACME, GLOBEX, Stage, Tenant};
use crate::{layout, report, workspace};

/// A file of `xtask/samples`, who sends it, and what is to be seen.
const SAMPLES: [(&str, Tenant, &str); 6] = [
    ("job-status", ACME, "a job's status, put into the envelope that its receivers know"),
    (
        "transcript",
        ACME,
        "a transcript: the chunks removed, the address masked, then made a chat message",
    ),
    (
        "extraction-result",
        GLOBEX,
        "an extraction's result, which passes its tenant's filter byte for byte",
    ),
    ("order", ACME, "an order: summed up for one webhook, split into its items for another"),
    ("order", GLOBEX, "the same order of a tenant that wants it as it is"),
    ("small-order", GLOBEX, "an order that is too small for this tenant's filter"),
];

/// How long a sample may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn show(stage: &mut Stage, ledger: &mut Ledger) -> Result<()> {
    for (name, tenant, about) in SAMPLES {
        let file = workspace::root().join(format!("xtask/samples/{name}.json"));
        let event = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        report::line(&format!(
            "\n{}  {about}",
            report::strong(&format!("{} sends {name}.json", tenant.name))
        ));
        let id = stage.api.must_post(tenant, &event)?;
        ledger.accepted(tenant, id.clone());
        let status = settled(stage, tenant, &id, Instant::now() + PATIENCE)?
            .with_context(|| format!("the gateway does not know {id}, which it accepted"))?;
        let came_in = format!("came in\n{}", layout::pretty(&event));
        let mut went_out = String::new();
        for delivery in deliveries(&status) {
            went_out.push_str(&outcome(stage, tenant, delivery)?);
        }
        report::text(&side_by_side(&came_in, &went_out));
    }
    Ok(())
}

/// What became of one delivery.
fn outcome(stage: &Stage, tenant: Tenant, delivery: &Value) -> Result<String> {
    let key = message_key(delivery, tenant);
    let plugins = plugins(delivery);
    match state(delivery) {
        "delivered" => {
            let until = Instant::now() + PATIENCE;
            let arrival = loop {
                match stage.receiver.find(&key) {
                    Some(arrival) => break arrival,
                    None if Instant::now() > until => bail!("{} never came", key.id),
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            let body = layout::pretty(&arrival.body);
            let part = delivery.get("part").and_then(Value::as_u64).unwrap_or(1);
            let part = if part > 1 { format!(", part {part}") } else { String::new() };
            let signature = arrival.signature();
            Ok(format!("went to {}{part}{plugins}\n{signature}\n{body}\n", key.webhook))
        }
        "dropped" => {
            let reason = delivery.get("reason").and_then(Value::as_str).unwrap_or("");
            Ok(format!("dropped for {}{plugins}\n{reason}\n", key.webhook))
        }
        other => bail!("{} for {} is {other}: {delivery}", key.id, key.webhook),
    }
}

/// The plugins that made it, for people.
fn plugins(delivery: &Value) -> String {
    let names: Vec<&str> = delivery
        .get("plugins")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|plugin| plugin.get("name")?.as_str())
        .collect();
    if names.is_empty() { String::new() } else { format!(" by {}", names.join(", ")) }
}
