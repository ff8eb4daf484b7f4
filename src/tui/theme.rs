//! How things look, as data: roles to styles, statuses to a symbol and a word, and the ASCII
//! stand-ins for terminals that cannot show more. Colour only repeats what a symbol and a word say.

use ratatui::style::{Color, Modifier, Style};

/// What a piece of text is; the theme decides how that looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Text,
    /// The past, the unset, help.
    Dim,
    /// The selected row, the focused field.
    Accent,
    Good,
    Warn,
    Bad,
    Title,
    /// A button or tab that holds the focus.
    Focus,
    /// A key in the hint bar.
    Key,
    /// Frames.
    Line,
}

/// The looks in force.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    /// False with `NO_COLOR` and `--no-color`.
    pub colour: bool,
    /// True when only ASCII may be written.
    pub ascii: bool,
}

/// Role, colour, modifiers with colour, modifiers without.
const STYLES: &[(Role, Option<Color>, Modifier, Modifier)] = &[
    (Role::Text, None, Modifier::empty(), Modifier::empty()),
    (Role::Dim, None, Modifier::DIM, Modifier::DIM),
    (Role::Accent, Some(Color::Cyan), Modifier::BOLD, Modifier::BOLD),
    (Role::Good, Some(Color::Green), Modifier::empty(), Modifier::empty()),
    (Role::Warn, Some(Color::Yellow), Modifier::empty(), Modifier::empty()),
    (Role::Bad, Some(Color::Red), Modifier::empty(), Modifier::BOLD),
    (Role::Title, None, Modifier::BOLD, Modifier::BOLD),
    (Role::Focus, None, Modifier::REVERSED, Modifier::REVERSED),
    (Role::Key, None, Modifier::BOLD, Modifier::BOLD),
    (Role::Line, None, Modifier::DIM, Modifier::DIM),
];

/// Single-cell symbols and their single-cell ASCII stand-ins.
const ASCII: &[(char, char)] = &[
    ('▸', '>'),
    ('◐', 'o'),
    ('◓', 'O'),
    ('◑', 'o'),
    ('◒', 'O'),
    ('◔', '~'),
    ('✓', '+'),
    ('✗', 'x'),
    ('‖', '='),
    ('○', '.'),
    ('●', '*'),
    ('◉', '@'),
    ('↺', 'r'),
    ('•', '*'),
    ('·', '-'),
    ('–', '-'),
    ('→', '>'),
    ('←', '<'),
    ('↑', '^'),
    ('↓', 'v'),
    ('…', '~'),
    ('▾', 'v'),
    ('▏', '|'),
    ('█', '#'),
    ('▌', '#'),
    ('┌', '+'),
    ('┐', '+'),
    ('└', '+'),
    ('┘', '+'),
    ('├', '+'),
    ('┤', '+'),
    ('─', '-'),
    ('│', '|'),
    ('▁', '_'),
    ('▂', '.'),
    ('▃', '-'),
    ('▄', '='),
    ('▅', '+'),
    ('▆', '*'),
    ('▇', '%'),
    ('✎', '%'),
    ('⊘', 'x'),
];

impl Theme {
    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        let (_, colour, with, without) = STYLES.iter().find(|s| s.0 == role).unwrap_or(&STYLES[0]);
        let style = Style::new().add_modifier(if self.colour { *with } else { *without });
        match colour {
            Some(colour) if self.colour => style.fg(*colour),
            _ => style,
        }
    }

    /// The character as this terminal can show it.
    pub fn char(&self, c: char) -> char {
        if !self.ascii || c.is_ascii() {
            return c;
        }
        ASCII.iter().find(|(from, _)| *from == c).map_or('?', |(_, to)| *to)
    }
}

/// True when the locale's character set is UTF-8 (the first of `LC_ALL`, `LC_CTYPE`, `LANG` that is set decides).
pub fn locale_is_utf8() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| std::env::var(name).ok()).find(|v| !v.is_empty()).is_some_and(|v| {
        let v = v.to_lowercase();
        v.contains("utf-8") || v.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stand_in_is_ascii_and_one_cell() {
        use unicode_width::UnicodeWidthChar;
        for (from, to) in ASCII {
            assert!(to.is_ascii(), "{from}");
            assert_eq!(from.width(), Some(1), "{from}");
        }
    }

    #[test]
    fn no_colour_means_no_colour_code() {
        let theme = Theme { colour: false, ascii: false };
        for (role, ..) in STYLES {
            assert_eq!(theme.style(*role).fg, None, "{role:?}");
        }
    }
}
