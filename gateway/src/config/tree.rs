//! A TOML document as a tree in which every value knows where it comes from.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::errors::{Origin, Problem};

/// A value and where it comes from. It may be a secret, so it cannot be printed.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// A value.
#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node>),
    Table(Entries),
    /// The text of an environment variable. What is needed decides what it is: a string is taken as
    /// it stands, so `0123` can be a path; everything else is read as TOML.
    Variable(String),
    /// Not set itself; variables set parts of it.
    Unset,
}

/// The entries of a table, in the order of the document.
pub(super) type Entries = Vec<(String, Node)>;

impl Node {
    /// The value, when it is or can be a string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Variable(text) => Some(text),
            _ => None,
        }
    }

    /// The value where something other than a string is needed.
    pub(super) fn typed(&self) -> Cow<'_, Value> {
        match &self.value {
            Value::Variable(text) => Cow::Owned(parse_variable(text, &self.origin)),
            value => Cow::Borrowed(value),
        }
    }

    /// The same as [`Node::typed`], by value.
    pub(super) fn into_typed(self) -> Value {
        match self.value {
            Value::Variable(text) => parse_variable(&text, &self.origin),
            value => value,
        }
    }
}

impl Value {
    /// What it is, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Variable(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) | Self::Unset => "a table",
        }
    }
}

/// Reads a document.
///
/// # Errors
/// Every syntax error. What else is wrong is not looked at then: after a syntax error, the parser's guess
/// at the rest would raise problems that the file does not have.
pub(super) fn parse(text: &str) -> Result<Entries, Vec<Problem>> {
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| Problem {
            origin: lines.position(error.span().map_or(0, |span| span.start)),
            path: String::new(),
            // Not the error as a whole, which quotes the line, and the line may hold a secret.
            message: error.message().to_owned(),
        })
        .collect();
    // One mistake often leads to several errors; the first on a line is the one that matters.
    problems.sort_by(|a, b| a.origin.cmp(&b.origin));
    problems.dedup_by_key(|problem| problem.origin.to_string());
    let mut converter = Converter { origin_at: |offset| lines.line(offset), problems };
    let entries = converter.table(document.into_inner(), "");
    if converter.problems.is_empty() { Ok(entries) } else { Err(converter.problems) }
}

/// Reads a variable's text as TOML, or takes it as a string when it is none.
fn parse_variable(text: &str, origin: &Origin) -> Value {
    let Ok(value) = DeValue::parse(text.trim()) else {
        return Value::Text(text.to_owned());
    };
    let mut converter = Converter { origin_at: |_| origin.clone(), problems: Vec::new() };
    let value = converter.value(value.into_inner(), 0, "");
    if converter.problems.is_empty() { value } else { Value::Text(text.to_owned()) }
}

/// Turns the parser's values into ours.
struct Converter<F> {
    /// The origin of what stands at a byte offset.
    origin_at: F,
    problems: Vec<Problem>,
}

impl<F: Fn(usize) -> Origin> Converter<F> {
    fn table(&mut self, table: DeTable<'_>, path: &str) -> Entries {
        // The parser sorts by name; users expect their own order.
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut converted = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let start = key.span().start;
            let key = key.into_inner().into_owned();
            let path = join(path, &key);
            let node = Node {
                origin: (self.origin_at)(start),
                value: self.value(value.into_inner(), start, &path),
            };
            converted.push((key, node));
        }
        converted
    }

    fn list(&mut self, list: DeArray<'_>, path: &str) -> Vec<Node> {
        let mut converted = Vec::with_capacity(list.len());
        for (index, item) in list.into_iter().enumerate() {
            converted.push(self.node(item, &format!("{path}[{index}]")));
        }
        converted
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>, path: &str) -> Node {
        let start = value.span().start;
        Node { origin: (self.origin_at)(start), value: self.value(value.into_inner(), start, path) }
    }

    fn value(&mut self, value: DeValue<'_>, start: usize, path: &str) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(integer) => {
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(integer) => Value::Integer(integer),
                    Err(_) => {
                        self.refuse(start, path, "is an integer of more than 64 bits");
                        Value::Integer(0)
                    }
                }
            }
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(float) => Value::Float(float),
                Err(_) => {
                    self.refuse(start, path, "is not a float");
                    Value::Float(0.0)
                }
            },
            DeValue::Boolean(boolean) => Value::Boolean(boolean),
            DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
            DeValue::Array(list) => Value::List(self.list(list, path)),
            DeValue::Table(table) => Value::Table(self.table(table, path)),
        }
    }

    fn refuse(&mut self, start: usize, path: &str, message: &str) {
        self.problems.push(Problem {
            origin: (self.origin_at)(start),
            path: path.to_owned(),
            message: message.to_owned(),
        });
    }
}

/// The path of a table's entry.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Finds the line of a byte offset.
struct Lines<'a> {
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let newlines = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self { text, starts: std::iter::once(0).chain(newlines).collect() }
    }

    fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn line(&self, offset: usize) -> Origin {
        Origin::Line(self.number(offset))
    }

    fn position(&self, offset: usize) -> Origin {
        let number = self.number(offset);
        let start = self.starts.get(number.saturating_sub(1)).copied();
        let before = self.text.get(start.unwrap_or(0)..offset);
        Origin::Position(number, before.unwrap_or_default().chars().count() + 1)
    }
}
