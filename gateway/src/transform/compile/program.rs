//! The compiler as a program: wasm on standard input, compiled code or a refusal on standard output.
//!
//! It reads nothing else, writes nothing else, and has given up the means to: it limits itself before it
//! looks at the first byte.

use std::io::{self, Read as _, Write as _};

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use wasmtime::error::OutOfMemory;

use super::{Refusal, compile_here};
use crate::digest::Digest;
use crate::transform::pool;

/// No plugin runs here, and compiled code does not depend on it.
const STACK_BYTES: usize = 64 << 10;

/// How much less urgent than the gateway's own work compiling is.
const NICE: i32 = 10;

/// The files that the compiler may have open: its three streams, and some that the system's libraries open.
const FILES: u64 = 16;

/// What a compilation may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Processor time, in seconds.
    pub seconds: u64,
    /// Address space, in bytes.
    pub memory_bytes: u64,
}

/// What the compiler answers, before its hash and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Compiled code.
    Compiled,
    /// Why there is none.
    Refused,
    /// That there is not enough memory.
    OutOfMemory,
}

const TAGS: [(u8, Answer); 3] =
    [(b'C', Answer::Compiled), (b'R', Answer::Refused), (b'M', Answer::OutOfMemory)];

const HASH_LEN: usize = 32;

/// The bytes of an answer beside its content.
pub(super) const FRAME_LEN: usize = 1 + HASH_LEN;

/// Compiles what comes on standard input, and answers on standard output.
///
/// # Errors
/// When the process cannot be limited, or cannot read or write.
pub fn compile_stdin(bounds: Bounds) -> io::Result<()> {
    confine(bounds)?;
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm)?;
    let (answer, content) = answer(&wasm);
    let mut stdout = io::stdout().lock();
    stdout.write_all(&frame(answer, &content))?;
    stdout.write_all(&content)?;
    stdout.flush()
}

fn answer(wasm: &[u8]) -> (Answer, Vec<u8>) {
    let compiled = pool::engine_without_slots(STACK_BYTES)
        .map_err(Refusal::NotCompiled)
        .and_then(|engine| compile_here(&engine, wasm));
    match compiled {
        Ok(compiled) => (Answer::Compiled, compiled),
        Err(refusal) if is_out_of_memory(&refusal) => (Answer::OutOfMemory, Vec::new()),
        Err(refusal) => (Answer::Refused, refusal.message().into_bytes()),
    }
}

fn is_out_of_memory(refusal: &Refusal) -> bool {
    refusal.error().chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let errno = cause.downcast_ref::<rustix::io::Errno>();
        cause.is::<OutOfMemory>()
            || io == Some(io::ErrorKind::OutOfMemory)
            || errno == Some(&rustix::io::Errno::NOMEM)
    })
}

/// What stands before the content, so that the gateway knows that it is whole.
fn frame(answer: Answer, content: &[u8]) -> Vec<u8> {
    let tag = TAGS.iter().find(|(_, it)| *it == answer).map(|(tag, _)| *tag);
    let mut frame: Vec<u8> = tag.into_iter().collect();
    frame.extend(Digest::of(content).as_bytes());
    frame
}

/// Takes an answer apart; none when it is not whole.
pub(super) fn unframe(mut bytes: Vec<u8>) -> Option<(Answer, Vec<u8>)> {
    let content = bytes.split_off(FRAME_LEN.min(bytes.len()));
    let answer = TAGS.iter().find(|(tag, _)| bytes.first() == Some(tag)).map(|(_, it)| *it)?;
    (bytes == frame(answer, &content)).then_some((answer, content))
}

/// Limits this process for the rest of its life.
fn confine(bounds: Bounds) -> io::Result<()> {
    for (resource, most, at_last) in [
        // The first limit is told by a signal of its own.
        (Resource::Cpu, bounds.seconds, bounds.seconds.saturating_add(1)),
        (Resource::As, bounds.memory_bytes, bounds.memory_bytes),
        // No core file, which would hold the plugin; and no file at all is written.
        (Resource::Core, 0, 0),
        (Resource::Fsize, 0, 0),
        (Resource::Nofile, FILES, FILES),
    ] {
        // What is limited further already stays so.
        let maximum = getrlimit(resource).maximum.map_or(at_last, |known| known.min(at_last));
        setrlimit(resource, Rlimit { current: Some(most.min(maximum)), maximum: Some(maximum) })?;
    }
    // Nobody waits for the answer once the gateway is gone.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // Being urgent does no harm.
    nice(NICE).unwrap_or_default();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_whole_counts_as_none() {
        let mut whole = frame(Answer::Compiled, b"code");
        whole.extend(b"code");
        assert_eq!(unframe(whole.clone()), Some((Answer::Compiled, b"code".to_vec())));
        for len in 0..whole.len() {
            assert_eq!(unframe(whole[..len].to_vec()), None, "{len}");
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 0x55;
            assert_eq!(unframe(altered), None, "{at}");
        }
    }
}
