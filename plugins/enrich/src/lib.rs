//! Adds a record from another service to a payload.
//!
//! ```json
//! {
//!   "url": "https://crm.example.com/v1/customers/{id}",
//!   "id": "/customer/id",
//!   "into": "crm",
//!   "token": "crm_token"
//! }
//! ```
//!
//! The payload's other members stay as they were written; so does the record.

use std::time::Duration;

use hookmill_plugin::json::{self, Pointer};
use hookmill_plugin::{
    Context, Event, Failure, Outgoing, Result, Verdict, config, http, secrets, transform,
};
use serde_json::value::RawValue;

/// How long the service may take, unless the config says otherwise.
const TIMEOUT_MS: u64 = 2_000;

/// The plugin's config.
#[config]
#[derive(Debug)]
struct Config {
    /// Where the record is, with `{id}` where its id belongs.
    url: String,
    /// Where the id stands in the payload: a string or a number. An event without one is passed on as it
    /// is.
    id: Pointer,
    /// The member of the payload that the record becomes, in place of any of that name.
    into: String,
    /// The name of the secret that is sent as a bearer token.
    token: Option<String>,
    /// How long the service may take.
    #[serde(default = "timeout_ms")]
    timeout_ms: u64,
}

fn timeout_ms() -> u64 {
    TIMEOUT_MS
}

/// Fetches a record by an id in the payload, and adds it as a member.
#[transform]
fn enrich(event: Event<&RawValue>, context: Context<Config>) -> Result<Verdict> {
    let config = &context.config;
    let members = json::members(event.payload).ok_or_else(|| {
        Failure::invalid("the payload is no object, so nothing can be added to it")
    })?;
    let Some(id) = config.id.get(event.payload).and_then(id_text) else {
        return Ok(Verdict::unchanged());
    };
    let Some(record) = fetch(config, &id)? else {
        return Ok(Verdict::unchanged());
    };
    let kept = members.iter().filter(|(name, _)| *name != config.into);
    let mut payload = String::from("{");
    for (name, value) in kept.map(|(name, value)| (name.as_str(), *value)) {
        write_member(&mut payload, name, value)?;
    }
    write_member(&mut payload, &config.into, &record)?;
    payload.push('}');
    Ok(Verdict::from(Outgoing::text(payload)))
}

/// The record; none when the service does not know the id.
fn fetch(config: &Config, id: &str) -> Result<Option<Box<RawValue>>> {
    let url = config.url.replace("{id}", &encoded(id));
    let mut request = http::Request::get(url).timeout(Duration::from_millis(config.timeout_ms));
    request = request.header("accept", "application/json");
    if let Some(name) = &config.token {
        let token = secrets::require(name)?;
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = request.send()?;
    if response.status == 404 {
        return Ok(None);
    }
    response.success()?.json().map(Some)
}

/// The text of an id.
fn id_text(id: &RawValue) -> Option<String> {
    if id.get().starts_with('"') {
        let text: String = serde_json::from_str(id.get()).ok()?;
        // A URL takes these for a way up, encoded or not.
        return (!matches!(text.as_str(), "" | "." | "..")).then_some(text);
    }
    id.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()).then(|| id.get().to_owned())
}

/// Percent-encoded, so that an id stays one segment of the path, whatever is in it.
fn encoded(id: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    id.bytes().map(encode).collect()
}

fn write_member(payload: &mut String, name: &str, value: &RawValue) -> Result<()> {
    if payload.len() > 1 {
        payload.push(',');
    }
    payload.push_str(&serde_json::to_string(name)?);
    payload.push(':');
    payload.push_str(value.get());
    Ok(())
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing::{self, Host};

    use super::*;

    const CONFIG: &str = r#"{"url":"https://crm.example.com/c/{id}","id":"/id","into":"crm"}"#;

    #[test]
    fn fixtures() {
        testing::fixtures(enrich, "fixtures");
    }

    #[test]
    fn an_id_stays_one_segment_of_the_path() {
        let host = Host::new().with_http(|request| {
            assert_eq!(request.url, "https://crm.example.com/c/%2E%2E%2Fadmin%3Fa%3D%C3%BC");
            Ok(http::Response::new(200, "1.50"))
        });
        let verdict = host.run(enrich, r#"{"id":"../admin?a=ü"}"#, CONFIG);
        let expected = r#"{"id":"../admin?a=ü","crm":1.50}"#;
        assert_eq!(verdict, Ok(Verdict::from(Outgoing::text(expected))));
    }

    #[test]
    fn an_id_that_would_lead_elsewhere_is_none() {
        for id in ["", ".", ".."] {
            let payload = format!(r#"{{"id":"{id}"}}"#);
            let unchanged = Ok(Verdict::from(Outgoing::text(payload.as_str())));
            assert_eq!(testing::run(enrich, &payload, CONFIG), unchanged);
        }
    }

    #[test]
    fn a_service_that_fails_is_tried_again() {
        let host = Host::new().with_http(|_| Ok(http::Response::new(503, "")));
        let failure = host.run(enrich, r#"{"id":7}"#, CONFIG).unwrap_err();
        assert_eq!(failure, Failure::retry("the server answered 503"));
        let host = Host::new().with_http(|_| Ok(http::Response::new(200, "<html>")));
        let failure = host.run(enrich, r#"{"id":7}"#, CONFIG).unwrap_err();
        assert!(failure.message().contains("the server's answer does not fit"), "{failure}");
    }

    #[test]
    fn a_token_that_is_missing_is_told() {
        let config = CONFIG.replace("\"into\"", "\"token\":\"crm_token\",\"into\"");
        let failure = testing::run(enrich, r#"{"id":7}"#, &config).unwrap_err();
        assert!(failure.message().contains("no secret `crm_token`"), "{failure}");
    }
}
