//! A delivery: what one webhook is owed of one event, what became of it, and how it can fail.

mod id;
mod state;
pub mod view;

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

pub(crate) use self::id::uuid_id;
pub use self::id::{DeliveryId, WebhookId};
pub use self::state::State;

/// What one webhook is owed of one event.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The webhook that it goes to.
    pub webhook: WebhookId,
    /// Which part of the event it is, counted from 1.
    pub part: u32,
    /// How many attempts the retry schedule counts: all but those that left the delivery held.
    pub attempts: u32,
    /// How many attempts are on record, whether they count or not.
    pub tried: u32,
    /// The rendered request, once one is stored: the plugins do not run again.
    pub request: Option<Arc<Request>>,
    /// The key of the queue in which it keeps its order; empty for that of the whole webhook.
    pub queue: Option<Arc<str>>,
    /// It repeats one part of a split: of what the plugins make, that part alone is sent.
    pub only_part: bool,
}

impl Delivery {
    /// One that nothing has been done about yet, without an order.
    #[must_use]
    pub fn first_part(id: DeliveryId, webhook: WebhookId) -> Self {
        let (part, attempts, tried) = (1, 0, 0);
        let (request, queue) = (None, None);
        Self { id, webhook, part, attempts, tried, request, queue, only_part: false }
    }
}

/// A request as the plugins left it: all but the webhook's own URL, headers and signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST`, `PUT` or `PATCH`.
    pub method: Method,
    /// Appended to the path of the webhook's URL; empty for none.
    pub path_suffix: String,
    /// Appended to the query of the webhook's URL, unencoded.
    pub query: Vec<(String, String)>,
    /// The `content-type` header.
    pub content_type: String,
    /// Headers set, in order; names are lower case.
    pub headers: Vec<(String, String)>,
    /// Headers of the webhook to leave out; names are lower case.
    pub removed_headers: Vec<String>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A `POST` of this JSON.
    #[must_use]
    pub fn json(body: Bytes) -> Self {
        Self {
            method: Method::Post,
            path_suffix: String::new(),
            query: Vec::new(),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            removed_headers: Vec::new(),
            body,
        }
    }
}

/// The methods that a delivery may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Post, Self::Put, Self::Patch];

    /// The method as it stands in a request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

/// Why a header is the gateway's own to set, if it is; `name` is lower case.
#[must_use]
pub fn reserved_header(name: &str) -> Option<&'static str> {
    match name {
        // RFC 9110, section 7.6.1.
        "connection"
        | "keep-alive"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade" => Some("it belongs to the connection, not to the request"),
        "expect" => Some("the gateway sends its body without asking"),
        "host" => Some("it follows from the webhook's URL"),
        "content-length" | "content-encoding" => Some("it follows from the body"),
        "content-type" => Some("it follows from the body, or a plugin's `content-type` sets it"),
        "webhook-id" | "webhook-timestamp" | "webhook-signature" => {
            Some("it is part of the signature")
        }
        _ => None,
    }
}

/// Whether this is a header name (RFC 9110, section 5.1).
#[must_use]
pub fn is_header_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(allowed)
}

/// Whether this is a header value that any receiver takes: visible ASCII, spaces and tabs.
#[must_use]
pub fn is_header_value(value: &str) -> bool {
    value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'))
}

/// One try, as it is recorded.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// The response's status, where there was one.
    pub status: Option<u16>,
    /// Why it failed; absent on success.
    pub failure: Option<Failure>,
    /// The start of the response's body, bounded, without credentials and control characters.
    pub excerpt: String,
    /// How long the receiver asked to wait before the next attempt, if it did, as far as that is granted.
    pub retry_after: Option<Duration>,
    /// How long its phases took.
    pub timings: Timings,
}

/// How long the phases of an exchange took, as far as it got. Without a connection of its own, because one was
/// kept open or the proxy has it, there is nothing to measure of the first two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Resolving the name.
    pub dns: Option<Duration>,
    /// Connecting, with the TLS handshake, and that of a proxy.
    pub connect: Option<Duration>,
    /// From then on until the response's head was there.
    pub first_byte: Option<Duration>,
}

/// A typed failure of an attempt, with its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// What is known about it, for the operator.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Failure {
    /// On one line whatever the message: a plugin or a receiver may have worded it, and must not be able
    /// to write what looks like another line of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), OneLine(&self.message))
    }
}

