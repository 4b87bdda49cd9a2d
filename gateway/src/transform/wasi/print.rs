//! What a plugin prints, as lines for its log.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamResult};

use super::super::Limits;
use super::super::contract::hookmill::plugin::log::Level;

/// How much can be printed at once, in bytes.
const PERMIT: usize = 64 << 10;

/// What a call has printed to all its streams, up to the limits of its log.
#[derive(Debug, Clone)]
pub(super) struct Printed(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    /// Whole lines that nobody has taken.
    whole: Vec<(Level, String)>,
    /// The line that each stream is in the middle of.
    begun: Vec<(Level, Vec<u8>)>,
    lines_left: usize,
    bytes_left: usize,
    omitted: usize,
}

impl Printed {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            whole: Vec::new(),
            begun: Vec::new(),
            lines_left: limits.log_lines,
            bytes_left: limits.log_bytes,
            omitted: 0,
        })))
    }

    /// A stream whose lines have this level.
    pub(super) fn stream(&self, level: Level) -> Stream {
        Stream { level, printed: self.clone() }
    }

    /// Whole lines that nobody has taken yet, and the number of those that were left out.
    pub(super) fn take(&self) -> (Vec<(Level, String)>, usize) {
        let mut lines = self.lines();
        (mem::take(&mut lines.whole), mem::take(&mut lines.omitted))
    }

    /// Ends every line.
    pub(super) fn finish(&self) {
        let mut lines = self.lines();
        for (level, line) in mem::take(&mut lines.begun) {
            lines.end(level, &line);
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn write(&mut self, level: Level, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.append(level, piece);
            if pieces.peek().is_none() {
                return;
            }
            match self.begun_line(level).map(mem::take) {
                Some(line) if !line.is_empty() => self.end(level, &line),
                // Nothing of it could be kept.
                _ if !piece.is_empty() => self.omitted += 1,
                _ => {}
            }
        }
    }

    /// Adds to the line that the stream is in the middle of; what is over the limit is not kept.
    fn append(&mut self, level: Level, piece: &[u8]) {
        let kept = piece.get(..self.bytes_left).unwrap_or(piece);
        if kept.is_empty() {
            return;
        }
        self.bytes_left -= kept.len();
        match self.begun_line(level) {
            Some(line) => line.extend_from_slice(kept),
            None => self.begun.push((level, kept.to_vec())),
        }
    }

    fn begun_line(&mut self, level: Level) -> Option<&mut Vec<u8>> {
        self.begun.iter_mut().find(|(of, _)| *of == level).map(|(_, line)| line)
    }

    fn end(&mut self, level: Level, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text.is_empty() {
            // An empty line tells an operator nothing.
            return;
        }
        if self.lines_left == 0 {
            self.omitted += 1;
            return;
        }
        self.lines_left -= 1;
        self.whole.push((level, text.to_owned()));
    }
}

/// Standard output or standard error.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    level: Level,
    printed: Printed,
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn p2_stream(&self) -> DynOutputStream {
        Box::new(self.clone())
    }

    // WASI's third release, which is not linked, would use this.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.printed.lines().write(self.level, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(log_lines: usize, log_bytes: usize, written: &[(Level, &str)]) -> Vec<String> {
        let printed = Printed::new(&Limits { log_lines, log_bytes, ..Limits::default() });
        for (level, text) in written {
            let mut stream = printed.stream(*level);
            stream.write(Bytes::copy_from_slice(text.as_bytes())).unwrap();
        }
        printed.finish();
        let (lines, omitted) = printed.take();
        let lines = lines.into_iter().map(|(level, line)| format!("{level:?} {line}"));
        lines.chain((omitted > 0).then(|| format!("{omitted} omitted"))).collect()
    }

    #[test]
    fn lines_are_put_together_and_the_streams_kept_apart() {
        let lines = printed(
            10,
            1000,
            &[(Level::Info, "one\ntw"), (Level::Warn, "oh\r\n\n"), (Level::Info, "o\nthree")],
        );
        assert_eq!(
            lines,
            ["Level::Info one", "Level::Warn oh", "Level::Info two", "Level::Info three"]
        );
    }

    #[test]
    fn lines_and_bytes_are_bounded() {
        let info = Level::Info;
        assert_eq!(
            printed(2, 1000, &[(info, "1\n2\n3\n4\n")]),
            ["Level::Info 1", "Level::Info 2", "2 omitted"]
        );
        assert_eq!(
            printed(9, 3, &[(info, "12\n345\n678\n")]),
            ["Level::Info 12", "Level::Info 3", "1 omitted"]
        );
    }
}
