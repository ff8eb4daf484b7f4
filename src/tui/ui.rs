//! The pencil: what every pane draws with. It sanitises every text, knows the theme, and
//! collects what a frame leaves behind: the cursor, what the mouse can hit, and when a visible
//! text will change by itself.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use unicode_width::UnicodeWidthChar;

use super::text;
use super::theme::{Role, Theme};
use crate::model::Time;

/// Coarse times may be late by this much: many rows then share one wake-up.
const COARSE_MS: i64 = 20_000;

/// What a click means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hit {
    /// A row of the list in the pane that is in front, by its index.
    Row(usize),
    /// A field of the form.
    Field(usize),
    Button(usize),
    Tab(usize),
}

/// What a frame leaves behind.
#[derive(Debug, Clone, Default)]
pub struct Drawn {
    pub cursor: Option<Position>,
    pub hits: Vec<(Rect, Hit)>,
    /// When a text on screen changes by itself.
    pub wake: Option<Time>,
}

/// One frame being drawn.
pub struct Ui<'a> {
    pub buf: &'a mut Buffer,
    pub theme: Theme,
    pub now: Time,
    pub drawn: Drawn,
}

impl<'a> Ui<'a> {
    /// A pencil over a buffer.
    pub fn new(buf: &'a mut Buffer, theme: Theme, now: Time) -> Self {
        Self { buf, theme, now, drawn: Drawn::default() }
    }

    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        self.theme.style(role)
    }

    /// Writes a text in at most `max` cells and returns the column after it.
    pub fn put(&mut self, x: u16, y: u16, text: &str, role: Role, max: usize) -> u16 {
        let style = self.style(role);
        self.put_styled(x, y, text, style, max)
    }

    fn put_styled(&mut self, x: u16, y: u16, text: &str, style: Style, max: usize) -> u16 {
        let area = self.buf.area;
        if y < area.top() || y >= area.bottom() || x >= area.right() {
            return x;
        }
        let room = max.min((area.right() - x) as usize);
        let clean = crate::model::text::sanitise(text);
        let shown: String = text::end(&clean, room).chars().flat_map(|c| self.shown(c)).collect();
        self.buf.set_stringn(x, y, &shown, room, style).0
    }

    /// A character as the terminal can show it, in as many cells as it takes.
    fn shown(&self, c: char) -> Vec<char> {
        let to = self.theme.char(c);
        if to == c { vec![c] } else { vec![to; c.width().unwrap_or(1)] }
    }

    /// Writes pieces one after the other from `x` in at most `max` cells.
    pub fn pieces(&mut self, x: u16, y: u16, pieces: &[(&str, Role)], max: usize) -> u16 {
        let stop = x.saturating_add(max.min(u16::MAX as usize) as u16);
        pieces.iter().fold(x, |x, (text, role)| if x >= stop { x } else { self.put(x, y, text, *role, (stop - x) as usize) })
    }

    /// Writes a text that ends at column `right` (exclusive).
    pub fn put_right(&mut self, right: u16, y: u16, text: &str, role: Role, max: usize) {
        let cut = text::end(&crate::model::text::sanitise(text), max);
        let x = right.saturating_sub(text::width(&cut) as u16);
        self.put(x, y, &cut, role, max);
    }

    /// Wraps a text into an area, from its top; returns the rows used.
    pub fn paragraph(&mut self, area: Rect, text: &str, role: Role) -> u16 {
        let lines = text::wrap(&crate::model::text::sanitise(&text.replace('\n', "\u{2028}")).replace('\u{2028}', "\n"), area.width as usize);
        let rows = lines.len().min(area.height as usize);
        for (i, line) in lines.iter().take(rows).enumerate() {
            let cut = i + 1 == rows && lines.len() > rows;
            let line = if cut { text::end(&format!("{line} …"), area.width as usize) } else { line.clone() };
            self.put(area.x, area.y + i as u16, &line, role, area.width as usize);
        }
        rows as u16
    }

    /// A frame with a title at its left and a note at its right; returns the inside.
    pub fn frame(&mut self, area: Rect, title: &str, note: &str) -> Rect {
        if area.width < 2 || area.height < 2 {
            return Rect { width: 0, height: 0, ..area };
        }
        let (right, bottom) = (area.right() - 1, area.bottom() - 1);
        self.rule(area, area.y, ('┌', '┐'), title, note);
        self.rule(area, bottom, ('└', '┘'), "", "");
        for y in area.y + 1..bottom {
            self.put(area.x, y, "│", Role::Line, 1);
            self.put(right, y, "│", Role::Line, 1);
        }
        Rect::new(area.x + 1, area.y + 1, area.width - 2, area.height - 2)
    }

    /// A line through a frame, with a title and a note.
    pub fn divider(&mut self, frame: Rect, y: u16, title: &str, note: &str) {
        if y > frame.y && y + 1 < frame.bottom() {
            self.rule(frame, y, ('├', '┤'), title, note);
        }
    }

    fn rule(&mut self, area: Rect, y: u16, ends: (char, char), title: &str, note: &str) {
        let width = area.width as usize;
        let line: String = std::iter::once(ends.0).chain(std::iter::repeat_n('─', width.saturating_sub(2))).chain(std::iter::once(ends.1)).collect();
        self.put(area.x, y, &line, Role::Line, width);
        let mut taken = 0;
        if !title.is_empty() && width > 6 {
            let title = text::middle(&crate::model::text::sanitise(title), width - 5);
            taken = text::width(&title) + 2;
            self.put(area.x + 2, y, &format!(" {title} "), Role::Title, width - 3);
        }
        let room = width.saturating_sub(taken + 6);
        if !note.is_empty() && room > 6 {
            let note = text::end(&crate::model::text::sanitise(note), room);
            self.put_right(area.right() - 2, y, &format!(" {note} "), Role::Text, room + 2);
        }
    }

    /// Blanks an area, for what is drawn over something else.
    pub fn clear(&mut self, area: Rect) {
        let area = area.intersection(self.buf.area);
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                self.buf[(x, y)].reset();
            }
        }
        self.drawn.hits.retain(|(hit, _)| !area.intersects(*hit));
    }

    /// Lets a click on `area` mean something.
    pub fn hit(&mut self, area: Rect, hit: Hit) {
        self.drawn.hits.push((area, hit));
    }

    /// Puts the terminal's cursor.
    pub fn cursor(&mut self, x: u16, y: u16) {
        if self.buf.area.contains(Position { x, y }) {
            self.drawn.cursor = Some(Position { x, y });
        }
    }

    /// Asks for a redraw at a moment.
    pub fn wake(&mut self, at: Time) {
        self.drawn.wake = Some(self.drawn.wake.map_or(at, |w| w.min(at)));
    }

    fn wake_in(&mut self, ms: i64) {
        if let Ok(at) = self.now.checked_add(jiff::SignedDuration::from_millis(ms)) {
            self.wake(at);
        }
    }

    /// `3 m ago`; redraws when that changes.
    pub fn ago(&mut self, at: Time) -> String {
        let (text, next) = text::coarse(text::seconds(at, self.now));
        self.wake_in((next * 1000).max(COARSE_MS));
        format!("{text} ago")
    }

    /// `2 m` until a moment; redraws when that changes.
    pub fn until(&mut self, at: Time) -> String {
        let left = text::seconds(self.now, at);
        let (text, _) = text::coarse(left);
        let step = if left < 3600 { 60 } else { 3600 };
        if left >= 60 {
            self.wake_in(((left % step + 1) * 1000).max(COARSE_MS));
        }
        text
    }

    /// Seconds until a moment, counted down while visible.
    pub fn countdown(&mut self, at: Time) -> String {
        let left = (at.as_millisecond() - self.now.as_millisecond()).max(0);
        if left > 0 {
            self.wake_in(left % 1000 + 1);
        }
        clock((left + 999) / 1000)
    }

    /// Seconds since a moment, counted up while visible.
    pub fn elapsed(&mut self, since: Time) -> String {
        let past = (self.now.as_millisecond() - since.as_millisecond()).max(0);
        self.wake_in(1000 - past % 1000);
        clock(past / 1000)
    }

    /// A wait in at most `max` cells: the time that is left is never cut, the reason is.
    pub fn wait(&mut self, reason: &str, until: Option<Time>, max: usize) -> String {
        let left = until.map(|at| format!(", {}", self.countdown(at))).unwrap_or_default();
        text::end(&crate::model::text::sanitise(reason), max.saturating_sub(text::width(&left))) + &left
    }

    /// A turning wheel, two turns a second at most.
    pub fn spinner(&mut self) -> &'static str {
        self.wake_in(400);
        ["◐", "◓", "◑", "◒"][(self.now.as_millisecond() / 400).rem_euclid(4) as usize]
    }
}

/// Seconds as a clock shows them: minutes from two on.
fn clock(s: i64) -> String {
    if s < 120 { format!("{s} s") } else { format!("{} m {:02} s", s / 60, s % 60) }
}
