//! The event: the value that travels the whole path, and the names it carries.

pub mod operational;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use url::Url;
use uuid::Uuid;

/// One internal event of a tenant, immutable from the moment it is accepted.
#[derive(Debug, Clone)]
pub struct Event {
    /// The tenant that it belongs to.
    pub tenant: Arc<str>,
    /// Unique in its tenant.
    pub id: EventId,
    /// What happened, such as `order.paid`.
    pub event_type: EventType,
    /// When it happened, to the microsecond.
    pub timestamp: Timestamp,
    /// When the gateway accepted it, to the microsecond.
    pub accepted_at: Timestamp,
    /// Any JSON, byte for byte as the producer sent it; valid UTF-8.
    pub data: Bytes,
    /// Small labels, in the producer's order.
    pub attributes: Vec<(String, String)>,
    /// Events of a tenant that share a key are meant to stay in order.
    pub ordering_key: Option<String>,
    /// Where it is delivered beside the webhooks that match it, as its producer asked.
    pub webhook_url: Option<Url>,
}

impl Event {
    /// `data` as text.
    #[must_use]
    pub fn data_text(&self) -> &str {
        // Ingest parsed the data as JSON, which is UTF-8; a store that returned anything else is
        // corrupt, and an empty text then fails in the plugin or at the receiver, not here.
        std::str::from_utf8(&self.data).unwrap_or_default()
    }
}

/// An event's id: given by the producer, or `evt_` and a UUIDv7 in 32 hexadecimal digits.
///
/// It is part of what a webhook's signature covers, where a full stop separates the fields, so it
/// never contains one (Standard Webhooks 1.0.0, "Signature scheme").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Arc<str>);

impl EventId {
    /// The longest id a producer may give, in bytes.
    pub const MAX_LEN: usize = 128;

    /// A new id, later than all earlier ones of this process.
    #[must_use]
    pub fn generate() -> Self {
        Self(format!("evt_{}", Uuid::now_v7().simple()).into())
    }

    /// The id that these bytes stand for, of the same form as a new one.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
        Self(format!("evt_{}", id.simple()).into())
    }

    /// Reads a producer's id.
    ///
    /// # Errors
    /// When it is empty, too long, or has a character outside `A-Z a-z 0-9 _ -`.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
        if text.is_empty() {
            return Err(InvalidName("must not be empty".to_owned()));
        }
        if text.len() > Self::MAX_LEN {
            return Err(InvalidName(format!(
                "is {} bytes long; at most {} are allowed",
                text.len(),
                Self::MAX_LEN
            )));
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii() || !allowed(*c as u8)) {
            return Err(InvalidName(format!(
                "has the character {bad:?}; letters, digits, `_` and `-` are allowed"
            )));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `webhook-id` of a part, counted from 1: the first part carries the event's own id.
    ///
    /// Receivers tell messages apart by this id, so a part must never look like another event. The
    /// gateway's own ids take `-2`; a producer could use `order-2` as an id itself, so behind a
    /// producer's id stands `~2`, which no producer's id can contain.
    #[must_use]
    pub fn of_part(&self, part: u32) -> String {
        match part {
            0 | 1 => self.0.to_string(),
            _ if self.is_generated() => format!("{}-{part}", self.0),
            _ => format!("{}~{part}", self.0),
        }
    }

    fn is_generated(&self) -> bool {
        self.0.strip_prefix("evt_").is_some_and(|rest| {
            rest.len() == 32 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// Whether a producer may not use this id, because a part of a generated event could carry it.
    #[must_use]
    pub fn looks_like_part(&self) -> bool {
        self.0.rsplit_once('-').is_some_and(|(event, part)| {
            Self(event.into()).is_generated() && part.bytes().all(|b| b.is_ascii_digit())
        })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event's type: names of `A-Z a-z 0-9 _ -`, separated by single full stops.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(Arc<str>);

impl EventType {
    /// The longest type, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Reads an event type.
    ///
    /// # Errors
    /// When it is too long, or is not names separated by full stops.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.len() > Self::MAX_LEN {
            return Err(InvalidName(format!(
                "is {} bytes long; at most {} are allowed",
                text.len(),
                Self::MAX_LEN
            )));
        }
        match text.split('.').find(|name| !is_type_name(name)) {
            None => Ok(Self(text.into())),
            Some("") => Err(InvalidName(format!(
                "{text:?} has an empty name; write names separated by single full stops, such as `order.paid`"
            ))),
            Some(name) => Err(InvalidName(format!(
                "has the name {name:?}; letters, digits, `_` and `-` are allowed between full stops"
            ))),
        }
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the gateway itself tells this; no producer may.
    #[must_use]
    pub fn is_operational(&self) -> bool {
        self.0.starts_with(operational::PREFIX)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A time as precise as it is kept: what a plugin sees must not differ before and after a restart.
#[must_use]
pub fn to_microsecond(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// Whether `name` can stand between the full stops of an event type.
#[must_use]
pub fn is_type_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Why a name is refused: a phrase that follows the field's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName(pub String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_ascend_and_hold_no_full_stop() {
        let ids: Vec<_> = (0..1000).map(|_| EventId::generate()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.as_str().len() == 36 && !id.as_str().contains('.')));
        assert!(ids.iter().all(|id| EventId::parse(id.as_str()).as_ref() == Ok(id)));
        let derived = EventId::from_bytes([0xff; 16]);
        assert!(derived.is_generated(), "{derived}");
        assert_eq!(derived, EventId::from_bytes([0xff; 16]));
    }

    #[test]
    fn part_ids_never_collide_with_event_ids() {
        let generated = EventId::generate();
        assert_eq!(generated.of_part(1), generated.as_str());
        assert_eq!(generated.of_part(2), format!("{generated}-2"));
        assert!(EventId::parse(&generated.of_part(2)).unwrap().looks_like_part());

        let given = EventId::parse("order-2").unwrap();
        assert!(!given.looks_like_part());
        assert_eq!(given.of_part(3), "order-2~3");
        assert!(EventId::parse(&given.of_part(3)).is_err());
    }

    #[test]
    fn bad_ids_say_what_is_wrong() {
        for (text, expected) in [
            ("", "must not be empty"),
            ("a.b", "has the character '.'"),
            ("é", "has the character 'é'"),
            (&"x".repeat(129), "is 129 bytes long"),
        ] {
            let message = EventId::parse(text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text:?}: {message}");
        }
    }

    #[test]
    fn event_types_are_names_between_full_stops() {
        for good in ["a", "order.paid", "hookmill.plugin-x.loaded_2"] {
            assert!(EventType::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "order.*", "ä"] {
            assert!(EventType::parse(bad).is_err(), "{bad}");
        }
    }
}
