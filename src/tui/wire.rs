//! Two buffers and the bytes between them: only what changed is written, with the shortest
//! cursor movements and style changes. Slow lines are the normal case.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::{Position, Rect, Size};
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

/// Below this many bytes a frame is written without a synchronized update: it arrives in one packet.
const SMALL: usize = 256;

/// The last frame and the next one.
pub struct Wire {
    shown: Buffer,
    next: Buffer,
    /// Where the terminal's cursor stands; unknown after a write into the last column.
    at: Option<Position>,
    style: (Color, Color, Modifier),
    /// `None` while the cursor is hidden.
    cursor: Option<Position>,
    out: String,
    fresh: bool,
}

impl Wire {
    /// For a terminal of this size, whose screen is blank and whose cursor is hidden.
    pub fn new(size: Size) -> Self {
        let area = Rect::new(0, 0, size.width, size.height);
        Self { shown: Buffer::empty(area), next: Buffer::empty(area), at: None, style: PLAIN, cursor: None, out: String::new(), fresh: true }
    }

    /// Forgets what the terminal shows: the next frame is written whole.
    pub fn invalidate(&mut self, size: Size) {
        *self = Self::new(size);
    }

    /// The buffer to draw the next frame into, blank.
    pub fn buffer(&mut self) -> &mut Buffer {
        self.next.reset();
        &mut self.next
    }

    /// The bytes that turn the shown frame into the next one; empty when nothing changed.
    pub fn finish(&mut self, cursor: Option<Position>) -> &str {
        self.out.clear();
        if self.fresh {
            self.out.push_str("\x1b[m\x1b[2J\x1b[?25l");
            (self.style, self.at, self.cursor) = (PLAIN, None, None);
        }
        let updates: Vec<(u16, u16, Cell)> = self.shown.diff_iter(&self.next).map(|(x, y, c)| (x, y, c.clone())).collect();
        for (x, y, cell) in &updates {
            self.go(*x, *y);
            self.cell(cell);
        }
        self.place(cursor);
        std::mem::swap(&mut self.shown, &mut self.next);
        if self.fresh || self.out.len() > SMALL {
            self.out.insert_str(0, "\x1b[?2026h");
            self.out.push_str("\x1b[?2026l");
        }
        self.fresh = false;
        &self.out
    }

    fn place(&mut self, cursor: Option<Position>) {
        if let Some(to) = cursor {
            self.go(to.x, to.y);
            if self.cursor.is_none() {
                self.out.push_str("\x1b[?25h");
            }
        } else if self.cursor.is_some() {
            self.out.push_str("\x1b[?25l");
        }
        self.cursor = cursor;
    }

    fn go(&mut self, x: u16, y: u16) {
        let to = Position { x, y };
        match self.at {
            Some(at) if at == to => {}
            Some(at) if at.y == y && at.x < x && x - at.x <= 4 && self.gap_is_plain_text(at, x) => {
                for x in at.x..x {
                    self.out.push_str(self.next[(x, y)].symbol());
                }
            }
            Some(at) if at.y == y && at.x < x => {
                let _ = if x - at.x == 1 { write!(self.out, "\x1b[C") } else { write!(self.out, "\x1b[{}C", x - at.x) };
            }
            Some(at) if y == at.y + 1 && x == 0 => self.out.push_str("\r\n"),
            _ if x == 0 => {
                let _ = write!(self.out, "\x1b[{}H", y + 1);
            }
            _ => {
                let _ = write!(self.out, "\x1b[{};{}H", y + 1, x + 1);
            }
        }
        self.at = Some(to);
    }

    /// Writing a few unchanged cells again is shorter than jumping over them, when they are ASCII in the same style.
    fn gap_is_plain_text(&self, at: Position, x: u16) -> bool {
        (at.x..x).all(|x| {
            let cell = &self.next[(x, at.y)];
            cell.symbol().len() == 1 && style_of(cell) == self.style
        })
    }

    fn cell(&mut self, cell: &Cell) {
        let style = style_of(cell);
        if style != self.style {
            self.sgr(style);
            self.style = style;
        }
        self.out.push_str(cell.symbol());
        if let Some(at) = &mut self.at {
            at.x += (cell.symbol().width() as u16).max(1);
            if at.x >= self.next.area.width {
                self.at = None;
            }
        }
    }

