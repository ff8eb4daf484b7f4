//! A whole frame: the line that says who and where, the work, the last result, the keys that
//! are valid now; and what stands over it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::app::{App, Page};
use super::dashboard::{Dashboard, detail, table};
use super::modal;
use super::panes::engine;
use super::text;
use super::theme::Role;
use super::ui::{Drawn, Ui};
use super::wizard::review_view::draw_rows;
use super::world::World;
use super::{wizard, words};
use crate::model::board::Card;

/// Below this the screen only says that it is too small.
pub const SMALLEST: (u16, u16) = (40, 10);
/// From this width on the details stand beside the table.
const WIDE: u16 = 120;
/// From this height on, of the work alone, the engine stands below the table then.
const TALL: u16 = 32;
/// Rows of the engine's frame.
const ENGINE: u16 = 12;

/// Draws the app into a buffer.
pub fn draw(app: &App, buffer: &mut Buffer) -> Drawn {
    let area = buffer.area;
    let mut ui = Ui::new(buffer, app.world.theme, app.world.now);
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("This terminal is {}x{}: kms-sync needs {}x{}.", area.width, area.height, SMALLEST.0, SMALLEST.1);
        ui.paragraph(area, &text, Role::Text);
        return ui.drawn;
    }
    draw_header(&mut ui, app, Rect { height: 1, ..area });
    let work = Rect { y: area.y + 1, height: area.height - 3, ..area };
    let world = &app.world;
    match app.pages.last() {
        None => draw_dashboard(&mut ui, &app.dashboard, world, work),
        Some(Page::Setup(s)) => s.draw(&mut ui, world, work),
        Some(Page::Wizard(w)) => wizard::view::draw(&mut ui, w, world, work),
        Some(Page::Connections(c)) => c.draw(&mut ui, world, work),
        Some(Page::Edit(e)) => e.draw(&mut ui, work),
        Some(Page::Plan(p)) => p.draw(&mut ui, world, work),
        Some(Page::Log(l)) => l.draw(&mut ui, world, work),
        Some(Page::Engine(e)) => e.draw(&mut ui, world, work),
    }
    for modal in &app.modals {
        modal::draw(&mut ui, modal, work);
    }
    draw_footer(&mut ui, app, Rect { y: area.bottom() - 2, height: 2, ..area });
    ui.drawn
}

fn draw_header(ui: &mut Ui<'_>, app: &App, area: Rect) {
    let world = &app.world;
    let title = match app.pages.last() {
        Some(Page::Wizard(w)) => w.title(),
        _ => "kms-sync".into(),
    };
    let right = match app.pages.last() {
        Some(Page::Wizard(w)) if w.dirty => "draft kept".to_string(),
        _ => counts(world),
    };
    let right_width = text::width(&right);
    let account = world.board.engine.account.clone().unwrap_or_default();
    let x = ui.put(area.x + 1, area.y, &title, Role::Title, area.width as usize - 2);
    let mut flags = String::new();
    if world.board.engine.attached {
        flags.push_str("  attached to kms-sync run");
    }
    if world.demo.is_some() {
        flags.push_str(match (world.demo_quiet, world.demo_paused) {
            (true, _) => "  demo (quiet)",
            (false, true) => "  demo (paused)",
            (false, false) => "  demo",
        });
    }
    let room = (area.right() as usize).saturating_sub(x as usize + right_width + 5);
    let x = ui.put(x + 3, area.y, &account, Role::Text, room);
    let room = (area.right() as usize).saturating_sub(x as usize + right_width + 2);
    ui.put(x, area.y, &flags, Role::Dim, room);
    let role = if world.board.engine.paused { Role::Warn } else { Role::Text };
    ui.put_right(area.right().saturating_sub(1), area.y, &right, role, area.width as usize / 2);
}

/// `3 active · 1 failed · 1 asks`.
fn counts(world: &World) -> String {
    let cards: Vec<&Card> = world.board.cards.values().collect();
    let count = |f: &dyn Fn(&Card) -> bool| cards.iter().filter(|c| f(c)).count();
    let status = |c: &Card, rank: u8| c.run.is_none() && words::of_card(c).rank == rank;
    let mut parts = Vec::new();
    if world.board.engine.paused {
        parts.push("auto-sync PAUSED".to_string());
    }
    for (n, word) in [
        (count(&|c| c.run.is_some()), "active"),
        (count(&|c| status(c, 1)), "failed"),
        (count(&|c| status(c, 0)), if count(&|c| status(c, 0)) == 1 { "asks" } else { "ask" }),
    ] {
        if n > 0 {
            parts.push(format!("{n} {word}"));
        }
    }
    parts.join(" · ")
}

