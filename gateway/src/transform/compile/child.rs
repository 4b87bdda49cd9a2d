//! The compiler as a child process: started, bounded, and understood when it ends badly.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::program::{Answer, FRAME_LEN, unframe};
use super::{COMMAND, Compilation};
use crate::transform::load::LoadError;

/// What compiled code may have at least, in bytes: the first content of a memory counts, zeros and all.
const MIN_OUTPUT: usize = 64 << 20;

/// How many times the size of the wasm compiled code may be: some ten times is usual.
const OUTPUT_FACTOR: usize = 32;

/// How much of what the compiler says when it breaks down is looked at, in bytes.
const MAX_WORDS: usize = 4 << 10;

/// How much longer than its processor time a compilation may take by the clock: it gives way to everything else.
const PATIENCE: Duration = Duration::from_secs(60);

/// The signals that say what went wrong.
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;

/// Compiles in a child process that runs `program`.
pub(super) async fn compile(
    program: &Path,
    bounds: &Compilation,
    wasm: &[u8],
) -> Result<Vec<u8>, LoadError> {
    // Dropping the child kills it.
    let mut child = start(program, bounds)
        .map_err(|error| LoadError::passing(format!("the compiler cannot be started: {error}")))?;
    let patience = bounds.time.saturating_add(PATIENCE);
    match tokio::time::timeout(patience, exchange(&mut child, wasm)).await {
        Ok(Ok(ended)) => ended.result(bounds, wasm.len()),
        Ok(Err(error)) => {
            Err(LoadError::passing(format!("the compiler cannot be talked to: {error}")))
        }
        Err(_) => Err(LoadError::passing(format!(
            "compiling it took longer than {patience:?}, as on a machine that is busy"
        ))),
    }
}

fn start(program: &Path, bounds: &Compilation) -> io::Result<Child> {
    let seconds = bounds.time.as_millis().div_ceil(1_000);
    Command::new(program)
        .arg(COMMAND)
        .arg(format!("--seconds={seconds}"))
        .arg(format!("--memory-bytes={}", bounds.memory_bytes))
        // The gateway's secrets may be there.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal is for the gateway, which finishes in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// How a compiler ended.
struct Ended {
    status: ExitStatus,
    answer: Vec<u8>,
    /// What it said beside its answer, as when it broke down.
    words: String,
}

/// Gives the compiler its input and takes all that it says.
async fn exchange(child: &mut Child, wasm: &[u8]) -> io::Result<Ended> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let give = async {
        if let Some(mut stdin) = stdin {
            // It may end before it has read all; its status says why.
            drop(stdin.write_all(wasm).await);
        }
    };
    // A byte too much tells that it is too much; closing the pipe then ends a compiler that goes on.
    let most = most_output(wasm.len()) + FRAME_LEN + 1;
    let ((), answer, words) = tokio::join!(give, take(stdout, most), take_words(stderr));
    Ok(Ended { status: child.wait().await?, answer: answer?, words: words? })
}

/// Reads at most so many bytes.
async fn take(stream: Option<impl AsyncRead + Unpin>, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(most as u64).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// Reads the beginning, and lets the rest pass.
async fn take_words(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let Some(mut stream) = stream else {
        return Ok(String::new());
    };
    let words = take(Some(&mut stream), MAX_WORDS).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&words).into_owned())
}

fn most_output(wasm_len: usize) -> usize {
    wasm_len.saturating_mul(OUTPUT_FACTOR).max(MIN_OUTPUT)
}

impl Ended {
    fn result(self, bounds: &Compilation, wasm_len: usize) -> Result<Vec<u8>, LoadError> {
        let most = most_output(wasm_len);
        if self.answer.len() > most + FRAME_LEN {
            return Err(LoadError::new(format!("its compiled code has more than {most} bytes")));
        }
        if !self.status.success() {
            return Err(self.breakdown(bounds));
        }
        match unframe(self.answer) {
            Some((Answer::Compiled, code)) => Ok(code),
            Some((Answer::Refused, reason)) => {
                Err(LoadError::new(String::from_utf8_lossy(&reason).into_owned()))
            }
            Some((Answer::OutOfMemory, _)) => Err(too_large(bounds)),
            None => Err(LoadError::passing("the compiler's answer is cut off".to_owned())),
        }
    }

    /// What it means that the compiler did not end by itself.
    fn breakdown(&self, bounds: &Compilation) -> LoadError {
        match self.status.signal() {
            // What Rust's allocator says before it gives up.
            _ if self.words.contains("memory allocation of") => too_large(bounds),
            Some(SIGXCPU) => too_slow(bounds),
            // Nothing here sends that but a system that is short of memory.
            Some(SIGKILL) => LoadError::passing(
                "the compiler was killed, as systems do that run out of memory".to_owned(),
            ),
            _ => {
                let last = self.words.lines().rfind(|line| !line.trim().is_empty());
                let words = last.unwrap_or("it said nothing");
                LoadError::new(format!("the compiler broke down ({}): {words}", self.status))
            }
        }
    }
}

fn too_slow(bounds: &Compilation) -> LoadError {
    LoadError::new(format!(
        "compiling it took longer than {:?} (`plugins.compile_time`)",
        bounds.time
    ))
}

fn too_large(bounds: &Compilation) -> LoadError {
    LoadError::new(format!(
        "compiling it needs more memory than {} bytes (`plugins.compile_memory_bytes`)",
        bounds.memory_bytes
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn compiled_by(program: &str) -> LoadError {
        compile(Path::new(program), &Compilation::default(), b"wasm").await.unwrap_err()
    }

    #[tokio::test]
    async fn a_compiler_that_cannot_run_is_no_fault_of_the_file() {
        let error = compiled_by("/there/is/no/such/program").await;
        assert!(error.is_passing(), "{error}");
        assert!(error.to_string().contains("cannot be started"), "{error}");
    }

    #[tokio::test]
    async fn only_a_whole_answer_counts() {
        let error = compiled_by("true").await;
        assert!(error.is_passing() && error.to_string().contains("cut off"), "{error}");
        let error = compiled_by("false").await;
        assert!(error.to_string().contains("broke down (exit status: 1)"), "{error}");
    }

    #[tokio::test]
    async fn what_it_answers_is_bounded() {
        let most = most_output(4);
        let answer = take(Some(tokio::io::repeat(0)), most + FRAME_LEN + 1).await.unwrap();
        let ended = Ended { status: ExitStatus::from_raw(0), answer, words: String::new() };
        let error = ended.result(&Compilation::default(), 4).unwrap_err();
        assert!(!error.is_passing() && error.to_string().contains("more than 67108864"), "{error}");
    }

    #[test]
    fn how_it_ended_says_what_was_too_much() {
        for (status, words, passing, reason) in [
            (SIGKILL, "", true, "was killed"),
            (SIGXCPU, "", false, "took longer than 30s"),
            (6, "memory allocation of 99 bytes failed\n", false, "more memory than 2147483648"),
            (11, "thread 'main' has overflowed its stack\n\n", false, "overflowed its stack"),
        ] {
            let status = ExitStatus::from_raw(status);
            let ended = Ended { status, answer: Vec::new(), words: words.to_owned() };
            let error = ended.result(&Compilation::default(), 4).unwrap_err();
            assert_eq!(error.is_passing(), passing, "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
