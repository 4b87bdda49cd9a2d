//! What a task says: headings, results and tables on standard output.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether standard output is for figures that a program reads, and everything else for standard error.
static ASIDE: AtomicBool = AtomicBool::new(false);

/// From here on standard output is for figures alone.
pub(crate) fn stand_aside() {
    ASIDE.store(true, Ordering::Relaxed);
}

/// Whether standard output is for figures alone.
pub(crate) fn stands_aside() -> bool {
    ASIDE.load(Ordering::Relaxed)
}

/// Writes figures for a program, on one line of standard output.
pub(crate) fn json(figures: &serde_json::Value) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{figures}").and_then(|()| stdout.flush()));
}

/// Writes a text as it is.
pub(crate) fn text(text: &str) {
    if stands_aside() {
        return drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }
    let mut stdout = std::io::stdout().lock();
    // A reader that has gone (`| head`) is no reason to stop the task halfway.
    drop(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

/// Writes a line.
pub(crate) fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// Begins a step.
pub(crate) fn heading(title: &str) {
    line(&format!("\n{}", strong(&format!("== {title}"))));
}

/// Ends a step.
pub(crate) fn done(title: &str, took: Duration) {
    line(&good(&format!("ok: {title} ({})", seconds(took))));
}

/// Says why the task failed, on standard error.
pub(crate) fn error(error: &anyhow::Error) {
    drop(writeln!(std::io::stderr().lock(), "\nFAILED: {error:#}"));
}

/// A duration for people.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The text in bold, on a terminal.
pub(crate) fn strong(text: &str) -> String {
    paint("1", text)
}

/// The text in green, on a terminal.
pub(crate) fn good(text: &str) -> String {
    paint("32", text)
}

/// The text in red, on a terminal.
pub(crate) fn bad(text: &str) -> String {
    paint("31", text)
}

/// The text faint, on a terminal.
pub(crate) fn faint(text: &str) -> String {
    paint("2", text)
}

fn paint(code: &str, text: &str) -> String {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if std::io::stdout().is_terminal() && !unwanted {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Writes a table; the first row is its header, the first column is aligned left and the others right.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let mut cells = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            cells.push_str(&match column {
                0 => format!("  {cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
        }
        line(&if number == 0 { faint(&cells) } else { cells });
    }
}
