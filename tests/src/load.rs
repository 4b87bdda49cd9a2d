//! Producers that send until they are told to stop, over every death of the gateway: what was not answered is
//! sent again under the same id, as a good producer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::gateway::eventually;
use crate::ledger::{Api, Ledger};

/// How long a producer waits before it sends again what was not answered.
const AGAIN: Duration = Duration::from_millis(10);

/// What producers send.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What their events' ids begin with.
    pub name: String,
    /// The type of their events.
    pub event_type: &'static str,
    /// How many producers send at once.
    pub producers: usize,
    /// How long each waits between two events.
    pub pause: Duration,
    /// How many bytes an event's data has about.
    pub bytes: usize,
}

impl Shape {
    /// A few producers without pause.
    #[must_use]
    pub fn small(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            event_type: "load",
            producers: 8,
            pause: Duration::ZERO,
            bytes: 100,
        }
    }
}

/// Producers at work.
#[derive(Debug)]
pub struct Load {
    ledger: Ledger,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to send to `api`, keeping the ledger.
    #[must_use]
    pub fn start(shape: &Shape, api: &Api, ledger: &Ledger) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let tasks = (0..shape.producers)
            .map(|number| {
                let producer = Producer {
                    number,
                    shape: shape.clone(),
                    api: api.clone(),
                    ledger: ledger.clone(),
                    over: Arc::clone(&over),
                };
                tokio::spawn(producer.run())
            })
            .collect();
        Self { ledger: ledger.clone(), over, tasks }
    }

    /// Waits until so many more events are acknowledged.
    pub async fn progress(&self, events: usize) {
        let goal = self.ledger.count() + events;
        eventually("acknowledgements", || async { self.ledger.count() >= goal }).await;
    }

    /// Stops, once no producer waits for an answer.
    pub async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

struct Producer {
    number: usize,
    shape: Shape,
    api: Api,
    ledger: Ledger,
    over: Arc<AtomicBool>,
}

impl Producer {
    async fn run(self) {
        let Shape { name, event_type, pause, bytes, .. } = &self.shape;
        let padding = "x".repeat(*bytes);
        for n in 0.. {
            let id = format!("{name}_{}_{n}", self.number);
            let data = json!({ "id": id, "padding": padding }).to_string();
            let event = format!(r#"{{"type":"{event_type}","id":"{id}","data":{data}}}"#);
            self.ledger.sending(&id, &data);
            while !self.over.load(Ordering::Relaxed) {
                match self.api.post(event.clone()).await {
                    Ok(answer) if answer.status == 202 => {
                        self.ledger.acknowledge(&id);
                        break;
                    }
                    // Down, on its way down, or not able to keep anything now.
                    Err(_) => {}
                    Ok(answer) if matches!(answer.status, 429 | 503) => {}
                    Ok(answer) => {
                        let refused = format!("{id}: {} {}", answer.status, answer.body);
                        self.ledger.refuse(refused);
                        break;
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(*pause).await;
        }
    }
}
