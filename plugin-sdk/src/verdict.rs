//! What a transform decides: forward, split or drop; and what a request to the webhook looks like.

use serde::Serialize;

use crate::failure::{Failure, Result};

/// What is to become of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Send these. One is the usual; more split the event into parts that are delivered and retried
    /// each on its own. None at all is refused by the gateway: use [`Verdict::drop`].
    Forward(Vec<Outgoing>),
    /// Send nothing, and record why.
    Drop(String),
}

impl Verdict {
    /// Sends `body` as JSON.
    ///
    /// # Errors
    ///
    /// A retry when `body` cannot be written as JSON, such as a map whose keys are not strings.
    pub fn forward(body: &(impl Serialize + ?Sized)) -> Result<Self> {
        Outgoing::json(body).map(Self::from)
    }

    /// Sends the payload byte for byte as it came in.
    pub fn unchanged() -> Self {
        Self::from(Outgoing::unchanged())
    }

    /// Sends nothing. The reason goes on record with the delivery, for whoever asks why.
    pub fn drop(reason: impl Into<String>) -> Self {
        Self::Drop(reason.into())
    }

    /// Sends several requests, each delivered and retried on its own.
    ///
    /// # Errors
    ///
    /// A retry when there are no parts: the gateway takes an event that neither sends anything nor says
    /// why for a mistake. Return [`Verdict::drop`] where that can rightly happen.
    pub fn split(parts: impl IntoIterator<Item = Outgoing>) -> Result<Self> {
        let parts: Vec<Outgoing> = parts.into_iter().collect();
        if parts.is_empty() {
            return Err(no_parts());
        }
        Ok(Self::Forward(parts))
    }
}

impl From<Outgoing> for Verdict {
    fn from(outgoing: Outgoing) -> Self {
        Self::Forward(vec![outgoing])
    }
}

/// What the gateway, too, makes of a verdict that forwards nothing.
#[cold]
pub(crate) fn no_parts() -> Failure {
    Failure::retry("the verdict forwards no parts; to send nothing, drop the event with a reason")
}

/// One request to the webhook's URL. A plugin cannot choose another host.
///
/// ```
/// use hookmill_plugin::{Outgoing, Verdict};
///
/// let csv = Outgoing::text("id,total\no_1,7\n")
///     .content_type("text/csv")
///     .set_header("x-rows", "1")
///     .path_suffix("/orders")
///     .query("source", "hookmill");
/// let verdict = Verdict::from(csv);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing {
    /// What the receiver gets as the request's body.
    pub body: Body,
    /// `application/json` when absent.
    pub content_type: Option<String>,
    /// Applied in order. Hop-by-hop headers, `host`, `content-length` and those of the signature are
    /// the gateway's own: a verdict that touches them is refused.
    pub headers: Vec<HeaderChange>,
    /// `POST` when absent; also `PUT` and `PATCH`.
    pub method: Option<String>,
    /// Appended to the URL's path.
    pub path_suffix: Option<String>,
    /// Appended to the URL's query, unencoded: names and values.
    pub query: Vec<(String, String)>,
    /// Values that later versions of the contract add: names and values. None in 1.0.
    pub extensions: Vec<(String, String)>,
}

impl Outgoing {
    /// A request with `body` as JSON.
    ///
    /// # Errors
    ///
    /// A retry when `body` cannot be written as JSON, such as a map whose keys are not strings.
    pub fn json(body: &(impl Serialize + ?Sized)) -> Result<Self> {
        // The text grows at the end of the arena, in place: a capacity hint would gain nothing.
        Ok(Self::new(Body::Text(serde_json::to_string(body)?)))
    }

    /// A request with `body` as it is. Say what it is with [`Outgoing::content_type`] unless it is JSON.
    pub fn text(body: impl Into<String>) -> Self {
        Self::new(Body::Text(body.into()))
    }

    /// A request with a body that need not be text. Say what it is with [`Outgoing::content_type`].
    /// Only the last plugin of a chain can do so, since a payload is text.
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self::new(Body::Bytes(body.into()))
    }

    /// A request with the payload byte for byte as it came in.
    pub fn unchanged() -> Self {
        Self::new(Body::Payload)
    }

    /// A request with this body, and nothing else said.
    pub fn new(body: Body) -> Self {
        Self {
            body,
            content_type: None,
            headers: Vec::new(),
            method: None,
            path_suffix: None,
            query: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// Says what the body is, in place of `application/json`.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets a header, in place of any value it had.
    #[must_use]
    pub fn set_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(HeaderChange::Set(name.into(), value.into()));
        self
    }

    /// Leaves a header out that the webhook's settings would have sent.
    #[must_use]
    pub fn remove_header(mut self, name: impl Into<String>) -> Self {
        self.headers.push(HeaderChange::Remove(name.into()));
        self
    }

    /// Sends with another method than `POST`: `PUT` or `PATCH`.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Appends to the URL's path.
    #[must_use]
    pub fn path_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.path_suffix = Some(suffix.into());
        self
    }

    /// Appends one pair to the URL's query. The gateway encodes both.
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }
}

/// What a receiver gets as a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// This text.
    Text(String),
    /// These bytes.
    Bytes(Vec<u8>),
    /// The event's payload, byte for byte. It becomes [`Body::Text`] when the transform has returned.
    Payload,
}

/// A change to a request's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderChange {
    /// Sets the header, in place of any value it had: name and value.
    Set(String, String),
    /// Leaves the header out.
    Remove(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_writes_compact_json() {
        let verdict = Verdict::forward(&serde_json::json!({ "a": [1, 2] }));
        assert_eq!(verdict, Ok(Verdict::from(Outgoing::text(r#"{"a":[1,2]}"#))));
    }

    #[test]
    fn a_body_that_is_no_json_is_a_retry() {
        let keyed_by_list = std::collections::BTreeMap::from([(vec![1], 2)]);
        let verdict = Verdict::forward(&keyed_by_list);
        assert_eq!(verdict, Err(Failure::retry("key must be a string")));
    }

    #[test]
    fn a_split_into_nothing_is_refused() {
        assert_eq!(Verdict::split([]), Err(no_parts()));
        let parts = [Outgoing::text("1"), Outgoing::text("2")];
        assert_eq!(Verdict::split(parts.clone()), Ok(Verdict::Forward(parts.to_vec())));
    }
}
