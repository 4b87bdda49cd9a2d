//! Reads single values out of JSON text without building a tree of it.
//!
//! A plugin that looks at two fields of a large payload takes an `Event<&RawValue>` and a [`Pointer`]
//! for each: the text is only skimmed, numbers keep every digit, and what is passed on stays byte for
//! byte as it was. For everything else, a struct that derives `Deserialize` is the better choice.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, Visitor};
use serde_json::value::RawValue;

/// Where a value stands in a JSON document: a JSON pointer (RFC 6901), such as `/items/0/sku`.
///
/// In a config it is written, and checked, as a string.
///
/// ```
/// use hookmill_plugin::json::Pointer;
/// use serde_json::value::RawValue;
///
/// let pointer: Pointer = "/price/amount".parse()?;
/// let order: &RawValue = serde_json::from_str(r#"{"price": {"amount": 19.990}}"#)?;
/// assert_eq!(pointer.get(order).map(RawValue::get), Some("19.990"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pointer {
    tokens: Vec<String>,
}

impl Pointer {
    /// The steps from the whole document to the value: keys of objects, indices of arrays.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The value in `document`, or nothing where there is none. Of an object's members with the same
    /// key the last one counts.
    pub fn get<'a>(&self, document: &'a RawValue) -> Option<&'a RawValue> {
        let mut value = document;
        for token in &self.tokens {
            value = step(value, token)?;
        }
        Some(value)
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let refuse = |reason| PointerError { pointer: text.to_owned(), reason };
        if text.is_empty() {
            return Ok(Self { tokens: Vec::new() });
        }
        let rest =
            text.strip_prefix('/').ok_or_else(|| refuse("it does not begin with a slash"))?;
        let unescape =
            |token| unescape(token).ok_or_else(|| refuse("`~` stands before `0` or `1`"));
        let tokens = rest.split('/').map(unescape).collect::<Result<_, _>>()?;
        Ok(Self { tokens })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.tokens {
            formatter.write_str("/")?;
            formatter.write_str(&token.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

impl JsonSchema for Pointer {
    fn schema_name() -> Cow<'static, str> {
        "Pointer".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "json-pointer",
            "pattern": "^(/([^~/]|~[01])*)*$",
        })
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Pointer;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON pointer, such as `/items/0`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pointer, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// A text that is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerError {
    pointer: String,
    reason: &'static str,
}

impl fmt::Display for PointerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pointer, reason } = self;
        write!(formatter, "`{pointer}` is no JSON pointer: {reason}")
    }
}

impl std::error::Error for PointerError {}

/// The members of an object in the order in which they stand, or nothing when `value` is no object.
pub fn members(value: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }

    if !value.get().starts_with('{') {
        return None;
    }
    serde_json::Deserializer::from_str(value.get()).deserialize_map(Members).ok()
}

/// The items of an array, or nothing when `value` is no array.
pub fn items(value: &RawValue) -> Option<Vec<&RawValue>> {
    if !value.get().starts_with('[') {
        return None;
    }
    serde_json::from_str(value.get()).ok()
}

fn unescape(token: &str) -> Option<String> {
    let mut rest = token;
    let mut unescaped = String::with_capacity(token.len());
    while let Some((before, after)) = rest.split_once('~') {
        unescaped.push_str(before);
        let (character, after) = match after.split_at_checked(1)? {
            ("0", after) => ('~', after),
            ("1", after) => ('/', after),
            _ => return None,
        };
        unescaped.push(character);
        rest = after;
    }
    unescaped.push_str(rest);
    Some(unescaped)
}

fn step<'a>(value: &'a RawValue, token: &str) -> Option<&'a RawValue> {
    let text = value.get();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match text.as_bytes().first()? {
        b'{' => deserializer.deserialize_map(Member(token)).ok()?,
        b'[' => deserializer.deserialize_seq(Item(index(token)?)).ok()?,
        _ => None,
    }
}

/// RFC 6901: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    (digits && !leading_zero).then(|| token.parse().ok())?
}

/// Finds the last member of an object with this key.
struct Member<'k>(&'k str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(Is(self.0))? {
            if wanted {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key without making a string of it.
struct Is<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Finds the item of an array at this index.
struct Item(usize);

impl<'de> Visitor<'de> for Item {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document of RFC 6901, section 5, with one key twice.
    const DOCUMENT: &str = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "g|h": 4,
        "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8, "twice": 1, "twice": [9.990]}"#;

    fn get(pointer: &str) -> Option<&'static str> {
        let document: &RawValue = serde_json::from_str(DOCUMENT).unwrap();
        let pointer: Pointer = pointer.parse().unwrap();
        pointer.get(document).map(RawValue::get)
    }

    #[test]
    fn pointers_lead_to_values() {
        let rows = [
            ("", Some(DOCUMENT)),
            ("/foo", Some(r#"["bar", "baz"]"#)),
            ("/foo/0", Some(r#""bar""#)),
            ("/foo/1", Some(r#""baz""#)),
            ("/", Some("0")),
            ("/a~1b", Some("1")),
            ("/c%d", Some("2")),
            ("/g|h", Some("4")),
            ("/i\\j", Some("5")),
            ("/k\"l", Some("6")),
            ("/ ", Some("7")),
            ("/m~0n", Some("8")),
            ("/twice/0", Some("9.990")),
            ("/foo/2", None),
            ("/foo/00", None),
            ("/foo/-", None),
            ("/foo/+1", None),
            ("/foo/", None),
            ("/a~1b/0", None),
            ("/absent", None),
        ];
        for (pointer, value) in rows {
            assert_eq!(get(pointer), value, "{pointer}");
        }
    }

    #[test]
    fn pointers_are_checked_and_written_back() {
        for text in ["", "/", "/a~1b/m~0n/0", "/é"] {
            assert_eq!(text.parse::<Pointer>().unwrap().to_string(), text);
        }
        for text in ["a", "/~", "/~2", "/a~é"] {
            let error = text.parse::<Pointer>().unwrap_err().to_string();
            assert!(error.contains("is no JSON pointer"), "{error}");
        }
        let error = serde_json::from_str::<Pointer>("\"a\"").unwrap_err();
        assert!(error.to_string().contains("begin with a slash"), "{error}");
    }

    #[test]
    fn members_and_items_keep_their_order_and_text() {
        let object: &RawValue = serde_json::from_str(r#"{"b":1.0,"a\n":[ ],"b":2}"#).unwrap();
        let names: Vec<_> =
            members(object).unwrap().into_iter().map(|(key, value)| (key, value.get())).collect();
        let expected = [("b", "1.0"), ("a\n", "[ ]"), ("b", "2")];
        assert_eq!(names, expected.map(|(key, value)| (key.to_owned(), value)));
        assert!(items(object).is_none());

        let array: &RawValue = serde_json::from_str("[1e400,{}]").unwrap();
        let texts: Vec<_> = items(array).unwrap().iter().map(|item| item.get()).collect();
        assert_eq!(texts, ["1e400", "{}"]);
        assert!(members(array).is_none());
    }
}
