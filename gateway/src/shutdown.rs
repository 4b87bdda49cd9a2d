//! The drain: one signal that asks every part of the process to finish, and waits until all have.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// How the process ends.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long to wait for work in flight before exiting all the same.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { grace: Duration::from_secs(20) }
    }
}

/// Asks for the shutdown, and waits for it to complete.
#[derive(Debug)]
pub struct Trigger {
    begin: watch::Sender<bool>,
    finished: mpsc::Receiver<()>,
}

/// Held by everything that has to finish before the process may end; given back on drop.
#[derive(Debug, Clone)]
pub struct Drain {
    begun: watch::Receiver<bool>,
    _finished: mpsc::Sender<()>,
}

/// A trigger and the drain that listens to it.
#[must_use]
pub fn channel() -> (Trigger, Drain) {
    let (begin, begun) = watch::channel(false);
    let (sender, finished) = mpsc::channel(1);
    (Trigger { begin, finished }, Drain { begun, _finished: sender })
}

impl Trigger {
    /// Begins the shutdown and waits until every drain is dropped; false when `grace` ran out first.
    pub async fn drain(mut self, grace: Duration) -> bool {
        self.begin.send_replace(true);
        tokio::time::timeout(grace, self.finished.recv()).await.is_ok()
    }
}

impl Drain {
    /// Waits until the shutdown begins.
    pub async fn begun(&self) {
        // An error means that the trigger is gone, and with it whoever could still stop us: the
        // same as a shutdown.
        let mut begun = self.begun.clone();
        drop(begun.wait_for(|begun| *begun).await);
    }

    /// Whether the shutdown has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_every_drain() {
        let (trigger, drain) = channel();
        let other = drain.clone();
        let worker = tokio::spawn(async move {
            other.begun().await;
            tokio::task::yield_now().await;
        });
        drop(drain);
        assert!(trigger.drain(Duration::from_secs(60)).await);
        worker.await.unwrap();
    }

    #[tokio::test]
    async fn gives_up_when_the_grace_is_over() {
        let (trigger, drain) = channel();
        assert!(!trigger.drain(Duration::from_millis(10)).await);
        assert!(drain.has_begun());
    }
}
