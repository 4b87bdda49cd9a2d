//! What stands behind the capabilities of plugins: the store for their keys, the client for their requests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::deliver::{self, Client, FetchFailure};
use crate::delivery::FailureKind;
use crate::kv;
use crate::record::{Store, StoreError};
use crate::shutdown::Drain;
use crate::transform::{
    Fetch, FetchError, FetchRequest, FetchResponse, Keys, Randomness, Services,
};

/// How often keys that have expired are looked for. They are gone for plugins at once; this is about room.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Keys that are removed in one go: what is accepted meanwhile waits for no longer than that takes.
const SWEEP_BATCH: usize = 200;

/// The capabilities' services, with this store and this client.
///
/// # Errors
/// When the store cannot answer.
pub async fn services(store: Arc<dyn Store>, client: Client) -> Result<Services, StoreError> {
    let randomness = Randomness::Seed(store.random_seed().await?);
    Ok(Services {
        keys: Arc::new(StoredKeys(store)),
        fetch: Arc::new(ClientFetch(client)),
        randomness,
    })
}

struct StoredKeys(Arc<dyn Store>);

impl Keys for StoredKeys {
    fn operate(&self, request: kv::Request) -> BoxFuture<'_, Result<kv::Outcome, String>> {
        let outcome = self.0.kv(request);
        Box::pin(async move { outcome.await.map_err(|error| error.to_string()) })
    }
}

struct ClientFetch(Client);

impl Fetch for ClientFetch {
    fn fetch(&self, request: FetchRequest) -> BoxFuture<'_, Result<FetchResponse, FetchError>> {
        let FetchRequest { method, url, headers, body, timeout, max_bytes } = request;
        let fetch = deliver::Fetch { method, url, headers, body, timeout, max_bytes };
        Box::pin(async move {
            match self.0.fetch(fetch).await {
                Ok(deliver::Fetched { status, headers, body }) => {
                    Ok(FetchResponse { status, headers, body })
                }
                Err(FetchFailure::TooLarge) => Err(FetchError::TooLarge(format!(
                    "the response has more than {max_bytes} bytes, which is the limit"
                ))),
                Err(FetchFailure::Failed(failure)) => Err(match failure.kind {
                    FailureKind::BlockedAddress => FetchError::Blocked(failure.message),
                    FailureKind::Timeout => FetchError::Timeout(failure.message),
                    _ => FetchError::Failed(failure.to_string()),
                }),
            }
        })
    }
}

/// Removes keys of plugins that have expired, a few at a time, until the drain begins.
pub(super) async fn sweep(store: Arc<dyn Store>, drain: Drain) {
    let sweeping = async {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            while sweep_some(&*store).await == SWEEP_BATCH {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        () = sweeping => {}
        () = drain.begun() => {}
    }
}

async fn sweep_some(store: &dyn Store) -> usize {
    match store.sweep_keys(Timestamp::now(), SWEEP_BATCH).await {
        Ok(count) => count,
        Err(error) => {
            tracing::warn!(%error, "expired keys of plugins cannot be removed; trying again");
            0
        }
    }
}
