//! An item: a value of which a setting is to be made, alone or of its parts.

use std::collections::{BTreeMap, BTreeSet};

use super::environment::variable_form;
use super::reader::{Place, Reader};
use super::section::Section;
use super::tree::{Entries, Node, Value};

/// A value of which a setting is to be made.
pub(super) struct Item<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) place: Place,
    node: Node,
}

impl<'a> Item<'a> {
    pub(super) fn new(reader: &'a mut Reader, place: Place, node: Node) -> Self {
        Self { reader, place, node }
    }

    /// Makes a setting of the value, with its place.
    pub(super) fn read<T>(
        self,
        parse: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<(T, Place)> {
        match parse(&self.node) {
            Ok(value) => Some((value, self.place)),
            Err(message) => self.reader.refuse(&self.place, message),
        }
    }

    /// The value, when it is or can be a string.
    pub(super) fn text(&self) -> Option<&str> {
        self.node.text()
    }

    /// Whether there is a value, rather than variables that set parts of one.
    pub(super) fn is_set(&self) -> bool {
        !matches!(self.node.value, Value::Unset)
    }

    /// Whether the value is a table.
    pub(super) fn is_table(&self) -> bool {
        matches!(*self.node.typed(), Value::Table(_) | Value::Unset)
    }

    /// Records a problem with the value; nothing comes of it.
    pub(super) fn refuse<T>(self, message: impl FnOnce(&Node) -> String) -> Option<T> {
        self.reader.refuse(&self.place, message(&self.node))
    }

    /// Reads the value as a table; none when it is no table.
    pub(super) fn section<T>(mut self, read: impl FnOnce(&mut Section<'_>) -> T) -> Option<T> {
        let entries = self.entries()?;
        Some(Section::read(self.reader, self.place, entries, read))
    }

    /// Reads the value as a list of what `of` says; none when it is no list.
    pub(super) fn list<T>(
        self,
        of: &str,
        mut each: impl FnMut(Item<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let elements = match self.node.into_typed() {
            Value::List(elements) => elements,
            Value::Unset => Vec::new(),
            other => {
                let message = format!("is {}; a list of {of} is needed", other.kind());
                return self.reader.refuse(&self.place, message);
            }
        };
        let names = Names::of(&elements);
        let mut read = Vec::with_capacity(elements.len());
        let mut elements = elements.into_iter();
        for index in 0.. {
            let in_file = elements.next();
            let place = self.place.element(index, &names.of_element(index, in_file.as_ref()));
            match self.reader.item(place, in_file) {
                Some(item) => read.extend(each(item)),
                // Variables may add elements behind the last one of the file.
                None => break,
            }
        }
        Some(read)
    }

    /// Reads the value as a table whose keys are the user's own; empty when it is no table.
    pub(super) fn map<T>(
        mut self,
        new_key: impl Fn(&str) -> String,
        mut each: impl FnMut(&str, Item<'_>) -> Option<T>,
    ) -> Vec<T> {
        let entries = self.entries().unwrap_or_default();
        let in_file: BTreeSet<String> = entries.iter().map(|(key, _)| variable_form(key)).collect();
        let mut read = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let item = self.reader.item(self.place.entry(&key), Some(node));
            read.extend(item.and_then(|item| each(&key, item)));
        }
        for name in self.reader.names_in(&self.place) {
            if !in_file.contains(&name) {
                let key = new_key(&name.to_lowercase());
                let item = self.reader.item(self.place.entry(&key), None);
                read.extend(item.and_then(|item| each(&key, item)));
            }
        }
        read
    }

    /// The entries of a table, taken out; none, and refused, when it is no table.
    pub(super) fn entries(&mut self) -> Option<Entries> {
        let node = Node {
            origin: self.node.origin.clone(),
            value: std::mem::replace(&mut self.node.value, Value::Unset),
        };
        match node.into_typed() {
            Value::Table(entries) => Some(entries),
            Value::Unset => Some(Entries::new()),
            other => {
                let message = format!("is {}; a table is needed", other.kind());
                self.reader.refuse(&self.place, message)
            }
        }
    }
}

/// How often each name stands in a list, as it stands in variables.
struct Names(BTreeMap<String, usize>);

impl Names {
    fn of(elements: &[Node]) -> Self {
        let mut counts = BTreeMap::new();
        for name in elements.iter().filter_map(name_of) {
            *counts.entry(name).or_default() += 1;
        }
        Self(counts)
    }

    /// What an element goes by in variables: its name, where no other has the same, and its index.
    fn of_element(&self, index: usize, element: Option<&Node>) -> Vec<String> {
        let name = element.and_then(name_of);
        let unique = name.filter(|name| self.0.get(name) == Some(&1));
        // A name made of digits has precedence over the index that looks like it.
        let index = Some(index.to_string()).filter(|index| !self.0.contains_key(index));
        unique.into_iter().chain(index).collect()
    }
}

/// The `name` of an element, as it stands in variables.
fn name_of(element: &Node) -> Option<String> {
    let Value::Table(entries) = &element.value else {
        return None;
    };
    let (_, name) = entries.iter().find(|(key, _)| key == "name")?;
    name.text().map(variable_form)
}
