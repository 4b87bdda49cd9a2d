//! A script of what servers answer, in the form of a fixture's `http`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use url::Url;

use crate::transform::{Fetch, FetchError, FetchRequest, FetchResponse};

/// Requests that are remembered.
const MAX_EXCHANGES: usize = 1_000;

/// The answer to requests of one method and URL.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedAnswer {
    #[serde(default = "get")]
    method: String,
    #[serde(deserialize_with = "url")]
    url: Url,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    json: Option<Value>,
    text: Option<String>,
    error: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn ok() -> u16 {
    200
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |error| serde::de::Error::custom(format!("the url {text:?} is none: {error}"));
    Url::parse(&text).map_err(wrong)
}

/// A request, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its method.
    pub method: String,
    /// Where it went.
    pub url: String,
    /// The answer's status, or why there was none.
    pub result: Result<u16, String>,
}

/// Answers, and the requests that were made.
pub(super) struct Script {
    answers: Vec<ScriptedAnswer>,
    /// Where the answers come from.
    source: &'static str,
    exchanges: Mutex<Vec<Exchange>>,
}

impl Script {
    pub(super) fn new(answers: Vec<ScriptedAnswer>, source: &'static str) -> Self {
        Self { answers, source, exchanges: Mutex::default() }
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = &Url> {
        self.answers.iter().map(|answer| &answer.url)
    }

    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn answer(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        let FetchRequest { method, url, max_bytes, .. } = request;
        let asked = |answer: &&ScriptedAnswer| answer.method == *method && answer.url == *url;
        let Some(answer) = self.answers.iter().find(asked) else {
            let source = self.source;
            return Err(FetchError::Blocked(format!("{source} has no answer to {method} {url}")));
        };
        let response = answer.give()?;
        let headers: usize =
            response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.saturating_add(response.body.len()) > *max_bytes {
            return Err(FetchError::TooLarge(format!(
                "the response has more than {max_bytes} bytes, which is the limit"
            )));
        }
        Ok(response)
    }

    fn remember(&self, request: FetchRequest, answer: &Result<FetchResponse, FetchError>) {
        let result = match answer {
            Ok(response) => Ok(response.status),
            Err(
                FetchError::Blocked(message)
                | FetchError::TooLarge(message)
                | FetchError::Timeout(message)
                | FetchError::Failed(message),
            ) => Err(message.clone()),
        };
        let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        if exchanges.len() < MAX_EXCHANGES {
            let FetchRequest { method, url, .. } = request;
            exchanges.push(Exchange { method, url: url.into(), result });
        }
    }
}

impl Fetch for Script {
    fn fetch(&self, request: FetchRequest) -> BoxFuture<'_, Result<FetchResponse, FetchError>> {
        let answer = self.answer(&request);
        self.remember(request, &answer);
        Box::pin(std::future::ready(answer))
    }
}

impl ScriptedAnswer {
    fn give(&self) -> Result<FetchResponse, FetchError> {
        if let Some(message) = &self.error {
            return Err(FetchError::Failed(message.clone()));
        }
        let mut headers = Vec::new();
        let body = match (&self.json, &self.text) {
            (Some(json), _) => {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
                json.to_string()
            }
            (None, text) => text.clone().unwrap_or_default(),
        };
        let own = self.headers.iter();
        headers.extend(own.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
        Ok(FetchResponse { status: self.status, headers, body: Bytes::from(body) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn script(answers: &str) -> Script {
        Script::new(serde_json::from_str(answers).unwrap(), "the fixture")
    }

    async fn ask(script: &Script, method: &str, url: &str) -> Result<FetchResponse, FetchError> {
        let request = FetchRequest {
            method: method.to_owned(),
            url: Url::parse(url).unwrap(),
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(1),
            max_bytes: 40,
        };
        script.fetch(request).await
    }

    #[tokio::test]
    async fn the_first_answer_that_fits_is_given_as_often_as_it_is_asked_for() {
        let script = script(
            r#"[
                {"url": "https://a.example", "json": {"n": 1}, "headers": {"X-A": "b"}},
                {"url": "https://a.example/", "text": "never"},
                {"method": "POST", "url": "https://a.example/", "status": 201, "text": "made"}
            ]"#,
        );
        for _ in 0..2 {
            let response = ask(&script, "GET", "https://a.example/").await.unwrap();
            assert_eq!((response.status, &*response.body), (200, &br#"{"n":1}"#[..]));
            let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let expected = [header("content-type", "application/json"), header("x-a", "b")];
            assert_eq!(response.headers, expected);
        }
        let response = ask(&script, "POST", "https://a.example/").await.unwrap();
        assert_eq!((response.status, &*response.body), (201, &b"made"[..]));
        assert!(response.headers.is_empty());
    }

    #[tokio::test]
    async fn requests_without_an_answer_are_named_and_remembered() {
        let script = script(
            r#"[
                {"url": "https://a.example/down", "error": "connection refused"},
                {"url": "https://a.example/large", "text": "0123456789012345678901234567890123456789+"}
            ]"#,
        );
        let refused = ask(&script, "GET", "https://a.example/x?q=1").await.unwrap_err();
        let message = "the fixture has no answer to GET https://a.example/x?q=1";
        assert_eq!(refused, FetchError::Blocked(message.to_owned()));
        let down = ask(&script, "GET", "https://a.example/down").await.unwrap_err();
        assert_eq!(down, FetchError::Failed("connection refused".to_owned()));
        let large = ask(&script, "GET", "https://a.example/large").await.unwrap_err();
        assert!(matches!(large, FetchError::TooLarge(_)), "{large:?}");
        let exchanges = script.exchanges();
        assert_eq!(exchanges.len(), 3);
        assert_eq!(exchanges[0].result, Err(message.to_owned()));
        assert_eq!(exchanges[1].url, "https://a.example/down");
    }

    #[test]
    fn a_url_that_is_none_is_a_mistake() {
        let answers: Result<Vec<ScriptedAnswer>, _> = serde_json::from_str(r#"[{"url":"/x"}]"#);
        let error = answers.unwrap_err().to_string();
        assert!(error.contains("the url \"/x\" is none"), "{error}");
    }
}
