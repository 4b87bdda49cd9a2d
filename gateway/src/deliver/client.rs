//! The HTTP client: pooled connections, no redirects, no proxy from the environment, bounded reading.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Instant;
use url::Url;

use super::Config;
use super::address::{Policy, refusal};
use super::retry_after;
use crate::delivery::{Failure, FailureKind, Method};

/// Sends requests. Cheap to clone; connections are shared and kept alive.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) http: reqwest::Client,
    pub(super) policy: Arc<Policy>,
    pub(super) max_response_bytes: usize,
    max_retry_after: Duration,
}

/// A request, complete but for what HTTP itself adds.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub url: Url,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
    /// How long the whole exchange may take.
    pub timeout: Duration,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// How long it took.
    pub duration: Duration,
    /// The response's status, where there was one.
    pub status: Option<u16>,
    /// Why it failed; absent when the status is 2xx.
    pub failure: Option<Failure>,
    /// The start of the response's body, bounded; invalid UTF-8 is replaced.
    pub excerpt: String,
    /// How long the receiver of a failed request asked to wait before the next one, bounded.
    pub retry_after: Option<Duration>,
}

/// What has arrived of a response.
#[derive(Debug, Default)]
struct Answer {
    status: Option<u16>,
    retry_after: Option<Duration>,
    excerpt: Vec<u8>,
}

impl Client {
    /// A client with connections of its own.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: &Config) -> Result<Self, reqwest::Error> {
        // An error says that a provider is installed already, as in a process with two clients.
        drop(rustls::crypto::ring::default_provider().install_default());
        let policy = Arc::new(config.addresses.clone());
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("Hookmill/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .connect_timeout(config.connect_timeout)
                .tcp_nodelay(true)
                .pool_max_idle_per_host(256)
                .dns_resolver(Arc::new(VettedResolver { policy: Arc::clone(&policy) }))
        };
        // Building fails where the system has no certificates at all.
        let http =
            builder().build().or_else(|_| builder().tls_certs_only(bundled_roots()).build())?;
        Ok(Self {
            http,
            policy,
            max_response_bytes: config.max_response_bytes,
            max_retry_after: config.max_retry_after,
        })
    }

    /// Sends one request and reads the start of its response.
    pub async fn send(&self, outbound: Outbound) -> Exchange {
        let Outbound { method, url, headers, body, timeout } = outbound;
        let method = match method {
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
        };
        let request = self.http.request(method, url.clone()).body(body);
        self.exchange(&url, request, &headers, timeout).await
    }

    /// Asks for a resource, as the command line does of the gateway's own API.
    pub async fn get(
        &self,
        url: &Url,
        headers: &[(String, String)],
        timeout: Duration,
    ) -> Exchange {
        self.exchange(url, self.http.get(url.clone()), headers, timeout).await
    }

    async fn exchange(
        &self,
        url: &Url,
        request: RequestBuilder,
        headers: &[(String, String)],
        timeout: Duration,
    ) -> Exchange {
        let started = Instant::now();
        let mut answer = Answer::default();
        let answering = self.answer(url, request, headers, &mut answer);
        let failure = match tokio::time::timeout(timeout, answering).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(Failure::new(
                FailureKind::Timeout,
                format!("no complete answer within {timeout:?}"),
            )),
        };
        // A status that refuses has said all, whatever becomes of its body.
        let failure = answer.status.and_then(failure_of_status).or(failure);
        Exchange {
            duration: started.elapsed(),
            status: answer.status,
            retry_after: answer.retry_after.filter(|_| failure.is_some()),
            failure,
            excerpt: String::from_utf8_lossy(&answer.excerpt).into_owned(),
        }
    }

    /// Leaves what has arrived in `answer`, even when it fails or is given up.
    async fn answer(
        &self,
        url: &Url,
        request: RequestBuilder,
        headers: &[(String, String)],
        answer: &mut Answer,
    ) -> Result<(), Failure> {
        self.policy
            .check_url(url)
            .map_err(|why| Failure::new(FailureKind::BlockedAddress, format!("the URL {why}")))?;
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let mut response = request.send().await.map_err(|error| classify(&error))?;
        answer.status = Some(response.status().as_u16());
        answer.retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| retry_after::parse(value.to_str().ok()?, SystemTime::now()))
            .map(|wait| wait.min(self.max_retry_after));
        // Reading to the end lets the connection be used again; past the cap it is closed instead.
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            let room = self.max_response_bytes.saturating_sub(answer.excerpt.len());
            answer.excerpt.extend(chunk.iter().take(room));
            if chunk.len() > room {
                break;
            }
        }
        Ok(())
    }
}

fn failure_of_status(status: u16) -> Option<Failure> {
    let failed = |kind, rest: &str| Some(Failure::new(kind, format!("answered {status}{rest}")));
    match status {
        200..=299 => None,
        300..=399 => failed(FailureKind::Status, "; redirects are not followed"),
        410 => failed(FailureKind::Gone, "; the receiver asked to stop, so it is not tried again"),
        _ => failed(FailureKind::Status, ""),
    }
}

/// The kind of an error, told by the types in its chain of sources.
pub(super) fn classify(error: &reqwest::Error) -> Failure {
    let message = with_sources(error);
    if let Some(blocked) = find_source::<BlockedAddress>(error) {
        return Failure::new(FailureKind::BlockedAddress, blocked.to_string());
    }
    let kind = if find_source::<ResolveError>(error).is_some() {
        FailureKind::Dns
    } else if find_source::<rustls::Error>(error).is_some() {
        FailureKind::Tls
    } else if error.is_timeout() {
        FailureKind::Timeout
    } else if error.is_connect() || find_source(error).is_some_and(is_broken) {
        FailureKind::Connect
    } else {
        FailureKind::Protocol
    };
    Failure::new(kind, message)
}

/// Whether the connection broke, rather than being closed before the answer was complete.
fn is_broken(error: &std::io::Error) -> bool {
    error.kind() != std::io::ErrorKind::UnexpectedEof
}

fn find_source<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An I/O error hides the error that it wraps from `source`.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|inner| inner as &(dyn StdError + 'static));
        current = wrapped.or_else(|| error.source());
    }
    None
}

/// The messages of an error and its sources, without the URL, which the record has already.
fn with_sources(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut current = error.source();
    while let Some(source) = current {
        let text = source.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        current = source.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

/// Root certificates that come with the binary, for containers that have none of their own.
fn bundled_roots() -> Vec<reqwest::Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| reqwest::Certificate::from_der(der).ok())
        .collect()
}

/// Resolves names and leaves out the addresses that requests may not go to.
struct VettedResolver {
    policy: Arc<Policy>,
}

impl Resolve for VettedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((host, 0)).await.map_err(ResolveError)?.collect();
            if policy.allows_host(host) {
                return Ok(Box::new(found.into_iter()) as Addrs);
            }
            let allowed: Vec<SocketAddr> =
                found.iter().copied().filter(|found| policy.allows_address(found.ip())).collect();
            match found.first() {
                Some(first) if allowed.is_empty() => {
                    Err(BlockedAddress(format!("{host} {}", refusal(first.ip()))).into())
                }
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[derive(Debug)]
struct ResolveError(std::io::Error);

impl std::fmt::Display for ResolveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the name cannot be resolved: {}", self.0)
    }
}

impl StdError for ResolveError {}

#[derive(Debug)]
struct BlockedAddress(String);

impl std::fmt::Display for BlockedAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for BlockedAddress {}
