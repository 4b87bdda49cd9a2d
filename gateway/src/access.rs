//! Access: which tenant an HTTP request speaks for.

use std::sync::Arc;

use axum::http::{HeaderMap, header};

use crate::problem::Problem;
use crate::snapshot::{Current, Tenant};

/// The tenant whose key the request carries.
///
/// # Errors
/// A problem when there is no key, or it is nobody's.
pub fn authenticate(current: &Current, headers: &HeaderMap) -> Result<Arc<Tenant>, Problem> {
    let credentials = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = credentials
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, key)) = key else {
        return Err(Problem::missing_key("send the header `Authorization: Bearer KEY`"));
    };
    let snapshot = current.load();
    snapshot.tenant_of_key(key.trim()).cloned().ok_or_else(|| {
        Problem::unknown_key("no tenant has this key; the configuration's `keys` lists them")
    })
}
