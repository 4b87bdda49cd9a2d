//! Rewrites JSON text along paths, and copies all other text as it is.

use hookmill_plugin::json::{items, members};
use serde_json::value::RawValue;

use crate::path::{Path, leads_to};

/// What happens to the values that a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// They are left out.
    Remove,
    /// They become asterisks, but for this many characters at the end.
    Mask(usize),
}

/// An action, and the steps that are still to be taken to its values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'a> {
    steps: &'a [String],
    action: Action,
}

impl<'a> Rule<'a> {
    pub(crate) fn new(path: &'a Path, action: Action) -> Self {
        Self { steps: path.steps(), action }
    }
}

/// The text of `value` after all rules. Where two rules meet, the one that hides more wins: an action on
/// a whole value over those inside it, removing over masking, keeping fewer characters over more.
pub(crate) fn rewrite(value: &RawValue, rules: &[Rule<'_>]) -> String {
    let mut text = String::with_capacity(value.get().len());
    write(value, rules, &mut text);
    text
}

fn write(value: &RawValue, rules: &[Rule<'_>], text: &mut String) {
    if rules.is_empty() {
        text.push_str(value.get());
    } else if let Some(members) = members(value) {
        let members = members.iter().map(|(key, value)| (key.as_str(), Some(quoted(key)), *value));
        write_inside('{', members, '}', rules, text);
    } else if let Some(items) = items(value) {
        let names: Vec<String> = (0..items.len()).map(|index| index.to_string()).collect();
        let items = names.iter().zip(items).map(|(name, value)| (name.as_str(), None, value));
        write_inside('[', items, ']', rules, text);
    } else {
        // Neither: the paths lead nowhere.
        text.push_str(value.get());
    }
}

/// Writes members or items: their name in a path, their key if they have one, their value.
fn write_inside<'a>(
    open: char,
    parts: impl Iterator<Item = (&'a str, Option<String>, &'a RawValue)>,
    close: char,
    rules: &[Rule<'_>],
    text: &mut String,
) {
    text.push(open);
    let mut first = true;
    for (name, key, value) in parts {
        let below = rules_below(name, rules);
        let action = strongest(&below);
        if action == Some(Action::Remove) {
            continue;
        }
        if !first {
            text.push(',');
        }
        first = false;
        if let Some(key) = key {
            text.push_str(&key);
            text.push(':');
        }
        match action {
            Some(Action::Mask(keep_last)) => text.push_str(&masked(value, keep_last)),
            _ => write(value, &below, text),
        }
    }
    text.push(close);
}

/// The rules that lead to or into the part with this name, a step further.
fn rules_below<'a>(name: &str, rules: &[Rule<'a>]) -> Vec<Rule<'a>> {
    let further = |rule: &Rule<'a>| {
        let (step, steps) = rule.steps.split_first()?;
        leads_to(step, name).then_some(Rule { steps, ..*rule })
    };
    rules.iter().filter_map(further).collect()
}

/// Of the actions on this very value, the one that hides most.
fn strongest(rules: &[Rule<'_>]) -> Option<Action> {
    let here = rules.iter().filter(|rule| rule.steps.is_empty());
    here.map(|rule| rule.action).min_by_key(|action| match action {
        Action::Remove => (0, 0),
        Action::Mask(keep_last) => (1, *keep_last),
    })
}

/// The mask has the same length for all values: how long a secret is may help to guess it.
fn masked(value: &RawValue, keep_last: usize) -> String {
    let text = value.get();
    let readable = match text.bytes().next() {
        Some(b'"') => serde_json::from_str(text).unwrap_or_default(),
        Some(b'-' | b'0'..=b'9') => text.to_owned(),
        _ => String::new(),
    };
    let length = readable.chars().count();
    let kept = if length > keep_last.saturating_mul(2) { keep_last } else { 0 };
    let end: String = readable.chars().skip(length - kept).collect();
    quoted(&format!("****{end}"))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str, rules: &[(&str, Action)], expected: &str) {
        let paths: Vec<(Path, Action)> = rules
            .iter()
            .map(|(path, action)| (serde_json::from_value((*path).into()).unwrap(), *action))
            .collect();
        let rules: Vec<Rule<'_>> =
            paths.iter().map(|(path, action)| Rule::new(path, *action)).collect();
        let payload: &RawValue = serde_json::from_str(payload).unwrap();
        assert_eq!(rewrite(payload, &rules), expected);
    }

    #[test]
    fn what_no_rule_touches_keeps_order_digits_and_blanks() {
        check(
            r#"{"z": 19.990, "id": 18446744073709551616, "a": { "b" : 1e400 }, "x": 1}"#,
            &[("/x", Action::Remove)],
            r#"{"z":19.990,"id":18446744073709551616,"a":{ "b" : 1e400 }}"#,
        );
        check("[ 1.0 , 2 ]", &[], "[ 1.0 , 2 ]");
        check("1.50", &[("/a", Action::Remove)], "1.50");
    }

    #[test]
    fn a_wildcard_stands_for_every_member_and_item() {
        check(
            r#"{"items":[{"cost":1,"n":2},{"n":3},[]],"m":{"a":{"cost":4}}}"#,
            &[("/*/*/cost", Action::Remove)],
            r#"{"items":[{"n":2},{"n":3},[]],"m":{"a":{}}}"#,
        );
        check("[1,2,3]", &[("/*", Action::Remove)], "[]");
        check("[1,2,3]", &[("/1", Action::Remove)], "[1,3]");
    }

    #[test]
    fn a_mask_hides_values_of_every_kind() {
        check(
            r#"["4111111111111111",12345.670,true,null,{"a":1},"","é€x"]"#,
            &[("/*", Action::Mask(4))],
            r#"["****1111","****.670","****","****","****","****","****"]"#,
        );
        check(r#"["\"\u00e9\n"]"#, &[("/0", Action::Mask(1))], r#"["****\n"]"#);
    }

    #[test]
    fn the_rule_that_hides_more_wins() {
        let payload = r#"{"a":{"b":"0123456789"}}"#;
        let keep = |count| ("/a/b", Action::Mask(count));
        check(payload, &[keep(4), ("/a/b", Action::Remove)], r#"{"a":{}}"#);
        check(payload, &[keep(4), keep(2)], r#"{"a":{"b":"****89"}}"#);
        check(payload, &[("/a", Action::Mask(0)), keep(4)], r#"{"a":"****"}"#);
    }

    #[test]
    fn keys_are_matched_as_text_however_they_are_written() {
        check(
            r#"{"e\u006dail":1,"a/b":2,"email":3,"q\"":4}"#,
            &[("/email", Action::Remove), ("/a~1b", Action::Remove)],
            r#"{"q\"":4}"#,
        );
    }
}
