//! Guests that a generator makes, and good ones with a few bytes changed: whatever they are, loading them
//! gives a plugin or says why not, and calling them gives a typed outcome.
//!
//! `HOOKMILL_SEEDS=100000` tries more of them, and `HOOKMILL_FIRST_SEED` begins elsewhere: what failed is tried
//! again with the seed that was printed and `HOOKMILL_SEEDS=1`.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Unstructured;
use hookmill::delivery::{DeliveryId, FailureKind, WebhookId};
use hookmill::event::{Event, EventId, EventType};
use hookmill::transform::{self, Config, Limits, Plugin, Recipient, Runtime, Secrets, Step};
use hookmill_tests::{guest, wasm};
use jiff::Timestamp;

/// How long one load or call may take, compiling without optimisations included.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a core module exports what the gateway calls, with the types that it must have.
const SHAPE: &str = r#"(module
  (memory (export "memory") 1 16)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
  (func (export "hookmill:plugin/transformer@1.0.0#describe") (result i32) i32.const 0)
  (func (export "hookmill:plugin/transformer@1.0.0#transform") (param i32) (result i32) i32.const 0))"#;

const LOG: &str =
    r#"(module (import "hookmill:plugin/log@1.0.0" "log" (func (param i32 i32 i32))))"#;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> u8 {
        let [byte, ..] = self.next().to_le_bytes();
        byte
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Loads what `make` makes of each seed, and calls it if it loads; gives how many did.
fn try_each(seeds: u64, make: impl Fn(u64) -> Vec<u8>) -> usize {
    let first = variable("HOOKMILL_FIRST_SEED").unwrap_or(0);
    let seeds = variable("HOOKMILL_SEEDS").unwrap_or(seeds);
    let folder = tempfile::tempdir().unwrap();
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let runtime = executor.block_on(async { runtime(folder.path()) });
    let mut loaded = 0;
    for seed in first..first + seeds {
        let wasm = make(seed);
        let tried = executor
            .block_on(async { tokio::time::timeout(PATIENCE, outcome(&runtime, wasm)).await });
        match tried {
            Ok(Ok(did_load)) => loaded += usize::from(did_load),
            Ok(Err(what)) => panic!("seed {seed}: {what}"),
            Err(_) => {
                // What hangs must not keep the test from saying so.
                executor.shutdown_background();
                panic!("seed {seed}: over {PATIENCE:?}");
            }
        }
    }
    loaded
}

fn runtime(folder: &std::path::Path) -> Runtime {
    Runtime::new(Config {
        instances: 4,
        heavy_instances: 4,
        tenant_instances: 4,
        total_memory_bytes: 16 << 20,
        tenant_memory_bytes: 16 << 20,
        max_file_bytes: 1 << 20,
        limits: limits(),
        max_memory_bytes: 4 << 20,
        ..Config::new(folder.join("cache"))
    })
    .unwrap()
}

fn limits() -> Limits {
    Limits {
        time: Duration::from_millis(5),
        describe_time: Duration::from_millis(5),
        memory_bytes: 4 << 20,
        ..Limits::default()
    }
}

/// Whether it loads. A failure is one that is not the guest's.
async fn outcome(runtime: &Runtime, wasm: Vec<u8>) -> Result<bool, String> {
    let plugin = match runtime.load("it", wasm, limits()).await {
        Ok(plugin) => plugin,
        Err(error) if error.to_string().contains("panicked") => return Err(error.to_string()),
        Err(_) => return Ok(false),
    };
    match called(plugin).await {
        Err(failed) if failed.failure.kind == FailureKind::Internal => {
            Err(failed.failure.to_string())
        }
        _ => Ok(true),
    }
}

