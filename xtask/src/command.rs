//! Running other programs as steps of a task: announced, timed, and loud when they fail.

use std::ffi::OsString;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{report, workspace};

/// A cargo command in the workspace's folder.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(workspace::root());
    command
}

/// Runs a command as a step with a heading.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    report::heading(title);
    report::line(&report::faint(&format!("$ {}", shown(command))));
    let started = Instant::now();
    if report::stands_aside() {
        command.stdout(std::io::stderr());
    }
    let status = command.status().with_context(|| format!("cannot run `{}`", shown(command)))?;
    succeeded(command, status)?;
    report::done(title, started.elapsed());
    Ok(())
}

/// Turns a failure's status into an error that names the command.
pub(crate) fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let mut text = program.rsplit('/').next().unwrap_or(&program).to_owned();
    // The search path is long, and the task's own business.
    for (name, value) in command.get_envs().filter(|(name, _)| *name != "PATH") {
        let value = value.unwrap_or_default().to_string_lossy();
        text.insert_str(0, &format!("{}={} ", name.to_string_lossy(), quoted(&value)));
    }
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&quoted(&argument.to_string_lossy()));
    }
    text
}

fn quoted(argument: &str) -> String {
    if argument.is_empty() || argument.contains(|c: char| c.is_whitespace() || "'\"{}$".contains(c))
    {
        format!("'{argument}'")
    } else {
        argument.to_owned()
    }
}
