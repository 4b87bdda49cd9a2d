//! Calls a transform natively, as the gateway would: no wasm, no sandbox, the same reading of payload
//! and config. A plugin's own tests use it.

mod fixtures;
pub(crate) mod host;
pub(crate) mod logs;

use crate::event::{Context, Event};
use crate::failure::Result;
use crate::transform::{Transform, fill_in, refuse_empty};
use crate::verdict::Verdict;

pub use fixtures::fixtures;
pub use host::Host;
pub use logs::capture_logs;

/// An event with this payload, to call a transform directly. The other fields have values that a test
/// can change: type `order.paid`, tenant `acme`, no attributes.
///
/// ```
/// use hookmill_plugin::{Event, Verdict, testing};
///
/// fn only_acme(event: Event<u32>) -> Verdict {
///     match event.tenant.as_str() {
///         "acme" => Verdict::unchanged(),
///         _ => Verdict::drop("not for this tenant"),
///     }
/// }
///
/// let mut event = testing::event(7);
/// assert_eq!(only_acme(event.clone()), Verdict::unchanged());
/// event.tenant = "globex".to_owned();
/// assert_eq!(only_acme(event), Verdict::drop("not for this tenant"));
/// ```
pub fn event<T>(payload: T) -> Event<T> {
    Event {
        id: "evt_0198a3c27f407a6b8c9d0e1f2a3b4c5d".to_owned(),
        event_type: "order.paid".to_owned(),
        tenant: "acme".to_owned(),
        timestamp: "2026-01-02T03:04:05Z".to_owned(),
        payload,
        attributes: Vec::new(),
        extensions: Vec::new(),
    }
}

/// A context with this config, to call a transform directly. The other fields have values that a test
/// can change.
pub fn context<C>(config: C) -> Context<C> {
    Context {
        webhook_id: "wh_0198a3c27f407a6b8c9d0e1f2a3b4c5e".to_owned(),
        webhook_name: "orders".to_owned(),
        webhook_metadata: Vec::new(),
        delivery_id: "dlv_0198a3c27f407a6b8c9d0e1f2a3b4c5f".to_owned(),
        config,
        extensions: Vec::new(),
    }
}

/// Calls a transform with a payload and a config as JSON text.
///
/// # Errors
///
/// The failure that the gateway would see: of the transform, for a payload or config that does not fit
/// its types, or for a verdict that forwards no parts.
///
/// ```
/// use hookmill_plugin::{Event, Failure, Verdict, testing};
///
/// fn double(event: Event<u32>) -> hookmill_plugin::Result<Verdict> {
///     Verdict::forward(&(event.payload * 2))
/// }
///
/// assert_eq!(testing::run(double, "21", "{}"), Verdict::forward(&42));
/// assert!(matches!(testing::run(double, "-1", "{}"), Err(Failure::Retry(_))));
/// ```
pub fn run<'a, Args>(
    transform: impl Transform<'a, Args>,
    payload: &'a str,
    config: &'a str,
) -> Result<Verdict> {
    run_with(transform, event(payload), context(config))
}

/// Calls a transform with an event and a context of which more than payload and config matters.
///
/// # Errors
///
/// As [`run`].
#[expect(clippy::needless_pass_by_value, reason = "a function is best passed by its bare name")]
pub fn run_with<'a, Args>(
    transform: impl Transform<'a, Args>,
    event: Event<&'a str>,
    context: Context<&'a str>,
) -> Result<Verdict> {
    run_resolved(&transform, event, context)
}

fn run_resolved<'a, Args>(
    transform: &impl Transform<'a, Args>,
    event: Event<&'a str>,
    context: Context<&'a str>,
) -> Result<Verdict> {
    let payload = event.payload;
    let verdict = refuse_empty(host::with_host(|| transform.call(event, context))?)?;
    Ok(fill_in(verdict, payload.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn a_verdict_without_parts_is_refused_as_in_the_gateway() {
        let nothing = |_: Event| Verdict::Forward(Vec::new());
        assert!(matches!(run(nothing, "{}", "{}"), Err(Failure::Retry(_))));
    }
}
