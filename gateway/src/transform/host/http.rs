//! `http`: checks a request against the grant and the limits, and waits for its response.

use std::time::Duration;

use bytes::Bytes;
use url::Url;

use super::contract::hookmill::plugin::http::{Error, Host, Request, Response};
use super::contract::hookmill::plugin::types::Body;
use super::session::Allowance;
use crate::delivery::{is_header_name, is_header_value, reserved_header};
use crate::transform::host::Session;
use crate::transform::state::State;

/// The methods that a plugin may use.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// A request of a plugin's, as it may be sent.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// One of the usual methods.
    pub method: String,
    /// Where it goes.
    pub url: Url,
    /// Its headers; names are lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
    /// How long the whole exchange may take.
    pub timeout: Duration,
    /// The most bytes that headers and body of the response may have.
    pub max_bytes: usize,
}

/// A response to a plugin's request.
#[derive(Debug, Clone)]
pub struct FetchResponse {
    /// Its status.
    pub status: u16,
    /// Its headers; names are lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// It leads to an address that nobody may reach.
    Blocked(String),
    /// The response is larger than it may be.
    TooLarge(String),
    /// It took longer than it may.
    Timeout(String),
    /// The server could not be reached, or did not speak HTTP.
    Failed(String),
}

impl Host for State {
    async fn fetch(&mut self, request: Request) -> wasmtime::Result<Result<Response, Error>> {
        let left = self.time_left();
        let session = self.session()?;
        let Some(services) = session.services() else {
            return Ok(Err(Error::Failed("there is no network here".to_owned())));
        };
        let request = match session.check(request, left) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self.wait(services.fetch.fetch(request)).await?;
        Ok(answer.map(response).map_err(error))
    }
}

fn response(response: FetchResponse) -> Response {
    let body = match String::from_utf8(response.body.into()) {
        Ok(text) => Body::Text(text),
        Err(error) => Body::Bytes(error.into_bytes()),
    };
    let FetchResponse { status, headers, .. } = response;
    Response { status, headers, body, extensions: Vec::new() }
}

fn error(error: FetchError) -> Error {
    match error {
        FetchError::Blocked(message) => Error::NotAllowed(message),
        FetchError::TooLarge(message) => Error::TooLarge(message),
        FetchError::Timeout(message) => Error::Timeout(message),
        FetchError::Failed(message) => Error::Failed(message),
    }
}

impl Session {
    /// The request as it may be sent.
    fn check(&mut self, request: Request, time_left: Duration) -> Result<FetchRequest, Error> {
        let Allowance { limits, fetches, .. } = &mut self.left;
        let max_bytes = limits.fetch_bytes;
        *fetches = fetches.checked_sub(1).ok_or_else(|| {
            let limit = limits.fetches;
            Error::TooMany(format!("the call made {limit} requests, which is its limit"))
        })?;
        let url = Url::parse(&request.url)
            .map_err(|error| Error::InvalidRequest(format!("the URL is none: {error}")))?;
        if !self.grants().http.iter().any(|allowed| allowed.covers(&url)) {
            // The query may hold what belongs in no message.
            let place = format!("{}{}", url.origin().ascii_serialization(), url.path());
            return Err(Error::NotAllowed(format!("the plugin's grant does not cover {place}")));
        }
        if !METHODS.contains(&request.method.as_str()) {
            let method = &request.method;
            return Err(Error::InvalidRequest(format!(
                "the method {method:?} is none of {}",
                METHODS.join(", ")
            )));
        }
        let body = match request.body {
            None => Bytes::new(),
            Some(Body::Text(text)) => text.into(),
            Some(Body::Bytes(bytes)) => bytes.into(),
        };
        let headers = headers(request.headers)?;
        let size = headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let size = size.saturating_add(body.len()).saturating_add(request.url.len());
        if size > max_bytes {
            return Err(Error::TooLarge(format!(
                "the request has {size} bytes; the limit is {max_bytes}"
            )));
        }
        let wanted = request.timeout_ms.map(|millis| Duration::from_millis(millis.into()));
        // Without a time of its own it ends with the call, and the call's failure says so.
        let timeout = wanted.unwrap_or(time_left * 2);
        Ok(FetchRequest { method: request.method, url, headers, body, timeout, max_bytes })
    }
}

fn headers(headers: Vec<(String, String)>) -> Result<Vec<(String, String)>, Error> {
    let check = |(name, value): (String, String)| {
        let name = name.to_ascii_lowercase();
        if !is_header_name(&name) {
            return Err(format!("the header name {name:?} is none"));
        }
        if name != "content-type"
            && let Some(why) = reserved_header(&name)
        {
            return Err(format!("the header `{name}` cannot be set: {why}"));
        }
        if !is_header_value(&value) {
            return Err(format!(
                "the value of the header `{name}` has characters that none may have"
            ));
        }
        Ok((name, value))
    };
    headers.into_iter().map(check).collect::<Result<_, _>>().map_err(Error::InvalidRequest)
}
