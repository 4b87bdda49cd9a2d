//! Which version of a plugin an event goes to: the one in the folder, a pinned one, or, for a share of the
//! events, the one that is being tried.

use std::fmt;

use crate::digest::{Digest, DigestPrefix};
use crate::event::EventId;

/// A version, as a chain names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// The one that the plugins folder holds.
    #[default]
    Latest,
    /// The one whose content hash begins like this, whatever the folder holds.
    Pinned(DigestPrefix),
}

impl Version {
    /// The word for the version in the folder.
    pub const LATEST: &str = "latest";

    /// The version that this text names.
    ///
    /// # Errors
    /// In a phrase that follows the name of what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == Self::LATEST {
            return Ok(Self::Latest);
        }
        DigestPrefix::parse(text).map(Self::Pinned).map_err(|error| {
            format!("{error}; or write {:?} for the plugins folder's", Self::LATEST)
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(Self::LATEST),
            Self::Pinned(prefix) => prefix.fmt(f),
        }
    }
}

/// A version that a share of the events goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// The version.
    pub version: Version,
    /// How many of the events.
    pub share: Share,
}

impl Canary {
    /// Whether an event goes to the canary. The event's id decides, so a run that is repeated comes to the
    /// same version, and events that are in a share are in every larger share too.
    #[must_use]
    pub(super) fn takes(&self, event: &EventId, webhook: &str, plugin: &str) -> bool {
        // The webhook and the plugin count as well, or the same events would be everybody's canaries.
        let parts = [event.as_str().as_bytes(), webhook.as_bytes(), plugin.as_bytes()];
        let [a, b, c, d, e, f, g, h, ..] = *Digest::of_parts(&parts).as_bytes();
        let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) % Share::WHOLE;
        place < self.share.0
    }
}

/// A share of all events, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u64);

impl Share {
    /// All events.
    const WHOLE: u64 = 10_000;

    /// The share that a text such as `5%` or `0.25%` names.
    ///
    /// # Errors
    /// In a phrase that follows the name of what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refusal =
            || format!("is {text:?}; a share such as \"5%\" is needed, from \"0.01%\" to \"100%\"");
        let number = text.strip_suffix('%').ok_or_else(refusal)?.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 2 {
            return Err(refusal());
        }
        let hundredths = format!("{whole}{fraction:0<2}").parse().map_err(|_| refusal())?;
        if !(1..=Self::WHOLE).contains(&hundredths) {
            return Err(refusal());
        }
        Ok(Self(hundredths))
    }

    /// The share as a number from 0 to 1.
    #[must_use]
    pub fn as_fraction(self) -> f64 {
        // At most 10,000, so this is exact.
        u32::try_from(self.0).map_or(1.0, f64::from) / 10_000.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 100, self.0 % 100);
        match fraction {
            0 => write!(f, "{whole}%"),
            tenths if tenths % 10 == 0 => write!(f, "{whole}.{}%", tenths / 10),
            _ => write!(f, "{whole}.{fraction:02}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        for (text, hundredths, shown) in [
            ("5%", 500, "5%"),
            ("100%", 10_000, "100%"),
            ("100.00%", 10_000, "100%"),
            ("0.25%", 25, "0.25%"),
            ("0.5 %", 50, "0.5%"),
            ("12.05%", 1_205, "12.05%"),
            ("0.01%", 1, "0.01%"),
        ] {
            let share = Share::parse(text).unwrap();
            assert_eq!((share.0, share.to_string()), (hundredths, shown.to_owned()), "{text}");
        }
        for wrong in ["5", "", "%", "0%", "0.001%", "100.01%", "-1%", "1e1%", ".5%", "5.%", "5%%"] {
            assert!(Share::parse(wrong).unwrap_err().contains("a share such as"), "{wrong}");
        }
        let endless = format!("{}%", "9".repeat(100));
        assert!(Share::parse(&endless).is_err());
    }

    #[test]
    fn versions_are_the_latest_or_a_hash() {
        assert_eq!(Version::parse("latest"), Ok(Version::Latest));
        let pinned = Version::parse("3F2A9C41").unwrap();
        assert_eq!(pinned.to_string(), "3f2a9c41");
        for wrong in ["", "Latest", "v1", "3f2a9c4"] {
            assert!(Version::parse(wrong).unwrap_err().contains("or write \"latest\""), "{wrong}");
        }
    }

    #[test]
    fn a_canary_takes_its_share_and_a_larger_one_takes_more_of_the_same() {
        let ids: Vec<_> = (0..20_000).map(|_| EventId::generate()).collect();
        let taken = |share: &str, webhook: &str| -> Vec<bool> {
            let share = Share::parse(share).unwrap();
            let canary = Canary { version: Version::Latest, share };
            ids.iter().map(|id| canary.takes(id, webhook, "redact")).collect()
        };
        let count = |taken: &[bool]| taken.iter().filter(|taken| **taken).count();
        let (small, large) = (taken("5%", "wh_1"), taken("20%", "wh_1"));
        // Five standard deviations of a binomial distribution.
        assert!((1_000 - 155..=1_000 + 155).contains(&count(&small)), "{}", count(&small));
        assert!((4_000 - 283..=4_000 + 283).contains(&count(&large)), "{}", count(&large));
        assert!(small.iter().zip(&large).all(|(small, large)| large >= small));
        assert_eq!(small, taken("5%", "wh_1"));
        assert_ne!(small, taken("5%", "wh_2"));
        assert_eq!(count(&taken("100%", "wh_1")), ids.len());
    }
}
