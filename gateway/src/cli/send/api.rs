//! The gateway's HTTP API, as far as `send` uses it.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use url::Url;

use super::Problem;
use super::outcome::EventStatus;
use crate::cli::terminal::{Paint, printable};
use crate::deliver::{AddressPolicy, Client, Config, Exchange, Outbound};
use crate::delivery::Method;

/// The largest answer that is read: an event's status carries its data.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// A gateway and a key to it.
pub(super) struct Api {
    client: Client,
    url: Url,
    authorization: String,
    timeout: Duration,
}

/// The answer to a post.
pub(super) struct Answer {
    /// As the gateway sent it.
    pub(super) text: String,
    /// What it says.
    pub(super) events: Vec<Accepted>,
}

/// An event that the gateway has now.
#[derive(Debug, Deserialize)]
pub(super) struct Accepted {
    pub(super) id: String,
    status: String,
    deliveries: Option<u64>,
}

#[derive(Deserialize)]
struct AcceptedEvents {
    events: Vec<Accepted>,
}

/// An error as RFC 9457 writes it.
#[derive(Debug, Deserialize)]
struct ProblemDocument {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Debug, Deserialize)]
struct FieldError {
    field: String,
    detail: String,
}

impl Api {
    pub(super) fn new(url: &Url, key: &str, timeout: Duration) -> Result<Self, Problem> {
        // The guard protects a gateway from its tenants; here, whoever gives the URL is also who sends.
        let everywhere = ["0.0.0.0/0", "::/0"];
        let config = Config {
            max_response_bytes: MAX_ANSWER_BYTES,
            addresses: AddressPolicy {
                allow_http: true,
                allow_networks: everywhere.iter().filter_map(|net| net.parse().ok()).collect(),
                ..AddressPolicy::default()
            },
            ..Config::default()
        };
        Ok(Self {
            client: Client::new(&config).map_err(|error| format!("cannot set up TLS: {error}"))?,
            url: url.clone(),
            authorization: format!("Bearer {key}"),
            timeout,
        })
    }

    /// Posts events.
    pub(super) async fn post_events(
        &self,
        body: Vec<u8>,
        idempotency_key: Option<String>,
    ) -> Result<Answer, Problem> {
        let mut headers = self.headers();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        headers.extend(idempotency_key.map(|key| ("idempotency-key".to_owned(), key)));
        let exchange = self
            .client
            .send(Outbound {
                method: Method::Post,
                url: self.path(&["v1", "events"])?,
                headers,
                body: Bytes::from(body),
                timeout: self.timeout,
                auth: None,
                connection: None,
            })
            .await;
        let text = self.success(exchange)?;
        let AcceptedEvents { events } = read(&text)?;
        Ok(Answer { text, events })
    }

    /// The status of an event, and the text that says so.
    pub(super) async fn event(&self, id: &str) -> Result<(EventStatus, String), Problem> {
        let url = self.path(&["v1", "events", id])?;
        let exchange = self.client.get(&url, &self.headers(), self.timeout).await;
        let text = self.success(exchange)?;
        Ok((read(&text)?, text))
    }

    fn headers(&self) -> Vec<(String, String)> {
        vec![("authorization".to_owned(), self.authorization.clone())]
    }

    fn path(&self, names: &[&str]) -> Result<Url, Problem> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| format!("{} cannot be a gateway's address", self.url))?
            .pop_if_empty()
            .extend(names);
        Ok(url)
    }

    /// The body of a successful answer; a refusal becomes readable.
    fn success(&self, exchange: Exchange) -> Result<String, Problem> {
        match (exchange.status, exchange.failure) {
            (Some(200..=299), None) => Ok(exchange.excerpt),
            (Some(status @ (100..=199 | 300..)), _) => Err(refusal(status, &exchange.excerpt)),
            (_, Some(failure)) => Err(format!("no answer from {}: {failure}", self.url)),
            (status, None) => Err(format!("{} answered {status:?}", self.url)),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| format!("the answer is not a gateway's: {error}"))
}

/// A refusal, for people.
fn refusal(status: u16, body: &str) -> Problem {
    let Ok(problem) = serde_json::from_str::<ProblemDocument>(body) else {
        let start: String = body.chars().take(500).collect();
        return format!("refused with {status}: {}", printable(start.trim()));
    };
    let mut text = format!("refused with {status}");
    if let Some(code) = &problem.code {
        let _infallible = write!(text, " {code}");
    }
    let why = problem.detail.or(problem.title).unwrap_or_default();
    if !why.is_empty() {
        let _infallible = write!(text, ": {why}");
    }
    // Of a single error, the whole has often said everything already.
    for error in problem.errors.iter().filter(|error| !why.contains(&error.detail)) {
        let _infallible = write!(text, "\n  {}: {}", error.field, error.detail);
    }
    printable(&text).into_owned()
}

impl Accepted {
    /// One line for people.
    pub(super) fn line(&self, paint: Paint) -> String {
        let status = match self.status.as_str() {
            "accepted" => paint.good("accepted "),
            other => paint.faint(&format!("{other:<9}")),
        };
        let deliveries = match self.deliveries {
            Some(1) => "  1 delivery".to_owned(),
            Some(0) => "  no webhook wants it".to_owned(),
            Some(count) => format!("  {count} deliveries"),
            None => String::new(),
        };
        format!("{status}  {}{deliveries}\n", printable(&self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_documents_become_readable() {
        let body = r#"{"type":"about:blank","title":"Unprocessable Content","status":422,
            "code":"invalid_event","detail":"the event is not valid",
            "errors":[{"field":"type","detail":"has an empty name"}]}"#;
        assert_eq!(
            refusal(422, body),
            "refused with 422 invalid_event: the event is not valid\n  type: has an empty name"
        );
        let said = r#"{"detail":"type: is empty","errors":[{"field":"type","detail":"is empty"}]}"#;
        assert_eq!(refusal(422, said), "refused with 422: type: is empty");
        assert_eq!(refusal(502, "<html>\n"), "refused with 502: <html>");
    }

    #[test]
    fn the_address_may_have_a_path() {
        let api = |url: &str| {
            let url = Url::parse(url).unwrap();
            Api::new(&url, "key", Duration::from_secs(1)).unwrap()
        };
        for (base, expected) in [
            ("http://localhost:8080", "http://localhost:8080/v1/events/a%2Fb"),
            ("https://example.com/hooks/", "https://example.com/hooks/v1/events/a%2Fb"),
        ] {
            let url = api(base).path(&["v1", "events", "a/b"]).unwrap();
            assert_eq!(url.as_str(), expected);
        }
    }
}
