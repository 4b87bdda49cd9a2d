//! Child processes that never outlive the task: killed on drop, so also on an error or a panic.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A running program of ours.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts it. Its standard error goes to the end of the file `log`.
    pub(crate) fn start(name: &'static str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let errors = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        for (variable, _) in std::env::vars_os() {
            // What the user has set for a gateway of their own is not meant for this one.
            if variable.to_string_lossy().starts_with("HOOKMILL_") {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // Ctrl-C is for the task alone, which then ends its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            // Reads for as long as the process writes, listened to or not: a full pipe would stop it.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    drop(sender.send(line));
                }
            });
        }
        Ok(Self { name, child, lines, log })
    }

    /// The address that follows `before` in the line by which the process says that it is ready.
    pub(crate) fn address(&self, before: &str, after: &str) -> Result<String> {
        loop {
            let line = self.line(Duration::from_secs(30))?;
            if let Some(rest) = line.strip_prefix(before) {
                return Ok(rest.split(after).next().unwrap_or(rest).trim().to_owned());
            }
        }
    }

    /// The next line that it prints.
    pub(crate) fn line(&self, patience: Duration) -> Result<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{} says nothing for {patience:?}\n{}", self.name, self.last_words())
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("{} has ended\n{}", self.name, self.last_words())
            }
        }
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("cannot talk to {}", self.name))
    }

    /// The lines that come from now on.
    pub(crate) fn lines(&mut self) -> Receiver<String> {
        std::mem::replace(&mut self.lines, channel().1)
    }

    /// Its number in the system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end in order, with SIGTERM, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let id = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status();
        if !asked.context("cannot run `kill`")?.success() {
            bail!("cannot stop {}", self.name);
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} has ended with {status}\n{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Ends it as a power cut would, with SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .with_context(|| format!("cannot kill {}", self.name))?;
        Ok(())
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended with {status}\n{}", self.name, self.last_words()),
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        last_lines(&self.log, 20)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn last_lines(log: &Path, count: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(count);
    let last: Vec<&str> = lines.into_iter().skip(skipped).collect();
    format!("the end of {}:\n{}", log.display(), last.join("\n"))
}
