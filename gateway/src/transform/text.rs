//! Text that a guest made, on its way to people: cut to size.

use std::borrow::Cow;

/// What stands where text was cut off.
const ELLIPSIS: char = '…';

/// Cuts a text to so many bytes, and marks that it was cut.
pub(super) fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes.saturating_sub(ELLIPSIS.len_utf8())));
        text.push(ELLIPSIS);
    }
}

/// At most so many bytes of a text.
pub(super) fn cut_to(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let start = text.get(..text.floor_char_boundary(bytes)).unwrap_or_default();
    Cow::Owned(format!("{start}{ELLIPSIS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so_and_stays_text() {
        for (text, bytes, expected) in
            [("abcdef", 6, "abcdef"), ("abcdefg", 6, "abc…"), ("aéé", 4, "a…"), ("abc", 0, "…")]
        {
            let mut cut_text = text.to_owned();
            cut(&mut cut_text, bytes);
            assert_eq!(cut_text, expected);
        }
        assert_eq!(cut_to("aéb", 2), "a…");
        assert_eq!(cut_to("aéb", 4), "aéb");
    }
}
