//! Conditions: what is written in the config, and whether an event meets it.

use std::cmp::Ordering;
use std::fmt;

use hookmill_plugin::json::Pointer;
use hookmill_plugin::{Event, config};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::compare::{contains, equal, order};

/// A condition on an event.
#[config]
#[derive(Debug)]
#[serde(try_from = "Fields")]
pub(crate) enum Condition {
    /// Every one of these is met.
    All(Vec<Self>),
    /// At least one of these is met.
    Any(Vec<Self>),
    /// Every test of the field holds.
    Field(Field, Vec<Test>),
}

impl Condition {
    /// Why the event does not meet the condition, or nothing if it does. The reason names the
    /// condition but not the event's values, which may be none of the reader's business.
    pub(crate) fn unmet(&self, event: &Event<&RawValue>) -> Option<String> {
        match self {
            Self::All(conditions) => conditions.iter().find_map(|one| one.unmet(event)),
            Self::Any(conditions) => {
                let mut reasons = Vec::with_capacity(conditions.len());
                for condition in conditions {
                    reasons.push(condition.unmet(event)?);
                }
                Some(format!("none of these holds: {}", reasons.join("; ")))
            }
            Self::Field(field, tests) => {
                let value = field.of(event);
                let failed = tests.iter().find(|test| !test.holds(value.as_ref()))?;
                Some(format!("`{field}` fails `{failed}`"))
            }
        }
    }
}

/// What a condition looks at.
#[derive(Debug)]
pub(crate) enum Field {
    /// The event's type: `type`.
    Type,
    /// An attribute of the event: `attributes.NAME`.
    Attribute(String),
    /// A value in the payload: a JSON pointer.
    Payload(Pointer),
}

impl Field {
    fn of(&self, event: &Event<&RawValue>) -> Option<Value> {
        match self {
            Self::Type => Some(Value::String(event.event_type.clone())),
            Self::Attribute(name) => event.attribute(name).map(Value::from),
            Self::Payload(pointer) => serde_json::from_str(pointer.get(event.payload)?.get()).ok(),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("attributes.")) {
            ("type", _) => Ok(Self::Type),
            (_, Some(name)) => Ok(Self::Attribute(name.to_owned())),
            _ if text.is_empty() || text.starts_with('/') => {
                text.parse().map(Self::Payload).map_err(|error| format!("{error}"))
            }
            _ => Err(format!(
                "`{text}` is no field: there are `type`, `attributes.NAME` and JSON pointers"
            )),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type => formatter.write_str("type"),
            Self::Attribute(name) => write!(formatter, "attributes.{name}"),
            Self::Payload(pointer) => pointer.fmt(formatter),
        }
    }
}

/// One test of a value. A value that is absent passes only `exists: false` and `not_equals`.
#[derive(Debug)]
pub(crate) enum Test {
    Exists(bool),
    Equals(Value),
    NotEquals(Value),
    In(Vec<Value>),
    Order(Comparison, Value),
    Prefix(String),
    Contains(Value),
}

/// A comparison of two numbers or two strings.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Comparison {
    Gt,
    Gte,
    Lt,
    Lte,
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::Exists(false) | Self::NotEquals(_));
        };
        match self {
            Self::Exists(wanted) => *wanted,
            Self::Equals(other) => equal(value, other),
            Self::NotEquals(other) => !equal(value, other),
            Self::In(others) => others.iter().any(|other| equal(value, other)),
            Self::Order(comparison, other) => {
                order(value, other).is_some_and(|order| comparison.accepts(order))
            }
            Self::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
            Self::Contains(part) => contains(value, part),
        }
    }
}

impl Comparison {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Gt => order.is_gt(),
            Self::Gte => order.is_ge(),
            Self::Lt => order.is_lt(),
            Self::Lte => order.is_le(),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(wanted) => write!(formatter, "exists {wanted}"),
            Self::Equals(value) => write!(formatter, "equals {value}"),
            Self::NotEquals(value) => write!(formatter, "not_equals {value}"),
            Self::In(values) => write!(formatter, "in {}", Value::Array(values.clone())),
            Self::Order(Comparison::Gt, value) => write!(formatter, "gt {value}"),
            Self::Order(Comparison::Gte, value) => write!(formatter, "gte {value}"),
            Self::Order(Comparison::Lt, value) => write!(formatter, "lt {value}"),
            Self::Order(Comparison::Lte, value) => write!(formatter, "lte {value}"),
            Self::Prefix(prefix) => write!(formatter, "prefix {prefix:?}"),
            Self::Contains(value) => write!(formatter, "contains {value}"),
        }
    }
}

