//! A receiver: takes what the gateway delivers, verifies it as a customer would, and answers as told.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::gateway::eventually;
use crate::webhook::Webhook;

/// The secret of webhooks that lead to a receiver.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The largest body that a receiver takes, in bytes.
const MAX_BODY: usize = 16 << 20;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// The path and query.
    pub target: String,
    /// The method.
    pub method: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether the reference library of Standard Webhooks accepts the signature.
    pub verified: bool,
    /// The status that it was answered with.
    pub answered: u16,
}

impl Received {
    /// The `webhook-id`.
    #[must_use]
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// A header's value, empty when there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What a receiver answers.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// How long it waits first.
    pub delay: Duration,
    /// The body.
    pub body: String,
    /// A header.
    pub header: Option<(&'static str, String)>,
}

impl Reply {
    /// This status at once.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, delay: Duration::ZERO, body: String::new(), header: None }
    }

    /// 200 after a while.
    #[must_use]
    pub fn after(delay: Duration) -> Self {
        Self { delay, ..Self::status(200) }
    }
}

type Answer = dyn Fn(&Received, usize) -> Reply + Send + Sync;

/// A receiver on a socket of its own.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    received: Mutex<Vec<Received>>,
    /// Where what has come.
    seen: Mutex<HashSet<(String, String)>>,
    /// How often each id has come.
    counts: Mutex<HashMap<String, usize>>,
    answer: Box<Answer>,
}

impl Receiver {
    /// A receiver that takes everything.
    pub async fn start() -> Self {
        Self::answering(|_, _| Reply::status(200)).await
    }

    /// A receiver that answers by the request and by how often its id has come before.
    pub async fn answering(
        answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            seen: Mutex::default(),
            counts: Mutex::default(),
            answer: Box::new(answer),
        });
        let routes = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, shared }
    }

    /// A URL of this receiver.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A webhook for all events, named by its path, that leads here and is signed.
    #[must_use]
    pub fn webhook(&self, name: &str) -> Webhook {
        Webhook::new(name, &self.url(&format!("/{name}")))
    }

    /// All that has arrived so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The ids that have arrived so far.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<String> {
        self.shared.counts.lock().unwrap().keys().cloned().collect()
    }

    /// Leaves of these paths and ids the ones that have not arrived.
    pub fn retain_missing(&self, messages: &mut HashSet<(String, String)>) {
        let seen = self.shared.seen.lock().unwrap();
        messages.retain(|message| !seen.contains(message));
    }

    /// All that has arrived, once it is at least this many requests.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let arrived = || async { self.shared.received.lock().unwrap().len() >= count };
        eventually(&format!("{count} requests"), arrived).await;
        self.received()
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return Response::new(Body::empty());
    };
    let webhook = standardwebhooks::Webhook::new(SECRET).unwrap();
    let mut received = Received {
        target: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        method: parts.method.to_string(),
        verified: webhook.verify(&body, &parts.headers).is_ok(),
        headers: parts.headers,
        body,
        answered: 0,
    };
    let message = (received.target.clone(), received.id().to_owned());
    shared.seen.lock().unwrap().insert(message);
    let before = {
        let mut counts = shared.counts.lock().unwrap();
        let count = counts.entry(received.id().to_owned()).or_default();
        *count += 1;
        *count - 1
    };
    let reply = (shared.answer)(&received, before);
    received.answered = reply.status;
    shared.received.lock().unwrap().push(received);
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap();
    if let Some((name, value)) = reply.header {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
