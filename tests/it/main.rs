//! The end-to-end tests: one binary, one module for each thing that a user relies on.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

/// What each example plugin makes of its fixtures, through a real gateway.
mod plugins;
/// What is accepted, what is refused, and in which words.
mod ingest;
/// What receivers get, and what follows when they fail.
mod delivery;
/// Receivers that do not speak HTTP as they should.
mod hostile;
/// Plugins that misbehave: the typed failure, and that nothing is sent.
mod containment;
/// Plugins that keep failing: what is held, and how it is released.
mod breaker;
/// Plugins that change on disk while events flow.
mod reload;
/// Processes that are killed or told to stop.
mod crash;
/// What the configuration and the command line say.
mod command;
/// Who may import whom.
mod layers;
/// What the documents say of the tree.
mod documents;
