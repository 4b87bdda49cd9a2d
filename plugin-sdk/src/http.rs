//! HTTP requests to the addresses that the operator granted.
//!
//! The operator grants them in the plugin's manifest, and gives the call time to wait:
//!
//! ```toml
//! [grants]
//! http = ["https://api.example.com/v1/", "https://*.example.org/"]
//!
//! [limits]
//! time = "5s"
//! ```
//!
//! A grant names a scheme, a host or (`*.`) every name below one, a port, and how the path begins. Requests go
//! to public addresses alone, redirects are not followed, and both sides are bounded in size.
//!
//! Unlike everything else that a plugin sees, an answer may differ when a run is repeated.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

#[cfg(target_arch = "wasm32")]
use crate::__guest::host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host;

/// A request.
///
/// ```
/// use hookmill_plugin::{Failure, Result, http};
///
/// #[derive(serde::Deserialize)]
/// struct Customer {
///     name: String,
/// }
///
/// fn name_of(id: &str) -> Result<String> {
///     let url = format!("https://crm.example.com/v1/customers/{id}");
///     let customer: Customer = http::Request::get(url).send()?.success()?.json()?;
///     Ok(customer.name)
/// }
///
/// # use hookmill_plugin::testing::Host;
/// // A test stands in for the server.
/// let host = Host::new().with_http(|request| {
///     assert_eq!(request.url, "https://crm.example.com/v1/customers/7");
///     Ok(http::Response::json_of(200, &serde_json::json!({ "name": "Ada" })))
/// });
/// assert_eq!(host.enter(|| name_of("7")), Ok("Ada".to_owned()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// `GET`, `HEAD`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// Where it goes.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body, if it has one.
    pub body: Option<Vec<u8>>,
    /// How long to wait for the whole answer; the rest of the call's time when absent or longer.
    pub timeout: Option<Duration>,
}

impl Request {
    /// A request with this method, to this URL.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            timeout: None,
        }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The same with this body, as JSON.
    ///
    /// # Errors
    ///
    /// A retry when it cannot be written as JSON.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Result<Self> {
        let body = serde_json::to_vec(body)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// The same, waiting no longer than this for the whole answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it, and gives what came back, whatever its status.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn send(self) -> Result<Response, Error> {
        host::fetch(self)
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A response with this status and body: what a test answers with.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// A response with a body of JSON: what a test answers with.
    pub fn json_of(status: u16, body: &serde_json::Value) -> Self {
        let mut response = Self::new(status, body.to_string());
        response.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        response
    }

    /// The same, if its status is one of success.
    ///
    /// # Errors
    ///
    /// A retry that names the status of any other.
    pub fn success(self) -> Result<Self> {
        match self.status {
            200..=299 => Ok(self),
            status => Err(Failure::retry(format!("the server answered {status}"))),
        }
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Errors
    ///
    /// A retry when it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        Ok(std::str::from_utf8(&self.body)?)
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    ///
    /// A retry when it is not JSON, or does not fit the type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::retry(format!("the server's answer does not fit: {error}")))
    }
}

/// Why there is no response. Through `?` it makes the delivery follow its retry schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The grant does not cover the URL, or it leads to an address that nobody may reach.
    NotAllowed(String),
    /// The request is none that can be sent.
    InvalidRequest(String),
    /// The request or the response is larger than the plugin's limit.
    TooLarge(String),
    /// The call made as many requests as it may.
    TooMany(String),
    /// No complete answer in the time that the request gave.
    Timeout(String),
    /// The server could not be reached, or did not speak HTTP.
    Failed(String),
    /// What a later version of the gateway adds.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotAllowed(message)
        | Self::InvalidRequest(message)
        | Self::TooLarge(message)
        | Self::TooMany(message)
        | Self::Timeout(message)
        | Self::Failed(message)
        | Self::Other(message)) = self;
        f.write_str(message)
    }
}

impl std::error::Error for Error {}
