//! One exchange for a plugin: its response is read whole, or not at all.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use url::Url;

use super::Client;
use super::classify::classify;
use super::connection::Connection;
use crate::delivery::{Failure, FailureKind};

/// A request, complete but for what HTTP itself adds.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// The method.
    pub method: String,
    /// Where it goes.
    pub url: Url,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
    /// How long the whole exchange may take.
    pub timeout: Duration,
    /// The most bytes that headers and body of the response may have.
    pub max_bytes: usize,
}

/// A response, whatever its status.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its status.
    pub status: u16,
    /// Its headers; names are lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchFailure {
    /// It has more bytes than were asked for.
    TooLarge,
    /// The exchange failed.
    Failed(Failure),
}

impl Client {
    /// Sends a request under the same guard as deliveries, and reads its response to the end.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched, FetchFailure> {
        self.fetch_over(fetch, None).await
    }

    /// The same over connections with these settings.
    pub(super) async fn fetch_over(
        &self,
        fetch: Fetch,
        connection: Option<&Connection>,
    ) -> Result<Fetched, FetchFailure> {
        let timeout = fetch.timeout;
        match tokio::time::timeout(timeout, self.fetched(fetch, connection)).await {
            Ok(result) => result,
            Err(_) => Err(FetchFailure::Failed(Failure::new(
                FailureKind::Timeout,
                format!("no complete answer within {timeout:?}"),
            ))),
        }
    }

    async fn fetched(
        &self,
        fetch: Fetch,
        connection: Option<&Connection>,
    ) -> Result<Fetched, FetchFailure> {
        let Fetch { method, url, headers, body, max_bytes, .. } = fetch;
        self.vet(&url, connection).await.map_err(FetchFailure::Failed)?;
        let method = method.parse::<reqwest::Method>().map_err(|error| {
            FetchFailure::Failed(Failure::new(FailureKind::Protocol, error.to_string()))
        })?;
        let http = self.over(connection).await.map_err(FetchFailure::Failed)?;
        let mut request = http.request(method, url);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        // A `GET` without a body sends no `content-length`.
        if !body.is_empty() {
            request = request.body(body);
        }
        let broken = |error: reqwest::Error| FetchFailure::Failed(classify(&error, connection));
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let headers = readable(response.headers());
        let size = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let room = max_bytes.checked_sub(size).ok_or(FetchFailure::TooLarge)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if chunk.len() > room.saturating_sub(body.len()) {
                return Err(FetchFailure::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { status, headers, body: body.into() })
    }
}

/// Headers with what is no text replaced.
fn readable(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::{AddressPolicy, Config};

    fn fetch(url: &str) -> Fetch {
        Fetch {
            method: "GET".to_owned(),
            url: Url::parse(url).unwrap(),
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(10),
            max_bytes: 1_000,
        }
    }

    async fn refused(policy: AddressPolicy, url: &str) -> Failure {
        let client = Client::new(&Config { addresses: policy, ..Config::default() }).unwrap();
        match client.fetch(fetch(url)).await {
            Err(FetchFailure::Failed(failure)) => failure,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn private_addresses_are_blocked_by_whatever_name() {
        for url in ["https://127.0.0.1:1/", "https://[::1]:1/", "https://localhost:1/"] {
            let failure = refused(AddressPolicy::default(), url).await;
            assert_eq!(failure.kind, FailureKind::BlockedAddress, "{url}: {failure}");
        }
        let failure = refused(AddressPolicy::default(), "http://example.com/").await;
        assert_eq!(failure.kind, FailureKind::BlockedAddress, "{failure}");
    }

    #[tokio::test]
    async fn what_the_operator_allows_is_tried() {
        let policy =
            AddressPolicy { allow_hosts: vec!["localhost".to_owned()], ..AddressPolicy::default() };
        let failure = refused(policy, "https://localhost:1/").await;
        assert_eq!(failure.kind, FailureKind::Connect, "{failure}");
    }
}
