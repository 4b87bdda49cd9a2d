//! One measurement: connections that send events for a while, and what came of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::board::Board;
use crate::connection::Connection;
use crate::order::{Order, Target};

/// What all measurements share.
pub(crate) struct Measurement {
    pub(crate) board: Arc<Board>,
    pub(crate) connections: usize,
    pub(crate) bytes: usize,
    pub(crate) duration: Duration,
}

/// What is sent where: to the aims in turn, which are all of one gateway.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) aims: Vec<Aim>,
    pub(crate) pace: Pace,
}

/// What one event in a row is, and where it goes.
#[derive(Clone)]
pub(crate) struct Aim {
    pub(crate) target: Target,
    pub(crate) event_type: String,
    /// Whether the event is meant to come to the receiver.
    pub(crate) arrives: bool,
}

impl Load {
    /// Events of one type.
    pub(crate) fn of(target: Target, event_type: &str, arrives: bool, pace: Pace) -> Self {
        Self { aims: vec![Aim { target, event_type: event_type.to_owned(), arrives }], pace }
    }

    /// Whether any of them are meant to come to the receiver.
    fn arrives(&self) -> bool {
        self.aims.iter().any(|aim| aim.arrives)
    }
}

/// When events are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as answers come, while no more than so many events are under way.
    AtOnce { max_undelivered: usize },
    /// So many a second, whether answers come or not, as far as there are connections.
    Steady { rate: u64 },
}

/// Not measured: connections are opened, buffers and plugins get warm.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long events may be under way after the last was sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the connections of one measurement share.
struct Producer {
    board: Arc<Board>,
    load: Load,
    bytes: usize,
    began: Instant,
    until: Instant,
    /// The next event's place in the row.
    tick: AtomicU64,
    sent: AtomicU64,
    accepted: AtomicU64,
    /// Of those that were accepted, how many are meant to arrive.
    awaited: AtomicU64,
    refused: AtomicU64,
}

impl Measurement {
    /// Measures, and returns the figures.
    pub(crate) async fn take(&self, name: &str, load: &Load) -> io::Result<Value> {
        let board = &self.board;
        let (arrived, repeated) = (board.arrived(), board.repeated());
        // Of an earlier measurement, permits may be left.
        board.room.forget_permits(usize::MAX >> 4);
        if let Pace::AtOnce { max_undelivered } = load.pace {
            board.room.add_permits(max_undelivered);
        }
        let began = Instant::now();
        let producer = Arc::new(Producer {
            board: Arc::clone(board),
            load: load.clone(),
            bytes: self.bytes,
            began,
            until: began + WARM_UP + self.duration,
            tick: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            let producer = Arc::clone(&producer);
            connections.spawn(async move { producer.send_events().await });
        }

        tokio::time::sleep_until(began + WARM_UP).await;
        drop(board.take_latencies());
        let before = producer.progress();
        tokio::time::sleep_until(producer.until).await;
        let measured = producer.progress() - before;
        let latencies = Latencies::of(board.take_latencies());
        for connection in connections.join_all().await {
            connection?;
        }
        producer.wait_for_arrivals(arrived).await;
        let arrives = load.arrives();

        // Events that are not meant to arrive have none of the last three figures.
        Ok(json!({
            "name": name,
            "per_second": measured as f64 / self.duration.as_secs_f64(),
            "sent": producer.sent.load(Ordering::Relaxed),
            "accepted": producer.accepted.load(Ordering::Relaxed),
            "awaited": producer.awaited.load(Ordering::Relaxed),
            "refused": producer.refused.load(Ordering::Relaxed),
            "received": arrives.then(|| board.arrived() - arrived),
            "repeated": arrives.then(|| board.repeated() - repeated),
            "latency_ms": arrives.then(|| latencies.figures()),
        }))
    }
}

impl Producer {
    /// Sends events over one connection until time is up.
    async fn send_events(&self) -> io::Result<()> {
        let Some(first) = self.load.aims.first() else {
            return Ok(());
        };
        let stream = TcpStream::connect(first.target.address).await?;
        let mut connection = Connection::new(stream)?;
        let order = |aim: &Aim| Order::new(&aim.target, &aim.event_type, self.bytes);
        let mut orders: Vec<_> =
            self.load.aims.iter().map(|aim| (order(aim), aim.arrives)).collect();
        while let Some(tick) = self.turn().await {
            let place = usize::try_from(tick).unwrap_or(0) % orders.len();
            let Some((order, arrives)) = orders.get_mut(place) else {
                return Ok(());
            };
            let number = self.board.send();
            connection.write(order.numbered(number)).await?;
            self.sent.fetch_add(1, Ordering::Relaxed);
            let Some(head) = connection.read().await? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if matches!(head.status(), Some(200..=299)) {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                self.awaited.fetch_add(u64::from(*arrives), Ordering::Relaxed);
                if !*arrives {
                    self.board.withdraw(number);
                }
            } else {
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.board.withdraw(number);
            }
        }
        Ok(())
    }

    /// Waits for the next event's turn, and gives its place in the row; nothing when there is none any more.
    async fn turn(&self) -> Option<u64> {
        if let Pace::AtOnce { .. } = self.load.pace {
            match tokio::time::timeout_at(self.until, self.board.room.acquire()).await {
                Ok(Ok(permit)) => permit.forget(),
                _ => return None,
            }
        }
        let tick = self.tick.fetch_add(1, Ordering::Relaxed);
        if let Pace::Steady { rate } = self.load.pace {
            let due = self.began + Duration::from_secs_f64(tick as f64 / rate as f64);
            tokio::time::sleep_until(due.min(self.until)).await;
        }
        (Instant::now() < self.until).then_some(tick)
    }

    /// What is counted as done: events that arrived, or, where none arrive, that were accepted.
    fn progress(&self) -> u64 {
        if self.load.arrives() {
            self.board.arrived()
        } else {
            self.accepted.load(Ordering::Relaxed)
        }
    }

    /// Waits until every accepted event has arrived, or for as long as makes sense.
    async fn wait_for_arrivals(&self, before: u64) {
        let until = Instant::now() + PATIENCE;
        let awaited = self.awaited.load(Ordering::Relaxed);
        while self.board.arrived() - before < awaited && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// From just before an event was posted to its arrival at the receiver, in microseconds, ascending.
struct Latencies(Vec<u64>);

impl Latencies {
    fn of(mut latencies: Vec<u64>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }

    /// The latency that `percent` of all events did not exceed, in milliseconds.
    fn percentile(&self, percent: usize) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        let latency = *self.0.get(last * percent / 100)?;
        Some(Duration::from_micros(latency).as_secs_f64() * 1e3)
    }

    fn figures(&self) -> Value {
        json!({
            "p50": self.percentile(50),
            "p99": self.percentile(99),
            "max": self.percentile(100),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_read_from_sorted_latencies() {
        let latencies = Latencies::of((1..=101).rev().map(|n| n * 1000).collect());
        assert_eq!(latencies.percentile(50), Some(51.0));
        assert_eq!(latencies.percentile(99), Some(100.0));
        assert_eq!(latencies.percentile(100), Some(101.0));
        assert_eq!(Latencies::of(Vec::new()).percentile(50), None);
    }
}
