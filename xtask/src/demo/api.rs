//! The gateway's HTTP API, as a producer uses it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::stage::Tenant;

/// A gateway, wherever it listens at the moment. Clones move along.
#[derive(Debug, Clone)]
pub(super) struct Api {
    agent: ureq::Agent,
    url: Arc<Mutex<String>>,
}

/// What a producer learns when it posts an event.
pub(super) enum Posted {
    /// The gateway has it, with this id.
    Accepted(String),
    /// No answer: nobody knows whether the gateway has it, so the producer sends it again.
    Unanswered,
}

impl Api {
    pub(super) fn new(url: String) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .proxy(None)
            .build()
            .new_agent();
        Self { agent, url: Arc::new(Mutex::new(url)) }
    }

    pub(super) fn url(&self) -> String {
        self.url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The gateway listens elsewhere from now on.
    pub(super) fn move_to(&self, url: String) {
        *self.url.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// Posts one event.
    pub(super) fn post(&self, tenant: Tenant, event: &str) -> Result<Posted> {
        let answer = self
            .agent
            .post(format!("{}/v1/events", self.url()))
            .header("authorization", format!("Bearer {}", tenant.key))
            .header("content-type", "application/json")
            .send(event);
        let Ok((status, text)) = answer.and_then(read) else {
            return Ok(Posted::Unanswered);
        };
        match status {
            202 => {
                let answer: Value = serde_json::from_str(&text)?;
                let id = answer.pointer("/events/0/id").and_then(Value::as_str);
                let id = id.with_context(|| format!("an answer without an id: {text}"))?;
                Ok(Posted::Accepted(id.to_owned()))
            }
            // It is on its way down, or not quite up.
            503 => Ok(Posted::Unanswered),
            _ => bail!("the gateway refused an event with {status}: {text}"),
        }
    }

    /// Posts one event that must be accepted at once.
    pub(super) fn must_post(&self, tenant: Tenant, event: &str) -> Result<String> {
        match self.post(tenant, event)? {
            Posted::Accepted(id) => Ok(id),
            Posted::Unanswered => bail!("the gateway does not answer"),
        }
    }

    /// An event and what became of it; nothing if the gateway does not know it.
    pub(super) fn event(&self, tenant: Tenant, id: &str) -> Result<Option<Value>> {
        let (status, text) = self
            .agent
            .get(format!("{}/v1/events/{id}", self.url()))
            .header("authorization", format!("Bearer {}", tenant.key))
            .call()
            .and_then(read)
            .with_context(|| format!("cannot ask for the event {id}"))?;
        match status {
            200 => Ok(Some(serde_json::from_str(&text)?)),
            404 => Ok(None),
            _ => bail!("the gateway answered {status} when asked for {id}: {text}"),
        }
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<(u16, String), ureq::Error> {
    let text = response.body_mut().read_to_string()?;
    Ok((response.status().as_u16(), text))
}
