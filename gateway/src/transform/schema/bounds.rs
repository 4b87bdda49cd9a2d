//! What a schema may cost. The validator follows every path through a schema, and the number of paths can double
//! with each line; so they are counted here first, each schema once, and what has too many is refused.
//!
//! Compiling costs as much as a schema has paths that stay at one value. Checking costs as much as it has
//! paths down a config: those are counted anew for each config.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::keywords::{Target, inner, looks_twice, patterns, referred};

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Schemas that may apply to one value, counted each time that one applies.
const MAX_AT_ONCE: u64 = 2_000;

/// Schemas within schemas, references followed; the validator goes down on the stack.
const MAX_DEPTH: usize = 64;

/// Schemas on the way from a config to its innermost value.
const MAX_CONFIG_DEPTH: usize = 512;

/// Patterns in a schema; compiling one can take ten milliseconds and a megabyte.
const MAX_PATTERNS: usize = 100;

/// Steps in which a config must be checked: some tenths of a second.
const MAX_STEPS: u64 = 250_000;

/// The bytes of text in a config that take as long as a step, since errors carry copies of it.
const BYTES_PER_STEP: u64 = 64;

/// Refuses a schema that is not self-contained, or that would cost too much to compile.
pub(super) fn check_schema(document: &Value) -> Result<(), String> {
    check_dialect(document, 0)?;
    let mut survey = Survey { document, paths: HashMap::new(), todo: vec![document], patterns: 0 };
    while let Some(schema) = survey.todo.pop() {
        survey.paths(schema, 0)?;
    }
    if survey.patterns > MAX_PATTERNS {
        let count = survey.patterns;
        return Err(format!("has {count} patterns; at most {MAX_PATTERNS} are allowed"));
    }
    Ok(())
}

/// Refuses what would give references another meaning than that of a place in the document.
fn check_dialect(value: &Value, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("is nested more than {MAX_DEPTH} levels deep"));
    }
    let inner: Vec<&Value> = match value {
        Value::Object(members) => {
            check_members(members)?;
            members.values().collect()
        }
        Value::Array(items) => items.iter().collect(),
        _ => return Ok(()),
    };
    inner.into_iter().try_for_each(|value| check_dialect(value, depth + 1))
}

fn check_members(members: &Map<String, Value>) -> Result<(), String> {
    // A member of a config can have such a name too; then a schema stands behind it, and no text.
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if let Some(dialect) = text("$schema")
        && dialect.trim_end_matches('#') != DIALECT
    {
        return Err(format!("is written in {dialect:?}; {DIALECT:?} is needed"));
    }
    for keyword in ["$id", "$dynamicRef", "$recursiveRef"] {
        if text(keyword).is_some() {
            return Err(format!(
                "has `{keyword}`, which is not supported; refer to \"#/$defs/NAME\""
            ));
        }
    }
    Ok(())
}

/// A look at every schema that can apply.
struct Survey<'a> {
    document: &'a Value,
    /// How many schemas apply where one does, itself included; none while that is being found out.
    paths: HashMap<*const Value, Option<u64>>,
    /// Schemas of inner values.
    todo: Vec<&'a Value>,
    patterns: usize,
}

impl<'a> Survey<'a> {
    fn paths(&mut self, schema: &'a Value, depth: usize) -> Result<u64, String> {
        let Value::Object(members) = schema else {
            return Ok(1);
        };
        match self.paths.get(&std::ptr::from_ref(schema)) {
            Some(Some(paths)) => return Ok(*paths),
            Some(None) => {
                return Err("refers to itself without an end: a config is finite, and one of its \
                            members or items has to come between"
                    .to_owned());
            }
            None => self.paths.insert(std::ptr::from_ref(schema), None),
        };
        if depth > MAX_DEPTH {
            return Err(format!("applies more than {MAX_DEPTH} schemas within one another"));
        }
        self.patterns += patterns(members);
        let mut paths = 0_u64;
        if let Some(target) = referred(members, self.document)? {
            paths += self.paths(target, depth + 1)?;
        }
        for (inner, target) in inner(members) {
            match target {
                Target::Same => paths += self.paths(inner, depth + 1)?,
                _ => self.todo.push(inner),
            }
        }
        let paths = 1 + if looks_twice(members) { 2 * paths } else { paths };
        if paths > MAX_AT_ONCE {
            return Err(format!("applies more than {MAX_AT_ONCE} schemas to one value"));
        }
        self.paths.insert(std::ptr::from_ref(schema), Some(paths));
        Ok(paths)
    }
}

