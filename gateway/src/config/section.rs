//! A section: a table of settings, read key by key.

use super::item::Item;
use super::reader::{Place, Reader};
use super::suggest;
use super::tree::{Entries, Node};

/// A table, whose settings are to be read.
pub(super) struct Section<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) place: Place,
    entries: Entries,
    known: Vec<&'static str>,
}

impl Section<'_> {
    /// Reads a table; the keys that are not read are refused.
    pub(super) fn read<T>(
        reader: &mut Reader,
        place: Place,
        entries: Entries,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut section = Section { reader, place, entries, known: Vec::new() };
        let value = read(&mut section);
        section.refuse_unknown_keys();
        value
    }

    /// A setting that may be left out. None as well when it is refused.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let item = self.item(key).filter(Item::is_set)?;
        item.read(parse).map(|(value, _)| value)
    }

    /// A setting that has to be there, with its place. `example` is what to write when it is missing.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<(T, Place)> {
        match self.item(key).filter(Item::is_set) {
            Some(item) => item.read(parse),
            None => self.refuse(key, missing(key, example)),
        }
    }

    /// A table of settings; all are left out when the table is.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut place = self.place.entry(key);
        let mut entries = Entries::new();
        if let Some(mut item) = self.item(key) {
            place = item.place.clone();
            entries = item.entries().unwrap_or_default();
        }
        Section::read(self.reader, place, entries, read)
    }

    /// A table of settings that means something by being there; none when it is left out or no table.
    pub(super) fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        self.item(key)?.section(read)
    }

    /// A list that may be left out. None as well when it is refused; elements that are refused are left
    /// out of the result.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        of: &str,
        each: impl FnMut(Item<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.item(key)?.list(of, each)
    }

    /// A list that has to be there, with at least one element.
    pub(super) fn required_list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        of: &str,
        mut each: impl FnMut(Item<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(item) = self.item(key) else {
            return self.refuse(key, missing(key, example));
        };
        let place = item.place.clone();
        let mut given = 0_usize;
        let read = item.list(of, |item| {
            given += 1;
            each(item)
        })?;
        if given == 0 {
            let message = format!("is empty; write it as in `{key} = {example}`");
            return self.reader.refuse(&place, message);
        }
        Some(read)
    }

    /// A table whose keys are the user's own; empty when it is left out. `new_key` makes the key of an
    /// entry that only a variable sets.
    pub(super) fn map<T>(
        &mut self,
        key: &'static str,
        new_key: impl Fn(&str) -> String,
        each: impl FnMut(&str, Item<'_>) -> Option<T>,
    ) -> Vec<T> {
        match self.item(key) {
            Some(item) => item.map(new_key, each),
            None => Vec::new(),
        }
    }

    /// What is set for a key.
    pub(super) fn item(&mut self, key: &'static str) -> Option<Item<'_>> {
        self.known.push(key);
        let found = self.entries.iter().position(|(name, _)| name == key);
        let in_file = found.map(|index| self.entries.remove(index).1);
        self.reader.item(self.place.entry(key), in_file)
    }

    /// Whether the table in the file says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Records a problem of the section as a whole; nothing comes of it.
    pub(super) fn refuse_whole<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.reader.refuse(&self.place, message)
    }

    /// Records a problem of a key; nothing comes of it.
    pub(super) fn refuse<T>(&mut self, key: &str, message: impl Into<String>) -> Option<T> {
        self.reader.refuse(&self.place.entry(key), message)
    }

    fn refuse_unknown_keys(mut self) {
        for (key, node) in std::mem::take(&mut self.entries) {
            let mut place = self.place.entry(&key);
            place.origin = node.origin;
            self.reader.refuse::<()>(&place, suggest::unknown_key(&key, &self.known));
        }
    }
}

/// The message for a setting that has to be there.
pub(super) fn missing(key: &str, example: &str) -> String {
    format!("is missing; write it as in `{key} = {example}`")
}
