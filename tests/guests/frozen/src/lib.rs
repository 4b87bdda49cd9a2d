//! A guest that uses every part of the contract but the capabilities, small enough to be kept built:
//! `tests/fixtures/world-1.0.0.wasm` is this source, as it stood when the contract was frozen.
//!
//! The payload is a string that says what to do. `forward` and `split` give everything that the guest was handed, by
//! lines; `split` sends it twice, in all the ways that a request can differ from the usual. Texts are put together
//! by hand, since formatting would be most of the file.

use hookmill_plugin::{Context, Event, Failure, Outgoing, Result, Verdict, log, transform};
use serde_json::value::RawValue;

/// Does as the payload says.
#[transform]
fn frozen(event: Event<&RawValue>, context: Context) -> Result<Verdict> {
    log::warn("told to");
    match event.payload.get() {
        r#""forward""# => {
            Ok(Outgoing::text(seen(&event, &context)).content_type("text/plain").into())
        }
        r#""split""# => Verdict::split([everything(seen(&event, &context)), bytes(event.id)]),
        r#""drop""# => Ok(Verdict::drop("dropped as told")),
        r#""invalid""# => Err(Failure::invalid("invalid as told")),
        r#""trap""# => std::process::abort(),
        _ => Err(Failure::retry("retry as told")),
    }
}

/// What the guest was handed.
fn seen(event: &Event<&RawValue>, context: &Context) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        for part in [name, "=", value, "\n"] {
            text.push_str(part);
        }
    };
    line("id", &event.id);
    line("type", &event.event_type);
    line("tenant", &event.tenant);
    line("timestamp", &event.timestamp);
    line("payload", event.payload.get());
    line("webhook_id", &context.webhook_id);
    line("webhook_name", &context.webhook_name);
    line("delivery_id", &context.delivery_id);
    for (name, value) in event.attributes.iter().chain(&context.webhook_metadata) {
        line(name, value);
    }
    text
}

/// A request that differs from the usual in every way.
fn everything(body: String) -> Outgoing {
    Outgoing::text(body)
        .content_type("text/plain")
        .set_header("x-frozen", "1.0.0")
        .remove_header("x-plain")
        .method("PUT")
        .path_suffix("/frozen")
        .query("a b", "c&d")
}

/// A body that need not be text.
fn bytes(body: String) -> Outgoing {
    Outgoing::bytes(body).content_type("application/octet-stream")
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::{HeaderChange, testing};

    use super::*;

    #[test]
    fn it_does_as_told() {
        let run = |deed: &'static str| testing::run(frozen, deed, "{}");
        assert_eq!(run("\"drop\""), Ok(Verdict::drop("dropped as told")));
        assert_eq!(run("\"invalid\""), Err(Failure::invalid("invalid as told")));
        assert_eq!(run("\"other\""), Err(Failure::retry("retry as told")));
        let Ok(Verdict::Forward(parts)) = run("\"split\"") else { panic!() };
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].headers[1], HeaderChange::Remove("x-plain".to_owned()));
    }
}
