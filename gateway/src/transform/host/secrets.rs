//! `secrets`: a tenant's secrets, and keeping them out of what goes on record.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::contract::hookmill::plugin::secrets::Host;
use crate::digest::Digest;
use crate::transform::state::State;

/// The shortest value that is replaced, in bytes: a shorter one would be found where it is not meant.
const MIN_REDACTED: usize = 8;

/// A tenant's secrets, by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<BTreeMap<String, String>>>);

impl Secrets {
    /// None at all.
    pub const NONE: &'static Self = &Self(None);

    /// The hash of all of them: it changes when one does.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let pairs = self.0.iter().flat_map(|secrets| secrets.iter());
        let parts: Vec<_> = pairs.flat_map(|(name, value)| [name, value]).collect();
        Digest::of_parts(&parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>())
    }

    /// Each with its value, to keep it out of what goes on record.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter().flat_map(|secrets| secrets.iter());
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Their names.
    pub(in crate::transform) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|secrets| secrets.keys()).map(String::as_str)
    }

    /// Those of these names.
    pub(in crate::transform) fn granted(&self, names: &[String]) -> Granted {
        if names.is_empty() {
            return Granted::default();
        }
        let mut granted: Vec<_> = names
            .iter()
            .filter_map(|name| {
                let value = self.0.as_ref()?.get(name)?;
                Some((name.clone(), value.clone()))
            })
            .collect();
        // A secret may hold another; the longer one goes first.
        granted.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        Granted(Some(granted.into()))
    }
}

impl FromIterator<(String, String)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(secrets: I) -> Self {
        let secrets: BTreeMap<_, _> = secrets.into_iter().collect();
        Self((!secrets.is_empty()).then(|| Arc::new(secrets)))
    }
}

impl fmt::Debug for Secrets {
    /// The names alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// The secrets that a plugin may read in a call, the longest first.
#[derive(Clone, Default)]
pub(in crate::transform) struct Granted(Option<Arc<[(String, String)]>>);

impl Granted {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs().iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn pairs(&self) -> &[(String, String)] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The text with `[secret NAME]` in place of each secret's value.
    pub(in crate::transform) fn redact(&self, mut text: String) -> String {
        for (name, value) in self.pairs() {
            if value.len() < MIN_REDACTED {
                continue;
            }
            // A message may quote it.
            let quoted = value.escape_debug().to_string();
            for form in [value, &quoted] {
                if text.contains(form.as_str()) {
                    text = text.replace(form.as_str(), &format!("[secret {name}]"));
                }
            }
        }
        text
    }
}

impl Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.session()?.about().secrets.get(&name).map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(pairs: &[(&str, &str)]) -> Secrets {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn just_granted_secrets_can_be_read() {
        let secrets = secrets(&[("a", "value of a"), ("b", "value of b")]);
        let granted = secrets.granted(&["a".to_owned(), "c".to_owned()]);
        assert_eq!(granted.get("a"), Some("value of a"));
        assert_eq!((granted.get("b"), granted.get("c")), (None, None));
        assert_eq!(format!("{secrets:?}"), r#"{"a", "b"}"#);
    }

    #[test]
    fn values_are_replaced_by_their_names() {
        let secrets =
            secrets(&[("a", "hunter2hunter2"), ("long", "hunter2hunter2!"), ("short", "abc")]);
        let names = ["a", "long", "short"].map(str::to_owned);
        let granted = secrets.granted(&names);
        let redact = |text: &str| granted.redact(text.to_owned());
        assert_eq!(redact("x hunter2hunter2 y"), "x [secret a] y");
        assert_eq!(redact("hunter2hunter2!hunter2hunter2"), "[secret long][secret a]");
        assert_eq!(
            redact("abc is too short to be told from others"),
            "abc is too short to be told from others"
        );
    }

    #[test]
    fn a_quoted_value_is_replaced_too() {
        let secrets = secrets(&[("a", "with \"quotes\"\n")]);
        let granted = secrets.granted(&["a".to_owned()]);
        let quoted = format!("{:?}", "it is with \"quotes\"\n");
        assert_eq!(granted.redact(quoted), "\"it is [secret a]\"");
    }
}
