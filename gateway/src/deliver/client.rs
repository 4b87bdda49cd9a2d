//! The HTTP client: pooled connections, no redirects, no proxy from the environment, bounded reading.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::RequestBuilder;
use tokio::time::Instant;
use url::{Host, Url};

use super::Config;
use super::address::Policy;
use super::auth::Auth;
use super::classify::{classify, of_source, with_sources};
use super::connection::{Connection, Proxy};
use super::redact::Credentials;
use super::resolve::{VettedResolver, vetted};
use super::retry_after;
use super::timing::{MeasureConnecting, Phases};
use crate::delivery::{Failure, FailureKind, Method, Timings};

/// Sends requests. Cheap to clone; connections are shared and kept alive.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    pub(super) policy: Arc<Policy>,
    pub(super) config: Arc<Config>,
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
    /// How it is authenticated, beside its headers.
    pub auth: Option<Arc<Auth>>,
    /// How connections are made for it, where not as for all others.
    pub connection: Option<Arc<Connection>>,
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
    /// How long its phases took.
    pub timings: Timings,
}

/// What has arrived of a response.
#[derive(Debug, Default)]
struct Answer {
    status: Option<u16>,
    retry_after: Option<Duration>,
    excerpt: Vec<u8>,
    phases: Phases,
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
        let http = connections(config, &policy, &Connection::default())?;
        Ok(Self { http, policy, config: Arc::new(config.clone()) })
    }

    /// The connections with these settings.
    pub(super) async fn over(
        &self,
        connection: Option<&Connection>,
    ) -> Result<reqwest::Client, Failure> {
        let Some(connection) = connection else {
            return Ok(self.http.clone());
        };
        let make = async || connections(&self.config, &self.policy, connection);
        let made = connection.http.get_or_try_init(make).await;
        made.cloned().map_err(|error| {
            let message = format!("connections cannot be set up: {}", with_sources(&error));
            Failure::new(FailureKind::Internal, message)
        })
    }

    /// Checks a destination before anything is sent: its URL and, where a proxy would resolve it, its name.
    pub(super) async fn vet(
        &self,
        url: &Url,
        connection: Option<&Connection>,
    ) -> Result<(), Failure> {
        self.policy
            .check_url(url)
            .map_err(|why| Failure::new(FailureKind::BlockedAddress, format!("the URL {why}")))?;
        let is_proxied = connection.is_some_and(|connection| connection.proxy.is_some());
        let Some(Host::Domain(host)) = url.host().filter(|_| is_proxied) else {
            return Ok(());
        };
        if self.policy.allows_host(host) {
            return Ok(());
        }
        let vetted = tokio::time::timeout(self.config.connect_timeout, vetted(&self.policy, host));
        match vetted.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(of_source(&*error)
                .unwrap_or_else(|| Failure::new(FailureKind::Dns, error.to_string()))),
            Err(_) => Err(Failure::new(FailureKind::Dns, "resolving the name takes too long")),
        }
    }

    /// Reads a URL that requests are to go to, and checks what can be told without resolving its host.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse_url(&self, text: &str) -> Result<Url, String> {
        self.policy.parse_url(text)
    }

    /// Sends one request and reads the start of its response.
    pub async fn send(&self, outbound: Outbound) -> Exchange {
        let Outbound { method, url, headers, body, timeout, auth, connection } = outbound;
        let method = match method {
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
        };
        let connection = connection.as_deref();
        let mut sent = None;
        let answering = async |answer: &mut Answer| {
            let request = self.over(connection).await?.request(method, url.clone()).body(body);
            let Some(auth) = &auth else {
                return self.answer(&url, request, &headers, connection, answer).await;
            };
            let value = sent.insert(auth.value(self, connection).await?);
            let others = headers.into_iter().filter(|(name, _)| name != auth.header());
            let own = (auth.header().to_owned(), value.to_string());
            let headers: Vec<_> = others.chain([own]).collect();
            self.answer(&url, request, &headers, connection, answer).await
        };
        let exchange = exchange(timeout, answering).await;
        let Some(auth) = auth else {
            return exchange;
        };
        if let (Some(401), Some(value)) = (exchange.status, &sent) {
            auth.refused(value);
        }
        // A token is known here alone.
        self.for_record(exchange, || {
            let mut credentials = Credentials::default();
            auth.credentials(sent.as_deref(), &mut credentials);
            credentials
        })
    }

    /// Asks for a resource, as the command line does of the gateway's own API.
    pub async fn get(
        &self,
        url: &Url,
        headers: &[(String, String)],
        timeout: Duration,
    ) -> Exchange {
        let request = self.http.get(url.clone());
        let answering =
            async |answer: &mut Answer| self.answer(url, request, headers, None, answer).await;
        exchange(timeout, answering).await
    }

    /// Leaves what has arrived in `answer`, even when it fails or is given up.
    async fn answer(
        &self,
        url: &Url,
        request: RequestBuilder,
        headers: &[(String, String)],
        connection: Option<&Connection>,
        answer: &mut Answer,
    ) -> Result<(), Failure> {
        self.vet(url, connection).await?;
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let mut response = answer
            .phases
            .measure(request.send())
            .await
            .map_err(|error| classify(&error, connection))?;
        let status = response.status().as_u16();
        if let (407, Some(proxy)) = (status, connection.and_then(|it| it.proxy.as_ref()))
            && proxy.forwards(url)
        {
            let message = "the proxy asks for a user name and password, or for others";
            return Err(Failure::new(FailureKind::Proxy, message));
        }
        answer.status = Some(status);
        answer.retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| retry_after::parse(value.to_str().ok()?, SystemTime::now()))
            .map(|wait| wait.min(self.config.max_retry_after));
        // Reading to the end lets the connection be used again; past the cap it is closed instead.
        while let Some(chunk) =
            response.chunk().await.map_err(|error| classify(&error, connection))?
        {
            let room = self.config.max_response_bytes.saturating_sub(answer.excerpt.len());
            answer.excerpt.extend(chunk.iter().take(room));
            if chunk.len() > room {
                break;
            }
        }
        Ok(())
    }
}

/// Times what leaves an answer, within a timeout.
async fn exchange(
    timeout: Duration,
    answering: impl AsyncFnOnce(&mut Answer) -> Result<(), Failure>,
) -> Exchange {
    let started = Instant::now();
    let mut answer = Answer::default();
    let answering = answering(&mut answer);
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
        timings: answer.phases.timings(),
        excerpt: String::from_utf8_lossy(&answer.excerpt).into_owned(),
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

/// A pool of connections with these settings.
fn connections(
    config: &Config,
    policy: &Arc<Policy>,
    connection: &Connection,
) -> Result<reqwest::Client, reqwest::Error> {
    let proxy = connection.proxy.as_ref().and_then(Proxy::host);
    let builder = || {
        let policy = Arc::clone(policy);
        let builder = reqwest::Client::builder()
            .user_agent(concat!("Hookmill/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(256)
            .connector_layer(MeasureConnecting)
            .dns_resolver(Arc::new(VettedResolver { policy, proxy: proxy.clone() }));
        connection.apply(builder)
    };
    // Building fails where the system has no certificates at all.
    match builder()?.build() {
        Err(_) if connection.roots.is_none() => builder()?.tls_certs_only(bundled_roots()).build(),
        built => built,
    }
}

/// Root certificates that come with the binary, for containers that have none of their own.
fn bundled_roots() -> Vec<reqwest::Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| reqwest::Certificate::from_der(der).ok())
        .collect()
}
