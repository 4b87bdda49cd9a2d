//! What the gateway does for plugins beyond running them: the capabilities, each only where it was granted.
//!
//! A capability that was not granted is not there to be linked, so that a plugin that wants it is refused when
//! it is loaded. The ones that reach outside the sandbox, `kv` and `http`, are traits here, and what stands
//! behind them is wired above the stages.

mod allow;
mod clock;
mod grants;
mod http;
mod kv;
mod random;
mod secrets;
mod session;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use wasmtime::component::{HasSelf, Linker};

use super::state::State;
use crate::kv::{Outcome, Request};

pub use self::allow::AllowedUrl;
pub(super) use self::grants::NotGranted;
pub use self::grants::{Capability, Grants, Manifest};
pub use self::http::{FetchError, FetchRequest, FetchResponse};
pub use self::random::Randomness;
pub(super) use self::secrets::Granted;
pub use self::secrets::Secrets;
pub(super) use self::session::{About, Session};

/// The capabilities' side of the contract.
mod contract {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit/since-v1.0",
        interfaces: "
            import hookmill:plugin/clock@1.0.0;
            import hookmill:plugin/random@1.0.0;
            import hookmill:plugin/secrets@1.0.0;
            import hookmill:plugin/kv@1.0.0;
            import hookmill:plugin/http@1.0.0;
        ",
        imports: {
            "hookmill:plugin/kv": async | trappable,
            "hookmill:plugin/http": async | trappable,
            default: trappable,
        },
    });
}

/// Keeps the keys and values of plugins.
pub trait Keys: Send + Sync {
    /// Does an operation, once for each run: the same one in a repeated run gets the same answer.
    ///
    /// # Errors
    /// When the store cannot answer now: why.
    fn operate(&self, request: Request) -> BoxFuture<'_, Result<Outcome, String>>;
}

/// Sends the requests of plugins.
pub trait Fetch: Send + Sync {
    /// Sends a request, to a public address alone unless the operator allows more, and reads the response
    /// whole.
    ///
    /// # Errors
    /// Why there is no response.
    fn fetch(&self, request: FetchRequest) -> BoxFuture<'_, Result<FetchResponse, FetchError>>;
}

/// What stands behind the capabilities.
#[derive(Clone)]
pub struct Services {
    /// Behind `kv`.
    pub keys: Arc<dyn Keys>,
    /// Behind `http`.
    pub fetch: Arc<dyn Fetch>,
    /// What `random` grows from.
    pub randomness: Randomness,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

/// A linker that has what was granted beside what every plugin has.
pub(super) fn linker(
    base: &Linker<State>,
    grants: &Grants,
) -> wasmtime::Result<Option<Linker<State>>> {
    use contract::hookmill::plugin as wit;

    if grants.is_empty() {
        return Ok(None);
    }
    let mut linker = base.clone();
    for capability in grants.capabilities() {
        match capability {
            Capability::Clock => wit::clock::add_to_linker::<_, HasSelf<_>>(&mut linker, same),
            Capability::Random => wit::random::add_to_linker::<_, HasSelf<_>>(&mut linker, same),
            Capability::Secrets => wit::secrets::add_to_linker::<_, HasSelf<_>>(&mut linker, same),
            Capability::Kv => wit::kv::add_to_linker::<_, HasSelf<_>>(&mut linker, same),
            Capability::Http => wit::http::add_to_linker::<_, HasSelf<_>>(&mut linker, same),
        }?;
    }
    Ok(Some(linker))
}

fn same(state: &mut State) -> &mut State {
    state
}
