//! What is wrong with a configuration: every problem, with the place it comes from.

use std::fmt;
use std::path::{Path, PathBuf};

use super::named_file::NamedFile;

/// All problems of one configuration, in the order of its lines; those of variables come last.
///
/// Displayed as one line each, such as
/// `hookmill.toml:12: tenants[0].webhooks[1].url: uses plain HTTP; …`. A problem never repeats a value
/// that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    file: Option<PathBuf>,
    problems: Vec<Problem>,
    /// The files that the configuration names, as far as it was understood.
    files: Vec<NamedFile>,
}

impl Errors {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        Self { file: None, problems, files: Vec::new() }
    }

    /// A single problem of the file as a whole.
    pub(super) fn of_file(message: String) -> Self {
        Self::new(vec![Problem { origin: Origin::File, path: String::new(), message }])
    }

    /// The same problems, with the name of the file that the text came from.
    #[must_use]
    pub fn in_file(self, file: &Path) -> Self {
        Self { file: Some(file.to_owned()), ..self }
    }

    pub(super) fn with_files(self, files: Vec<NamedFile>) -> Self {
        Self { files, ..self }
    }

    /// The files that the configuration names, as far as it was understood: a change of one of them may be the cure.
    #[must_use]
    pub fn files(&self) -> &[NamedFile] {
        &self.files
    }

    /// The problems, one line each.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(|problem| self.line(problem))
    }

    fn line(&self, problem: &Problem) -> String {
        let file = self.file.as_deref().map(Path::display);
        let mut line = match (&problem.origin, file) {
            (Origin::File, None) => String::new(),
            (Origin::File, Some(file)) => format!("{file}: "),
            (Origin::Line(line), None) => format!("line {line}: "),
            (Origin::Line(line), Some(file)) => format!("{file}:{line}: "),
            (Origin::Position(line, column), None) => format!("line {line}, column {column}: "),
            (Origin::Position(line, column), Some(file)) => format!("{file}:{line}:{column}: "),
            (Origin::Variable(name), _) => format!("{name}: "),
        };
        if !problem.path.is_empty() {
            line.push_str(&problem.path);
            line.push_str(": ");
        }
        line.push_str(&problem.message);
        line
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) origin: Origin,
    /// The setting, such as `tenants[0].name`; empty where it is none in particular.
    pub(super) path: String,
    /// What is wrong and the way out: a phrase that follows the path.
    pub(super) message: String,
}

/// Where a value comes from. The order is the one in which problems are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The file as a whole.
    File,
    /// A line of the file, counted from 1.
    Line(usize),
    /// A line and a column of the file, both counted from 1.
    Position(usize, usize),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Line(line) | Self::Position(line, _) => write!(f, "line {line}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}
