//! What does not fit, in words: where it stands, what it is, and what is allowed there. Never the value itself,
//! which may be a secret.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::Misfit;

/// The longest message, in bytes: much of it can come out of the schema.
const MAX_MESSAGE: usize = 500;

/// Names or values that a message lists.
const MAX_LISTED: usize = 12;

/// Alternatives that a message describes.
const MAX_ALTERNATIVES: usize = 4;

/// Alternatives within alternatives that are looked into.
const MAX_NESTED: usize = 3;

/// Adds what an error stands for: one misfit, or those of the alternative that was meant.
pub(super) fn misfits(error: &ValidationError<'_>, document: &Value, told: &mut Vec<Misfit>) {
    let mut error = error;
    for _ in 0..MAX_NESTED {
        let Some(meant) = alternatives(error).and_then(|alternatives| meant(error, alternatives))
        else {
            break;
        };
        if let [only] = meant {
            error = only;
            continue;
        }
        told.extend(meant.iter().map(|error| misfit(error, document)));
        return;
    }
    told.push(misfit(error, document));
}

fn misfit(error: &ValidationError<'_>, document: &Value) -> Misfit {
    Misfit {
        pointer: bounded(error.instance_path().as_str().to_owned()),
        message: bounded(message(error, document, MAX_NESTED)),
    }
}

/// The text, cut off where it gets too long.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE));
        text.push('…');
    }
    text
}

fn alternatives<'a>(error: &'a ValidationError<'_>) -> Option<&'a [Vec<ValidationError<'static>>]> {
    match error.kind() {
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => Some(context),
        _ => None,
    }
}

/// The errors of the alternative that must have been meant: the only one that the value begins to fit.
fn meant<'a>(
    error: &ValidationError<'_>,
    alternatives: &'a [Vec<ValidationError<'static>>],
) -> Option<&'a [ValidationError<'static>]> {
    // Another type, or another fixed value, is another alternative.
    let is_other = |inner: &ValidationError<'_>| {
        inner.instance_path() == error.instance_path()
            && matches!(inner.kind(), Kind::Type { .. } | Kind::Constant { .. } | Kind::Enum { .. })
    };
    // In alternatives that are told apart by a member, its value decides.
    let is_other_tag = |inner: &ValidationError<'_>| {
        matches!(inner.kind(), Kind::Constant { .. })
            && inner.instance_path().as_str().starts_with(error.instance_path().as_str())
    };
    let begun = |errors: &&'a Vec<ValidationError<'static>>| {
        !errors.iter().any(|inner| is_other(inner) || is_other_tag(inner))
    };
    let mut begun = alternatives.iter().filter(begun);
    match (begun.next(), begun.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

fn message(error: &ValidationError<'_>, document: &Value, nested: usize) -> String {
    if let Some(alternatives) = alternatives(error) {
        return of_alternatives(error, alternatives, document, nested);
    }
    match error.kind() {
        Kind::Type { kind } => {
            format!("is {}; {} is needed", kind_of(error.instance()), needed(kind))
        }
        Kind::Required { property } => format!("lacks {}, which is required", quoted(property)),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            unknown_members(unexpected, &known_members(error, document))
        }
        Kind::Enum { options } => format!("is not {}", one_of(&values(options))),
        Kind::Constant { expected_value } => format!("is not {expected_value}"),
        Kind::Pattern { pattern } => format!("does not match the pattern `{pattern}`"),
        Kind::PropertyNames { error } => {
            format!("has a member whose name {}", message(error, document, nested))
        }
        Kind::FalseSchema => "is not allowed".to_owned(),
        Kind::Not { .. } => "has a form that is ruled out".to_owned(),
        Kind::OneOfMultipleValid { .. } => {
            "has several of the forms of which exactly one is allowed".to_owned()
        }
        Kind::AdditionalItems { limit } => format!("has more than {limit} items"),
        Kind::UnevaluatedItems { .. } => "has more items than are known".to_owned(),
        Kind::Contains => "has no item of the kind that is needed".to_owned(),
        Kind::UniqueItems => "has an item twice; each may stand there once".to_owned(),
        // What is left compares the value with a limit, and reads well without the value.
        _ => error.masked_with("").to_string().trim().to_owned(),
    }
}

