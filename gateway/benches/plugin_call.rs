//! The cost of one plugin call: the same transform natively, and in a fresh sandbox through the gateway's own
//! path (checked output, limits, log); and what parts of that cost alone: an instance without a call, and calls of one
//! instance again and again.
//!
//! Run it with `cargo xtask bench plugin`, which builds the plugin first.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to say")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hookmill::delivery::{DeliveryId, WebhookId};
use hookmill::event::{Event, EventId, EventType};
use hookmill::transform::{
    self, Config, Limits, Plugin, Recipient, Reused, Runtime, Secrets, Step,
};
use hookmill_plugin::testing;
use jiff::Timestamp;
use order_summary::order_summary;
use tokio::time::Instant;

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls of one instance before another one takes its place: the SDK's arena only grows.
const REUSED_BYTES: usize = 4 << 20;

/// Makes the summary about as large as the order.
const CONFIG: &str = r#"{"include_lines":true}"#;

/// An order of about this many bytes.
fn order(bytes: usize) -> String {
    let mut items = String::new();
    for n in 0.. {
        if items.len() + 120 > bytes {
            break;
        }
        let comma = if n == 0 { "" } else { "," };
        write!(
            items,
            r#"{comma}{{"sku":"SKU-{n:05}","name":"Ceramic cup, {n} ml","quantity":{},"unit_price_cents":{}}}"#,
            n % 7 + 1,
            n * 13 + 250
        )
        .unwrap();
    }
    format!(
        r#"{{"id":"ord_1042","customer":{{"id":"cus_7","name":"Ada Lovelace"}},"currency":"EUR","items":[{items}]}}"#
    )
}

fn event(data: &str) -> Event {
    Event {
        tenant: "acme".into(),
        id: EventId::generate(),
        event_type: EventType::parse("order.paid").unwrap(),
        timestamp: Timestamp::UNIX_EPOCH,
        accepted_at: Timestamp::UNIX_EPOCH,
        data: Bytes::copy_from_slice(data.as_bytes()),
        attributes: Vec::new(),
        ordering_key: None,
        webhook_url: None,
    }
}

async fn load() -> Plugin {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    let wasm = target.join("wasm32-unknown-unknown/plugin/order_summary.wasm");
    let bytes = std::fs::read(&wasm).unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo xtask bench plugin` builds it", wasm.display())
    });
    let config = Config::new(std::env::temp_dir().join("hookmill-bench-cache"));
    let runtime = Runtime::new(config).unwrap();
    runtime.load("order-summary", bytes, Limits::default()).await.unwrap()
}

/// Gives the same instance for a number of calls, and then another one.
struct Instances<'a> {
    plugin: &'a Plugin,
    current: Option<(Reused, usize)>,
    calls: usize,
}

impl Instances<'_> {
    fn next(&mut self) -> &mut Reused {
        let left = match self.current.take() {
            Some((instance, left)) if left > 0 => (instance, left - 1),
            _ => (self.plugin.reuse().unwrap(), self.calls),
        };
        &mut self.current.insert(left).0
    }
}

/// How long a call of this instance takes.
fn timed(instance: &mut Reused, call: impl FnOnce(&mut Reused)) -> Duration {
    let began = Instant::now();
    call(instance);
    began.elapsed()
}

/// How long so many calls take.
async fn calls(count: u64, event: &Event, recipient: Recipient<'_>, steps: &[Step]) -> Duration {
    let began = Instant::now();
    for _ in 0..count {
        black_box(transform::run(black_box(event), recipient, steps).await.unwrap());
    }
    began.elapsed()
}

fn plugin_call(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let plugin = Arc::new(runtime.block_on(load()));
    let webhook = WebhookId("wh_bench".into());
    let delivery = DeliveryId::generate();
    let recipient = Recipient {
        webhook: &webhook,
        name: "bench",
        metadata: &[],
        delivery,
        secrets: Secrets::NONE,
    };
    let steps = [Step { plugin, config: CONFIG.into() }];

    let mut group = criterion.benchmark_group("plugin_call");
    for bytes in [1_200, 20_000, 200_000] {
        let data = order(bytes);
        let event = event(&data);
        // For peers, which are built apart.
        if let Some(folder) = std::env::var_os("HOOKMILL_BENCH_PAYLOADS") {
            std::fs::write(Path::new(&folder).join(format!("{bytes}.json")), &data).unwrap();
        }
        group.throughput(Throughput::Bytes(u64::try_from(data.len()).unwrap()));
        group.bench_function(BenchmarkId::new("native", bytes), |bencher| {
            bencher.iter(|| testing::run(order_summary, black_box(&data), CONFIG).unwrap());
        });
        group.bench_function(BenchmarkId::new("instantiate", bytes), |bencher| {
            bencher.iter(|| steps[0].plugin.instantiate_alone().unwrap());
        });
        group.bench_function(BenchmarkId::new("fresh", bytes), |bencher| {
            // From one task, as in the gateway: entering a runtime is no part of a call.
            bencher.iter_custom(|count| runtime.block_on(calls(count, &event, recipient, &steps)));
        });
        // Last, as it leaves a large slot behind, which later calls would have to reset.
        group.bench_function(BenchmarkId::new("reused", bytes), |bencher| {
            let calls = (REUSED_BYTES / (16 * data.len())).max(2);
            let mut instances = Instances { plugin: &steps[0].plugin, current: None, calls };
            let call = |instance: &mut Reused| {
                assert!(instance.call(black_box(&data), CONFIG));
            };
            bencher.iter_custom(|count| (0..count).map(|_| timed(instances.next(), call)).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, plugin_call);
criterion_main!(benches);
