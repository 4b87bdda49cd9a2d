//! Signing: the headers by which a receiver knows who sent a request and that nobody changed it.
//!
//! The scheme is that of Standard Webhooks 1.0.0: the signed content is the id, the attempt's timestamp and
//! the body as sent, joined by full stops; `webhook-signature` lists one `v1,` signature for each key, so
//! that keys can be rotated without a gap.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The header that carries the message's id.
pub const ID_HEADER: &str = "webhook-id";
/// The header that carries the attempt's time, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header that carries the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// How far a signature's timestamp may be from the verifier's clock, in seconds, either way: the
/// tolerance of the reference libraries.
pub const TOLERANCE_SECS: i64 = 5 * 60;

/// A symmetric key, written as `whsec_` and base64. Never printed.
#[derive(Clone)]
pub struct Secret {
    keyed: Hmac<Sha256>,
}

impl Secret {
    /// Reads a secret.
    ///
    /// # Errors
    /// A phrase that says what is wrong without repeating the secret, to follow the field's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        const HOW: &str = "a secret is `whsec_` and 24 to 64 random bytes in base64; \
             `openssl rand -base64 32` makes such bytes";
        let encoded = text
            .strip_prefix("whsec_")
            .ok_or_else(|| format!("does not begin with `whsec_`; {HOW}"))?;
        let key =
            STANDARD.decode(encoded).map_err(|error| format!("is not base64 ({error}); {HOW}"))?;
        if !(24..=64).contains(&key.len()) {
            return Err(format!("holds {} bytes; {HOW}", key.len()));
        }
        let keyed = Hmac::new_from_slice(&key).map_err(|error| error.to_string())?;
        Ok(Self { keyed })
    }

    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The value of `webhook-signature`: a signature by each secret, in order; absent without secrets.
///
/// `timestamp` is the attempt's time, in seconds since 1970.
#[must_use]
pub fn signature(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    if secrets.is_empty() {
        return None;
    }
    let mut header = String::with_capacity(secrets.len() * 48);
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str("v1,");
        STANDARD
            .encode_string(secret.mac(id, timestamp, body).finalize().into_bytes(), &mut header);
    }
    Some(header)
}

/// Checks a request as a receiver would: any listed signature by any of the secrets will do.
///
/// # Errors
/// Why the request is not to be trusted.
pub fn verify(secrets: &[Secret], request: &Signed<'_>, now: i64) -> Result<(), Untrusted> {
    let timestamp: i64 = request.timestamp.parse().map_err(|_| Untrusted::BadTimestamp)?;
    if now.abs_diff(timestamp) > TOLERANCE_SECS.unsigned_abs() {
        return Err(Untrusted::OutsideTolerance);
    }
    let listed = request.signature.split(' ').filter_map(|item| item.strip_prefix("v1,"));
    for signature in listed.filter_map(|encoded| STANDARD.decode(encoded).ok()) {
        for secret in secrets {
            let mac = secret.mac(request.id, timestamp, request.body);
            if mac.verify_slice(&signature).is_ok() {
                return Ok(());
            }
        }
    }
    Err(Untrusted::NoMatch)
}

/// What a receiver got.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
    /// The body as received.
    pub body: &'a [u8],
}

/// Why a request is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untrusted {
    /// The timestamp is not a number.
    BadTimestamp,
    /// The timestamp is too far from now: the request may be a replay.
    OutsideTolerance,
    /// No signature was made by a known secret over this content.
    NoMatch,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadTimestamp => "webhook-timestamp is not a number of seconds",
            Self::OutsideTolerance => "webhook-timestamp is more than five minutes from now",
            Self::NoMatch => "no signature in webhook-signature matches",
        })
    }
}

impl std::error::Error for Untrusted {}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDC2FVsBQIhrscChlQ";

    fn secret(text: &str) -> Secret {
        Secret::parse(text).unwrap()
    }

    #[test]
    fn signs_the_published_vector() {
        // The example in the reference libraries of Standard Webhooks.
        let header = signature(
            &[secret(SECRET)],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(header.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn the_reference_library_accepts_every_key_of_a_rotation() {
        let body = br#"{"a":1}"#;
        let now = jiff::Timestamp::now().as_second();
        let header = signature(&[secret(SECRET), secret(OTHER)], "evt_1", now, body).unwrap();
        for text in [SECRET, OTHER] {
            let webhook = standardwebhooks::Webhook::new(text).unwrap();
            let mut headers = http::HeaderMap::new();
            headers.insert(ID_HEADER, "evt_1".parse().unwrap());
            headers.insert(TIMESTAMP_HEADER, now.to_string().parse().unwrap());
            headers.insert(SIGNATURE_HEADER, header.parse().unwrap());
            webhook.verify(body, &headers).unwrap();
        }
    }

    #[test]
    fn verifies_what_it_signed_and_nothing_else() {
        let header = signature(&[secret(SECRET)], "evt_1", 1000, b"body").unwrap();
        let good = Signed { id: "evt_1", timestamp: "1000", signature: &header, body: b"body" };
        let secrets = [secret(OTHER), secret(SECRET)];
        assert_eq!(verify(&secrets, &good, 1000 + TOLERANCE_SECS), Ok(()));
        assert_eq!(verify(&secrets[..1], &good, 1000), Err(Untrusted::NoMatch));
        assert_eq!(
            verify(&secrets, &good, 1001 + TOLERANCE_SECS),
            Err(Untrusted::OutsideTolerance)
        );
        for bad in [
            Signed { id: "evt_2", ..good },
            Signed { timestamp: "1001", ..good },
            Signed { body: b"Body", ..good },
            Signed { signature: "v1,AAAA v2,x", ..good },
        ] {
            assert_eq!(verify(&secrets, &bad, 1000), Err(Untrusted::NoMatch), "{bad:?}");
        }
        let bad = Signed { timestamp: "soon", ..good };
        assert_eq!(verify(&secrets, &bad, 1000), Err(Untrusted::BadTimestamp));
    }

    #[test]
    fn without_secrets_there_is_no_signature() {
        assert_eq!(signature(&[], "evt_1", 1000, b"body"), None);
    }

    #[test]
    fn bad_secrets_are_refused_and_not_repeated() {
        for (bad, why) in [
            ("hunter2hunter2", "does not begin with"),
            ("whsec_!!", "is not base64"),
            ("whsec_aHVudGVyMg==", "holds 7 bytes"),
            ("whsec_", "holds 0 bytes"),
        ] {
            let message = Secret::parse(bad).unwrap_err();
            assert!(message.contains(why), "{message}");
            assert!(!message.contains("hunter") && !message.contains("aHVudG"), "{message}");
        }
        assert_eq!(format!("{:?}", secret(SECRET)), "Secret(…)");
    }
}
