//! Draws the table of syncs. Columns are data: which ones, from which width on.

use ratatui::layout::Rect;

use super::Dashboard;
use crate::model::board::{Card, Phase};
use crate::model::run::RunStatus;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::{Hit, Ui};
use crate::tui::words;
use crate::tui::world::World;

#[derive(Clone, Copy, PartialEq)]
enum Column {
    Status,
    Name,
    Destination,
    Source,
    Schema,
    Connection,
    Rate,
    Last,
    Next,
}

/// Column, heading, the table width it needs, and its fixed width (0: takes a share of what is left).
const COLUMNS: &[(Column, &str, u16, u16)] = &[
    (Column::Status, "STATUS", 0, 12),
    (Column::Name, "NAME", 0, 0),
    (Column::Destination, "DESTINATION", 70, 0),
    (Column::Source, "SOURCE", 104, 0),
    (Column::Schema, "KEY SCHEMA", 130, 0),
    (Column::Connection, "CONNECTION", 118, 14),
    (Column::Rate, "RATE", 130, 7),
    (Column::Last, "LAST", 50, 10),
    (Column::Next, "NEXT", 58, 12),
];

fn layout(width: u16) -> Vec<(Column, &'static str, usize)> {
    let shown: Vec<_> = COLUMNS.iter().filter(|c| width >= c.2).collect();
    let fixed: u16 = shown.iter().map(|c| if c.3 > 0 { c.3 + 1 } else { 1 }).sum::<u16>() + 3;
    let flexible = shown.iter().filter(|c| c.3 == 0).count().max(1) as u16;
    let share = width.saturating_sub(fixed) / flexible;
    shown.iter().map(|c| (c.0, c.1, if c.3 > 0 { c.3 } else { share } as usize)).collect()
}

/// Draws the table into the inside of its frame.
pub fn draw(ui: &mut Ui<'_>, dashboard: &Dashboard, world: &World, area: Rect) {
    let columns = layout(area.width);
    let mut x = area.x + 3;
    for (_, heading, width) in &columns {
        ui.put(x, area.y, heading, Role::Dim, *width);
        x += *width as u16 + 1;
    }
    let rows = area.height.saturating_sub(1) as usize;
    let at = dashboard.selected.as_ref().and_then(|s| dashboard.order.iter().position(|n| n == s)).unwrap_or(0);
    let top = dashboard.top.get().min(at).max((at + 1).saturating_sub(rows)).min(dashboard.order.len().saturating_sub(rows));
    dashboard.top.set(top);
    for (line, name) in dashboard.order.iter().enumerate().skip(top).take(rows) {
        let y = area.y + 1 + (line - top) as u16;
        let Some(card) = world.board.cards.get(name) else {
            continue;
        };
        ui.hit(Rect::new(area.x, y, area.width, 1), Hit::Row(line));
        let selected = line == at;
        ui.put(area.x, y, if selected { "▸" } else { " " }, Role::Accent, 1);
        if dashboard.marked.contains(name) {
            ui.put(area.x + 1, y, "•", Role::Accent, 1);
        }
        draw_row(ui, card, world, &columns, area.x + 3, y);
    }
    if dashboard.order.len() > rows && rows > 0 {
        ui.put_right(
            area.right(),
            area.y,
            &format!("{}-{}/{}", top + 1, (top + rows).min(dashboard.order.len()), dashboard.order.len()),
            Role::Dim,
            16,
        );
    }
    if dashboard.order.is_empty() {
        draw_empty(ui, dashboard, world, Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area });
    }
}

