//! The snapshot: what is declared and loaded, compiled into one immutable value and swapped whole.

mod definition;

pub use self::definition::{BodyForm, KeyHash, PluginUse, TenantDefinition, WebhookDefinition};
