//! Names of plugins: those of crates, and of files in a gateway's folder.

/// A name that can be a crate's and a plugin's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

/// The longest name, in bytes.
const MAX_LEN: usize = 64;

/// Names that a crate cannot have: Rust's keywords, in their order, then crates that every program links or
/// that the plugin depends on.
const RESERVED: &[&str] = &[
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "struct",
    "super",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "alloc",
    "core",
    "proc-macro",
    "std",
    "test",
    "hookmill-plugin",
    "hookmill-plugin-macros",
    "serde",
    "serde-json",
];

impl Name {
    /// Reads a name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(format!("a name has 1 to {MAX_LEN} characters"));
        }
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            return Err(format!(
                "it has the character {bad:?}; a name is lower-case letters, digits, `-` and `_`, such as \
                 order-alert"
            ));
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err("a name begins with a letter".to_owned());
        }
        if RESERVED.contains(&text.replace('_', "-").as_str()) {
            return Err("a crate cannot have this name: Rust or the plugin SDK uses it".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_suits_a_crate_and_a_file() {
        for good in ["a", "order-alert", "order_alert2"] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for (bad, expected) in [
            ("", "1 to 64"),
            ("../x", "'.'"),
            ("a/b", "'/'"),
            ("Order", "'O'"),
            ("größe", "'ö'"),
            ("2go", "begins with a letter"),
            ("-x", "begins with a letter"),
            ("type", "cannot have this name"),
            ("serde_json", "cannot have this name"),
        ] {
            let why = Name::parse(bad).unwrap_err();
            assert!(why.contains(expected), "{bad}: {why}");
        }
        assert!(Name::parse(&"a".repeat(65)).is_err());
    }
}
