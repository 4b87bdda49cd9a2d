//! Why there is no verdict, and whether trying again may help.

use std::error::Error;
use std::fmt;

/// A `Result` whose error is a [`Failure`] unless it says otherwise.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a transform has no verdict. Nothing is sent, and the message goes on record with the delivery.
///
/// # Retry is the default
///
/// Every error that leaves a transform through `?` becomes [`Failure::Retry`], and so does a payload
/// or a config that does not fit the function's types. Most such errors are mistakes in the plugin or
/// in its config; with a retry, a corrected plugin or config that is installed while the schedule
/// lasts (hours to days) rescues the deliveries that are waiting. `Invalid` cannot be taken back
/// without a replay, so it has to be asked for: where the *event* is wrong, and no correction of
/// the plugin would change that.
///
/// ```
/// use hookmill_plugin::{Failure, OrInvalid, Result};
///
/// fn quantity(text: &str) -> Result<u32> {
///     let quantity: u32 = text.parse().or_invalid()?;
///     if quantity == 0 {
///         return Err(Failure::invalid("an order needs at least one piece"));
///     }
///     Ok(quantity)
/// }
///
/// assert_eq!(quantity("x"), Err(Failure::invalid("invalid digit found in string")));
/// ```
///
/// # Panics and traps
///
/// A panic is no failure in this sense: its message is logged at level error, the call ends in a trap,
/// and the gateway retries as after any other fault of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// This event can never be transformed: the delivery is dead at once.
    Invalid(String),
    /// Trying again later may help: the delivery follows its retry schedule.
    Retry(String),
}

impl Failure {
    /// This event can never be transformed: the delivery is dead at once.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// Trying again later may help: the delivery follows its retry schedule.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry(message.into())
    }

    /// What goes on record.
    pub fn message(&self) -> &str {
        match self {
            Self::Invalid(message) | Self::Retry(message) => message,
        }
    }

    /// What goes on record, without the rest.
    pub fn into_message(self) -> String {
        match self {
            Self::Invalid(message) | Self::Retry(message) => message,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.message())
    }
}

/// Any error is a [`Failure::Retry`] whose message names its causes too.
///
/// This is why `Failure` is not itself an [`Error`]: the two conversions would overlap.
impl<E: Error> From<E> for Failure {
    #[cold]
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Self::Retry(message)
    }
}

/// Makes an error permanent, on its way out through `?`.
pub trait OrInvalid<T> {
    /// The same result with any error turned into [`Failure::Invalid`].
    ///
    /// # Errors
    ///
    /// The error of `self`, as a permanent failure with the same message.
    fn or_invalid(self) -> Result<T>;
}

impl<T, E: Into<Failure>> OrInvalid<T> for Result<T, E> {
    fn or_invalid(self) -> Result<T> {
        self.map_err(|error| Failure::Invalid(error.into().into_message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("reading the quantity")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    fn outer() -> Result<u32, Outer> {
        "x".parse().map_err(Outer)
    }

    #[test]
    fn an_error_becomes_a_retry_with_its_causes() {
        fn run() -> Result<u32> {
            Ok(outer()?)
        }
        let expected = "reading the quantity: invalid digit found in string";
        assert_eq!(run(), Err(Failure::retry(expected)));
        assert_eq!(outer().or_invalid(), Err(Failure::invalid(expected)));
    }

    #[test]
    fn a_retry_can_be_made_permanent() {
        let retry: Result<()> = Err(Failure::retry("no"));
        assert_eq!(retry.or_invalid(), Err(Failure::invalid("no")));
    }
}
