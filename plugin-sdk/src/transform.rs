//! How a function of an event becomes a transform: its parameters are read from JSON text, its result
//! is made a verdict. The same code runs in the sandbox and in native tests.

use serde::Deserialize;

use crate::event::{Context, Event};
use crate::failure::{Failure, Result};
use crate::mismatch::mismatch;
#[cfg(not(target_arch = "wasm32"))]
use crate::verdict::no_parts;
use crate::verdict::{Body, Verdict};

/// A function that can be a plugin's transform: one from an [`Event<T>`], or from an [`Event<T>`] and
/// a [`Context<C>`], to anything that is [`IntoVerdict`].
///
/// `'a` is how long the text of payload and config lives, from which `T` and `C` may borrow. `Args`
/// tells functions with one parameter and with two apart. There is no need to implement or to name this.
#[diagnostic::on_unimplemented(
    message = "this function cannot be a transform",
    label = "expected `fn(Event<T>) -> R` or `fn(Event<T>, Context<C>) -> R`",
    note = "`T` and `C` must implement `serde::Deserialize`",
    note = "`R` must be `Verdict`, or a `Result<Verdict, E>` whose `E` is `Failure` or any error"
)]
pub trait Transform<'a, Args> {
    /// Reads payload and config from their text, and calls the function.
    ///
    /// # Errors
    ///
    /// A retry when payload or config do not fit the types of the function's parameters, and any
    /// failure of the function itself.
    fn call(&self, event: Event<&'a str>, context: Context<&'a str>) -> Result<Verdict>;
}

impl<'a, F, T, R> Transform<'a, (Event<T>,)> for F
where
    F: Fn(Event<T>) -> R,
    T: Deserialize<'a>,
    R: IntoVerdict,
{
    fn call(&self, event: Event<&'a str>, _context: Context<&'a str>) -> Result<Verdict> {
        self(read_payload(event)?).into_verdict()
    }
}

impl<'a, F, T, C, R> Transform<'a, (Event<T>, Context<C>)> for F
where
    F: Fn(Event<T>, Context<C>) -> R,
    T: Deserialize<'a>,
    C: Deserialize<'a>,
    R: IntoVerdict,
{
    fn call(&self, event: Event<&'a str>, context: Context<&'a str>) -> Result<Verdict> {
        // The config first: when both are wrong, it is the one that somebody here can correct.
        let context = read_config(context)?;
        self(read_payload(event)?, context).into_verdict()
    }
}

/// What a transform may return.
pub trait IntoVerdict {
    /// The verdict, or why there is none.
    ///
    /// # Errors
    ///
    /// The error of `self`, as a failure.
    fn into_verdict(self) -> Result<Verdict>;
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Result<Verdict> {
        Ok(self)
    }
}

impl<E: Into<Failure>> IntoVerdict for Result<Verdict, E> {
    fn into_verdict(self) -> Result<Verdict> {
        self.map_err(Into::into)
    }
}

/// Calls a transform on text. The verdict may still say [`Body::Payload`]: see `fill_in`.
///
/// A function rather than the method, so that the generated code needs no trait in scope.
///
/// # Errors
///
/// Those of [`Transform::call`].
#[expect(clippy::needless_pass_by_value, reason = "a function is best passed by its bare name")]
pub fn call<'a, Args>(
    transform: impl Transform<'a, Args>,
    event: Event<&'a str>,
    context: Context<&'a str>,
) -> Result<Verdict> {
    transform.call(event, context)
}

/// The verdict with the payload in place of every [`Body::Payload`].
///
/// The payload is moved into the last part that asks for it: forwarding it unchanged copies nothing.
pub(crate) fn fill_in(verdict: Verdict, payload: String) -> Verdict {
    let mut parts = match verdict {
        Verdict::Forward(parts) => parts,
        Verdict::Drop(reason) => return Verdict::Drop(reason),
    };
    let mut asking = parts.iter_mut().filter(|part| part.body == Body::Payload);
    if let Some(last) = asking.next_back() {
        for part in asking {
            part.body = Body::Text(payload.clone());
        }
        last.body = Body::Text(payload);
    }
    Verdict::Forward(parts)
}

