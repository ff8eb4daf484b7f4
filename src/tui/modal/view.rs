//! Draws what stands over a screen.

use ratatui::layout::Rect;

use super::super::form::line::Line;
use super::super::form::view;
use super::super::text;
use super::super::theme::Role;
use super::super::ui::{Hit, Ui};
use super::super::wizard::review_view::{self, Row};
use super::{Entry, Modal, Question, matching};

/// Draws the modal over an area.
pub fn draw(ui: &mut Ui<'_>, modal: &Modal, area: Rect) {
    match modal {
        Modal::Question(q) => draw_question(ui, q, area),
        Modal::Text { title, lines, scroll } => draw_text(ui, title, lines, *scroll, area),
        Modal::Palette { query, entries, at } => draw_palette(ui, query, entries, *at, area),
    }
}

/// A blank, framed box in the middle of an area; returns its inside.
fn centred(ui: &mut Ui<'_>, title: &str, width: u16, height: u16, area: Rect) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    let at = Rect::new(area.x + (area.width - width) / 2, area.y + (area.height - height) / 2, width, height);
    ui.drawn.cursor = None;
    ui.drawn.hits.clear();
    ui.clear(at);
    let inside = ui.frame(at, title, "");
    Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside }
}

fn draw_question(ui: &mut Ui<'_>, q: &Question, area: Rect) {
    let width = 72.min(area.width.saturating_sub(4)).max(20);
    let room = width.saturating_sub(4) as usize;
    let stacked = q.buttons.iter().map(|b| text::width(&b.label) + 7).sum::<usize>() > room + 3;
    let button_rows = if stacked { q.buttons.len() } else { 1 };
    let (before, list, after) = question_rows(q, room);
    // Lines before the list are as they are; of the list as much as there is room for.
    let fixed = before.len() + after.len() + usize::from(q.confirm.is_some()) + usize::from(!list.is_empty()) + 1 + 2;
    let list_rows = list.len().min((area.height as usize).saturating_sub(fixed + button_rows)).min(10);
    if fixed + list_rows + button_rows > area.height as usize || (list_rows == 0 && !list.is_empty()) {
        return draw_small_question(ui, q, area);
    }
    q.reach.set(list.len() - list_rows);
    let inside = centred(ui, &q.title, width, (fixed + list_rows + button_rows) as u16, area);
    let mut y = inside.y;
    let mut put = |ui: &mut Ui<'_>, row: &Row| {
        review_view::put(ui, row, inside.x, y, room as u16);
        y += 1;
        y
    };
    for row in &before {
        put(ui, row);
    }
    let first = q.scroll.min(list.len() - list_rows);
    for row in list.iter().skip(first).take(list_rows) {
        put(ui, row);
    }
    if !list.is_empty() {
        let y = put(ui, &Vec::new()) - 1;
        if list.len() > list_rows {
            ui.put_right(inside.right(), y, &format!("{} of {} ↑↓", first + list_rows, list.len()), Role::Dim, room);
        }
    }
    for row in &after {
        put(ui, row);
    }
    draw_confirm(ui, q, Rect { y, ..inside });
    let bottom = inside.bottom();
    if stacked {
        for n in 0..q.buttons.len() {
            let row = Rect { y: bottom.saturating_sub((button_rows - n) as u16), height: 1, ..inside };
            draw_button(ui, q, n, row);
        }
    } else {
        let labels: Vec<&str> = q.buttons.iter().map(|b| b.label.as_str()).collect();
        view::draw_buttons(ui, &labels, Some(q.at), Rect { y: bottom.saturating_sub(1), height: 1, ..inside });
    }
}

/// The lines before the list, the list, and the lines after it.
fn question_rows(q: &Question, room: usize) -> (Vec<Row>, Vec<Row>, Vec<Row>) {
    let wrapped = |lines: &[String]| -> Vec<Row> { lines.iter().flat_map(|l| text::wrap(l, room)).map(|l| vec![(l, Role::Text)]).collect() };
    let widest = |texts: &mut dyn Iterator<Item = &String>| texts.map(|t| text::width(t)).max().unwrap_or(0);
    let column = text::share(room.saturating_sub(2), widest(&mut q.list.iter().map(|l| &l.0)), widest(&mut q.list.iter().map(|l| &l.1)));
    let list = q.list.iter().map(|(name, detail)| {
        let name = text::pad(&crate::model::text::sanitise(name), column);
        vec![("  ".to_string(), Role::Text), (name, Role::Accent), ("  ".to_string(), Role::Text), (detail.clone(), Role::Dim)]
    });
    (wrapped(&q.lines), list.collect(), wrapped(&q.after))
}

