//! The environment, as a value: variables that override the file, and those that secrets are read from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::Bound;

/// What the names of all settings begin with.
pub(super) const PREFIX: &str = "HOOKMILL_";

/// Variables that begin like settings and are none, with the reason. A `*` at the end stands for any rest.
const RESERVED: &[(&str, &str)] = &[
    ("HOOKMILL_CONFIG", "the command line: the configuration file"),
    ("HOOKMILL_URL", "the command line: the gateway to talk to"),
    ("HOOKMILL_KEY", "the command line: the API key to use"),
    ("HOOKMILL_SECRET", "the command line: the secret to verify with"),
    ("HOOKMILL_BIN", "tests and tasks: the binary to run"),
    // A pod in a cluster with a service called `hookmill` gets these whether it wants them or not.
    ("HOOKMILL_SERVICE_*", "Kubernetes: the address of a service"),
    ("HOOKMILL_PORT", "Kubernetes: the address of a service"),
    ("HOOKMILL_PORT_*", "Kubernetes: the address of a service"),
];

/// The variables of the environment. Their values may be secrets, so they are never printed.
///
/// Made by collecting: `std::env::vars_os().collect::<Environment>()`.
#[derive(Clone, Default)]
pub struct Environment {
    /// None stands for a value that is not UTF-8.
    variables: BTreeMap<String, Option<String>>,
}

impl Environment {
    /// A variable's value; none when it is not set.
    ///
    /// # Errors
    /// When the value is not UTF-8.
    pub(super) fn get(&self, name: &str) -> Option<Result<&str, NotUtf8>> {
        let value = self.variables.get(name)?;
        Some(value.as_deref().ok_or(NotUtf8))
    }

    /// The names that begin with `prefix`, in order.
    pub(super) fn names_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.variables
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .map(|(name, _)| name.as_str())
            .take_while(move |name| name.starts_with(prefix))
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        // A name that is not UTF-8 can be no setting, and no file can name it either.
        let variables = variables.into_iter().filter_map(|(name, value)| {
            Some((name.into().into_string().ok()?, value.into().into_string().ok()))
        });
        Self { variables: variables.collect() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.variables.len())
    }
}

/// A variable's value is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not UTF-8 text")
    }
}

/// Whether a variable that begins like a setting is left to others.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|(pattern, _)| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *pattern,
    })
}

/// A key or a name as it stands in a variable's name.
pub(super) fn variable_form(key: &str) -> String {
    key.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_printed() {
        let environment: Environment = [("A", "hunter2")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), "Environment(1 variables)");
        assert_eq!(environment.get("A"), Some(Ok("hunter2")));
        assert_eq!(environment.get("B"), None);
    }

    #[test]
    fn other_programs_keep_their_variables() {
        for name in
            ["HOOKMILL_CONFIG", "HOOKMILL_PORT", "HOOKMILL_PORT_80_TCP", "HOOKMILL_SERVICE_HOST"]
        {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["HOOKMILL_CONFIGS", "HOOKMILL_LISTEN", "HOOKMILL_PORTS"] {
            assert!(!is_reserved(name), "{name}");
        }
    }
}
