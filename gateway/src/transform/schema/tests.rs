//! Schemas that are refused, configs that do not fit, and that neither can hang the gateway.

use serde_json::{Map, Value, json};

use super::*;

fn compiled(schema: &Value) -> ConfigSchema {
    ConfigSchema::compile(&schema.to_string()).unwrap()
}

fn refusal(schema: &Value) -> String {
    ConfigSchema::compile(&schema.to_string()).unwrap_err()
}

fn said(schema: &ConfigSchema, config: &Value) -> Vec<String> {
    match schema.check(&config.to_string()) {
        Ok(()) => Vec::new(),
        Err(misfits) => misfits.lines().collect(),
    }
}

/// A schema of definitions `a0` to `a{n}`, each made of a reference to the next.
fn chain(n: usize, link: impl Fn(Value) -> Value) -> Value {
    let mut definitions = Map::new();
    for k in 0..n {
        let next = json!({ "$ref": format!("#/$defs/a{}", k + 1) });
        definitions.insert(format!("a{k}"), link(next));
    }
    definitions.insert(format!("a{n}"), json!({ "type": "integer" }));
    json!({ "$ref": "#/$defs/a0", "$defs": definitions })
}

fn nested(levels: usize, around: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(json!({ "type": "integer" }), |inner, _| around(inner))
}

#[test]
fn every_misfit_says_where_it_is_what_it_is_and_what_is_allowed() {
    let schema = compiled(&json!({
        "type": "object",
        "properties": {
            "count": { "type": "integer", "minimum": 1 },
            "mode": { "enum": ["fast", "safe"] },
            "level": { "oneOf": [{ "const": "low" }, { "const": "high" }] },
            "name": { "type": ["string", "null"], "pattern": "^[a-z]+$", "maxLength": 5 },
            "mask": { "type": "array", "items": { "$ref": "#/$defs/Mask" } },
            "extra": { "anyOf": [{ "$ref": "#/$defs/Mask" }, { "type": "null" }] },
            "rule": { "anyOf": [{ "enum": ["keep", "drop"] }, { "$ref": "#/$defs/Mask" }] },
            "never": false,
            "any": { "propertyNames": { "maxLength": 3 } },
        },
        "required": ["count"],
        "additionalProperties": false,
        "$defs": {
            "Mask": {
                "type": "object",
                "properties": { "path": { "type": "string" }, "keep": { "type": "integer" } },
                "required": ["path"],
                "additionalProperties": false,
            },
        },
    }));
    let fine = json!({ "count": 1, "mode": "fast", "level": "low", "name": null,
        "mask": [{ "path": "/a", "keep": 4 }], "extra": null, "rule": "drop" });
    assert_eq!(said(&schema, &fine), [""; 0]);
    for (config, expected) in [
        (json!([]), "config is a list; an object is needed"),
        (json!({}), "config lacks `count`, which is required"),
        (json!({ "count": 0 }), "config /count is less than the minimum of 1"),
        (json!({ "count": 1.5 }), "config /count is a number; an integer is needed"),
        (json!({ "count": 1, "mode": "x" }), "config /mode is not one of \"fast\" and \"safe\""),
        (json!({ "count": 1, "level": "x" }), "config /level is not one of \"low\" and \"high\""),
        (
            json!({ "count": 1, "name": 7 }),
            "config /name is an integer; a string or null is needed",
        ),
        (json!({ "count": 1, "name": "A" }), "config /name does not match the pattern `^[a-z]+$`"),
        (json!({ "count": 1, "name": "abcdef" }), "config /name is longer than 5 characters"),
        (
            json!({ "count": 1, "mask": [{ "path": "", "keep": "4" }] }),
            "config /mask/0/keep is a string; an integer is needed",
        ),
        (
            json!({ "count": 1, "mask": [{ "path": "", "kept": 4 }] }),
            "config /mask/0 has `kept`, which is not known; there is `keep` and `path`",
        ),
        (json!({ "count": 1, "extra": {} }), "config /extra lacks `path`, which is required"),
        (
            json!({ "count": 1, "rule": { "path": 1 } }),
            "config /rule/path is an integer; a string is needed",
        ),
        (
            json!({ "count": 1, "rule": "x" }),
            "config /rule has none of the forms that are allowed: it is not one of \"keep\" and \
             \"drop\"; or it is a string; an object is needed",
        ),
        (json!({ "count": 1, "never": 1 }), "config /never is not allowed"),
        (
            json!({ "count": 1, "any": { "long": 1 } }),
            "config /any has a member whose name is longer than 3 characters",
        ),
    ] {
        assert_eq!(said(&schema, &config), [expected], "{config}");
    }
}

