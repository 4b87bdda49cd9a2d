//! Config schemas: what a plugin says of its config, compiled once, and what a config does not fit in it.
//!
//! A schema comes out of a plugin, so it is as little trusted as the rest of it. It may refer to nothing
//! outside itself, its patterns are matched in linear time, and `bounds` refuses before anything runs what would
//! take too long to compile or to check. Checks run when a plugin or the configuration changes, never for an event.

mod bounds;
mod keywords;
mod wording;

use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

/// The longest schema, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// The memory that a compiled pattern may take, in bytes; what is built while matching may take as much again.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Misfits that are told at once.
const MAX_TOLD: usize = 10;

/// A schema, ready to check configs.
#[derive(Debug)]
pub(super) struct ConfigSchema {
    document: Value,
    validator: Validator,
}

impl ConfigSchema {
    /// Compiles the text of a schema.
    ///
    /// # Errors
    /// Why it is no schema that configs can be checked by.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("has {} bytes; at most {MAX_BYTES} are allowed", text.len()));
        }
        let mut document: Value =
            serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        // A name for others to refer to. References within go by the document itself.
        if let Value::Object(members) = &mut document {
            members.remove("$id");
        }
        bounds::check_schema(&document)?;
        let patterns =
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(patterns)
            .offline()
            .build(&document)
            .map_err(|error| refused(&error))?;
        Ok(Self { document, validator })
    }

    /// Checks the text of a config.
    ///
    /// # Errors
    /// Everything that does not fit, up to a limit.
    pub(super) fn check(&self, config: &str) -> Result<(), Misfits> {
        let config: Value = serde_json::from_str(config)
            .map_err(|error| Misfits::one(format!("is not JSON: {error}")))?;
        bounds::check_config(&self.document, &config).map_err(Misfits::one)?;
        let mut told = Vec::new();
        let mut errors = self.validator.iter_errors(&config);
        for error in errors.by_ref().take(MAX_TOLD) {
            wording::misfits(&error, &self.document, &mut told);
        }
        // One error can stand for several misfits, of the alternative that was meant.
        let more = told.len() > MAX_TOLD || errors.next().is_some();
        told.truncate(MAX_TOLD);
        if told.is_empty() { Ok(()) } else { Err(Misfits { told, more }) }
    }
}

fn refused(error: &ValidationError<'_>) -> String {
    let place = error.instance_path().as_str();
    let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
    if let ValidationErrorKind::Format { format } = error.kind()
        && format == "regex"
    {
        return format!(
            "has a pattern{place} that cannot be used: it is not a regular expression, is too large, or \
             looks around or back, which takes too long"
        );
    }
    format!("is not a JSON Schema{place}: {}", wording::bounded(error.to_string()))
}

/// What of a config does not fit the plugin's schema. Values are left out: a config may hold credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfits {
    told: Vec<Misfit>,
    /// There are more than are told.
    more: bool,
}

impl Misfits {
    fn one(message: String) -> Self {
        Self { told: vec![Misfit { pointer: String::new(), message }], more: false }
    }

    /// One line each, such as `config /mask/0/keep_last is a string; an integer is needed`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let more = self.more.then(|| "config has more that does not fit".to_owned());
        self.told.iter().map(ToString::to_string).chain(more)
    }
}

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

/// One value that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Misfit {
    /// Where it stands in the config: a JSON pointer, empty for the config as a whole.
    pointer: String,
    /// What is wrong, and what is allowed: a phrase that follows the pointer.
    message: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => write!(f, "config {}", self.message),
            pointer => write!(f, "config {pointer} {}", self.message),
        }
    }
}

#[cfg(test)]
mod tests;
