//! The ledger: what producers sent and what was acknowledged, which no crash of a gateway touches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::{Answer, KEY, Running, answer, client};

/// What producers know. Clones are the same ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// The data of every event that was sent, whatever came of it, by its id.
    sent: BTreeMap<String, String>,
    acknowledged: BTreeSet<String>,
    /// When the last of it was, and the longest time between two.
    last: Option<Instant>,
    longest_gap: Duration,
    /// Answers that no producer should get.
    refused: Vec<String>,
}

impl Ledger {
    fn locked(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event that is about to be sent.
    pub fn sending(&self, id: &str, data: &str) {
        self.locked().sent.insert(id.to_owned(), data.to_owned());
    }

    /// Notes that it was acknowledged.
    pub fn acknowledge(&self, id: &str) {
        let mut entries = self.locked();
        entries.acknowledged.insert(id.to_owned());
        let now = Instant::now();
        if let Some(last) = entries.last.replace(now) {
            entries.longest_gap = entries.longest_gap.max(now - last);
        }
    }

    /// Notes an answer that is neither a promise nor a request to come again.
    pub(crate) fn refuse(&self, answer: String) {
        self.locked().refused.push(answer);
    }

    /// The answers that were noted so.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.locked().refused.clone()
    }

    /// The ids of what was acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeSet<String> {
        self.locked().acknowledged.clone()
    }

    /// How many events were acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.locked().acknowledged.len()
    }

    /// The longest time between two acknowledgements.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        self.locked().longest_gap
    }

    /// The data of an event that was sent.
    #[must_use]
    pub fn data(&self, id: &str) -> Option<String> {
        self.locked().sent.get(id).cloned()
    }
}

/// The API of a gateway, wherever it listens at the moment. Clones move along.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    url: Arc<Mutex<String>>,
}

impl Api {
    /// The API at this address, such as `http://127.0.0.1:8080`.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { client: client(), url: Arc::new(Mutex::new(url.to_owned())) }
    }

    /// The API of a gateway that runs.
    #[must_use]
    pub fn of(running: &Running) -> Self {
        Self::at(running.url())
    }

    /// It was started again, and listens elsewhere.
    pub fn move_to(&self, running: &Running) {
        running.url().clone_into(&mut self.url.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn url(&self, path: &str) -> String {
        let url = self.url.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{url}{path}")
    }

    /// Posts events as the tenant `acme`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, body: String) -> reqwest::Result<Answer> {
        let request = self
            .client
            .post(self.url("/v1/events"))
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", "application/json")
            .body(body);
        answer(request.send().await?).await
    }

    /// Gets a path as the tenant `acme`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> reqwest::Result<Answer> {
        let request =
            self.client.get(self.url(path)).header("authorization", format!("Bearer {KEY}"));
        answer(request.send().await?).await
    }
}