/// Where there is no room for all of it: one button at a time, and everything above it scrolls.
fn draw_small_question(ui: &mut Ui<'_>, q: &Question, area: Rect) {
    let inside = centred(ui, &q.title, area.width, area.height, area);
    let room = inside.width as usize;
    let (before, list, after) = question_rows(q, room);
    let rows: Vec<Row> = before.into_iter().chain(list).chain(after).collect();
    let body = (inside.height as usize).saturating_sub(1 + usize::from(q.confirm.is_some()));
    q.reach.set(rows.len().saturating_sub(body));
    let first = q.scroll.min(q.reach.get());
    for (i, row) in rows.iter().skip(first).take(body).enumerate() {
        review_view::put(ui, row, inside.x, inside.y + i as u16, inside.width);
    }
    if q.reach.get() > 0 {
        ui.put_right(inside.right(), inside.bottom(), &format!(" {} of {} ↑↓ ", first + body, rows.len()), Role::Dim, room);
    }
    let bottom = inside.bottom().saturating_sub(1);
    draw_confirm(ui, q, Rect { y: bottom.saturating_sub(1), ..inside });
    let count = format!("{}/{} →", q.at + 1, q.buttons.len());
    let row = Rect { y: bottom, height: 1, width: inside.width.saturating_sub(text::width(&count) as u16 + 1), ..inside };
    draw_button(ui, q, q.at, row);
    if q.buttons.len() > 1 {
        ui.put_right(inside.right(), bottom, &count, Role::Dim, room);
    }
}

/// The line in which the word is typed.
fn draw_confirm(ui: &mut Ui<'_>, q: &Question, at: Rect) {
    if let Some((word, typed)) = &q.confirm {
        let room = at.width as usize;
        let (shown, column) = typed.view(room.saturating_sub(3));
        let end = ui.pieces(at.x, at.y, &[("> ", Role::Accent), (&shown, Role::Text)], room);
        if q.refused && !q.armed() {
            // The word stands above: what is to be done with it is said where the cursor is.
            let missing = if shown.is_empty() { format!("✗ type {word} here first") } else { format!("✗ that is not {word}") };
            ui.put(end + 2, at.y, &missing, Role::Bad, at.right().saturating_sub(end + 2) as usize);
        }
        ui.cursor(at.x + 2 + column as u16, at.y);
    }
}

/// One button in a row of its own.
fn draw_button(ui: &mut Ui<'_>, q: &Question, n: usize, row: Rect) {
    let Some(button) = q.buttons.get(n) else { return };
    let label = if button.guarded && !q.armed() { format!("{} (type the name)", button.label) } else { button.label.clone() };
    view::draw_buttons(ui, &[&label], (q.at == n).then_some(0), row);
    if let Some(last) = ui.drawn.hits.last_mut() {
        last.1 = Hit::Button(n);
    }
}

fn draw_text(ui: &mut Ui<'_>, title: &str, lines: &[(String, String)], scroll: usize, area: Rect) {
    let height = (lines.len() as u16 + 2).min(area.height.saturating_sub(2)).max(4);
    let inside = centred(ui, title, 76.min(area.width.saturating_sub(2)), height, area);
    let rows = inside.height as usize;
    let first = scroll.min(lines.len().saturating_sub(rows));
    let keys = lines.iter().map(|l| text::width(&l.0)).max().unwrap_or(0).min(20);
    for (i, (key, help)) in lines.iter().skip(first).take(rows).enumerate() {
        let y = inside.y + i as u16;
        let gap = if keys > 0 { "  " } else { "" };
        ui.pieces(inside.x, y, &[(&text::pad(key, keys), Role::Key), (gap, Role::Text), (help, Role::Text)], inside.width as usize);
    }
    if lines.len() > rows {
        ui.put_right(inside.right(), inside.bottom(), &format!(" {} of {} ↑↓ ", (first + rows).min(lines.len()), lines.len()), Role::Dim, 24);
    }
}

fn draw_palette(ui: &mut Ui<'_>, query: &Line, entries: &[Entry], at: usize, area: Rect) {
    let rows = matching(query, entries);
    let height = (entries.len() as u16 + 3).min(16).min(area.height.saturating_sub(2)).max(5);
    let inside = centred(ui, "Commands", 64.min(area.width.saturating_sub(2)), height, area);
    let width = inside.width as usize;
    let (shown, column) = query.view(width.saturating_sub(3));
    ui.pieces(inside.x, inside.y, &[(": ", Role::Accent), (&shown, Role::Text)], width);
    ui.cursor(inside.x + 2 + column as u16, inside.y);
    let room = inside.height.saturating_sub(1) as usize;
    let first = at.saturating_sub(room.saturating_sub(1));
    for (i, (n, entry)) in rows.iter().map(|i| &entries[*i]).enumerate().skip(first).take(room).enumerate() {
        let y = inside.y + 1 + i as u16;
        let role = if n == at { Role::Accent } else { Role::Text };
        ui.put(inside.x, y, if n == at { "▸" } else { " " }, Role::Accent, 1);
        ui.put(inside.x + 2, y, &text::end(&entry.label, width.saturating_sub(12)), role, width);
        ui.put_right(inside.right(), y, &entry.keys, Role::Dim, 10);
        ui.hit(Rect::new(inside.x, y, inside.width, 1), Hit::Row(n));
    }
    if rows.is_empty() {
        ui.put(inside.x + 2, inside.y + 1, "No command matches.", Role::Dim, width);
    }
}