/// Either `all` or `any` of conditions, or a field with the tests that must hold.
#[config]
#[derive(Debug)]
#[schemars(extend("oneOf" = [
    { "required": ["all"], "maxProperties": 1 },
    { "required": ["any"], "maxProperties": 1 },
    { "required": ["field"], "minProperties": 2 },
]))]
struct Fields {
    /// Conditions that are all met.
    all: Option<Vec<Condition>>,
    /// Conditions of which at least one is met.
    any: Option<Vec<Condition>>,
    /// `type`, `attributes.NAME`, or a JSON pointer into the payload.
    #[schemars(regex(pattern = r"^(type|attributes\..*|(/([^~/]|~[01])*)*)$"))]
    field: Option<String>,
    /// Whether there is a value; `null` is one.
    exists: Option<bool>,
    /// The value. Numbers are compared by value: 7 equals 7.0.
    equals: Option<Value>,
    /// Any other value, or none.
    not_equals: Option<Value>,
    /// The values of which it is one.
    r#in: Option<Vec<Value>>,
    /// What it is greater than.
    #[schemars(extend("type" = ["number", "string"]))]
    gt: Option<Value>,
    /// What it is greater than, or equal to.
    #[schemars(extend("type" = ["number", "string"]))]
    gte: Option<Value>,
    /// What it is less than.
    #[schemars(extend("type" = ["number", "string"]))]
    lt: Option<Value>,
    /// What it is less than, or equal to.
    #[schemars(extend("type" = ["number", "string"]))]
    lte: Option<Value>,
    /// What a string begins with.
    prefix: Option<String>,
    /// A part of a string, or an item of a list.
    contains: Option<Value>,
}

impl TryFrom<Fields> for Condition {
    type Error = String;

    fn try_from(mut fields: Fields) -> Result<Self, String> {
        let (all, any, field) = (fields.all.take(), fields.any.take(), fields.field.take());
        let tests = fields.into_tests()?;
        match (all, any, field) {
            (Some(conditions), None, None) if tests.is_empty() => Ok(Self::All(conditions)),
            (None, Some(conditions), None) if tests.is_empty() => Ok(Self::Any(conditions)),
            (None, None, Some(field)) if tests.is_empty() => {
                Err(format!("the condition on `{field}` needs a test"))
            }
            (None, None, Some(field)) => Ok(Self::Field(Field::parse(&field)?, tests)),
            _ => Err("a condition has exactly one of `all`, `any`, and `field` with tests".into()),
        }
    }
}

impl Fields {
    fn into_tests(self) -> Result<Vec<Test>, String> {
        let orders = [
            (Comparison::Gt, self.gt),
            (Comparison::Gte, self.gte),
            (Comparison::Lt, self.lt),
            (Comparison::Lte, self.lte),
        ];
        let mut tests: Vec<Test> = [
            self.exists.map(Test::Exists),
            self.equals.map(Test::Equals),
            self.not_equals.map(Test::NotEquals),
            self.r#in.map(Test::In),
            self.prefix.map(Test::Prefix),
            self.contains.map(Test::Contains),
        ]
        .into_iter()
        .flatten()
        .collect();
        for (comparison, value) in orders {
            let Some(value) = value else { continue };
            let test = Test::Order(comparison, value);
            match &test {
                Test::Order(_, Value::Number(_) | Value::String(_)) => tests.push(test),
                _ => return Err(format!("`{test}` needs a number or a string")),
            }
        }
        Ok(tests)
    }
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    fn unmet(condition: &str, payload: &str) -> Option<String> {
        let condition: Condition = serde_json::from_str(condition).unwrap();
        let mut event = testing::event(serde_json::from_str(payload).unwrap());
        event.attributes = vec![("region".to_owned(), "eu".to_owned())];
        condition.unmet(&event)
    }

    #[test]
    fn each_test_holds_or_fails() {
        let payload = r#"{"n": 7, "d": 19.990, "s": "order-7", "a": [1, "x"], "z": null}"#;
        let rows = [
            (r#""type", "equals": "order.paid""#, true),
            (r#""type", "prefix": "job.""#, false),
            (r#""attributes.region", "in": ["us", "eu"]"#, true),
            (r#""attributes.zone", "equals": "eu""#, false),
            (r#""/n", "gt": 6, "lte": 7.0"#, true),
            (r#""/n", "gte": 7, "lt": 7"#, false),
            (r#""/n", "gt": "6""#, false),
            (r#""/d", "equals": 19.99"#, true),
            (r#""/s", "prefix": "order-", "contains": "-7""#, true),
            (r#""/s", "gte": "order-8""#, false),
            (r#""/a", "contains": "x""#, true),
            (r#""/a", "contains": 2"#, false),
            (r#""/z", "exists": true"#, true),
            (r#""/absent", "exists": false, "not_equals": 1"#, true),
            (r#""/absent", "exists": true"#, false),
        ];
        for (condition, met) in rows {
            let reason = unmet(&format!("{{\"field\": {condition}}}"), payload);
            assert_eq!(reason.is_none(), met, "{condition}: {reason:?}");
        }
    }

    #[test]
    fn the_reason_names_the_condition_and_no_value() {
        let condition = r#"{"all": [
            {"field": "type", "exists": true},
            {"any": [{"field": "/n", "gt": 9}, {"field": "/s", "in": ["a", 1]}]}
        ]}"#;
        assert_eq!(
            unmet(condition, r#"{"n": 7}"#).as_deref(),
            Some("none of these holds: `/n` fails `gt 9`; `/s` fails `in [\"a\",1]`")
        );
        assert_eq!(unmet(condition, r#"{"s": 1}"#), None);
    }
}
