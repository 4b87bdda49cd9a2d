//! Suggestions: what someone may have meant who wrote a name that is not known.

/// The message for an unknown key.
pub(super) fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known, 0.5) {
        Some(near) => format!("is unknown; did you mean `{near}`?"),
        None => format!("is unknown; known here: {}", list(known)),
    }
}

/// The message for a variable that begins like a setting and is none.
pub(super) fn unknown_variable(name: &str, known: &[&str]) -> String {
    // All names of a section are alike already, so only a slip counts as near.
    match nearest(name, known, 0.8) {
        Some(near) => format!("is no setting; did you mean `{near}`?"),
        None => {
            "is no setting; a variable is named like the path of a setting in the file, such as \
             `HOOKMILL_DELIVERY__TIMEOUT`; give variables of your own another prefix"
                .to_owned()
        }
    }
}

/// Names in backticks, separated by commas.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// The most similar candidate, when it is similar enough: 1 is the same, 0 has nothing in common.
fn nearest<'a>(name: &str, candidates: &[&'a str], enough: f64) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), *candidate))
        .filter(|(similarity, _)| *similarity >= enough)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near_and_lists_what_is_not() {
        let known = ["timeout", "retry", "max_body_bytes", "event_types", "secrets"];
        for (wrong, near) in [
            ("timout", "timeout"),
            ("retries", "retry"),
            ("max_body", "max_body_bytes"),
            ("secret", "secrets"),
        ] {
            assert_eq!(unknown_key(wrong, &known), format!("is unknown; did you mean `{near}`?"));
        }
        assert_eq!(
            unknown_key("colour", &known[..2]),
            "is unknown; known here: `timeout`, `retry`"
        );
    }

    #[test]
    fn variables_must_be_nearer() {
        let known = ["HOOKMILL_DELIVERY__TIMEOUT", "HOOKMILL_LISTEN"];
        for wrong in ["HOOKMILL_DELIVERY_TIMEOUT", "HOOKMILL_DELIVERY__TIMEOT"] {
            assert!(
                unknown_variable(wrong, &known).contains("`HOOKMILL_DELIVERY__TIMEOUT`?"),
                "{wrong}"
            );
        }
        for wrong in ["HOOKMILL_DELIVERY__FOO", "HOOKMILL_COLOUR"] {
            assert!(
                unknown_variable(wrong, &known).starts_with("is no setting; a variable"),
                "{wrong}"
            );
        }
    }
}