#[test]
fn all_misfits_are_told_at_once_up_to_ten() {
    let schema = compiled(&json!({ "items": { "type": "integer" } }));
    assert_eq!(said(&schema, &json!(["a", 1, "b"])).len(), 2);
    let told = said(&schema, &json!(vec!["a"; 10]));
    assert_eq!(told.len(), 10);
    assert_eq!(told[9], "config /9 is a string; an integer is needed");
    let told = said(&schema, &json!(vec!["a"; 11]));
    assert_eq!(told[10..], ["config has more that does not fit"]);
}

#[test]
fn a_value_is_never_repeated() {
    const SECRET: &str = "hunter2-hunter2";
    for schema in [
        json!({ "maxLength": 3 }),
        json!({ "type": "integer" }),
        json!({ "enum": [1] }),
        json!({ "const": 1 }),
        json!({ "pattern": "^a$" }),
        json!({ "not": { "type": "string" } }),
        json!({ "anyOf": [{ "maxLength": 3 }, { "type": "null" }, { "pattern": "^a$" }] }),
        json!({ "oneOf": [true, true] }),
        json!(false),
    ] {
        let told = said(&compiled(&schema), &json!(SECRET));
        assert_eq!(told.len(), 1, "{schema}");
        assert!(!told[0].contains("hunter2"), "{told:?}");
        let list =
            compiled(&json!({ "prefixItems": [schema], "uniqueItems": true, "maxItems": 1 }));
        assert!(!said(&list, &json!([SECRET, SECRET])).concat().contains("hunter2"), "{schema}");
    }
}

#[test]
fn messages_are_bounded() {
    let members: Map<String, Value> =
        (0..1_000).map(|n| (format!("{}{n}", "x".repeat(40)), json!(1))).collect();
    let schema = compiled(&json!({ "properties": { "a": true }, "additionalProperties": false }));
    let told = said(&schema, &json!(members));
    assert_eq!(told.len(), 1);
    assert!(told[0].len() < 600, "{told:?}");
    assert!(told[0].ends_with('…'), "{told:?}");
    let few: Map<String, Value> = (0..20).map(|n| (format!("x{n}"), json!(1))).collect();
    let told = said(&schema, &json!(few));
    assert!(told[0].contains(" and 8 more, which are not known; there is `a`"), "{told:?}");
}

#[test]
fn what_is_no_schema_is_refused() {
    for (schema, expected) in [
        (json!({ "type": "objet" }), "is not a JSON Schema at /type"),
        (json!([]), "is not a JSON Schema"),
        (json!({ "properties": { "a": { "minimum": "x" } } }), "at /properties/a/minimum"),
        (json!({ "pattern": "(" }), "has a pattern at /pattern that cannot be used"),
        (json!({ "$schema": "http://json-schema.org/draft-07/schema#" }), "2020-12"),
        (json!({ "properties": { "a": { "$id": "https://example.com/" } } }), "has `$id`"),
        (json!({ "$dynamicRef": "#node" }), "has `$dynamicRef`"),
        (json!({ "$ref": "#/$defs/none" }), "which is not in it"),
    ] {
        let refusal = refusal(&schema);
        assert!(refusal.contains(expected), "{schema}: {refusal}");
    }
    assert!(ConfigSchema::compile("{").unwrap_err().starts_with("is not JSON"));
    let long = json!({ "description": "x".repeat(MAX_BYTES) });
    assert!(refusal(&long).contains("at most 65536 are allowed"));
}

#[test]
fn nothing_outside_is_referred_to() {
    let outside = [
        "https://example.com/schema.json",
        "file:///etc/passwd",
        "https://json-schema.org/draft/2020-12/schema",
        "other.json",
    ];
    for reference in outside {
        assert!(refusal(&json!({ "$ref": reference })).contains("a place within"), "{reference}");
        let deep = json!({ "items": { "anyOf": [{ "$ref": reference }] } });
        assert!(refusal(&deep).contains("a place within"), "{reference}");
    }
}

#[test]
fn a_name_of_the_schema_itself_is_fine() {
    let schema = compiled(&json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/config",
        "properties": { "a": { "$ref": "#/$defs/Text" } },
        "$defs": { "Text": { "type": "string" } },
    }));
    assert_eq!(said(&schema, &json!({ "a": 1 })).len(), 1);
}

