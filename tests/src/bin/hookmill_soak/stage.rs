//! The stage: a gateway, a receiver and producers, and what is done to them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hookmill_tests::{
    Api, Dice, Gateway, Ledger, Load, Receiver, Reckoning, Reply, Running, Shape, stamped, wasm,
};
use serde_json::json;
use tokio::time::Instant;

use crate::fault::Fault;

/// Deliveries under way at once: so many can be sent again after a kill.
const UNDER_WAY: usize = 128;

/// What webhooks are owed of each event: one each of three, and three parts of the fourth.
const PER_EVENT: usize = 6;

/// How a receiver fares: an HTTP status, or how long it takes.
#[derive(Debug, Default)]
struct Mood {
    fails: AtomicUsize,
    delay_ms: AtomicU64,
}

pub(crate) struct Stage {
    pub(crate) dice: Dice,
    mood: Arc<Mood>,
    receiver: Receiver,
    /// Always there but while it is started again.
    running: Option<Running>,
    api: Api,
    ledger: Ledger,
    load: Load,
    /// How often plugins and the configuration have changed.
    changes: u64,
    kills: usize,
}

impl Stage {
    /// Starts everything; each producer sends an event after each `pause`.
    pub(crate) async fn set_up(dice: Dice, pause: Duration) -> Self {
        let mood = Arc::new(Mood::default());
        let feels = Arc::clone(&mood);
        let receiver = Receiver::answering(move |_, _| {
            let delay = Duration::from_millis(feels.delay_ms.load(Ordering::Relaxed));
            let status = if feels.fails.load(Ordering::Relaxed) > 0 { 500 } else { 200 };
            Reply { status, ..Reply::after(delay) }
        })
        .await;
        let binary = std::env::current_exe().unwrap().with_file_name("hookmill-under-test");
        let gateway = gateway(&receiver).run_from(binary);
        gateway.plugins().write("turncoat", &stamped("version-00"));
        let running = gateway.start().await;
        let (api, ledger) = (Api::of(&running), Ledger::default());
        let shape = Shape { pause, ..Shape::small("soak") };
        let load = Load::start(&shape, &api, &ledger);
        let running = Some(running);
        Self { dice, mood, receiver, running, api, ledger, load, changes: 0, kills: 0 }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running gateway")
    }

    /// Lets the receiver take its time.
    pub(crate) fn slow_down(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap();
        self.mood.delay_ms.store(millis, Ordering::Relaxed);
    }