fn draw_row(ui: &mut Ui<'_>, card: &Card, world: &World, columns: &[(Column, &str, usize)], mut x: u16, y: u16) {
    let status = words::of_card(card);
    for (n, (column, _, width)) in columns.iter().enumerate() {
        // What a run waits for takes both columns of times: neither says anything meanwhile.
        if let (Column::Last, Some((Column::Next, _, more)), Some(waiting)) =
            (column, columns.get(n + 1), card.run.as_ref().and_then(|r| r.waiting.as_ref()))
        {
            let room = width + 1 + more;
            let shown = ui.wait(words::brief(&waiting.reason), waiting.until, room);
            ui.put(x, y, &shown, Role::Warn, room);
            return;
        }
        let (text, role) = match column {
            Column::Status => (format!("{} {}", status.symbol, status.word), status.role),
            Column::Name => (card.name.clone(), Role::Text),
            Column::Destination => (card.destination_label.clone(), Role::Text),
            Column::Source => (card.source_label.clone(), Role::Text),
            Column::Schema => card.key_schema.clone().map_or(("–".into(), Role::Dim), |s| (s, Role::Text)),
            Column::Connection => (card.connection.clone(), Role::Text),
            Column::Rate => (rate(card, world).unwrap_or_else(|| "–".into()), Role::Dim),
            Column::Last => last(ui, card),
            Column::Next => next(ui, card, world),
        };
        let shown = text::middle(&crate::model::text::sanitise(&text), *width);
        ui.put(x, y, &shown, role, *width);
        x += *width as u16 + 1;
    }
}

/// Keys a second of a live run.
pub fn rate(card: &Card, world: &World) -> Option<String> {
    let run = card.run.as_ref().filter(|r| r.done > 0 && r.phase == Phase::Applying)?;
    let seconds = (world.now.as_millisecond() - run.started_at.as_millisecond()).max(1) as f64 / 1000.0;
    Some(format!("{:.0}/s", run.done as f64 / seconds))
}

fn last(ui: &mut Ui<'_>, card: &Card) -> (String, Role) {
    if card.run.as_ref().is_some_and(|r| r.phase != Phase::Queued) {
        return ("now".into(), Role::Text);
    }
    match card.last_synced.or(card.last.as_ref().map(|l| l.at)) {
        Some(at) => (ui.ago(at), Role::Dim),
        None => ("never".into(), Role::Dim),
    }
}

fn next(ui: &mut Ui<'_>, card: &Card, world: &World) -> (String, Role) {
    if card.run.is_some() {
        return ("–".into(), Role::Dim);
    }
    if card.last.as_ref().is_some_and(|l| l.status == RunStatus::NeedsApproval) {
        return ("asks you: A".into(), Role::Warn);
    }
    match &card.next {
        _ if world.board.engine.paused && card.enabled => ("paused".into(), Role::Warn),
        Some(next) => (ui.until(next.at), Role::Dim),
        None => ("–".into(), Role::Dim),
    }
}

fn draw_empty(ui: &mut Ui<'_>, dashboard: &Dashboard, world: &World, area: Rect) {
    let inner = Rect { x: area.x + 3, width: area.width.saturating_sub(6), ..area };
    if let Some(error) = &world.lost {
        let used = ui.paragraph(inner, &format!("✗ {}", error.message), Role::Bad);
        ui.put(inner.x, inner.y + used + 1, "r tries again", Role::Dim, inner.width as usize);
    } else if !world.loaded {
        ui.put(inner.x, inner.y, "reading the configuration …", Role::Dim, inner.width as usize);
    } else if !dashboard.filter.is_empty() {
        ui.put(inner.x, inner.y, "No sync matches the filter: Esc clears it.", Role::Dim, inner.width as usize);
    } else {
        let first = if world.connections_of(crate::source::APP.app).is_empty() {
            "Press c, then n to add your Hanzo KMS account; then n here creates the first sync."
        } else {
            "Press n: five steps carry the secrets of a folder to one of the destinations."
        };
        let used = ui.paragraph(inner, "No syncs yet.", Role::Title);
        ui.paragraph(Rect { y: inner.y + used, height: inner.height.saturating_sub(used), ..inner }, first, Role::Text);
    }
}