/// A verdict that forwards nothing is refused, as the gateway does.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn refuse_empty(verdict: Verdict) -> Result<Verdict> {
    match verdict {
        Verdict::Forward(parts) if parts.is_empty() => Err(no_parts()),
        verdict => Ok(verdict),
    }
}

fn read_payload<'a, T: Deserialize<'a>>(event: Event<&'a str>) -> Result<Event<T>> {
    let text = event.payload;
    let payload = serde_json::from_str(text).map_err(|error| mismatch("payload", text, &error))?;
    Ok(event.replace_payload(payload).1)
}

fn read_config<'a, C: Deserialize<'a>>(context: Context<&'a str>) -> Result<Context<C>> {
    let text = context.config;
    let config = serde_json::from_str(text).map_err(|error| mismatch("config", text, &error))?;
    Ok(context.replace_config(config).1)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "a transform owns its event and context")]

    use serde_json::value::RawValue;

    use super::*;
    use crate::testing;
    use crate::verdict::Outgoing;

    #[derive(Debug, Deserialize)]
    struct Order<'a> {
        #[serde(borrow)]
        id: &'a str,
        total: u64,
    }

    #[derive(Debug, Deserialize)]
    struct Config {
        limit: u64,
    }

    fn plain(event: Event<Order<'_>>) -> Verdict {
        Verdict::drop(event.payload.id)
    }

    fn limited(event: Event<Order<'_>>, context: Context<Config>) -> Result<Verdict> {
        if event.payload.total > context.config.limit {
            return Err(Failure::invalid("too much"));
        }
        Ok(Verdict::unchanged())
    }

    fn ignoring(_: Event<&RawValue>, _: Context) -> Result<Verdict, std::fmt::Error> {
        Err(std::fmt::Error)
    }

    const ORDER: &str = r#"{"id": "o_1", "total": 7}"#;

    #[test]
    fn functions_with_one_parameter_and_with_two_are_called() {
        assert_eq!(testing::run(plain, ORDER, "{}"), Ok(Verdict::drop("o_1")));
        assert_eq!(
            testing::run(limited, ORDER, r#"{"limit":7}"#),
            Ok(Verdict::from(Outgoing::text(ORDER)))
        );
        assert_eq!(
            testing::run(limited, ORDER, r#"{"limit":6}"#),
            Err(Failure::invalid("too much"))
        );
        assert_eq!(
            testing::run(ignoring, ORDER, "[]"),
            Err(Failure::retry(std::fmt::Error.to_string()))
        );
    }

    #[test]
    fn a_payload_or_config_that_does_not_fit_is_a_retry() {
        let failure = testing::run(limited, "{}", r#"{"limit":true}"#);
        assert_eq!(
            failure,
            Err(Failure::retry(
                "config does not fit at /limit: invalid type: boolean `true`, expected u64 at line 1 column 13"
            ))
        );
        let failure = testing::run(limited, r#"{"total":1}"#, r#"{"limit":1}"#);
        assert_eq!(
            failure,
            Err(Failure::retry("payload does not fit: missing field `id` at line 1 column 11"))
        );
    }

    #[test]
    fn every_part_that_asks_for_the_payload_gets_it() {
        let verdict = Verdict::Forward(vec![
            Outgoing::unchanged().set_header("x-part", "1"),
            Outgoing::text("2"),
            Outgoing::unchanged(),
        ]);
        let filled = fill_in(verdict, "P".to_owned());
        let expected = Verdict::Forward(vec![
            Outgoing::text("P").set_header("x-part", "1"),
            Outgoing::text("2"),
            Outgoing::text("P"),
        ]);
        assert_eq!(filled, expected);
    }
}