/// Refuses a config that would take too long to check.
pub(super) fn check_config(document: &Value, config: &Value) -> Result<(), String> {
    let mut count = Count { document, steps: HashMap::new(), sizes: HashMap::new() };
    let steps = count.steps(document, config, 0)?;
    if steps > MAX_STEPS { Err(too_many()) } else { Ok(()) }
}

fn too_many() -> String {
    format!(
        "takes more than {MAX_STEPS} steps to check by the plugin's schema; make it smaller, or the \
         schema simpler"
    )
}

/// The steps of a check, each pair of a schema and a value counted once.
struct Count<'a> {
    document: &'a Value,
    steps: HashMap<(*const Value, *const Value), u64>,
    sizes: HashMap<*const Value, u64>,
}

impl<'a> Count<'a> {
    fn steps(&mut self, schema: &'a Value, value: &'a Value, depth: usize) -> Result<u64, String> {
        let Value::Object(members) = schema else {
            return Ok(1);
        };
        let pair = (std::ptr::from_ref(schema), std::ptr::from_ref(value));
        if let Some(steps) = self.steps.get(&pair) {
            return Ok(*steps);
        }
        if depth > MAX_CONFIG_DEPTH {
            return Err(format!("is nested too deep: over {MAX_CONFIG_DEPTH} schemas apply to it"));
        }
        let mut same = 0_u64;
        let mut below = 0_u64;
        if let Some(target) = referred(members, self.document)? {
            same = self.steps(target, value, depth + 1)?;
        }
        for (inner, target) in inner(members) {
            match target {
                Target::Same => same = same.saturating_add(self.steps(inner, value, depth + 1)?),
                _ => below = below.saturating_add(self.below(inner, target, value, depth)?),
            }
        }
        let again = if looks_twice(members) { 2 } else { 1 };
        let own = self.size(value).saturating_mul(1 + patterns(members) as u64);
        let steps = below.saturating_add(same).saturating_mul(again).saturating_add(own);
        // Every pair is a step at least, so this bounds the count itself too.
        if steps > MAX_STEPS || self.steps.len() as u64 > MAX_STEPS {
            return Err(too_many());
        }
        self.steps.insert(pair, steps);
        Ok(steps)
    }

    /// The steps of a schema that applies to parts of a value.
    fn below(
        &mut self,
        schema: &'a Value,
        target: Target<'_>,
        value: &'a Value,
        depth: usize,
    ) -> Result<u64, String> {
        let parts: Vec<&Value> = match (target, value) {
            (Target::Member(name), Value::Object(members)) => {
                members.get(name).into_iter().collect()
            }
            (Target::Members, Value::Object(members)) => members.values().collect(),
            (Target::Items, Value::Array(items)) => items.iter().collect(),
            (Target::Names, Value::Object(members)) => {
                let names = members.keys().map(|name| 1 + name.len() as u64 / BYTES_PER_STEP);
                // A name has no parts, so that no more than this can apply to it.
                return Ok(names
                    .sum::<u64>()
                    .saturating_mul(MAX_AT_ONCE.min(self.at_once(schema))));
            }
            _ => return Ok(0),
        };
        let mut steps = 0_u64;
        for part in parts {
            steps = steps.saturating_add(self.steps(schema, part, depth + 1)?);
        }
        Ok(steps)
    }

    /// The schemas that apply where one does.
    fn at_once(&self, schema: &'a Value) -> u64 {
        let mut survey = Survey {
            document: self.document,
            paths: HashMap::new(),
            todo: Vec::new(),
            patterns: 0,
        };
        survey.paths(schema, 0).unwrap_or(MAX_AT_ONCE)
    }

    /// The size of a value, in steps.
    fn size(&mut self, value: &'a Value) -> u64 {
        if let Some(size) = self.sizes.get(&std::ptr::from_ref(value)) {
            return *size;
        }
        let size = match value {
            Value::String(text) => 1 + text.len() as u64 / BYTES_PER_STEP,
            Value::Array(items) => {
                1 + items.iter().map(|item| self.bytes(item)).sum::<u64>() / BYTES_PER_STEP
            }
            Value::Object(_) => 1 + self.bytes(value) / BYTES_PER_STEP,
            _ => 1,
        };
        self.sizes.insert(std::ptr::from_ref(value), size);
        size
    }

    fn bytes(&mut self, value: &'a Value) -> u64 {
        match value {
            Value::String(text) => 2 + text.len() as u64,
            Value::Array(items) => 2 + items.iter().map(|item| self.bytes(item)).sum::<u64>(),
            Value::Object(members) => {
                2 + members
                    .iter()
                    .map(|(name, value)| 4 + name.len() as u64 + self.bytes(value))
                    .sum::<u64>()
            }
            _ => 8,
        }
    }
}
