//! `hookmill.example.toml` is complete, works, and states the defaults.

use std::collections::BTreeSet;

use super::super::environment::variable_form;
use super::super::tree::{self, Entries, Value};
use super::*;

const EXAMPLE: &str = include_str!("../../../hookmill.example.toml");
const VARIABLES: &[(&str, &str)] = &[
    ("ACME_KEY", KEY),
    ("ACME_CRM_TOKEN", "a token"),
    ("ACME_AD_HOC_SECRET", SECRET),
    ("ACME_ORDERS_SECRET", SECRET),
    ("ACME_ORDERS_TOKEN", "Bearer x"),
];

#[test]
fn its_settings_are_the_defaults() {
    let example = parse_with(EXAMPLE, VARIABLES).unwrap();
    let webhook = only_webhook(&example);
    let minimal = parse(MINIMAL);
    let default = only_webhook(&minimal);
    assert_eq!(webhook.body, default.body);
    assert_eq!(webhook.timeout, default.timeout);
    assert_eq!(webhook.retry, default.retry);
    assert_eq!(webhook.on_plugin_failure, default.on_plugin_failure);
    assert_eq!((webhook.ordering, webhook.on_dead), (default.ordering, default.on_dead));
    assert_eq!(webhook.concurrency, default.concurrency);
    assert_eq!(webhook.active, default.active);

    let without_tenants = Config { tenants: Vec::new(), ..example };
    assert_eq!(format!("{without_tenants:?}"), format!("{:?}", parse("")));
}

#[test]
fn it_shows_every_setting() {
    let environment = VARIABLES.iter().copied().collect();
    let mut reader = Reader::new(Path::new(""), &environment);
    // What excludes another setting, or needs a file, is commented out.
    let example = EXAMPLE.replace("\n#auth", "\nauth").replace("\n#tls", "\ntls");
    let entries = tree::parse(&example.replace("\n#proxy", "\nproxy")).ok().unwrap();
    reader.read_entries(entries.clone(), config);
    let mut shown = BTreeSet::new();
    collect(&entries, environment::PREFIX, &mut shown);
    // What a list's index leads to has a name as well, and a secret is shown in one of its forms.
    // The ad-hoc webhook has the settings of the others.
    let is_another_form = |name: &str| {
        name.split("__").any(|part| part.parse::<usize>().is_ok())
            || name.ends_with("__FILE")
            || name.contains("__AD_HOC__")
    };
    let missing: Vec<_> =
        reader.known().filter(|name| !shown.contains(*name) && !is_another_form(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The variables that would set what stands in a table.
fn collect(entries: &Entries, prefix: &str, shown: &mut BTreeSet<String>) {
    for (key, node) in entries {
        let variable = format!("{prefix}{}", variable_form(key));
        match &node.value {
            Value::Table(entries) => collect(entries, &format!("{variable}__"), shown),
            Value::List(list) => {
                for node in list {
                    let Value::Table(entries) = &node.value else {
                        continue;
                    };
                    let name = entries.iter().find(|(key, _)| key == "name");
                    let name = name.and_then(|(_, name)| name.text()).unwrap_or_default();
                    let element = format!("{variable}__{}", variable_form(name));
                    collect(entries, &format!("{element}__"), shown);
                    shown.insert(element);
                }
            }
            _ => {}
        }
        shown.insert(variable);
    }
}
