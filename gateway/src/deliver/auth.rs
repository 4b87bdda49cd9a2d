//! Authentication: what a request carries so that the receiver knows who calls, beside the signature.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Client;
use super::connection::Connection;
use super::oauth2::TokenSource;
use super::redact::Credentials;
use crate::delivery::Failure;

const AUTHORIZATION: &str = "authorization";

/// How a webhook's requests are authenticated.
pub enum Auth {
    /// The same header each time.
    Header {
        /// Its name, in lower case.
        name: String,
        /// Its value.
        value: String,
    },
    /// A token of an authorization server.
    OAuth2(Box<TokenSource>),
}

impl Auth {
    /// `authorization: Bearer …`.
    #[must_use]
    pub fn bearer(token: &str) -> Self {
        Self::Header { name: AUTHORIZATION.to_owned(), value: format!("Bearer {token}") }
    }

    /// `authorization: Basic …`.
    #[must_use]
    pub fn basic(username: &str, password: &str) -> Self {
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        Self::Header { name: AUTHORIZATION.to_owned(), value: format!("Basic {encoded}") }
    }

    /// The name of the header that it sets.
    #[must_use]
    pub fn header(&self) -> &str {
        match self {
            Self::Header { name, .. } => name,
            Self::OAuth2(_) => AUTHORIZATION,
        }
    }

    /// The header's value for a request that is sent now.
    pub(super) async fn value(
        &self,
        client: &Client,
        connection: Option<&Connection>,
    ) -> Result<Arc<str>, Failure> {
        match self {
            Self::Header { value, .. } => Ok(value.as_str().into()),
            Self::OAuth2(source) => source.token(client, connection).await,
        }
    }

    /// The receiver refused a request with this value.
    pub(super) fn refused(&self, value: &str) {
        if let Self::OAuth2(source) = self {
            source.refused(value);
        }
    }

    /// Adds what must not go on record: a value that was sent, and what it was made of.
    pub(super) fn credentials(&self, value: Option<&str>, credentials: &mut Credentials) {
        let called = format!("header {}", self.header());
        if let Some(value) = value {
            credentials.add(called.as_str(), value);
            if let Some((_, value)) = value.split_once(' ') {
                credentials.add(called, value);
            }
        }
        if let Self::OAuth2(source) = self {
            source.credentials(credentials);
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { name, .. } => write!(f, "Header({name})"),
            Self::OAuth2(source) => source.fmt(f),
        }
    }
}
