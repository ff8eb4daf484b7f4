//! The log: every result and notice of this session, the newest last.

use ratatui::layout::Rect;

use crate::tui::fx::Fx;
use crate::tui::keys::Action;
use crate::tui::modal::scrolled;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::Ui;
use crate::tui::words;
use crate::tui::world::World;

/// How far the log is scrolled back from its end, in lines.
#[derive(Default)]
pub struct LogPane {
    back: usize,
}

impl LogPane {
    pub fn act(&mut self, action: Action, world: &mut World, fx: &mut Fx) {
        let most = world.log.len();
        match action {
            Action::Back => fx.pop(),
            Action::Up => scrolled(&mut self.back, Action::Down, most),
            Action::Down => scrolled(&mut self.back, Action::Up, most),
            Action::PageUp => scrolled(&mut self.back, Action::PageDown, most),
            Action::PageDown => scrolled(&mut self.back, Action::PageUp, most),
            Action::Top => self.back = most,
            Action::Bottom => self.back = 0,
            _ => {}
        }
    }

    /// Draws into the work area.
    pub fn draw(&self, ui: &mut Ui<'_>, world: &World, area: Rect) {
        let inside = ui.frame(area, "Log", "");
        let width = inside.width.saturating_sub(13) as usize;
        let rows: Vec<(String, &'static str, Role, String)> = world
            .log
            .iter()
            .flat_map(|line| {
                let (symbol, role) = words::level(line.level);
                let wrapped = text::wrap(&crate::model::text::sanitise(&line.text), width);
                wrapped
                    .into_iter()
                    .enumerate()
                    .map(move |(i, part)| if i == 0 { (world.clock(line.at), symbol, role, part) } else { (String::new(), " ", role, part) })
            })
            .collect();
        let room = inside.height as usize;
        let end = rows.len().saturating_sub(self.back.min(rows.len().saturating_sub(room)));
        for (i, (at, symbol, role, part)) in rows[end.saturating_sub(room)..end].iter().enumerate() {
            let y = inside.y + i as u16;
            ui.put(inside.x + 1, y, at, Role::Dim, 8);
            ui.put(inside.x + 10, y, symbol, *role, 1);
            ui.put(inside.x + 12, y, part, Role::Text, width);
        }
        if rows.is_empty() {
            ui.put(inside.x + 1, inside.y, "Nothing has happened yet.", Role::Dim, inside.width as usize);
        }
    }
}
