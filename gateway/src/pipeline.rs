//! The pipeline: the one place that knows the order of the stages.

/// How much work is under way at once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Deliveries held in memory, waiting or under way; the rest wait in the store.
    pub max_ready: usize,
    /// Deliveries under way at once.
    pub concurrency: usize,
    /// Deliveries under way at once for a webhook that sets no limit of its own.
    pub webhook_concurrency: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_ready: 10_000,
            concurrency: 1_024,
            webhook_concurrency: 256,
        }
    }
}
