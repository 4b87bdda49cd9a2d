//! Secrets that the operator set for the event's tenant.
//!
//! The operator sets them in the configuration, under `[tenants.secrets]`, and grants them by name in the
//! plugin's manifest: `[grants] secrets = ["crm_token"]`. The gateway replaces their values in whatever the
//! plugin logs, and in the reasons and failures that go on record.

use crate::failure::{Failure, Result};

#[cfg(target_arch = "wasm32")]
use crate::__guest::host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host;

/// The secret of this name; none when the plugin was not granted it, or the tenant has none.
pub fn get(name: &str) -> Option<String> {
    host::secret(name)
}

/// The secret of this name.
///
/// # Errors
///
/// A retry that says what the operator has to do when there is none.
///
/// ```
/// use hookmill_plugin::{Result, http, secrets};
///
/// fn customer(id: &str) -> Result<http::Response> {
///     let token = secrets::require("crm_token")?;
///     let request = http::Request::get(format!("https://crm.example.com/v1/customers/{id}"));
///     Ok(request.header("authorization", format!("Bearer {token}")).send()?)
/// }
/// # let failure = customer("7").unwrap_err();
/// # assert!(failure.message().contains("`crm_token`"), "{failure}");
/// ```
pub fn require(name: &str) -> Result<String> {
    get(name).ok_or_else(|| {
        Failure::retry(format!(
            "there is no secret `{name}`: it has to be set under `[tenants.secrets]`, and granted in the \
             plugin's manifest"
        ))
    })
}
