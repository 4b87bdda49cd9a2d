//! Slack's markup: what has to be escaped, and how a text is shortened without breaking an escape.

/// Writes text from outside so that it means only itself: Slack takes `&`, `<` and `>` for control
/// characters, and `<!channel>` would call everybody.
pub(crate) fn escape_into(text: &str, escaped: &mut String) {
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            other => escaped.push(other),
        }
    }
}

/// The text in no more than `limit` characters, with an ellipsis where the rest was.
pub(crate) fn shorten(mut text: String, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text;
    }
    let last = text.char_indices().nth(limit.saturating_sub(1));
    let mut end = last.map_or(0, |(index, _)| index);
    // The longest escape has five characters: one that began among the last four may be cut in two.
    let kept = text.get(..end).unwrap_or_default();
    if let Some(ampersand) = kept.rfind('&')
        && end - ampersand < 5
        && !kept.get(ampersand..).unwrap_or_default().contains(';')
    {
        end = ampersand;
    }
    text.truncate(end);
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let mut escaped = String::from("<b>");
        escape_into("<!channel> R&D", &mut escaped);
        assert_eq!(escaped, "<b>&lt;!channel&gt; R&amp;D");
    }

    #[test]
    fn no_escape_is_cut_in_two() {
        let rows = [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcde…"),
            ("ab&amp;cd", 8, "ab&amp;…"),
            ("ab&amp;cd", 7, "ab…"),
            ("ab&amp;cd", 4, "ab…"),
            ("ääää", 3, "ää…"),
            ("a & b c d e f", 9, "a & b c …"),
        ];
        for (text, limit, expected) in rows {
            assert_eq!(shorten(text.to_owned(), limit), expected);
        }
    }
}
