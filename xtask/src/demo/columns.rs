//! Two texts side by side.

/// The width of a column, in characters.
const WIDTH: usize = 62;

/// Both texts, line by line beside each other; lines that are too long are cut.
pub(super) fn side_by_side(left: &str, right: &str) -> String {
    let mut text = String::new();
    let mut left = left.lines();
    let mut right = right.lines();
    loop {
        let (left, right) = match (left.next(), right.next()) {
            (None, None) => return text,
            (left, right) => (left.unwrap_or_default(), right.unwrap_or_default()),
        };
        let line = format!("  {:<WIDTH$}  │ {}", cut(left), cut(right));
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        line.to_owned()
    } else {
        line.chars().take(WIDTH - 1).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_decides_the_height_and_long_lines_are_cut() {
        let text = side_by_side("a\nb", &"x".repeat(WIDTH + 1));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("  a ") && lines[0].ends_with("x…"));
        assert!(lines[1].starts_with("  b ") && lines[1].ends_with('│'));
    }
}