fn of_alternatives(
    error: &ValidationError<'_>,
    alternatives: &[Vec<ValidationError<'static>>],
    document: &Value,
    nested: usize,
) -> String {
    let mut fixed = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for errors in alternatives {
        match errors.first().map(|error| (error, error.kind())) {
            Some((inner, Kind::Constant { expected_value }))
                if inner.instance_path() == error.instance_path() =>
            {
                fixed.push(expected_value.to_string());
            }
            Some((inner, Kind::Enum { options }))
                if inner.instance_path() == error.instance_path() =>
            {
                fixed.extend(values(options));
            }
            Some((inner, _)) if nested > 0 => {
                let below = inner.instance_path().as_str();
                let below = below.strip_prefix(error.instance_path().as_str()).unwrap_or(below);
                let said = message(inner, document, nested - 1);
                others.push(if below.is_empty() { said } else { format!("{below} {said}") });
            }
            _ => others.push("has another form".to_owned()),
        }
    }
    others.dedup();
    if !fixed.is_empty() {
        others.insert(0, format!("is not {}", one_of(&fixed)));
    }
    match &others[..] {
        [only] => only.clone(),
        others => {
            let listed: Vec<_> = others.iter().take(MAX_ALTERNATIVES).map(String::as_str).collect();
            format!("has none of the forms that are allowed: it {}", listed.join("; or it "))
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    with_article(match value {
        // A number that happens to be whole is an integer to a schema.
        Value::Number(number) if number.is_i64() || number.is_u64() => JsonType::Integer,
        other => JsonType::from(other),
    })
}

fn needed(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(kind) => with_article(*kind).to_owned(),
        TypeKind::Multiple(kinds) => {
            // Null is the exception, and comes last.
            let (null, others): (Vec<_>, Vec<_>) =
                kinds.iter().partition(|kind| *kind == JsonType::Null);
            let kinds = others.into_iter().chain(null);
            listed(&kinds.map(|kind| with_article(kind).to_owned()).collect::<Vec<_>>(), "or")
        }
    }
}

fn with_article(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "a list",
        JsonType::Object => "an object",
    }
}

fn unknown_members(unexpected: &[String], known: &[String]) -> String {
    let quoted: Vec<_> = unexpected.iter().map(|name| format!("`{name}`")).collect();
    let (which, verb) = if quoted.len() == 1 { ("", "is") } else { ("the members ", "are") };
    let unknown = format!("has {which}{}, which {verb} not known", listed(&quoted, "and"));
    match known {
        [] => format!("{unknown}; no members are"),
        known => format!("{unknown}; there is {}", listed(known, "and")),
    }
}

/// The names of the members that the schema beside the failed keyword has.
fn known_members(error: &ValidationError<'_>, document: &Value) -> Vec<String> {
    let keyword = error.schema_path().as_str();
    let schema = keyword.rfind('/').and_then(|end| document.pointer(keyword.get(..end)?));
    let members = schema.and_then(|schema| schema.get("properties")?.as_object());
    members.into_iter().flatten().map(|(name, _)| format!("`{name}`")).collect()
}

fn values(options: &Value) -> Vec<String> {
    options.as_array().into_iter().flatten().map(ToString::to_string).collect()
}

fn quoted(name: &Value) -> String {
    name.as_str().map_or_else(|| name.to_string(), |name| format!("`{name}`"))
}

fn one_of(values: &[String]) -> String {
    match values {
        [only] => only.clone(),
        several => format!("one of {}", listed(several, "and")),
    }
}

/// A list in words, cut off where it gets long.
fn listed(names: &[String], last: &str) -> String {
    if let Some((shown, rest)) = names.split_at_checked(MAX_LISTED)
        && !rest.is_empty()
    {
        return format!("{} {last} {} more", shown.join(", "), rest.len());
    }
    match names {
        [] => String::new(),
        [only] => only.clone(),
        [others @ .., end] => format!("{} {last} {end}", others.join(", ")),
    }
}
