//! The SDK for Hookmill plugins: a webhook transform is one Rust function.
//!
//! Hookmill runs a plugin between accepting an event and sending it to a webhook. The plugin decides
//! what becomes of the event: forward it (as it came or reshaped), split it into several requests, or
//! drop it. Every call runs in a fresh sandbox; nothing that a call leaves behind is seen by the next.
//!
//! ```
//! use hookmill_plugin::{Context, Event, Result, Verdict, config, transform};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     id: String,
//!     total: u64,
//! }
//!
//! #[config]
//! struct Config {
//!     /// ISO 4217, such as `EUR`.
//!     currency: String,
//! }
//!
//! /// Says in one line what an order came to.
//! #[transform]
//! fn order_line(event: Event<Order>, context: Context<Config>) -> Result<Verdict> {
//!     let Order { id, total } = event.payload;
//!     let currency = context.config.currency;
//!     Verdict::forward(&serde_json::json!({ "line": format!("{id}: {total} {currency}") }))
//! }
//!
//! # fn main() {
//! // The function stays an ordinary one, and `testing` calls it as the gateway would.
//! use hookmill_plugin::testing;
//!
//! let verdict = testing::run(order_line, r#"{"id":"o_1","total":7}"#, r#"{"currency":"EUR"}"#);
//! assert_eq!(verdict, Verdict::forward(&serde_json::json!({ "line": "o_1: 7 EUR" })));
//! # }
//! ```
//!
//! # The function
//!
//! - The first parameter is an [`Event<T>`]. `T` is anything that serde deserialises, borrowed data
//!   included: a struct, [`serde_json::Value`], `&serde_json::value::RawValue`. The less of the payload
//!   `T` names, the faster the call. Borrow text as `#[serde(borrow)] Cow<'a, str>`: a plain `&str`
//!   refuses strings that are written with escapes.
//! - The second is a [`Context<C>`] and may be left out. `C` is the plugin's config for this webhook, a type
//!   with the attribute [`config`](macro@crate::config), by which the gateway checks configs before they are used; plain
//!   `Context` accepts any config and ignores it.
//! - It returns a [`Verdict`], or a `Result` of one with any error: see [`Failure`] for what `?` does
//!   to the delivery.
//! - Its doc comment is the description that the gateway shows; name and version come from `Cargo.toml`.
//!
//! # Capabilities
//!
//! Beside transforming, a plugin can tell the time ([`clock`]), draw [`random`] numbers, read [`secrets`], keep
//! keys and values ([`kv`]) and send HTTP requests ([`http`]), each where the operator grants it in the
//! manifest beside the plugin, `NAME.toml`. Using one is asking for it: the built file imports what is used,
//! and the gateway refuses a plugin that imports what it was not granted. Nothing has to be declared.
//!
//! # Building
//!
//! A plugin is a crate with `crate-type = ["cdylib", "rlib"]`, built with plain
//! `cargo build --release --target wasm32-unknown-unknown`. The README has the profile and the linker
//! arguments that make calls cheapest.
//!
//! # Allocation
//!
//! With the feature `arena` (on by default) the SDK installs a global allocator made for guests that
//! live for one call: freeing does nothing, except for the last block. A plugin that allocates without
//! bound in a loop should turn it off.

pub mod clock;
pub mod event;
pub mod failure;
pub mod http;
pub mod json;
pub mod kv;
pub mod log;
pub mod random;
pub mod secrets;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod verdict;

mod mismatch;
mod schema;
mod transform;

#[cfg(any(test, all(target_arch = "wasm32", not(target_feature = "atomics"), feature = "arena")))]
mod arena;

#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod __guest;

#[doc(hidden)]
pub use schema::text_of as __config_schema;
#[doc(hidden)]
pub use transform::call as __call;

// What the attributes generate names the crate from outside, and this crate's own tests use them.
#[cfg(test)]
extern crate self as hookmill_plugin;

/// The examples of the README are tested with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So is the one of the whole project.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ProjectReadme;

/// And those of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/writing-plugins.md")]
struct Guide;

pub use event::{AnyConfig, Context, Event};
pub use failure::{Failure, OrInvalid, Result};
pub use hookmill_plugin_macros::{config, transform};
pub use schema::{Config, schema_of};
pub use schemars;
pub use serde;
pub use transform::{IntoVerdict, Transform};
pub use verdict::{Body, HeaderChange, Outgoing, Verdict};
