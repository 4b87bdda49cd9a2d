//! How values of a payload compare with those of a config.
//!
//! Numbers compare by value, however they are written: 7 equals 7.0. Whole numbers of up to 64 bits
//! compare exactly, all others as the nearest 64-bit floating-point number.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// Whether two values are the same. Numbers inside lists and objects compare as they are written.
pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            order_numbers(left, right) == Some(Ordering::Equal)
        }
        _ => left == right,
    }
}

/// The order of two numbers or two strings; nothing else has one.
pub(crate) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => order_numbers(left, right),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// Whether a string has this part, or a list this item.
pub(crate) fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::String(whole), Value::String(part)) => whole.contains(part),
        (Value::Array(items), part) => items.iter().any(|item| equal(item, part)),
        _ => false,
    }
}

fn order_numbers(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i128(), right.as_i128()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_compare_by_value() {
        assert!(equal(&json!(7), &json!(7.0)));
        assert!(!equal(&json!(u64::MAX), &json!(u64::MAX - 1)));
        assert_eq!(order(&json!(-1), &json!(u64::MAX)), Some(Ordering::Less));
        assert_eq!(order(&json!(2), &json!(1.5)), Some(Ordering::Greater));
    }

    #[test]
    fn different_kinds_have_no_order_and_are_not_equal() {
        assert_eq!(order(&json!("7"), &json!(6)), None);
        assert_eq!(order(&json!(null), &json!(null)), None);
        assert!(!equal(&json!("7"), &json!(7)));
        assert!(!contains(&json!({"a": 1}), &json!("a")));
    }
}