    fn sgr(&mut self, to: (Color, Color, Modifier)) {
        if to == PLAIN {
            self.out.push_str("\x1b[m");
            return;
        }
        let mut codes: Vec<String> = Vec::new();
        let mut from = self.style;
        if !to.2.contains(from.2) {
            codes.push("0".into());
            from = PLAIN;
        }
        codes.extend(MODIFIERS.iter().filter(|(m, _)| to.2.contains(*m) && !from.2.contains(*m)).map(|(_, code)| code.to_string()));
        if to.0 != from.0 {
            codes.push(colour(to.0, 30));
        }
        if to.1 != from.1 {
            codes.push(colour(to.1, 40));
        }
        let _ = write!(self.out, "\x1b[{}m", codes.join(";"));
    }
}

const PLAIN: (Color, Color, Modifier) = (Color::Reset, Color::Reset, Modifier::empty());

const MODIFIERS: &[(Modifier, u8)] =
    &[(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::ITALIC, 3), (Modifier::UNDERLINED, 4), (Modifier::REVERSED, 7), (Modifier::CROSSED_OUT, 9)];

fn style_of(cell: &Cell) -> (Color, Color, Modifier) {
    (cell.fg, cell.bg, cell.modifier)
}

/// The SGR code of one of the sixteen colours; the theme uses no others, richer ones degrade to the default.
fn colour(colour: Color, base: u8) -> String {
    let n = match colour {
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 60,
        Color::LightRed => 61,
        Color::LightGreen => 62,
        Color::LightYellow => 63,
        Color::LightBlue => 64,
        Color::LightMagenta => 65,
        Color::LightCyan => 66,
        Color::White => 67,
        _ => 9,
    };
    (base + n).to_string()
}

#[cfg(test)]
mod tests {
    use ratatui::style::Style;

    use super::*;

    fn wire() -> Wire {
        let mut wire = Wire::new(Size::new(20, 4));
        wire.buffer();
        wire.finish(None);
        wire
    }

    #[test]
    fn nothing_changed_writes_nothing() {
        let mut wire = wire();
        wire.buffer().set_string(2, 1, "hello", Style::new());
        assert_eq!(wire.finish(None), "\x1b[2;3Hhello");
        wire.buffer().set_string(2, 1, "hello", Style::new());
        assert_eq!(wire.finish(None), "");
    }

    #[test]
    fn short_gaps_are_written_over() {
        let mut wire = wire();
        wire.buffer().set_string(0, 0, "abcdef", Style::new());
        wire.finish(None);
        wire.buffer().set_string(0, 0, "xbcdey", Style::new());
        assert_eq!(wire.finish(None), "\x1b[1Hxbcdey");
    }

    /// The bytes, played on a terminal, give the frame: styles, wide characters, cursor.
    #[test]
    fn a_terminal_shows_what_was_drawn() {
        let mut wire = Wire::new(Size::new(20, 4));
        let mut terminal = vt100::Parser::new(4, 20, 0);
        let frames = [("漢字 one", "two", 3), ("漢a one", "t漢o", 7), ("", "zzzzzzzzzzzzzzzzzzzz", 0), ("é…▸", "two", 19)];
        for (a, b, x) in frames {
            let buffer = wire.buffer();
            buffer.set_string(0, 0, a, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD));
            buffer.set_string(0, 3, b, Style::new().add_modifier(Modifier::DIM));
            buffer.set_string(4, 1, a, Style::new());
            let bytes = wire.finish(Some(Position { x, y: 2 })).to_string();
            terminal.process(bytes.as_bytes());
            let rows: Vec<String> = terminal.screen().rows(0, 20).collect();
            assert_eq!(rows[0].trim_end(), a);
            assert_eq!(rows[3].trim_end(), b);
            assert_eq!(rows[1].trim_end(), if a.is_empty() { String::new() } else { format!("    {a}") });
            assert_eq!(terminal.screen().cursor_position(), (2, x));
        }
    }
}
