//! Hookmill: a webhook gateway that runs user-supplied WebAssembly plugins.
//!
//! The modules stand in the order of an event's path; `ARCHITECTURE.md` has the map and the rule of who
//! may import whom.

pub mod event;
pub mod delivery;
pub mod kv;
pub mod digest;
pub mod telemetry;
pub mod shutdown;
pub mod failpoint;

pub mod route;
pub mod transform;
pub mod sign;
pub mod deliver;
pub mod record;

pub mod snapshot;
pub mod pipeline;

pub mod problem;
pub mod access;
pub mod ingest;
pub mod admin;
pub mod server;

pub mod config;
pub mod reload;

pub mod app;
pub mod cli;
