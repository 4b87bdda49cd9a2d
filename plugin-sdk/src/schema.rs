//! A plugin's config: the type that it is read into, and the JSON Schema by which the gateway checks it.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::event::{AnyConfig, Context};

/// A type that a plugin's config is read into.
///
/// The attribute [`config`](macro@crate::config) implements it, and describes the type by a JSON Schema. The gateway
/// checks every webhook's config by that schema when it starts, when the configuration changes, and when
/// the plugin is replaced; so a mistake is refused where it is made, and not found at the first event.
///
/// A type without the attribute is refused:
///
/// ```compile_fail,E0277
/// use hookmill_plugin::{Context, Event, Verdict, transform};
///
/// #[derive(serde::Deserialize)]
/// struct Limit { at: u64 }
///
/// #[transform]
/// fn limit(event: Event<u64>, context: Context<Limit>) -> Verdict {
///     Verdict::unchanged()
/// }
/// # fn main() {}
/// ```
///
/// For a type that cannot be described, an empty implementation says so; its configs are checked by nobody
/// but the plugin:
///
/// ```
/// use hookmill_plugin::{Config, Context, Event, Verdict, transform};
///
/// #[derive(serde::Deserialize)]
/// struct Limit { at: u64 }
///
/// impl Config for Limit {}
///
/// #[transform]
/// fn limit(event: Event<u64>, context: Context<Limit>) -> Verdict {
///     if event.payload > context.config.at { Verdict::drop("over the limit") } else { Verdict::unchanged() }
/// }
/// # fn main() {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a plugin's config: nothing says what it accepts",
    label = "this type is not a config",
    note = "put `#[hookmill_plugin::config]` on `{Self}`, in place of `#[derive(Deserialize)]`",
    note = "or leave its configs unchecked: `impl hookmill_plugin::Config for {Self} {{}}`"
)]
pub trait Config {
    /// What configs look like; none when any JSON will do.
    fn schema() -> Option<Schema> {
        None
    }
}

/// Any JSON will do.
impl Config for AnyConfig {}

/// Any JSON will do.
impl Config for serde_json::Value {}

/// The JSON Schema (2020-12) of a type, as the gateway takes it.
///
/// ```
/// use hookmill_plugin::{config, schema_of};
///
/// /// When an order is large.
/// #[config]
/// struct Limit {
///     /// In the currency's hundredth.
///     at: u64,
/// }
///
/// let schema = schema_of::<Limit>();
/// let schema = schema.as_value();
/// assert_eq!(schema["description"], "When an order is large.");
/// assert_eq!(schema["properties"]["at"]["description"], "In the currency's hundredth.");
/// assert_eq!(schema["required"], serde_json::json!(["at"]));
/// assert_eq!(schema["additionalProperties"], false);
/// ```
#[cold]
pub fn schema_of<T: JsonSchema + ?Sized>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

/// The second parameter of a transform.
#[diagnostic::on_unimplemented(
    message = "the second parameter of a transform is a `Context<C>`",
    label = "`{Self}` is none"
)]
pub trait Parameter {
    /// The text of the schema of its config.
    fn config_schema() -> Option<String>;
}

impl<C: Config> Parameter for Context<C> {
    fn config_schema() -> Option<String> {
        C::schema().map(|schema| schema.as_value().to_string())
    }
}

/// The text of the schema of a transform's config; cold, since it is asked for once, and calls are not to pay for it.
/// A function rather than the method, so that the generated
/// code needs no trait in scope.
#[cold]
pub fn text_of<P: Parameter>() -> Option<String> {
    P::config_schema()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    /// Everything at once.
    #[crate::config]
    #[derive(Debug, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Everything<'a> {
        /// How many.
        how_many: u8,
        #[serde(borrow)]
        name: Option<Cow<'a, str>>,
        by_name: BTreeMap<String, Inner>,
        mode: Mode,
    }

    #[crate::config]
    #[derive(Debug)]
    struct Inner {
        required: bool,
    }

    #[crate::config]
    #[derive(Debug, Default)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        On,
        Off,
    }

    #[crate::config]
    #[derive(Debug)]
    struct Open {
        known: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }

    fn parse<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_schema_says_what_is_read() {
        let schema = text_of::<Context<Everything<'_>>>().unwrap();
        let schema: Value = serde_json::from_str(&schema).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["description"], "Everything at once.");
        assert_eq!(schema["additionalProperties"], false);
        let properties = &schema["properties"];
        assert_eq!(properties["howMany"]["description"], "How many.");
        assert_eq!(properties["howMany"]["maximum"], 255);
        assert_eq!(properties["name"]["type"], json!(["string", "null"]));
        assert_eq!(schema["$defs"]["Inner"]["required"], json!(["required"]));
        assert_eq!(schema["$defs"]["Mode"]["enum"], json!(["on", "off"]));
    }

    #[test]
    fn what_the_schema_refuses_is_not_read_either() {
        let config =
            r#"{"howMany": 7, "name": "a", "mode": "off", "byName": {"x": {"required": true}}}"#;
        assert!(parse::<Everything<'_>>(config).unwrap().by_name["x"].required);
        assert!(
            parse::<Everything<'_>>(r#"{"how_many": 7}"#).unwrap_err().contains("unknown field")
        );
        assert!(
            parse::<Everything<'_>>(r#"{"byName": {"a": {"required": true, "x": 1}}}"#).is_err()
        );
    }

    #[test]
    fn flattened_members_are_open() {
        let open: Open = parse(r#"{"known": 1, "other": 2}"#).unwrap();
        assert_eq!((open.known, open.rest["other"].clone()), (1, json!(2)));
        assert_ne!(schema_of::<Open>().as_value()["additionalProperties"], false);
    }

    #[test]
    fn any_json_has_no_schema() {
        assert_eq!(text_of::<Context>(), None);
        assert_eq!(text_of::<Context<Value>>(), None);
    }
}
