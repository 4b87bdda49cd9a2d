//! What an error of the HTTP client means: which kind of failure, told by the types in its chain of sources.

use std::error::Error as StdError;

use super::connection::Connection;
use super::resolve::{BlockedAddress, ResolveError};
use crate::delivery::{Failure, FailureKind};

/// How a SOCKS proxy says that it works and the destination does not. The type that holds the reply is
/// private, and its words are all there is.
const SOCKS_REPLIES: [&str; 4] = [
    "SOCKS error: network unreachable",
    "SOCKS error: host unreachable",
    "SOCKS error: connection refused",
    "SOCKS error: ttl expired",
];

/// What an error means for a request over this connection.
pub(super) fn classify(error: &reqwest::Error, connection: Option<&Connection>) -> Failure {
    let proxy = connection.and_then(Connection::proxy_host);
    match proxy {
        Some(proxy) if is_of_proxy(error) => Failure::new(
            FailureKind::Proxy,
            format!("no connection through the proxy {proxy}: {}", with_sources(error)),
        ),
        _ => of_source(error).unwrap_or_else(|| Failure::new(kind(error), with_sources(error))),
    }
}

/// What an error of resolving means.
pub(super) fn of_source(error: &(dyn StdError + 'static)) -> Option<Failure> {
    if let Some(blocked) = find_source::<BlockedAddress>(error) {
        return Some(Failure::new(FailureKind::BlockedAddress, blocked.to_string()));
    }
    find_source::<ResolveError>(error)
        .map(|unresolved| Failure::new(FailureKind::Dns, unresolved.to_string()))
}

fn kind(error: &reqwest::Error) -> FailureKind {
    if find_source::<rustls::Error>(error).is_some() {
        FailureKind::Tls
    } else if error.is_timeout() {
        FailureKind::Timeout
    } else if error.is_connect() || find_source(error).is_some_and(is_broken) {
        FailureKind::Connect
    } else {
        FailureKind::Protocol
    }
}

/// Whether a request that goes through a proxy failed by that, before the destination had a part in it.
fn is_of_proxy(error: &reqwest::Error) -> bool {
    let is_of_destination = of_source(error).is_some()
        || find_source::<rustls::Error>(error).is_some()
        || sources(error).any(|source| SOCKS_REPLIES.contains(&source.to_string().as_str()));
    // A timeout tells nothing about who was slow.
    error.is_connect() && !error.is_timeout() && !is_of_destination
}

/// Whether the connection broke, rather than being closed before the answer was complete.
fn is_broken(error: &std::io::Error) -> bool {
    error.kind() != std::io::ErrorKind::UnexpectedEof
}

fn find_source<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    sources(error).find_map(|error| error.downcast_ref::<E>())
}

/// An error and all that it came from.
fn sources<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |current| {
        let error: &'a (dyn StdError + 'static) = *current;
        // An I/O error hides the error that it wraps from `source`.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|inner| inner as &(dyn StdError + 'static));
        wrapped.or_else(|| error.source())
    })
}

/// The messages of an error's sources, without the URL, which the record has already.
pub(super) fn with_sources(error: &reqwest::Error) -> String {
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
