//! Figures for people: sizes, times, shares, and rows of them in columns.

use std::time::Duration;

/// A number of bytes, exactly where that is readable.
pub(super) fn bytes(count: usize) -> String {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    match count {
        1 => "1 byte".to_owned(),
        _ if count >= MIB && count.is_multiple_of(MIB) => format!("{} MiB", count / MIB),
        _ if (KIB..MIB).contains(&count) && count.is_multiple_of(KIB) => {
            format!("{} KiB", count / KIB)
        }
        _ => format!("{} bytes", grouped(count)),
    }
}

/// A number with commas between its thousands.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time with three digits that count.
pub(super) fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (number, unit) = match micros {
        _ if micros < 1e3 => (micros, "µs"),
        _ if micros < 1e6 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    let decimals = match number {
        _ if number < 10.0 => 2,
        _ if number < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

/// Microseconds, for programs.
pub(super) fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e9).round() / 1e3
}

/// What part of a limit is used, in per cent.
#[expect(clippy::cast_precision_loss, reason = "a share of a limit needs no more than two digits")]
pub(super) fn share(used: u128, limit: u128) -> f64 {
    if limit == 0 { 0.0 } else { used as f64 / limit as f64 * 100.0 }
}

/// Rows whose columns stand under each other: all but the first column aligned right.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line.push(' ');
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if column == 0 { ("", &*padding) } else { (&*padding, "") };
            line.push_str(&format!("{before}{cell}{after} "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        for (count, expected) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1_024, "1 KiB"),
            (1_025, "1,025 bytes"),
            (16 << 20, "16 MiB"),
            ((1 << 20) + (1 << 10), "1,049,600 bytes"),
        ] {
            assert_eq!(bytes(count), expected);
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn times_have_three_digits() {
        for (nanos, expected) in [
            (1_234, "1.23 µs"),
            (12_345, "12.3 µs"),
            (123_456, "123 µs"),
            (1_234_567, "1.23 ms"),
            (12_345_678_900, "12.3 s"),
        ] {
            assert_eq!(time(Duration::from_nanos(nanos)), expected);
        }
        assert!((micros(Duration::from_nanos(1_500)) - 1.5).abs() < f64::EPSILON);
    }

    #[test]
    fn columns_stand_under_each_other() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let text = table(&[row("time", "7 µs"), row("memory", "256 KiB")]);
        assert_eq!(text, "  time       7 µs\n  memory  256 KiB\n");
    }

    #[test]
    fn a_share_of_nothing_is_none() {
        assert!((share(1, 4) - 25.0).abs() < f64::EPSILON);
        assert!(share(1, 0).abs() < f64::EPSILON);
    }
}