fn draw_dashboard(ui: &mut Ui<'_>, dashboard: &Dashboard, world: &World, area: Rect) {
    if let Some(at) = dashboard.resting() {
        ui.wake(at);
    }
    let filter = dashboard.filter.text();
    let left = if dashboard.filtering || !filter.is_empty() { format!("Syncs /{filter}") } else { format!("Syncs {}", world.board.cards.len()) };
    let shown = if filter.is_empty() { "all".into() } else { format!("{} of {}", dashboard.order.len(), world.board.cards.len()) };
    let marked = if dashboard.marked.is_empty() { String::new() } else { format!("{} selected  ", dashboard.marked.len()) };
    let note = format!("{marked}{shown}  sort: {}", dashboard.sort.word());
    let name = dashboard.shown.clone().unwrap_or_default();
    if dashboard.zoom {
        let inside = ui.frame(area, &name, "");
        detail::draw_tabs(ui, dashboard.tab, area.right() - 1, area.y, area.width.saturating_sub(text::width(&name) as u16 + 6));
        return detail::draw(ui, dashboard, world, inside);
    }
    if area.width >= WIDE {
        // As many cells as the table's columns need; the rest belongs to the details.
        let width = if area.width >= 180 { area.width * 3 / 5 } else { area.width * 11 / 20 };
        let mut table_area = Rect { width, ..area };
        let rest = Rect { x: area.x + width, width: area.width - width, ..area };
        if area.height >= TALL && world.loaded && world.lost.is_none() {
            table_area.height -= ENGINE;
            let inside = ui.frame(Rect { y: table_area.bottom(), height: ENGINE, ..table_area }, "Engine", "E shows all");
            let rows = engine::facts(ui, world, inside.width.saturating_sub(2) as usize);
            let room = rows.len().min(inside.height as usize);
            draw_rows(ui, &rows[..room], 0, Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside });
        }
        let inside = ui.frame(table_area, &left, &note);
        table::draw(ui, dashboard, world, inside);
        let title = text::middle(&name, (rest.width as usize).saturating_sub(50).max(12));
        let inside = ui.frame(rest, &title, "");
        detail::draw_tabs(ui, dashboard.tab, rest.right() - 1, rest.y, rest.width.saturating_sub(text::width(&title) as u16 + 6));
        detail::draw(ui, dashboard, world, inside);
    } else {
        let inside = ui.frame(area, &left, &note);
        let wanted = world.board.cards.len() as u16 + 2;
        let rows = if world.board.cards.is_empty() || inside.height < 12 { inside.height } else { wanted.clamp(4, inside.height / 2) };
        table::draw(ui, dashboard, world, Rect { height: rows, ..inside });
        if rows < inside.height {
            let y = inside.y + rows;
            let title = text::middle(&name, (area.width as usize).saturating_sub(54).max(10));
            ui.divider(area, y, &title, "");
            detail::draw_tabs(ui, dashboard.tab, area.right() - 1, y, area.width.saturating_sub(text::width(&title) as u16 + 6));
            let below = Rect { y: y + 1, height: inside.height - rows - 1, ..inside };
            detail::draw(ui, dashboard, world, below);
        }
    }
    if dashboard.filtering {
        ui.cursor(area.x + 10 + dashboard.filter.view(200).1 as u16, area.y);
    }
}

fn draw_footer(ui: &mut Ui<'_>, app: &App, area: Rect) {
    if let Some(line) = app.world.last_line() {
        let (symbol, role) = words::level(line.level);
        let clock = app.world.clock(line.at);
        let room = (area.width as usize).saturating_sub(13);
        ui.pieces(area.x + 1, area.y, &[(symbol, role), (" ", Role::Text), (&line.text, Role::Text)], room);
        ui.put_right(area.right().saturating_sub(1), area.y, &clock, Role::Dim, 8);
    } else if let Some(demo) = &app.world.demo {
        ui.put(area.x + 1, area.y, demo, Role::Dim, area.width as usize - 2);
    }
    let all = modal::hints(app);
    let width = |(key, word): &(&str, &str)| text::width(key) + text::width(word) + 3;
    // Help and quit are never pushed out.
    let fixed: Vec<_> = all.iter().filter(|h| matches!(h.1, "help" | "quit")).copied().collect();
    let mut left = (area.width as usize).saturating_sub(1 + fixed.iter().map(width).sum::<usize>());
    let mut x = area.x + 1;
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for hint in all.iter().filter(|h| !matches!(h.1, "help" | "quit")) {
        if width(hint) > left {
            break;
        }
        left -= width(hint);
        shown.push(*hint);
    }
    // Help and quit stand at the right, so that the rest can come and go without moving them.
    let end = area.right().saturating_sub(fixed.iter().map(width).sum::<usize>() as u16);
    let mut put = |x: &mut u16, (key, word): (&str, &str)| {
        *x = ui.pieces(*x, area.y + 1, &[(key, Role::Key), (" ", Role::Text), (word, Role::Dim)], 40) + 2;
    };
    for hint in shown {
        put(&mut x, hint);
    }
    x = end.max(x);
    for hint in fixed {
        put(&mut x, hint);
    }
}
