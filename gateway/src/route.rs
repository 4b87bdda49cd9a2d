//! Routing: which webhooks an event type goes to, found by an index over their globs.
//!
//! A glob is names separated by full stops, like an event type. `*` in the middle stands for exactly one
//! name; at the end it stands for one or more, so `order.*` matches `order.paid` and `order.item.added`
//! but not `order`, and `*` alone matches everything.
//!
//! What the gateway tells of itself (`hookmill.…`) is for who asks for it: only globs that begin with that name
//! match, so that a webhook for all events of a service gets no others.

use std::collections::HashMap;
use std::fmt;

use crate::event::operational::{self, Operational};
use crate::event::{EventType, is_type_name};

/// A pattern for event types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Reads a glob.
    ///
    /// # Errors
    /// A phrase that says what is wrong, to follow the field's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        for name in text.split('.') {
            if name.is_empty() {
                return Err(format!(
                    "{text:?} has an empty name; write globs such as `order.paid`, `order.*` or `*`"
                ));
            }
            if name != "*" && name.contains('*') {
                return Err(format!(
                    "{text:?} has `*` beside other characters; `*` stands for whole names, as in `order.*`"
                ));
            }
            if name != "*" && !is_type_name(name) {
                return Err(format!(
                    "{text:?} has the name {name:?}; letters, digits, `_` and `-` are allowed between full stops"
                ));
            }
        }
        if text.len() > EventType::MAX_LEN {
            return Err(format!("is longer than {} bytes", EventType::MAX_LEN));
        }
        let glob = Self(text.into());
        if glob.is_operational() && !Operational::ALL.iter().any(|one| glob.matches(*one)) {
            let types: Vec<_> = Operational::ALL.iter().map(|one| one.as_str()).collect();
            return Err(format!(
                "{text:?} matches no event of the gateway's own; those are {}",
                types.join(", ")
            ));
        }
        Ok(glob)
    }

    /// The glob as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it asks for what the gateway tells of itself.
    #[must_use]
    pub fn is_operational(&self) -> bool {
        self.0.starts_with(operational::PREFIX)
    }

    fn matches(&self, one: Operational) -> bool {
        let mut index = Index::default();
        index.insert(self, ());
        !index.find(&one.event_type()).is_empty()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Finds the targets of an event type. A lookup costs the same however many globs do not match: it walks
/// a tree whose edges are names, along the type's own names and the stars beside them.
#[derive(Debug, Clone)]
pub struct Index<T> {
    root: Node<T>,
}

#[derive(Debug, Clone)]
struct Node<T> {
    names: HashMap<Box<str>, Self>,
    /// Where a `*` in the middle of a glob leads.
    star: Option<Box<Self>>,
    /// Targets of globs that end exactly here.
    exact: Vec<T>,
    /// Targets of globs that end in a `*` below here.
    rest: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { names: HashMap::new(), star: None, exact: Vec::new(), rest: Vec::new() }
    }
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T: Copy + Ord> Index<T> {
    /// Adds a target for every event type that the glob matches.
    pub fn insert(&mut self, glob: &Glob, target: T) {
        let mut node = &mut self.root;
        let mut names = glob.0.split('.').peekable();
        while let Some(name) = names.next() {
            match (name, names.peek()) {
                ("*", None) => return node.rest.push(target),
                ("*", Some(_)) => node = node.star.get_or_insert_default(),
                _ => node = node.names.entry(name.into()).or_default(),
            }
        }
        node.exact.push(target);
    }

    /// The targets whose globs match, each once, in ascending order.
    #[must_use]
    pub fn find(&self, event_type: &EventType) -> Vec<T> {
        let mut found = Vec::new();
        let (name, rest) = event_type.as_str().split_once('.').unwrap_or_default();
        match event_type.is_operational() {
            true => {
                self.root.names.get(name).into_iter().for_each(|it| it.collect(rest, &mut found))
            }
            false => self.root.collect(event_type.as_str(), &mut found),
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl<T: Copy> Node<T> {
    /// Adds the targets that match the rest of the type, which has at least one name.
    fn collect(&self, rest: &str, found: &mut Vec<T>) {
        found.extend(&self.rest);
        let (name, rest) = match rest.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (rest, None),
        };
        for next in self.names.get(name).into_iter().chain(self.star.as_deref()) {
            match rest {
                Some(rest) => next.collect(rest, found),
                None => found.extend(&next.exact),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule in the file's header, without an index.
    fn matches(glob: &str, event_type: &str) -> bool {
        let globs: Vec<_> = glob.split('.').collect();
        let names: Vec<_> = event_type.split('.').collect();
        let (last, first) = globs.split_last().unwrap();
        let fits = |(glob, name): (&&str, &&str)| *glob == "*" || glob == name;
        if *last == "*" {
            names.len() >= globs.len() && first.iter().zip(&names).all(fits)
        } else {
            names.len() == globs.len() && globs.iter().zip(&names).all(fits)
        }
    }

    fn find(globs: &[&str], event_type: &str) -> Vec<usize> {
        let mut index = Index::default();
        for (target, glob) in globs.iter().enumerate() {
            index.insert(&Glob::parse(glob).unwrap(), target);
        }
        index.find(&EventType::parse(event_type).unwrap())
    }

    #[test]
    fn globs_match_as_documented() {
        let globs = ["order.paid", "order.*", "*", "order.*.added", "*.paid"];
        assert_eq!(find(&globs, "order.paid"), [0, 1, 2, 4]);
        assert_eq!(find(&globs, "order.item.added"), [1, 2, 3]);
        assert_eq!(find(&globs, "order"), [2]);
        assert_eq!(find(&globs, "invoice.paid"), [2, 4]);
        assert_eq!(find(&globs, "order.item.part.added"), [1, 2]);
    }

    #[test]
    fn a_target_with_several_matching_globs_is_found_once() {
        let mut index = Index::default();
        for glob in ["a.b", "a.*", "*"] {
            index.insert(&Glob::parse(glob).unwrap(), 7);
        }
        assert_eq!(index.find(&EventType::parse("a.b").unwrap()), [7]);
    }

    #[test]
    fn what_the_gateway_tells_of_itself_is_for_who_asks_for_it() {
        let globs =
            ["*", "*.delivery.failed", "hookmill.*", "hookmill.*.failed", "*.*", "hookmill"];
        assert_eq!(find(&globs, "hookmill.delivery.failed"), [2, 3]);
        assert_eq!(find(&globs, "hookmill.plugin.loaded"), [2]);
        // No more than a name that begins like it.
        assert_eq!(find(&globs, "hookmill"), [0, 5]);
        assert_eq!(find(&globs, "hookmills.delivery.failed"), [0, 1, 4]);
        let error = Glob::parse("hookmill.delivery.suceeded").unwrap_err();
        assert!(error.contains("those are hookmill.delivery.succeeded, "), "{error}");
    }

    #[test]
    fn bad_globs_are_refused() {
        for bad in ["", "order.", ".*", "ord*", "order.**", "a b"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_the_rule(
            globs in proptest::collection::vec("(a|b|\\*)(\\.(a|b|\\*)){0,3}", 0..20),
            event_type in "(a|b|c)(\\.(a|b|c)){0,4}",
        ) {
            let globs: Vec<_> = globs.iter().map(String::as_str).collect();
            let expected: Vec<_> =
                (0..globs.len()).filter(|target| matches(globs[*target], &event_type)).collect();
            prop_assert_eq!(find(&globs, &event_type), expected);
        }
    }
}
