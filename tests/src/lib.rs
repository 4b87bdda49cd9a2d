//! The harness of the end-to-end tests: gateways as real processes, receivers on real sockets, and plugins
//! as real files.
//!
//! ```text
//! let receiver = Receiver::start().await;
//! let gateway = Gateway::new().plugin("order-summary").webhook(receiver.webhook("orders")).start().await;
//! gateway.send("order.paid", json!({"id": 1})).await;
//! let [request] = receiver.wait_for(1).await[..] else { … };
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a harness that cannot do its part ends the test"
)]

mod dice;
mod faulty;
mod files;
mod gateway;
pub mod guest;
mod ledger;
mod load;
pub mod proxy;
mod receiver;
pub mod tls;
mod reckoning;
mod webhook;

pub use dice::Dice;
pub use faulty::{Faults, Faulty};
pub use files::{Plugins, described, slow_to_compile, stamped, wasm, workspace};
pub use gateway::{Answer, Gateway, Running, binary, eventually};
pub use guest::{Expected, Guest};
pub use ledger::{Api, Ledger};
pub use load::{Load, Shape};
pub use receiver::{Received, Receiver, Reply, SECRET};
pub use reckoning::Reckoning;
pub use webhook::Webhook;
