//! Text that fits: widths in terminal cells, cuts in the middle, wrapping, and relative times.
//! Nothing here draws.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::model::Time;

/// Cells a text takes.
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text cut in the middle with `…` so that it takes at most `max` cells: names differ at both ends.
pub fn middle(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_string();
    }
    if max < 2 {
        return if max == 0 { String::new() } else { "…".into() };
    }
    let tail_room = (max - 1) / 2;
    let head = take(text.chars(), max - 1 - tail_room);
    let tail: String = take(text.chars().rev(), tail_room).chars().rev().collect();
    format!("{head}…{tail}")
}

/// The text cut at its end with `…`.
pub fn end(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_string();
    }
    if max == 0 {
        return String::new();
    }
    format!("{}…", take(text.chars(), max - 1))
}

fn take(chars: impl Iterator<Item = char>, max: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= max
        })
        .collect()
}

/// The cells that a column of names gets beside a column of texts, both as wide as their longest
/// entry at most: names whole where that leaves the texts enough, three fifths of `room` otherwise.
pub fn share(room: usize, name: usize, beside: usize) -> usize {
    let left = room.saturating_sub(if beside > 0 { beside + 2 } else { 0 });
    name.min(left.max(room * 3 / 5))
}

/// Cut and padded to exactly `cells`.
pub fn pad(text: &str, cells: usize) -> String {
    let cut = middle(text, cells);
    let missing = cells.saturating_sub(width(&cut));
    cut + &" ".repeat(missing)
}

/// Cut and padded at the left.
pub fn right(text: &str, cells: usize) -> String {
    let cut = middle(text, cells);
    " ".repeat(cells.saturating_sub(width(&cut))) + &cut
}

/// Words wrapped to lines of at most `max` cells; a longer word is broken. Line feeds are kept.
pub fn wrap(text: &str, max: usize) -> Vec<String> {
    let max = max.max(1);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let mut word = word.to_string();
            loop {
                let gap = usize::from(!line.is_empty());
                if width(&line) + gap + width(&word) <= max {
                    if gap == 1 {
                        line.push(' ');
                    }
                    line.push_str(&word);
                    break;
                }
                if line.is_empty() {
                    let mut head = take(word.chars(), max);
                    if head.is_empty() {
                        head = word.chars().take(1).collect();
                    }
                    word = word[head.len()..].to_string();
                    lines.push(head);
                } else {
                    lines.push(std::mem::take(&mut line));
                }
            }
        }
        lines.push(line);
    }
    lines
}

/// `1 key`, `2 keys`.
pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// How far a moment is from another, coarse (minutes, hours, days), and in how many seconds the
/// text changes. Coarse on purpose: an idle screen writes nothing.
pub fn coarse(seconds: i64) -> (String, i64) {
    let s = seconds.max(0);
    match s {
        0..60 => ("<1 m".into(), 60 - s),
        60..3600 => (format!("{} m", s / 60), 60 - s % 60),
        3600..86_400 => (format!("{} h", s / 3600), 3600 - s % 3600),
        _ => (format!("{} d", s / 86_400), 86_400 - s % 86_400),
    }
}

/// Seconds from `from` to `to`, negative when `to` is earlier.
pub fn seconds(from: Time, to: Time) -> i64 {
    to.as_second() - from.as_second()
}

/// A duration for people: `0.4 s`, `12 s`, `2 m 05 s`, `1 h 10 m`.
pub fn duration_ms(ms: i64) -> String {
    let ms = ms.max(0);
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} m {:02} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {:02} m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// A row of bars for values, the newest last.
pub fn sparkline(values: &[u64], cells: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values = &values[values.len().saturating_sub(cells)..];
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    values.iter().map(|v| BARS[(v.saturating_mul(7) / top) as usize % 8]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_in_the_middle() {
        assert_eq!(middle("BILL-STRIPE-KEY-FOR-TESTS", 11), "BILL-…TESTS");
        assert!(width(&middle("漢字漢字漢字漢字", 7)) <= 7);
        assert_eq!(middle("abc", 1), "…");
        assert_eq!(middle("abc", 0), "");
        assert_eq!(pad("漢字", 5), "漢字 ");
    }

    #[test]
    fn long_words_are_broken() {
        assert_eq!(wrap("one two threefour", 5), ["one", "two", "three", "four"]);
        assert_eq!(wrap("a\nb", 5), ["a", "b"]);
        assert_eq!(wrap("漢字", 1), ["漢", "字", ""]);
    }

    #[test]
    fn relative_times_say_when_they_change() {
        assert_eq!(coarse(12), ("<1 m".into(), 48));
        assert_eq!(coarse(125), ("2 m".into(), 55));
        assert_eq!(coarse(7300), ("2 h".into(), 3500));
    }

    proptest::proptest! {
        #[test]
        fn cuts_never_exceed_their_room(text in ".*", max in 0usize..40) {
            proptest::prop_assert!(width(&middle(&crate::model::text::sanitise(&text), max)) <= max);
            proptest::prop_assert!(width(&end(&crate::model::text::sanitise(&text), max)) <= max);
        }
    }
}
