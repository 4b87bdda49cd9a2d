//! A webhook, as lines of the configuration.

use serde_json::{Value, json};

use crate::receiver::SECRET;

/// A webhook of the tenant `acme`.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub(crate) name: String,
    /// Lines of its table, but for its name.
    pub(crate) settings: Vec<String>,
}

impl Webhook {
    /// A signed webhook for all events, tried twice, a tenth of a second apart.
    #[must_use]
    pub fn new(name: &str, url: &str) -> Self {
        let webhook = Self { name: name.to_owned(), settings: Vec::new() };
        webhook
            .set("url", &json!(url))
            .set("event_types", &json!(["*"]))
            .set("secrets", &json!([SECRET]))
            .set("retry", &json!(["100ms"]))
    }

    /// The same with one setting changed. JSON strings, numbers, booleans and lists are TOML too.
    #[must_use]
    pub fn set(mut self, name: &str, value: &Value) -> Self {
        let begins = format!("{name} = ");
        self.settings.retain(|setting| !setting.starts_with(&begins));
        self.settings.push(format!("{begins}{}", toml(value)));
        self
    }

    /// The same with these plugins, each with its config.
    #[must_use]
    pub fn plugins(self, plugins: &[(&str, Value)]) -> Self {
        let plugins: Vec<_> = plugins
            .iter()
            .map(|(name, config)| json!({ "name": name, "config": config }))
            .collect();
        self.set("plugins", &Value::Array(plugins))
    }

    /// Its table in the configuration.
    pub(crate) fn declared(&self) -> String {
        format!("[[tenants.webhooks]]\nname = \"{}\"\n{}", self.name, self.settings.join("\n"))
    }

    /// The same for these event types.
    #[must_use]
    pub fn events(self, globs: &[&str]) -> Self {
        self.set("event_types", &json!(globs))
    }
}

/// JSON as an inline TOML value.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{} = {}", json!(key), toml(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
