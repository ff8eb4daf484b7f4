//! One line of text being edited. It is zeroized when dropped: it may be a credential.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use zeroize::Zeroizing;

use crate::tui::text::width;

/// A text and a cursor in it.
#[derive(Clone, Default)]
pub struct Line {
    text: Zeroizing<String>,
    /// Byte offset.
    at: usize,
    /// Line breaks are kept when pasted (a PEM key); otherwise they become nothing at the ends and blanks inside.
    pub multiline: bool,
}

impl Line {
    /// An empty line; `multiline` keeps the line breaks of what is pasted.
    pub fn new(multiline: bool) -> Self {
        Self { multiline, ..Self::default() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn set(&mut self, text: &str) {
        *self.text = text.to_string();
        self.at = text.len();
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Inserts typed or pasted text; other control characters are dropped.
    pub fn insert(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let clean: String = if self.multiline {
            text.chars().filter(|c| !c.is_control() || *c == '\n' || *c == '\t').collect()
        } else {
            text.trim_end_matches('\n').chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).filter(|c| !c.is_control()).collect()
        };
        self.text.insert_str(self.at, &clean);
        self.at += clean.len();
    }

    /// Takes an editing key; false when the key is none.
    pub fn key(&mut self, key: &KeyEvent) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char(c) if !ctrl && !alt => self.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Char('u') if ctrl => {
                self.text.replace_range(..self.at, "");
                self.at = 0;
            }
            KeyCode::Char('k') if ctrl => self.text.truncate(self.at),
            KeyCode::Char('a') if ctrl => self.at = 0,
            KeyCode::Char('w') if ctrl => self.delete_word(),
            KeyCode::Backspace if alt || ctrl => self.delete_word(),
            KeyCode::Backspace => {
                if let Some(c) = self.text[..self.at].chars().next_back() {
                    self.at -= c.len_utf8();
                    self.text.remove(self.at);
                }
            }
            KeyCode::Delete => {
                if self.at < self.text.len() {
                    self.text.remove(self.at);
                }
            }
            KeyCode::Left => self.at -= self.text[..self.at].chars().next_back().map_or(0, char::len_utf8),
            KeyCode::Right => self.at += self.text[self.at..].chars().next().map_or(0, char::len_utf8),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = self.text.len(),
            _ => return false,
        }
        true
    }

    fn delete_word(&mut self) {
        let head = self.text[..self.at].trim_end();
        let start = head.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |i| i + head[i..].chars().next().map_or(1, char::len_utf8));
        let start = if start == head.len() { start.saturating_sub(head.chars().next_back().map_or(0, char::len_utf8)) } else { start };
        self.text.replace_range(start..self.at, "");
        self.at = start;
    }

    /// The part that fits around the cursor, and the cursor's column in it.
    pub fn view(&self, cells: usize) -> (String, usize) {
        let before = width(&self.text[..self.at]);
        if cells == 0 {
            return (String::new(), 0);
        }
        let skip = (before + 1).saturating_sub(cells);
        let (mut seen, mut shown) = (0, String::new());
        let mut start = 0;
        for c in self.text.chars() {
            let w = unicode_width::UnicodeWidthChar::width(c).unwrap_or(1).max(1);
            if seen >= skip {
                if shown.is_empty() {
                    start = seen;
                }
                if seen + w - start > cells {
                    break;
                }
                shown.push(c);
            }
            seen += w;
        }
        (shown, before.saturating_sub(start).min(cells - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Line {
        let mut line = Line::default();
        line.set(text);
        line
    }

    fn press(line: &mut Line, code: KeyCode, modifiers: KeyModifiers) {
        line.key(&KeyEvent::new(code, modifiers));
    }

    #[test]
    fn edits_inside_the_text() {
        let mut line = of("prod-é");
        press(&mut line, KeyCode::Left, KeyModifiers::NONE);
        press(&mut line, KeyCode::Char('x'), KeyModifiers::NONE);
        assert_eq!(line.text(), "prod-xé");
        press(&mut line, KeyCode::Char('w'), KeyModifiers::CONTROL);
        assert_eq!(line.text(), "prod-é");
        press(&mut line, KeyCode::Char('u'), KeyModifiers::CONTROL);
        assert_eq!(line.text(), "é");
    }

    #[test]
    fn pastes_keep_line_breaks_only_where_they_belong() {
        let mut line = Line::default();
        line.insert("a\r\nb\u{1b}[31m\n");
        assert_eq!(line.text(), "a b[31m");
        let mut pem = Line::new(true);
        pem.insert("a\r\nb\n");
        assert_eq!(pem.text(), "a\nb\n");
    }

    proptest::proptest! {
        #[test]
        fn the_cursor_stays_in_view(text in "\\PC{0,40}", moves in 0usize..50, cells in 1usize..20) {
            let mut line = of(&text);
            for _ in 0..moves {
                press(&mut line, KeyCode::Left, KeyModifiers::NONE);
            }
            let (shown, column) = line.view(cells);
            proptest::prop_assert!(column < cells);
            proptest::prop_assert!(shown.chars().count() <= cells);
        }
    }
}
