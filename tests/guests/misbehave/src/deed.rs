//! Everything that the guest can do wrong.

use std::hint::black_box;

use hookmill_plugin::{Failure, Outgoing, Result, Verdict, log};
use serde::Deserialize;

/// What to do. `count` and `message` are those of the order.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    /// Forwards the payload unchanged.
    Forward,
    /// Drops the event with `message` as the reason.
    Drop,
    /// Never returns.
    Loop,
    /// Spins for `count` million steps (10), then forwards: some milliseconds for each.
    Spin,
    /// Takes `count` MiB of memory (1024) and writes to each page, then forwards.
    Memory,
    /// Panics with `message`.
    Panic,
    /// Traps without a word.
    Trap,
    /// Calls itself `count` times deep (without end), with a kilobyte of stack each.
    Recurse,
    /// Forwards a body of `count` bytes (2 MiB) of JSON.
    BigOutput,
    /// Forwards `count` parts (1000).
    ManyParts,
    /// Forwards no parts.
    ZeroParts,
    /// Logs `message` `count` times (10,000), then forwards.
    LogFlood,
    /// Logs one message of `count` bytes (1 MiB), then forwards.
    BigLog,
    /// Fails for good with `message`.
    Invalid,
    /// Fails for now with `message`.
    Retry,
    /// Sets a header that only the gateway may set: `message`, or `host`.
    BadHeader,
    /// Sets a header whose value has a line break.
    BrokenHeader,
    /// Sets `count` headers (1000).
    ManyHeaders,
    /// Asks for the method `message`, or `DELETE`.
    BadMethod,
    /// Appends `message` to the path, or `/../../admin`.
    BadPath,
    /// Forwards bytes that are no text.
    Bytes,
    /// Forwards text that is no JSON as if it were.
    NotJson,
}

impl Deed {
    pub(crate) fn perform(self, count: Option<usize>, message: &str) -> Result<Verdict> {
        let or =
            |default: &'static str| if message.is_empty() { default } else { message }.to_owned();
        let unchanged = Outgoing::unchanged();
        let outgoing = match self {
            Self::Forward => unchanged,
            Self::Drop => return Ok(Verdict::drop(message)),
            Self::Invalid => return Err(Failure::invalid(message)),
            Self::Retry => return Err(Failure::retry(message)),
            Self::ZeroParts => return Ok(Verdict::Forward(Vec::new())),
            Self::ManyParts => {
                let parts = vec![unchanged; count.unwrap_or(1000)];
                return Ok(Verdict::Forward(parts));
            }
            Self::Loop => endless(),
            Self::Panic => panic!("{message}"),
            Self::Trap => trap(),
            Self::Spin | Self::Memory | Self::Recurse | Self::LogFlood | Self::BigLog => {
                self.waste(count, message);
                unchanged
            }
            Self::BigOutput => {
                let length = count.unwrap_or(2 << 20).saturating_sub(2);
                Outgoing::text(format!("\"{}\"", "x".repeat(length)))
            }
            Self::BadHeader => unchanged.set_header(or("host"), "example.com"),
            Self::BrokenHeader => unchanged.set_header("x-broken", "a\r\nx-smuggled: b"),
            Self::ManyHeaders => {
                let add = |request: Outgoing, number| {
                    request.set_header(format!("x-header-{number}"), "value")
                };
                (0..count.unwrap_or(1000)).fold(unchanged, add)
            }
            Self::BadMethod => unchanged.method(or("DELETE")),
            Self::BadPath => unchanged.path_suffix(or("/../../admin")),
            Self::Bytes => {
                Outgoing::bytes([0, 159, 146, 150]).content_type("application/octet-stream")
            }
            Self::NotJson => Outgoing::text("{\"not\": json"),
        };
        Ok(Verdict::from(outgoing))
    }

    /// Uses up what the gateway bounds, and comes back if it lets the guest do so.
    fn waste(self, count: Option<usize>, message: &str) {
        match self {
            Self::Spin => spin(count.unwrap_or(10)),
            Self::Memory => take_memory(count.unwrap_or(1024)),
            Self::Recurse => {
                black_box(recurse(count.unwrap_or(usize::MAX)));
            }
            Self::LogFlood => (0..count.unwrap_or(10_000)).for_each(|_| log::info(message)),
            Self::BigLog => log::info(&"x".repeat(count.unwrap_or(1 << 20))),
            _ => {}
        }
    }
}

#[expect(clippy::empty_loop, reason = "burning time is the point")]
fn endless() -> ! {
    loop {}
}

fn spin(millions: usize) {
    for step in 0..millions.saturating_mul(1_000_000) {
        black_box(step);
    }
}

fn take_memory(mebibytes: usize) {
    let mut taken = Vec::new();
    for _ in 0..mebibytes {
        taken.push(vec![1_u8; 1 << 20]);
        black_box(&taken);
    }
}

#[inline(never)]
fn recurse(depth: usize) -> u8 {
    let frame = black_box([1_u8; 1024]);
    let [first, ..] = frame;
    match depth {
        0 => first,
        // The addition comes after the call, so that the call cannot become a jump.
        _ => recurse(depth - 1).wrapping_add(black_box(first)),
    }
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    std::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}
