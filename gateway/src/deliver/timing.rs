//! How long the phases of an exchange take: measured where they happen, in the resolver and around the connector,
//! and handed to the exchange that waits for them.
//!
//! The client may connect in the background, for a request that then finds another connection free. So what is
//! measured belongs to the request whose task it ends in, and to none if that is no request's.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::delivery::Timings;

tokio::task_local! {
    static PHASES: Phases;
}

/// The phases of one exchange. Cheap to clone; all clones are of the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Phases(Arc<Mutex<Timings>>);

impl Phases {
    /// Waits for the head of a response and measures the phases until then.
    pub(super) async fn measure<T, E>(
        &self,
        response: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let response = PHASES.scope(self.clone(), response).await?;
        self.set(|timings| {
            let before = timings.dns.unwrap_or_default() + timings.connect.unwrap_or_default();
            timings.first_byte = Some(begun.elapsed().saturating_sub(before));
        });
        Ok(response)
    }

    /// What was measured so far.
    pub(super) fn timings(&self) -> Timings {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, set: impl FnOnce(&mut Timings)) {
        set(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Says that a name took this long to resolve, if a request waits for it.
pub(super) fn resolved(begun: Instant) {
    // An error says that no request does.
    let _no_request =
        PHASES.try_with(|phases| phases.set(|timings| timings.dns = Some(begun.elapsed())));
}

/// Measures how long connecting takes, without the time for resolving.
#[derive(Debug, Clone, Copy)]
pub(super) struct MeasureConnecting;

impl<S> Layer<S> for MeasureConnecting {
    type Service = Measured<S>;

    fn layer(&self, connector: S) -> Measured<S> {
        Measured(connector)
    }
}

/// A connector that is measured.
#[derive(Debug, Clone)]
pub(super) struct Measured<S>(S);

type Connecting<S, R> = Pin<
    Box<dyn Future<Output = Result<<S as Service<R>>::Response, <S as Service<R>>::Error>> + Send>,
>;

impl<S, R> Service<R> for Measured<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Connecting<S, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connecting = self.0.call(request);
        Box::pin(async move {
            let begun = Instant::now();
            let connected = connecting.await;
            let measured = |timings: &mut Timings| {
                let resolving = timings.dns.unwrap_or_default();
                timings.connect = Some(begun.elapsed().saturating_sub(resolving));
            };
            // An error says that no request waits for it.
            let _no_request = PHASES.try_with(|phases| phases.set(measured));
            connected
        })
    }
}
