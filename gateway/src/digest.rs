//! Content hashes: what names a plugin's version and hides an API key.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The hash of these parts, each with its length, so that no two lists of parts look alike.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// The hash that `as_bytes` gave.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash that these 64 hexadecimal digits, in lower case, stand for.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        let pairs = text.as_bytes().chunks_exact(2);
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let &[high, low] = pair else { return None };
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Self(bytes))
    }

    /// The first 16 bytes, as 32 hexadecimal digits.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(32);
        text
    }

    /// The first 12 digits: enough to tell a plugin's versions apart and to pin one by.
    #[must_use]
    pub fn brief(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The first digits of a hash, enough of them to tell it from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DigestPrefix(String);

impl DigestPrefix {
    /// The fewest digits: whoever names a hash by less names another one soon.
    pub const MIN_DIGITS: usize = 8;

    /// The prefix that this text is, in lower or upper case.
    ///
    /// # Errors
    /// In a phrase that follows the name of what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let needed = Self::MIN_DIGITS..=64;
        if !needed.contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!(
                "is {text:?}; the first hexadecimal digits of a SHA-256 hash are needed, at least {} of its 64",
                Self::MIN_DIGITS
            ));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Whether the hash begins with these digits.
    #[must_use]
    pub fn fits(&self, digest: &Digest) -> bool {
        let digits = digest.0.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        let wanted = self.0.chars().filter_map(|digit| digit.to_digit(16));
        digits.zip(wanted).all(|(digit, wanted)| u32::from(digit) == wanted)
    }
}

impl From<Digest> for DigestPrefix {
    /// All of the digits.
    fn from(digest: Digest) -> Self {
        Self(digest.to_string())
    }
}

impl fmt::Display for DigestPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_vector() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            Digest::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(Digest::of_parts(&[b"ab", b"c"]), Digest::of_parts(&[b"a", b"bc"]));
    }

    #[test]
    fn a_hash_is_read_back_from_its_digits() {
        let digest = Digest::of(b"abc");
        let digits = digest.to_string();
        assert_eq!(Digest::parse(&digits), Some(digest));
        for wrong in [&digits[1..], &digits.to_uppercase(), &format!("{digits}0"), "", "é"] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_prefix_fits_what_begins_with_it() {
        let digest = Digest::of(b"abc");
        let digits = digest.to_string();
        for len in DigestPrefix::MIN_DIGITS..=digits.len() {
            assert!(DigestPrefix::parse(&digits[..len]).unwrap().fits(&digest), "{len}");
            assert!(DigestPrefix::parse(&digits[..len].to_uppercase()).unwrap().fits(&digest));
        }
        assert!(!DigestPrefix::parse("ba7816be").unwrap().fits(&digest));
        for wrong in ["ba7816b", "", "ba7816bg", "ba7816bé", &format!("{digits}0")] {
            assert!(DigestPrefix::parse(wrong).unwrap_err().contains("at least 8 of its 64"));
        }
    }
}
