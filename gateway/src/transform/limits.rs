//! What one plugin call may use at most.

use std::time::Duration;

/// The limits of one call. Each is a failure of its own kind, recorded with the limit's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Running time, and time spent waiting for what was granted; waiting for a turn does not count. Measured in ticks of a
    /// millisecond, so a call may run a tick longer.
    pub time: Duration,
    /// Running time of `describe`, once, when the plugin is loaded.
    pub describe_time: Duration,
    /// Linear memory, in bytes, all of the plugin's memories together.
    pub memory_bytes: usize,
    /// Table elements, all of the plugin's tables together.
    pub table_elements: usize,
    /// Calls of the gateway's functions, of whichever capability.
    pub host_calls: u64,
    /// The bytes of all bodies, headers and other text that the call returns.
    pub output_bytes: usize,
    /// The parts that one event may become.
    pub parts: usize,
    /// The headers that one part may set or remove.
    pub headers: usize,
    /// The bytes of their names and values.
    pub header_bytes: usize,
    /// The query parameters that one part may append.
    pub query_parameters: usize,
    /// The bytes of one part's path suffix, and of the names and values of its query parameters.
    pub url_bytes: usize,
    /// The bytes of a failure's message and of the reason of a drop that are kept.
    pub message_bytes: usize,
    /// The log messages that are kept; what comes after is counted and left out.
    pub log_lines: usize,
    /// The bytes of log messages that are kept.
    pub log_bytes: usize,
    /// The HTTP requests that it may make.
    pub fetches: usize,
    /// The bytes of one HTTP request, and of one response.
    pub fetch_bytes: usize,
    /// The keys that the plugin may keep for a tenant.
    pub kv_keys: u64,
    /// The bytes of those keys and their values.
    pub kv_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_millis(50),
            describe_time: Duration::from_millis(500),
            memory_bytes: 16 << 20,
            table_elements: 50_000,
            host_calls: 10_000,
            output_bytes: 1 << 20,
            parts: 100,
            headers: 32,
            header_bytes: 16 << 10,
            query_parameters: 32,
            url_bytes: 4 << 10,
            message_bytes: 4 << 10,
            log_lines: 50,
            log_bytes: 16 << 10,
            fetches: 10,
            fetch_bytes: 1 << 20,
            kv_keys: 100_000,
            kv_bytes: 64 << 20,
        }
    }
}
