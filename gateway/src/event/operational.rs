//! The types of operational events: what the gateway itself tells of its work.

use super::EventType;

/// What the type of every operational event begins with, and no type of a producer's event.
pub const PREFIX: &str = "hookmill.";

/// Declares the types of operational events: variant and name.
macro_rules! operational_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What an operational event tells of.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Operational {
            $($(#[$doc])* $variant,)*
        }

        impl Operational {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The type's name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

operational_types! {
    /// A receiver took a delivery.
    DeliverySucceeded = "hookmill.delivery.succeeded";
    /// An attempt failed, and another one follows.
    DeliveryFailed = "hookmill.delivery.failed";
    /// An attempt failed, and none follows.
    DeliveryExhausted = "hookmill.delivery.exhausted";
    /// A version of a plugin runs from now on.
    PluginLoaded = "hookmill.plugin.loaded";
    /// A plugin's files are refused.
    PluginRejected = "hookmill.plugin.rejected";
    /// A plugin fails on one event after the other, so that deliveries are held.
    PluginFailing = "hookmill.plugin.failing";
    /// Nothing is sent to a webhook any more.
    WebhookDisabled = "hookmill.webhook.disabled";
    /// It is sent to again.
    WebhookEnabled = "hookmill.webhook.enabled";
}

impl Operational {
    /// The type of the events that tell of this.
    #[must_use]
    pub fn event_type(self) -> EventType {
        EventType(self.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_one_that_can_be_read_back_and_is_operational() {
        for one in Operational::ALL {
            let event_type = EventType::parse(one.as_str()).unwrap();
            assert_eq!(one.event_type(), event_type);
            assert!(event_type.is_operational(), "{event_type}");
        }
        for other in ["hookmill", "hookmills.delivery", "order.hookmill.paid"] {
            assert!(!EventType::parse(other).unwrap().is_operational(), "{other}");
        }
    }
}
