//! The end-to-end tests: one binary, one module for each thing that a user relies on.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]
#![expect(clippy::print_stdout, reason = "what a test prints is shown when it fails")]

/// What each example plugin makes of its fixtures, through a real gateway.
mod plugins;
/// Plugins that need a WASI, and those in other languages.
mod languages;
/// What is accepted, what is refused, and in which words.
mod ingest;
/// What receivers get, and what follows when they fail.
mod delivery;
/// Events that name their own destination.
mod ad_hoc;
/// What receivers answer, what follows from it, and what goes on record.
mod answers;
/// Certificates and proxies of webhooks: whom they trust, who they are, which way they go.
mod connections;
/// How webhooks authenticate themselves to receivers.
mod authentication;
/// Receivers that do not speak HTTP as they should.
mod hostile;
/// Plugins that misbehave: the typed failure, and that nothing is sent.
mod containment;
/// What plugins may do beside transforming.
mod capabilities;
/// Guests that nobody vetted, and a healthy tenant beside them.
mod corpus;
/// Guests that a generator makes, and good ones with a few bytes changed.
mod generated;
/// Plugins that keep failing: what is held, and how it is released.
mod breaker;
/// Webhooks that are disabled, and what waits for them.
mod disabled;
/// Replays, cancellations, and lists of deliveries.
mod jobs;
/// Plugins that change on disk while events flow.
mod reload;
/// Plugin files as people, editors and systems write, replace and break them.
mod reload_files;
/// Compiling: bounded, kept, and no delay for others.
mod compiling;
/// Versions of plugins: kept, pinned, rolled back, tried on a share of the events.
mod versions;
/// Configs that do not fit the schemas of their plugins.
mod configs;
/// Processes that are killed or told to stop.
mod crash;
/// Processes that die at each step of an event's path.
mod kill_matrix;
/// Processes that die in the middle of a replay or a cancellation.
mod kill_jobs;
/// A store that fails, answers late, or does what it says it could not.
mod faulty_store;
/// What is removed after its time, and what is not.
mod retention;
/// What is removed because somebody asked for it.
mod purge;
/// Stores that earlier versions wrote.
mod old_stores;
/// A file system without room.
mod full_disk;
/// A full disk, a store that is behind, a backlog over its limit, a damaged database.
mod backpressure;
/// Rate limits, and receivers that fail.
mod flow;
/// What the API says that a delivery waits for.
mod waiting;
/// Webhooks that keep an order.
mod order;
/// What the gateway tells of its own work.
mod operational;
/// What the configuration and the command line say.
mod command;
/// What a plugin's author does: `hookmill plugin`, from `new` to a running gateway.
mod plugin_command;
/// Who may import whom.
mod layers;
/// The two ways to call a plugin.
mod direct;
/// The published contract, and a plugin that was built for it.
mod world;
/// What the documents say of the tree.
mod documents;
