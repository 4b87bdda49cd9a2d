//! The deliver stage: one HTTP exchange with a receiver, bounded in every direction.

mod address;
mod auth;
mod classify;
mod client;
mod connection;
mod fetch;
mod oauth2;
mod redact;
mod resolve;
mod retry;
mod retry_after;
mod timing;

use std::time::Duration;

pub use self::address::Policy as AddressPolicy;
pub use self::auth::Auth;
pub use self::client::{Client, Exchange, Outbound};
pub use self::connection::{Connection, Identity, Proxy, Roots};
pub use self::fetch::{Fetch, FetchFailure, Fetched};
pub use self::oauth2::{TokenConfig, TokenSource};
pub use self::redact::Credentials;
pub use self::retry::Schedule;

/// How requests are sent.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a whole exchange may take, for webhooks that set no timeout of their own.
    pub timeout: Duration,
    /// How long connecting may take, within the timeout.
    pub connect_timeout: Duration,
    /// The response bytes that are kept in the record; no more than this is read.
    pub max_response_bytes: usize,
    /// The longest wait that a receiver can ask for by `Retry-After`.
    pub max_retry_after: Duration,
    /// Where requests may go.
    pub addresses: AddressPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            max_response_bytes: 4 << 10,
            max_retry_after: Duration::from_secs(24 * 60 * 60),
            addresses: AddressPolicy::default(),
        }
    }
}
