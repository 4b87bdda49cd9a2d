//! A stream of numbered events, for the acts in which something happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::api::{Api, Posted};
use super::interrupt::Interrupt;
use super::stage::Tenant;

/// The pause between two events.
const PAUSE: Duration = Duration::from_millis(2);

/// A producer on a thread of its own. It stops when dropped.
pub(super) struct Stream {
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<String>>>>,
}

impl Stream {
    /// Begins to send. The ids are the producer's own: `NAME-1`, `NAME-2`, …, so that an event whose
    /// answer did not come can be sent again without becoming two.
    pub(super) fn begin(
        name: &'static str,
        tenant: Tenant,
        api: Api,
        interrupt: Interrupt,
    ) -> Self {
        let accepted = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let producer = Producer {
            name,
            tenant,
            api,
            interrupt,
            accepted: Arc::clone(&accepted),
            stop: Arc::clone(&stop),
        };
        Self { accepted, stop, thread: Some(thread::spawn(move || producer.run())) }
    }

    /// How many events the gateway has acknowledged.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Whether the producer has given up; `end` says why.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops, and returns the ids of the acknowledged events.
    pub(super) fn end(mut self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        let ended = thread.map(JoinHandle::join);
        match ended {
            Some(Ok(ids)) => ids,
            _ => Err(anyhow!("the producer panicked")),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Producer {
    name: &'static str,
    tenant: Tenant,
    api: Api,
    interrupt: Interrupt,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Producer {
    fn run(self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for number in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("{}-{number}", self.name);
            let event = format!(r#"{{"type":"tick","id":"{id}","data":{{"number":{number}}}}}"#);
            while let Posted::Unanswered = self.api.post(self.tenant, &event)? {
                self.interrupt.check()?;
                thread::sleep(10 * PAUSE);
            }
            ids.push(id);
            self.accepted.store(ids.len(), Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
        Ok(ids)
    }
}
