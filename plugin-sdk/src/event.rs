//! What a transform is given: the event, and for whom it is transformed.

use serde::de::{Deserialize, Deserializer, IgnoredAny};

/// An event, with its payload as `T`.
///
/// On its way through a chain of plugins, the payload is what the plugin before this one forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<T = serde_json::Value> {
    /// Unique in the tenant; the same on every retry. Never contains a full stop.
    pub id: String,
    /// Names separated by full stops, such as `order.paid`.
    pub event_type: String,
    /// The tenant that the event belongs to.
    pub tenant: String,
    /// When the event happened: RFC 3339, in UTC.
    pub timestamp: String,
    /// The event's data.
    pub payload: T,
    /// Small labels that the producer attached: names and values.
    pub attributes: Vec<(String, String)>,
    /// Values that later versions of the contract add: names and values. None in 1.0.
    pub extensions: Vec<(String, String)>,
}

impl<T> Event<T> {
    /// The value of the attribute `name`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        value_of(&self.attributes, name)
    }

    /// Takes the payload out, and puts another in its place.
    pub fn replace_payload<U>(self, payload: U) -> (T, Event<U>) {
        let event = Event {
            id: self.id,
            event_type: self.event_type,
            tenant: self.tenant,
            timestamp: self.timestamp,
            payload,
            attributes: self.attributes,
            extensions: self.extensions,
        };
        (self.payload, event)
    }
}

/// For whom an event is transformed, with this plugin's config as `C`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context<C = AnyConfig> {
    /// The webhook's id.
    pub webhook_id: String,
    /// The webhook's name, unique in its tenant.
    pub webhook_name: String,
    /// Labels that the webhook's owner attached: names and values.
    pub webhook_metadata: Vec<(String, String)>,
    /// The delivery that this run is for; the same when the run is repeated after a crash.
    pub delivery_id: String,
    /// This plugin's config for this webhook. It is read from `{}` when none was given, so a struct
    /// whose fields all have defaults needs no config.
    pub config: C,
    /// Values that later versions of the contract add: names and values. None in 1.0.
    pub extensions: Vec<(String, String)>,
}

impl<C> Context<C> {
    /// The value of the label `name` that the webhook's owner attached.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        value_of(&self.webhook_metadata, name)
    }

    /// Takes the config out, and puts another in its place.
    pub fn replace_config<D>(self, config: D) -> (C, Context<D>) {
        let context = Context {
            webhook_id: self.webhook_id,
            webhook_name: self.webhook_name,
            webhook_metadata: self.webhook_metadata,
            delivery_id: self.delivery_id,
            config,
            extensions: self.extensions,
        };
        (self.config, context)
    }
}

/// The config of a plugin that has none: any JSON is accepted, and ignored. Plain `Context` has it;
/// `Context<()>` would accept nothing but `null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnyConfig;

impl<'de> Deserialize<'de> for AnyConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

fn value_of<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn attributes_and_metadata_are_found_by_name() {
        let mut event = testing::event(());
        event.attributes.push(("region".to_owned(), "eu".to_owned()));
        assert_eq!(event.attribute("region"), Some("eu"));
        assert_eq!(event.attribute("Region"), None);

        let mut context = testing::context(());
        context.webhook_metadata.push(("team".to_owned(), "billing".to_owned()));
        assert_eq!(context.metadata("team"), Some("billing"));
    }

    #[test]
    fn any_config_accepts_any_json() {
        for config in ["{}", "null", "[1,2]", r#"{"a":{"b":"c"}}"#] {
            assert_eq!(serde_json::from_str::<AnyConfig>(config).ok(), Some(AnyConfig));
        }
    }
}
