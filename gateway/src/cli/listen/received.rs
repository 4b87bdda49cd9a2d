//! A request as the receiver saw it: whether it can be trusted, and how it is shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::layout;
use crate::cli::terminal::{Paint, printable};
use crate::sign::{ID_HEADER, SIGNATURE_HEADER, Secret, Signed, TIMESTAMP_HEADER, verify};

/// A request and what was made of it.
pub(super) struct Received {
    pub(super) received_at: Timestamp,
    pub(super) head: Parts,
    pub(super) body: Body,
    pub(super) trust: Trust,
    pub(super) answered: StatusCode,
}

/// What came behind the headers.
pub(super) enum Body {
    /// All of it.
    Whole(Bytes),
    /// Too large, or broken off; with the reason.
    Unread(String),
}

/// Whether the request came from who knows the secret, unchanged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Verified,
    /// It did not; with the reason.
    Untrusted(String),
    /// No secret is known, so nobody can tell.
    Unknown,
}

/// How a request is told to programs.
#[derive(Serialize)]
struct Line<'a> {
    received_at: String,
    method: &'a str,
    path: String,
    headers: BTreeMap<&'a str, String>,
    id: Option<String>,
    verified: Option<bool>,
    reason: Option<&'a str>,
    answered: u16,
    /// Raw, so that its numbers and the order of its members stay as sent.
    body: Option<Box<RawValue>>,
}

