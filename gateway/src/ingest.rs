//! The ingest stage: takes events over HTTP and answers once they are durable.

use std::net::SocketAddr;

/// What is taken, and from where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The most events in one request.
    pub max_events: usize,
    /// The deepest nesting of an event's data.
    pub max_depth: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body_bytes: 1 << 20,
            max_events: 1_000,
            max_depth: 64,
        }
    }
}