impl std::error::Error for Failure {}

/// Shows a text without characters that would begin a line or steer a terminal.
#[derive(Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\t' => f.write_char(c),
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

/// Declares the kinds of failure: variant, name, and whose fault it is.
macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $fault:ident;)*) => {
        /// What failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FailureKind {
            $($(#[$doc])* $variant,)*
        }

        impl FailureKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The kind's name in the API and in the store.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)* }
            }
        }
    };
}

failure_kinds! {
    /// The receiver's name could not be resolved.
    Dns = "dns", Network;
    /// No connection to the receiver could be made, or it broke.
    Connect = "connect", Network;
    /// The TLS handshake failed.
    Tls = "tls", Receiver;
    /// The proxy could not be reached, refused, or did not do its part.
    Proxy = "proxy", Proxy;
    /// The receiver's authorization server gave no token.
    Auth = "auth", Receiver;
    /// The exchange took longer than the webhook allows.
    Timeout = "timeout", Receiver;
    /// The receiver answered with a status that is not a success.
    Status = "status", Receiver;
    /// The receiver answered 410: it asks that nothing be sent to it any more.
    Gone = "gone", Receiver;
    /// The receiver's answer is not HTTP.
    Protocol = "protocol", Receiver;
    /// The webhook's URL leads to an address that deliveries may not go to.
    BlockedAddress = "blocked_address", Configuration;
    /// The webhook's plugin is not loaded.
    PluginMissing = "plugin_missing", Configuration;
    /// The webhook's config does not fit the plugin's schema.
    PluginConfig = "plugin_config", Configuration;
    /// The webhook is no longer declared.
    WebhookMissing = "webhook_missing", Configuration;
    /// The plugin trapped or panicked.
    PluginTrap = "plugin_trap", Plugin;
    /// The plugin ran longer than its limit.
    PluginTimeout = "plugin_timeout", Plugin;
    /// The plugin asked for more memory than its limit.
    PluginMemory = "plugin_memory", Plugin;
    /// The plugin called the gateway's functions more often than it may.
    PluginCalls = "plugin_calls", Plugin;
    /// What the plugin returned is not allowed or too large.
    PluginOutput = "plugin_output", Plugin;
    /// The plugin answered that trying again later may help.
    PluginError = "plugin_error", Plugin;
    /// The plugin answered that this event can never be transformed.
    PluginInvalid = "plugin_invalid", Plugin;
    /// The gateway itself could not do its part.
    Internal = "internal", Gateway;
}

impl FailureKind {
    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// Whether trying again is pointless: the delivery is dead at once.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::PluginInvalid | Self::Gone)
    }

    /// Whether a plugin failed in running, so that other events would fail in it too. An event that can
    /// never be transformed says nothing about its plugin.
    #[must_use]
    pub fn is_plugin_run(self) -> bool {
        self.fault() == Fault::Plugin && !self.is_permanent()
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The receiver's.
    Receiver,
    /// That of the network on the way to it, or of what should listen at its end.
    Network,
    /// That of the proxy that requests go through.
    Proxy,
    /// The plugin's.
    Plugin,
    /// That of whoever configured the webhook.
    Configuration,
    /// The gateway's own.
    Gateway,
}

impl Fault {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Network => "network",
            Self::Proxy => "proxy",
            Self::Plugin => "plugin",
            Self::Configuration => "configuration",
            Self::Gateway => "gateway",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_shown_on_one_line() {
        let failure = Failure::new(FailureKind::PluginInvalid, "no\n2026 INFO\t\u{1b}[31mred");
        assert_eq!(failure.to_string(), "plugin_invalid: no\\n2026 INFO\t\\u{1b}[31mred");
    }

    #[test]
    fn ids_lead_back_to_what_they_name() {
        let id = DeliveryId::generate();
        assert_eq!(DeliveryId::parse(&id.to_string()), Some(id));
        for bad in ["", "dlv_", "dlv_1", "0198a3c27f407a6b8c9d0e1f2a3b4c5f", "dlv_é"] {
            assert_eq!(DeliveryId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_lead_back_to_what_they_name() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::parse(kind.as_str()), Some(*kind));
        }
        for method in Method::ALL {
            assert_eq!(Method::parse(method.as_str()), Some(method));
        }
    }
}
