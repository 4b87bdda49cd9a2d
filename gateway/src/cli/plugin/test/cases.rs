//! The fixtures of a folder, run one after the other, and what came of each.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use super::difference::difference;
use super::update::updated;
use crate::cli::plugin::{Problem, figures, install};
use crate::cli::terminal::{Paint, printable};
use crate::transform::{Fixture, Judgement, Plugin};

/// Larger files are no fixtures.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What is done about a case that turns out otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::plugin) enum Mode {
    /// It fails.
    Compare,
    /// The file is changed to expect it.
    Update,
}

/// What came of all cases.
#[derive(Debug)]
pub(in crate::cli::plugin) struct Cases(Vec<Case>);

#[derive(Debug)]
struct Case {
    /// The file's name.
    name: String,
    result: CaseResult,
}

#[derive(Debug)]
enum CaseResult {
    Holds(Duration),
    Differs(Box<Judgement>),
    Updated,
    /// The file is no fixture, or cannot be read or written.
    Broken(Problem),
}

impl Cases {
    /// Runs every case of a folder, in the order of their names.
    pub(in crate::cli::plugin) async fn run(
        plugin: &Arc<Plugin>,
        folder: &Path,
        mode: Mode,
    ) -> Result<Self, Problem> {
        let shown = folder.display();
        let files = files(folder)
            .map_err(|error| format!("cannot read the fixtures in {shown}: {error}"))?;
        if files.is_empty() {
            return Err(format!("there are no fixtures: no *.json file in {shown}"));
        }
        let mut cases = Vec::with_capacity(files.len());
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let result = run_file(plugin, &file, mode).await.unwrap_or_else(CaseResult::Broken);
            cases.push(Case { name, result });
        }
        Ok(Self(cases))
    }

    /// Whether every case turned out as expected, or does from now on.
    pub(in crate::cli::plugin) fn all_hold(&self) -> bool {
        self.0.iter().all(|case| matches!(case.result, CaseResult::Holds(_) | CaseResult::Updated))
    }

    /// A line for each case, the difference of those that fail, and the sum.
    pub(in crate::cli::plugin) fn told(&self, paint: Paint) -> String {
        let mut text: String = self.0.iter().map(|case| case.told(paint)).collect();
        text.push_str(&self.sum());
        text.push('\n');
        text
    }

    /// How many there are of each kind.
    pub(in crate::cli::plugin) fn sum(&self) -> String {
        let count =
            |is: fn(&CaseResult) -> bool| self.0.iter().filter(|case| is(&case.result)).count();
        let mut kinds = vec![
            (count(|result| matches!(result, CaseResult::Holds(_))), "passed"),
            (count(|result| matches!(result, CaseResult::Updated)), "updated"),
            (
                count(|result| matches!(result, CaseResult::Differs(_) | CaseResult::Broken(_))),
                "failed",
            ),
        ];
        kinds.retain(|(count, _)| *count > 0);
        let kinds: Vec<_> = kinds.iter().map(|(count, kind)| format!("{count} {kind}")).collect();
        let fixtures = if self.0.len() == 1 { "fixture" } else { "fixtures" };
        format!("{} {fixtures}: {}", self.0.len(), kinds.join(", "))
    }
}

impl Case {
    fn told(&self, paint: Paint) -> String {
        let name = printable(&self.name);
        match &self.result {
            CaseResult::Holds(time) => {
                let time = paint.faint(&figures::time(*time));
                format!("{}       {name}  {time}\n", paint.good("ok"))
            }
            CaseResult::Updated => format!("{}  {name}\n", paint.strong("updated")),
            CaseResult::Broken(problem) => {
                format!("{}   {name}: {}\n", paint.bad("FAILED"), printable(problem))
            }
            CaseResult::Differs(judgement) => {
                let log = judgement.trial.log.iter().map(|line| {
                    let level = line.level.as_str();
                    format!("    log {level}: {}\n", printable(&line.message))
                });
                format!(
                    "{}   {name}\n{}{}",
                    paint.bad("FAILED"),
                    difference(judgement, paint),
                    log.collect::<String>()
                )
            }
        }
    }
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

async fn run_file(plugin: &Arc<Plugin>, file: &Path, mode: Mode) -> Result<CaseResult, Problem> {
    let text = read(file)?;
    let fixture = Fixture::parse(&text).map_err(|error| error.to_string())?;
    let judgement = fixture.run(plugin).await.map_err(|error| error.to_string())?;
    if judgement.holds {
        return Ok(CaseResult::Holds(judgement.trial.usage.time));
    }
    if mode == Mode::Compare {
        return Ok(CaseResult::Differs(Box::new(judgement)));
    }
    let text = updated(&text, &judgement.actual)?;
    install::replace(file, text.as_bytes())
        .map_err(|error| format!("cannot be written: {error}"))?;
    Ok(CaseResult::Updated)
}

fn read(file: &Path) -> Result<String, Problem> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let bytes = fs::metadata(file).map_err(cannot)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(format!("has {bytes} bytes; a fixture has at most {MAX_FILE_BYTES}"));
    }
    fs::read_to_string(file).map_err(cannot)
}
