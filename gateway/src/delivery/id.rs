//! The ids of deliveries and webhooks, and what all ids have in common that the gateway makes.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

/// Defines an id that is a UUIDv7, shown with a prefix and 32 hexadecimal digits.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// A new id, later than all earlier ones of this process.
            #[must_use]
            pub fn generate() -> Self {
                Self(uuid::Uuid::now_v7())
            }

            /// Reads an id as it is shown.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let digits = text.strip_prefix($prefix).filter(|digits| digits.len() == 32)?;
                uuid::Uuid::try_parse(digits).ok().map(Self)
            }

            /// The id as it is stored.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id that `as_bytes` gave.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Uuid::from_bytes(bytes))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }
    };
}

pub(crate) use uuid_id;

uuid_id! {
    /// The id of a delivery, shown as `dlv_` and a `UUIDv7` in 32 hexadecimal digits.
    DeliveryId, "dlv_"
}

impl DeliveryId {
    /// An id below all that were made then or later.
    #[must_use]
    pub fn before(time: Timestamp) -> Self {
        let millis = u128::try_from(time.as_millisecond()).unwrap_or(0);
        Self(Uuid::from_u128(millis << 80))
    }
}

/// The id of a webhook, `wh_` and 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookId(pub Arc<str>);

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