    /// A random number of milliseconds.
    pub(crate) async fn pause(&self, millis: Range<u64>) {
        let millis = millis.start + self.dice.below(millis.end - millis.start);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Lets a fault happen, and ends it.
    pub(crate) async fn suffer(&mut self, fault: Fault) {
        self.changes += 1;
        match fault {
            Fault::Kill => drop(self.restart(true).await),
            Fault::Terminate => drop(self.restart(false).await),
            Fault::Freeze => {
                self.running().signal("STOP").await;
                self.pause(500..3_000).await;
                self.running().signal("CONT").await;
            }
            Fault::Failing => {
                self.mood.fails.store(1, Ordering::Relaxed);
                self.pause(500..4_000).await;
                self.mood.fails.store(0, Ordering::Relaxed);
            }
            Fault::Slow => {
                self.slow_down(Duration::from_secs(2));
                self.pause(500..4_000).await;
                self.slow_down(Duration::ZERO);
            }
            Fault::Replace => self.replace("stamp"),
            Fault::Torn => {
                let whole = wasm("stamp");
                let half = whole.get(..whole.len() / 2).unwrap_or_default();
                self.running().plugins().write("stamp", half);
                self.pause(100..2_000).await;
                self.replace("stamp");
            }
            Fault::Trapping => {
                self.running().plugins().replace("turncoat", &wasm("misbehave"));
                self.pause(500..4_000).await;
                self.replace("turncoat");
            }
            Fault::Configure => {
                let number = self.changes;
                let key = format!("soak-key-{number:016}");
                self.configure(&format!("[[tenants]]\nname = \"t{number}\"\nkeys = [\"{key}\"]\n"));
            }
            Fault::Misconfigure => {
                self.configure("nonsense = [");
                self.pause(100..2_000).await;
                self.configure("");
            }
        }
    }

    /// Another version of a plugin, by number.
    fn replace(&self, name: &str) {
        let version = format!("version-{:02}", self.changes % 100);
        self.running().plugins().replace(name, &stamped(&version));
    }

    /// The configuration as it was at the start, and more lines.
    fn configure(&self, lines: &str) {
        let file = self.running().configuration_file();
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("# The soak\n").next().unwrap_or_default().to_owned();
        std::fs::write(&file, format!("{}\n# The soak\n{lines}", text.trim_end())).unwrap();
    }

    /// Ends the gateway and starts it again; gives when that began.
    async fn restart(&mut self, kill: bool) -> Instant {
        let running = self.running.take().expect("a running gateway");
        let gateway = if kill {
            self.kills += 1;
            running.kill().await
        } else {
            running.stop().await
        };
        let began = Instant::now();
        let running = gateway.start().await;
        self.api.move_to(&running);
        self.running = Some(running);
        began
    }

    /// Kills the gateway, starts it again, and waits for what had been acknowledged before the kill and not
    /// arrived. Gives how many messages that were, and how long after the start the last of them was out.
    pub(crate) async fn kill_and_recover(&mut self) -> (usize, Duration) {
        let running = self.running.take().expect("a running gateway");
        self.kills += 1;
        let gateway = running.kill().await;
        let acknowledged = self.ledger.acknowledged();
        let mut owed = acknowledged.iter().flat_map(|id| messages(id)).collect();
        self.receiver.retain_missing(&mut owed);
        let count = owed.len();
        let began = Instant::now();
        let running = gateway.start().await;
        self.api.move_to(&running);
        self.running = Some(running);
        while !owed.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "{} messages are lost", owed.len());
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.receiver.retain_missing(&mut owed);
        }
        (count, began.elapsed())
    }

    /// Ends the load, waits for all that is owed, and says what came of it; false when a promise was broken.
    pub(crate) async fn reckon(self) -> bool {
        let Self { receiver, running, api, ledger, load, kills, .. } = self;
        load.progress(1).await;
        load.end().await;
        let began = Instant::now();
        let reckoning = Reckoning::of(&ledger, &api, &receiver, PER_EVENT).await;
        println!("{reckoning}");
        println!(
            "{kills} kills; longest time without an acknowledgement {} ms; the rest was out and counted in {} ms",
            ledger.longest_gap().as_millis(),
            began.elapsed().as_millis()
        );
        drop(running);
        let limit = kills * UNDER_WAY;
        let kept = reckoning.problems.is_empty()
            && reckoning.repeats <= limit
            && reckoning.unrecorded <= limit
            && reckoning.dead == 0;
        println!("{}", if kept { "soak: no promise was broken" } else { "soak: FAILED" });
        kept
    }
}

/// What arrives of an event, and where.
fn messages(event: &str) -> [(String, String); PER_EVENT] {
    let message = |webhook: &str, part: &str| (format!("/{webhook}"), format!("{event}{part}"));
    [
        message("plain", ""),
        message("stamped", ""),
        message("turncoat", ""),
        message("split", ""),
        message("split", "~2"),
        message("split", "~3"),
    ]
}

/// Webhooks of every kind. Their schedule outlasts every fault.
fn gateway(receiver: &Receiver) -> Gateway {
    let first = ["200ms", "500ms", "1s", "2s"];
    let retry = json!(first.into_iter().chain(vec!["3s"; 90]).collect::<Vec<_>>());
    let webhook = |name: &str| receiver.webhook(name).set("retry", &retry);
    let three = json!({ "do": "many_parts", "count": 3 });
    let turncoat = webhook("turncoat").plugins(&[("turncoat", json!({ "do": "trap" }))]);
    Gateway::new()
        .setting(&format!("delivery.concurrency = {UNDER_WAY}"))
        .setting("log.filter = \"warn\"")
        .plugin("stamp")
        .plugin("misbehave")
        .webhook(webhook("plain"))
        .webhook(webhook("stamped").plugins(&[("stamp", json!({}))]))
        .webhook(webhook("split").plugins(&[("misbehave", three)]))
        .webhook(turncoat)
}