impl Trust {
    pub(super) fn of(secrets: &[Secret], headers: &HeaderMap, body: &Body, now: Timestamp) -> Self {
        if secrets.is_empty() {
            return Self::Unknown;
        }
        let check = || {
            let body = match body {
                Body::Whole(bytes) => bytes,
                Body::Unread(why) => return Err(why.clone()),
            };
            let request = Signed {
                id: header(headers, ID_HEADER)?,
                timestamp: header(headers, TIMESTAMP_HEADER)?,
                signature: header(headers, SIGNATURE_HEADER)?,
                body,
            };
            verify(secrets, &request, now.as_second()).map_err(|untrusted| untrusted.to_string())
        };
        match check() {
            Ok(()) => Self::Verified,
            Err(why) => Self::Untrusted(why),
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, String> {
    headers
        .get(name)
        .ok_or_else(|| format!("no {name} header"))?
        .to_str()
        .map_err(|_| format!("the {name} header is not text"))
}

impl Received {
    /// One line of JSON.
    pub(super) fn json_line(&self) -> String {
        let (verified, reason) = match &self.trust {
            Trust::Verified => (Some(true), None),
            Trust::Untrusted(why) => (Some(false), Some(why.as_str())),
            Trust::Unknown => (None, Some("no secret is given")),
        };
        let line = Line {
            received_at: self.received_at.to_string(),
            method: self.head.method.as_str(),
            path: self.path(),
            headers: self.headers(),
            id: self.id(),
            verified,
            reason,
            answered: self.answered.as_u16(),
            body: RawValue::from_string(self.body_json()).ok(),
        };
        let mut line = serde_json::to_string(&line).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Some lines for people.
    pub(super) fn for_people(&self, paint: Paint) -> String {
        let time = self.received_at.strftime("%H:%M:%S%.3f").to_string();
        let answered = self.answered.as_u16().to_string();
        let mut text = format!(
            "{}  {} {}  {}\n",
            paint.faint(&time),
            self.head.method,
            paint.strong(&printable(&self.path())),
            if self.answered.is_success() { paint.good(&answered) } else { paint.bad(&answered) },
        );
        if let Some(id) = self.id() {
            let _infallible = writeln!(text, "  id        {}", printable(&id));
        }
        let verified = match &self.trust {
            Trust::Verified => paint.good("yes"),
            Trust::Untrusted(why) => paint.bad(&format!("NO: {why}")),
            Trust::Unknown => paint.faint("not checked: no secret is given"),
        };
        let _infallible = writeln!(text, "  verified  {verified}");
        for line in printable(&self.body_text()).lines() {
            let _infallible = writeln!(text, "  {line}");
        }
        text.push('\n');
        text
    }

    fn path(&self) -> String {
        let path = self.head.uri.path_and_query();
        path.map_or_else(|| self.head.uri.to_string(), ToString::to_string)
    }

    fn id(&self) -> Option<String> {
        let id = self.head.headers.get(ID_HEADER)?;
        Some(String::from_utf8_lossy(id.as_bytes()).into_owned())
    }

    /// Names to values; the values of a repeated header are joined, as HTTP allows.
    fn headers(&self) -> BTreeMap<&str, String> {
        let headers = &self.head.headers;
        let joined = |name| {
            let values = headers.get_all(name).iter();
            let texts: Vec<_> =
                values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            texts.join(", ")
        };
        headers.keys().map(|name| (name.as_str(), joined(name))).collect()
    }

    /// The body as JSON on one line: itself, or a string that holds it, or null for one unread.
    fn body_json(&self) -> String {
        match &self.body {
            Body::Whole(bytes) => match serde_json::from_slice::<&RawValue>(bytes) {
                Ok(json) => layout::compact(json.get()),
                Err(_) => Value::from(String::from_utf8_lossy(bytes)).to_string(),
            },
            Body::Unread(_) => "null".to_owned(),
        }
    }

    fn body_text(&self) -> String {
        match &self.body {
            Body::Whole(bytes) => match serde_json::from_slice::<&RawValue>(bytes) {
                Ok(json) => layout::pretty(json.get()),
                Err(_) => String::from_utf8_lossy(bytes).into_owned(),
            },
            Body::Unread(why) => format!("the body was not read: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::sign::signature;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: i64 = 1_614_265_330;

    fn received(body: &'static str, secrets: &[Secret], signature: Option<&str>) -> Received {
        let mut request = Request::post("/orders?a=1").header(ID_HEADER, "evt_1");
        if let Some(signature) = signature {
            request = request
                .header(TIMESTAMP_HEADER, NOW.to_string())
                .header(SIGNATURE_HEADER, signature);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let body = Body::Whole(Bytes::from_static(body.as_bytes()));
        let received_at = Timestamp::from_second(NOW).unwrap();
        Received {
            received_at,
            trust: Trust::of(secrets, &head.headers, &body, received_at),
            head,
            body,
            answered: StatusCode::OK,
        }
    }

    #[test]
    fn a_line_of_json_keeps_the_body_as_sent() {
        let secrets = [Secret::parse(SECRET).unwrap()];
        let body = "{\"b\": 19.990,\n \"a\": 1}";
        let signature = signature(&secrets, "evt_1", NOW, body.as_bytes()).unwrap();
        let line = received(body, &secrets, Some(&signature)).json_line();
        assert!(line.ends_with(",\"body\":{\"b\":19.990,\"a\":1}}\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["verified"], true);
        assert_eq!(parsed["path"], "/orders?a=1");
        assert_eq!(parsed["id"], "evt_1");
        assert_eq!(parsed["headers"][TIMESTAMP_HEADER], NOW.to_string());
    }

    #[test]
    fn what_cannot_be_verified_says_why() {
        let secrets = [Secret::parse(SECRET).unwrap()];
        let trust = |signature| received("{}", &secrets, signature).trust;
        let untrusted = |why: &str| Trust::Untrusted(why.to_owned());
        assert_eq!(trust(None), untrusted("no webhook-timestamp header"));
        assert_eq!(trust(Some("v1,AAAA")), untrusted("no signature in webhook-signature matches"));
        assert_eq!(received("{}", &[], None).trust, Trust::Unknown);
    }

    #[test]
    fn text_that_is_not_json_becomes_a_string() {
        let received = received("a=1\n\x1b[2J", &[], None);
        assert!(received.json_line().ends_with(",\"body\":\"a=1\\n\\u001b[2J\"}\n"));
        let text = received.for_people(Paint::plain());
        assert!(text.contains("  a=1\n  \u{fffd}[2J\n"), "{text}");
        assert!(text.starts_with("15:02:10.000  POST /orders?a=1  200\n  id        evt_1\n"));
    }
}
