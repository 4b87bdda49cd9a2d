//! Resolving: names become addresses that requests may go to, or an error that says why not.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Instant;

use super::address::{Policy, refusal};
use super::timing;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Resolves names and leaves out the addresses that requests may not go to.
pub(super) struct VettedResolver {
    pub(super) policy: Arc<Policy>,
    /// The host of the proxy, in lower case: the operator chose it, so it may have any address.
    pub(super) proxy: Option<String>,
}

impl Resolve for VettedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        let is_proxy = self.proxy.as_deref().is_some_and(|host| host == name.as_str());
        Box::pin(async move {
            let begun = Instant::now();
            let found = match is_proxy {
                true => lookup(name.as_str())
                    .await
                    .map_err(|ResolveError(error)| BoxError::from(ProxyUnknown(error)))?,
                false => vetted(&policy, name.as_str()).await?,
            };
            timing::resolved(begun);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a host that requests may go to.
///
/// # Errors
/// [`ResolveError`] when it has none, [`BlockedAddress`] when it has none that is allowed.
pub(super) async fn vetted(policy: &Policy, host: &str) -> Result<Vec<SocketAddr>, BoxError> {
    let found = lookup(host).await?;
    if policy.allows_host(host) {
        return Ok(found);
    }
    let allowed: Vec<SocketAddr> =
        found.iter().copied().filter(|found| policy.allows_address(found.ip())).collect();
    match found.first() {
        Some(first) if allowed.is_empty() => {
            Err(BlockedAddress(format!("{host} {}", refusal(first.ip()))).into())
        }
        _ => Ok(allowed),
    }
}

async fn lookup(host: &str) -> Result<Vec<SocketAddr>, ResolveError> {
    // A literal IPv6 address comes as it stands in a URL.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(tokio::net::lookup_host((host, 0)).await.map_err(ResolveError)?.collect())
}

/// The receiver's name leads nowhere.
#[derive(Debug)]
pub(super) struct ResolveError(std::io::Error);

impl std::fmt::Display for ResolveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the name cannot be resolved: {}", self.0)
    }
}

impl StdError for ResolveError {}

/// The proxy's name leads nowhere.
#[derive(Debug)]
pub(super) struct ProxyUnknown(std::io::Error);

impl std::fmt::Display for ProxyUnknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "its name cannot be resolved: {}", self.0)
    }
}

impl StdError for ProxyUnknown {}

/// The receiver's name leads to an address that requests may not go to.
#[derive(Debug)]
pub(super) struct BlockedAddress(String);

impl std::fmt::Display for BlockedAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for BlockedAddress {}