#[test]
fn members_may_be_called_like_keywords() {
    let schema = compiled(&json!({
        "properties": { "$ref": { "type": "integer" }, "$id": { "type": "string" } },
        "additionalProperties": false,
    }));
    assert_eq!(said(&schema, &json!({ "$ref": 1, "$id": "a" })), [""; 0]);
}

#[test]
fn recursion_ends_with_the_config_or_is_refused() {
    for endless in [
        json!({ "$ref": "#" }),
        json!({ "anyOf": [{ "$ref": "#" }] }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "not": { "$ref": "#" } } } }),
        json!({ "items": { "allOf": [{ "$ref": "#/items" }] } }),
    ] {
        assert!(refusal(&endless).contains("refers to itself"), "{endless}");
    }
    let tree = compiled(&json!({
        "type": "object",
        "properties": { "children": { "type": "array", "items": { "$ref": "#" } } },
        "additionalProperties": false,
    }));
    let config = (0..30).fold(json!({ "leaf": 1 }), |inner, _| json!({ "children": [inner] }));
    let told = said(&tree, &config);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("has `leaf`, which is not known; there is `children`"), "{told:?}");
}

#[test]
fn paths_that_multiply_are_refused_before_they_are_compiled() {
    for schema in [
        chain(30, |next| json!({ "anyOf": [next, next] })),
        chain(30, |next| json!({ "allOf": [next, next], "unevaluatedProperties": false })),
        chain(30, |next| json!({ "if": next, "then": next })),
        chain(30, |next| json!({ "dependentSchemas": { "a": next, "b": next } })),
        chain(30, |next| json!({ "allOf": [next], "unevaluatedItems": false })),
    ] {
        let refusal = refusal(&schema);
        assert!(refusal.contains("more than 2000 schemas to one value"), "{schema}: {refusal}");
    }
    let long = refusal(&chain(1_000, |next| next));
    assert!(long.contains("more than 64 schemas within one another"), "{long}");
    let deep = refusal(&nested(100, |inner| json!({ "items": inner })));
    assert!(deep.contains("nested more than 64 levels deep"), "{deep}");
    let patterns: Vec<_> = (0..101).map(|n| json!({ "pattern": format!("a{n}|b") })).collect();
    assert!(refusal(&json!({ "prefixItems": patterns })).contains("has 101 patterns"));
}

#[test]
fn paths_that_multiply_with_the_config_are_refused_before_they_are_taken() {
    let schema = compiled(&json!({
        "properties": { "a": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } },
        "additionalProperties": false,
    }));
    let config = |levels| (0..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
    assert_eq!(said(&schema, &config(5)), [""; 0]);
    let told = said(&schema, &config(60));
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("config takes more than 250000 steps to check"), "{told:?}");
    // So is a text that is copied into the error of each of many alternatives.
    let schema = compiled(&json!({ "anyOf": vec![json!({ "maxLength": 1 }); 1_000] }));
    assert_eq!(said(&schema, &json!("long")).len(), 1);
    assert!(said(&schema, &json!("x".repeat(1 << 20)))[0].contains("steps to check"));
}

#[test]
fn the_most_that_is_allowed_fits_the_stack() {
    for schema in [
        chain(30, |next| json!({ "anyOf": [next] })),
        nested(60, |inner| json!({ "items": inner })),
        nested(30, |inner| json!({ "not": { "not": inner } })),
        chain(60, |next| json!({ "items": { "allOf": [next] } })),
        chain(7, |next| json!({ "oneOf": [next, { "allOf": [next] }] })),
        json!({ "properties": { "a": nested(28, |inner| json!({ "anyOf": [inner] })) },
            "items": { "$ref": "#" } }),
        json!({ "items": { "allOf": [{ "allOf": [{ "$ref": "#" }] }] } }),
    ] {
        let config = (0..120).fold(json!("x"), |inner, _| json!([inner]));
        let run = move || drop(said(&compiled(&schema), &config));
        // As much as a thread for blocking work has.
        std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    }
}

#[test]
fn patterns_are_matched_in_linear_time() {
    let schema = compiled(&json!({ "pattern": "^(a|a)*(a+)+(.*){20}$b" }));
    assert_eq!(said(&schema, &json!("a".repeat(50_000))).len(), 1);
    let size = refusal(&json!({ "pattern": "((\\p{L}{0,100}){0,100}){0,100}" }));
    assert!(size.contains("at /pattern"), "{size}");
    assert!(refusal(&json!({ "pattern": "^(?!a)b" })).contains("at /pattern"));
}
