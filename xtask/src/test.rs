//! `cargo xtask test`: builds every plugin, then runs every test of the workspace.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::{command, report, wasm};

/// Builds and tests; the arguments go to `cargo test --workspace`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let started = Instant::now();
    wasm::build()?;

    let title = "test the workspace";
    let fixed = ["test", "--workspace"];
    let mut command = command::cargo(fixed.into_iter().chain(arguments.iter().map(String::as_str)));
    report::heading(title);
    report::line(&report::faint(&format!("$ {}", command::shown(&command))));
    // The output passes through here, line by line, so that it can be counted.
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", command::shown(&command)))?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read what the tests print")?;
            let line = String::from_utf8_lossy(&line);
            report::line(&line);
            count.add(&line);
        }
    }
    let status = child.wait()?;
    report::line(&format!(
        "\n{} passed, {} failed, {} ignored in {} test binaries, {} in all",
        count.passed,
        count.failed,
        count.ignored,
        count.binaries,
        report::seconds(started.elapsed())
    ));
    command::succeeded(&command, status)?;
    report::done(title, started.elapsed());
    Ok(())
}

/// The sum of the runners' closing lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    binaries: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Count {
    /// Adds a line such as `test result: ok. 18 passed; 0 failed; 0 ignored; …`; others count nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result:") else {
            return;
        };
        self.binaries += 1;
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_summed() {
        let mut count = Count::default();
        for line in [
            "running 2 tests",
            "test result: ok. 18 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s",
        ] {
            count.add(line);
        }
        let expected = Count { binaries: 2, passed: 21, failed: 2, ignored: 1 };
        assert_eq!(count, expected);
    }
}
