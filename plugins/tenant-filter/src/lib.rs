//! Forwards or drops events by conditions in its config: filtering per tenant.
//!
//! ```json
//! {
//!   "tenants": {
//!     "acme": { "all": [
//!       { "field": "type", "prefix": "order." },
//!       { "field": "/total", "gte": 100 }
//!     ] },
//!     "globex": "drop"
//!   },
//!   "default": { "field": "attributes.region", "in": ["eu", "uk"] }
//! }
//! ```

mod compare;
mod condition;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use hookmill_plugin::schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use hookmill_plugin::{Context, Event, Verdict, config, transform};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use condition::Condition;

/// The plugin's config.
#[config]
#[derive(Debug, Default)]
#[serde(default)]
struct Config {
    /// What becomes of the events of each tenant, by its name.
    tenants: BTreeMap<String, Rule>,
    /// What becomes of the events of all other tenants: forwarded when absent.
    default: Rule,
}

/// What becomes of a tenant's events.
#[derive(Debug, Default)]
enum Rule {
    /// All are forwarded.
    #[default]
    Forward,
    /// All are dropped.
    Drop,
    /// Those that meet the condition are forwarded.
    When(Condition),
}

/// By hand, because an untagged enum would not say what is wrong with a condition.
impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RuleVisitor;

        impl<'de> Visitor<'de> for RuleVisitor {
            type Value = Rule;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`forward`, `drop` or a condition")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Rule, E> {
                match word {
                    "forward" => Ok(Rule::Forward),
                    "drop" => Ok(Rule::Drop),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Rule, A::Error> {
                Condition::deserialize(MapAccessDeserializer::new(map)).map(Rule::When)
            }
        }

        deserializer.deserialize_any(RuleVisitor)
    }
}

/// By hand, as the reading is.
impl JsonSchema for Rule {
    fn schema_name() -> Cow<'static, str> {
        "Rule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`forward`, `drop`, or a condition: those that meet it are forwarded.",
            "anyOf": [
                { "enum": ["forward", "drop"] },
                generator.subschema_for::<Condition>(),
            ],
        })
    }
}

/// Forwards events that meet the conditions of their tenant, byte for byte, and drops all others.
#[transform]
fn tenant_filter(event: Event<&RawValue>, context: Context<Config>) -> Verdict {
    let Config { tenants, default } = &context.config;
    match tenants.get(&event.tenant).unwrap_or(default) {
        Rule::Forward => Verdict::unchanged(),
        Rule::Drop => Verdict::drop(format!("all events of `{}` are dropped", event.tenant)),
        Rule::When(condition) => match condition.unmet(&event) {
            None => Verdict::unchanged(),
            Some(reason) => Verdict::drop(reason),
        },
    }
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    #[test]
    fn fixtures() {
        testing::fixtures(tenant_filter, "fixtures");
    }

    #[test]
    fn mistakes_in_the_config_are_named() {
        let rows = [
            (r#"{"tenant":{}}"#, "unknown field `tenant`"),
            (r#"{"default":{"field":"type"}}"#, "needs a test"),
            (r#"{"default":{"field":"kind","exists":true}}"#, "`kind`"),
            (r#"{"default":{"field":"type","starts":"a"}}"#, "`starts`"),
            (r#"{"default":{"all":[],"any":[]}}"#, "exactly one of"),
            (r#"{"default":{"field":"/a","gt":true}}"#, "a number or a string"),
            (r#"{"default":"keep"}"#, "`forward`, `drop` or a condition"),
        ];
        for (config, part) in rows {
            let failure = testing::run(tenant_filter, "{}", config).unwrap_err();
            assert!(failure.message().contains(part), "{failure}");
        }
    }
}