async fn called(plugin: Plugin) -> Result<transform::Outcome, Box<transform::Failed>> {
    let event = Event {
        tenant: "acme".into(),
        id: EventId::generate(),
        event_type: EventType::parse("order.paid").unwrap(),
        timestamp: Timestamp::UNIX_EPOCH,
        accepted_at: Timestamp::UNIX_EPOCH,
        data: r#"{"id":"ord_1042","items":[]}"#.into(),
        attributes: Vec::new(),
        ordering_key: None,
        webhook_url: None,
    };
    let webhook = WebhookId("wh_it".into());
    let recipient = Recipient {
        webhook: &webhook,
        name: "it",
        metadata: &[],
        delivery: DeliveryId::generate(),
        secrets: Secrets::NONE,
    };
    let steps = [Step { plugin: Arc::new(plugin), config: "{}".into() }];
    transform::run(&event, recipient, &steps).await
}

#[test]
fn generated_guests() {
    let (shape, log) = (wat::parse_str(SHAPE).unwrap(), wat::parse_str(LOG).unwrap());
    let loaded = try_each(150, |seed| {
        let bytes = Numbers(seed).bytes(4 << 10);
        let config = wasm_smith::Config {
            exports: Some(shape.clone()),
            available_imports: Some(log.clone()),
            // Also off in the gateway.
            reference_types_enabled: false,
            gc_enabled: false,
            threads_enabled: false,
            memory64_enabled: false,
            exceptions_enabled: false,
            max_tables: 2,
            ..wasm_smith::Config::default()
        };
        let module = wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).unwrap();
        guest::with_metadata(module.to_bytes())
    });
    let is_usual = std::env::var_os("HOOKMILL_SEEDS").is_none();
    assert!(!is_usual || loaded > 0, "some of them must be plugins, or nothing was tried");
}

#[test]
fn generated_modules_of_any_shape() {
    try_each(100, |seed| {
        let bytes = Numbers(seed).bytes(2 << 10);
        let mut random = Unstructured::new(&bytes);
        let config = random.arbitrary().unwrap_or_default();
        wasm_smith::Module::new(config, &mut random).unwrap().to_bytes()
    });
}

#[test]
fn generated_components() {
    try_each(100, |seed| {
        let bytes = Numbers(seed).bytes(4 << 10);
        let config = wasm_smith::Config::default();
        let component = wasm_smith::Component::new(config, &mut Unstructured::new(&bytes));
        component.unwrap().to_bytes()
    });
}

#[test]
fn good_guests_with_a_few_bytes_changed() {
    let core = wasm("order-summary");
    let component = wit_component::ComponentEncoder::default()
        .module(&wat_guest())
        .and_then(|mut encoder| encoder.encode())
        .unwrap();
    let small = wat_guest();
    let loaded = try_each(240, |seed| {
        let mut numbers = Numbers(seed);
        // The large one takes a while to compile.
        let mut wasm = match seed % 12 {
            0 => core.clone(),
            1..=5 => component.clone(),
            _ => small.clone(),
        };
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(wasm.len());
            match numbers.below(4) {
                0 => wasm[at] ^= 1 << numbers.below(8),
                1 => wasm[at] = numbers.byte(),
                2 => {
                    wasm.remove(at);
                }
                _ => wasm.truncate(at.max(16)),
            }
        }
        wasm
    });
    let is_usual = std::env::var_os("HOOKMILL_SEEDS").is_none();
    assert!(!is_usual || loaded > 0, "some of them must be plugins, or nothing was tried");
}

/// A small plugin that uses a bit of everything.
fn wat_guest() -> Vec<u8> {
    let body = r"
      (type $f (func (param i32) (result i32)))
      (table 2 funcref)
      (elem (i32.const 0) $one $two)
      (func $one (type $f) (i32.add (local.get 0) (i32.const 1)))
      (func $two (type $f) (i32.mul (local.get 0) (i32.const 2)))
      (func $transform (param i32) (result i32)
        (local $n i32)
        (call $log (i32.const 1) (i32.const 1024) (i32.const 5))
        (loop
          (local.set $n (call_indirect (type $f) (local.get $n) (i32.and (local.get $n) (i32.const 1))))
          (br_if 0 (i32.lt_u (local.get $n) (i32.const 100))))
        (i32.const 512))
      (func $post-return (param i32))";
    guest::with_metadata(wat::parse_str(guest::module(body)).unwrap())
}
