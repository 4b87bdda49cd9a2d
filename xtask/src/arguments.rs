//! The command line of a task: a few flags and options, read one by one.

use std::collections::VecDeque;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// What is left of the command line.
#[derive(Debug)]
pub(crate) struct Arguments(VecDeque<String>);

impl Arguments {
    /// Those of this process, without its name.
    pub(crate) fn of_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// Takes the first argument.
    pub(crate) fn positional(&mut self) -> Option<String> {
        self.0.pop_front()
    }

    /// Takes a flag; true if it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|argument| argument != name);
        self.0.len() < before
    }

    /// Whether a flag is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    /// Takes an option, written `--name value` or `--name=value`.
    pub(crate) fn option<T: FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        let is_it = |argument: &String| {
            argument.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        let Some(index) = self.0.iter().position(is_it) else {
            return Ok(None);
        };
        let argument = self.0.remove(index).unwrap_or_default();
        let value = match argument.split_once('=') {
            Some((_, value)) => value.to_owned(),
            None => self.0.remove(index).with_context(|| format!("{name} needs a value"))?,
        };
        match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("{name} cannot be {value:?}"),
        }
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> Vec<String> {
        self.0.into()
    }

    /// Makes sure that nothing is left.
    pub(crate) fn end(&self) -> Result<()> {
        match self.0.front() {
            None => Ok(()),
            Some(argument) => {
                bail!("{argument:?} is not an argument of this task; `cargo xtask` lists them")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_options_are_taken_in_any_order() {
        let words = ["bench", "--seconds", "3", "--json", "--rate=500", "x"];
        let mut arguments = Arguments(words.map(str::to_owned).into());
        assert_eq!(arguments.positional().as_deref(), Some("bench"));
        assert_eq!(arguments.option::<u64>("--rate").unwrap(), Some(500));
        assert_eq!(arguments.option::<u64>("--seconds").unwrap(), Some(3));
        assert_eq!(arguments.option::<u64>("--bytes").unwrap(), None);
        assert!(arguments.flag("--json") && !arguments.flag("--json"));
        assert!(arguments.end().is_err());
        assert_eq!(arguments.rest(), ["x"]);
    }

    #[test]
    fn an_option_without_a_fitting_value_is_an_error() {
        let mut arguments = Arguments(["--seconds", "soon", "--rate"].map(str::to_owned).into());
        assert!(arguments.option::<u64>("--seconds").is_err());
        assert!(arguments.option::<u64>("--rate").is_err());
    }
}
