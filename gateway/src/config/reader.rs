//! The reader: finds settings in the file or in a variable, and collects what is wrong.
//!
//! Reading a setting is what declares it. A [`Section`] remembers the keys that were asked for, so that
//! the rest are unknown, and each key is looked for among the variables too. A setting is therefore
//! added in one place, by reading it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::environment::{self, Environment, NotUtf8, variable_form};
use super::errors::{Errors, Origin, Problem};
use super::item::Item;
use super::named_file::NamedFile;
use super::section::Section;
use super::suggest;
use super::tree::{self, Entries, Node, Value};

/// What is shared by all sections of one configuration.
pub(super) struct Reader {
    base_dir: PathBuf,
    environment: Environment,
    /// The variables that would set something.
    known: BTreeSet<String>,
    /// The variables that did set something, or that a secret was read from.
    used: BTreeSet<String>,
    /// The files that settings name.
    files: BTreeMap<PathBuf, NamedFile>,
    problems: Vec<Problem>,
}

/// Where a setting stands: in the file, and among the variables.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) origin: Origin,
    pub(super) path: String,
    /// The variables that set it; an element of a list has one by its name and one by its index.
    variables: Vec<String>,
}

impl Reader {
    pub(super) fn new(base_dir: &Path, environment: &Environment) -> Self {
        Self {
            base_dir: base_dir.to_owned(),
            environment: environment.clone(),
            known: BTreeSet::new(),
            used: BTreeSet::new(),
            files: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Reads a whole document.
    ///
    /// # Errors
    /// Everything that was refused while reading.
    pub(super) fn read<T>(
        mut self,
        text: &str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Result<T, Errors> {
        let entries = tree::parse(text).map_err(Errors::new)?;
        let value = self.read_entries(entries, read);
        self.refuse_unknown_variables();
        if self.problems.is_empty() {
            return Ok(value);
        }
        let files = self.files();
        Err(Errors::new(self.problems).with_files(files))
    }

    /// Reads the entries of a document.
    pub(super) fn read_entries<T>(
        &mut self,
        entries: Entries,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let root = Place { origin: Origin::File, path: String::new(), variables: Vec::new() };
        Section::read(self, root, entries, read)
    }

    /// The variables that would set something.
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(String::as_str)
    }

    /// The folder that relative paths start from.
    pub(super) fn base_dir(&self) -> &Path {
        &self.base_dir
    }

    /// Reads the file that a setting names, relative to the configuration's folder; gives its whole path, too. Of one
    /// that is longer than `max_bytes`, it reads one byte more than that.
    pub(super) fn read_file(
        &mut self,
        name: &str,
        max_bytes: u64,
    ) -> (PathBuf, io::Result<Vec<u8>>) {
        let path = self.base_dir.join(name);
        let (file, bytes) = NamedFile::read(path.clone(), max_bytes);
        self.files.insert(path.clone(), file);
        (path, bytes)
    }

    /// The files that settings have named so far.
    pub(super) fn files(&self) -> Vec<NamedFile> {
        self.files.values().cloned().collect()
    }

    /// The value of a variable that the file names.
    pub(super) fn named_variable(&mut self, name: &str) -> Option<Result<String, NotUtf8>> {
        self.used.insert(name.to_owned());
        Some(self.environment.get(name)?.map(str::to_owned))
    }

    /// Records a problem; nothing comes of it, which is what is returned.
    pub(super) fn refuse<T>(&mut self, place: &Place, message: impl Into<String>) -> Option<T> {
        self.problems.push(Problem {
            origin: place.origin.clone(),
            path: place.path.clone(),
            message: message.into(),
        });
        None
    }

    /// Whether something is wrong at a place already.
    pub(super) fn has_problem(&self, place: &Place) -> bool {
        self.problems.iter().any(|problem| problem.path == place.path)
    }

    /// What is set at a place: by a variable, else by the file, else in parts by variables, or not at all.
    pub(super) fn item(&mut self, mut place: Place, in_file: Option<Node>) -> Option<Item<'_>> {
        let node = match self.variable(&place) {
            Some(node) => node,
            None => in_file.or_else(|| self.unset(&place))?,
        };
        place.origin = node.origin.clone();
        Some(Item::new(self, place, node))
    }

    fn variable(&mut self, place: &Place) -> Option<Node> {
        // The first is by name where there is one, and makes the better suggestion.
        self.known.extend(place.variables.first().cloned());
        let mut found: Option<Node> = None;
        for name in &place.variables {
            let Some(value) = self.environment.get(name) else {
                continue;
            };
            self.used.insert(name.clone());
            let origin = Origin::Variable(name.clone());
            let here =
                |message| Problem { origin: origin.clone(), path: place.path.clone(), message };
            match (value, &found) {
                (Err(error), _) => self.problems.push(here(error.to_string())),
                (Ok(_), Some(other)) => self.problems.push(here(format!(
                    "is set by {} as well; keep one of the two variables",
                    other.origin
                ))),
                (Ok(text), None) => {
                    found = Some(Node { value: Value::Variable(text.to_owned()), origin });
                }
            }
        }
        found
    }

    /// A stand-in for something of which variables set parts.
    fn unset(&self, place: &Place) -> Option<Node> {
        let name = place.prefixes().iter().find_map(|prefix| {
            let name = self.environment.names_with(prefix).next()?;
            Some(name.to_owned())
        })?;
        Some(Node { origin: Origin::Variable(name), value: Value::Unset })
    }

    /// The names that variables give to entries of the table at this place.
    pub(super) fn names_in(&self, place: &Place) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for prefix in place.prefixes() {
            for variable in self.environment.names_with(&prefix) {
                let rest = variable.strip_prefix(&prefix).unwrap_or_default();
                names.insert(rest.split("__").next().unwrap_or_default().to_owned());
            }
        }
        names
    }

    fn refuse_unknown_variables(&mut self) {
        let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
        for name in self.environment.names_with(environment::PREFIX) {
            if !self.used.contains(name) && !environment::is_reserved(name) {
                self.problems.push(Problem {
                    origin: Origin::Variable(name.to_owned()),
                    path: String::new(),
                    message: suggest::unknown_variable(name, &known),
                });
            }
        }
    }
}

impl Place {
    /// The place of an entry in the table at this place.
    pub(super) fn entry(&self, key: &str) -> Self {
        Self {
            origin: self.origin.clone(),
            path: tree::join(&self.path, key),
            variables: self.variables_of(&[variable_form(key)]),
        }
    }

    /// The place in words, to name it in the message of another.
    pub(super) fn show(&self) -> String {
        format!("{} on {}", self.path, self.origin)
    }

    /// Where it stands, in short: the line, or the variable.
    pub(super) fn line(&self) -> String {
        self.origin.to_string()
    }

    /// The place of an element in the list at this place; `names` as they stand in variables.
    pub(super) fn element(&self, index: usize, names: &[String]) -> Self {
        Self {
            origin: self.origin.clone(),
            path: format!("{}[{index}]", self.path),
            variables: self.variables_of(names),
        }
    }

    fn variables_of(&self, names: &[String]) -> Vec<String> {
        let prefixes = self.prefixes();
        let all = names.iter().flat_map(|name| {
            let of_prefix = move |prefix: &String| format!("{prefix}{name}");
            prefixes.iter().map(of_prefix)
        });
        all.collect()
    }

    /// What the names of variables inside this place begin with.
    fn prefixes(&self) -> Vec<String> {
        if self.path.is_empty() {
            return vec![environment::PREFIX.to_owned()];
        }
        let prefix = |name: &String| format!("{name}__");
        self.variables.iter().map(prefix).collect()
    }
}
