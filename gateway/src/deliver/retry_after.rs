//! `Retry-After`: how long a receiver asks to be left alone (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

/// How long to wait: from seconds, or until an HTTP date in any of its three forms. A time in the past is no
/// wait at all. None when the value is neither, since nothing can be made of it.
pub(super) fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let digits = value.strip_prefix('-').unwrap_or(value);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        if digits != value {
            return Some(Duration::ZERO);
        }
        // More seconds than a number holds are still a wish for a long wait.
        return Some(Duration::from_secs(digits.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the date of the RFC's examples.
    const EXAMPLE: u64 = 784_111_777;

    #[test]
    fn seconds_and_the_three_forms_of_a_date_are_understood() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(EXAMPLE - 90);
        for (value, seconds) in [
            ("0", 0),
            ("120", 120),
            (" 120 ", 120),
            ("-5", 0),
            ("3155760000", 3_155_760_000),
            ("99999999999999999999999999", u64::MAX),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 90),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 90),
            ("Sun Nov  6 08:49:37 1994", 90),
            ("Sun, 06 Nov 1994 08:40:00 GMT", 0),
        ] {
            assert_eq!(parse(value, now), Some(Duration::from_secs(seconds)), "{value:?}");
        }
    }

    #[test]
    fn garbage_is_ignored() {
        for value in ["", "-", "soon", "1.5", "1e9", "+7", "0x10", "12 s", "Sun, 06 Nov", "--1"] {
            assert_eq!(parse(value, SystemTime::now()), None, "{value:?}");
        }
    }
}
