//! Draws a form: help under every field where there is room, one line a field and a band of
//! help where there is not; scrolled so that the focus is always seen.

use ratatui::layout::Rect;
use ratatui::widgets::Widget;

use super::picker_view::draw_popup;
use super::{Form, Item, Kind, Origin};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::{Hit, Ui};

/// Shown instead of a secret, whatever its length.
pub const MASK: &str = "••••••••";
/// The least rows of the help band in the tight layout.
const BAND: u16 = 4;

#[derive(Clone, Copy, PartialEq)]
enum Room {
    /// Help under each field and a blank line after it.
    Airy,
    /// Help under each field.
    Snug,
    /// One line each, help in a band at the bottom.
    Tight,
}

/// Draws the form into an area; `notes` stand at its bottom where there is room.
pub fn draw(ui: &mut Ui<'_>, form: &Form, area: Rect, notes: &[&str]) {
    let label = form.items.iter().filter(|i| !i.hidden).map(|i| text::width(&i.label)).max().unwrap_or(10).clamp(10, 34);
    let label = (label + 2).min(area.width as usize / 2) as u16;
    let value_width = area.width.saturating_sub(label + 4);
    let buttons = if form.buttons.is_empty() { 0 } else { 2 };
    let note_rows: u16 = notes.iter().map(|n| text::wrap(n, area.width.saturating_sub(2) as usize).len() as u16).sum();
    let total = |room| -> u16 { form.items.iter().filter(|i| !i.hidden).map(|i| height(i, room, value_width)).sum() };
    let room = [Room::Airy, Room::Snug]
        .into_iter()
        .find(|r| total(*r) + buttons + note_rows <= area.height)
        .or_else(|| (total(Room::Snug) + buttons <= area.height).then_some(Room::Snug))
        .unwrap_or(Room::Tight);
    let band = if room == Room::Tight {
        // As high as the longest help where the fields leave the room, so that nothing moves while walking through them.
        let help = form.items.iter().filter(|i| !i.hidden).map(|i| reserved_help(i, area.width.saturating_sub(2))).max().unwrap_or(0);
        let free = area.height.saturating_sub(buttons + total(Room::Tight));
        (help + 1).min(free).max(BAND.min(area.height / 3))
    } else {
        0
    };
    let body = Rect { height: area.height.saturating_sub(buttons + band), ..area };
    let scroll = scroll(form, room, value_width, body.height);

    let mut y = body.y as i32 - scroll as i32;
    let mut anchor = None;
    for (n, item) in form.items.iter().enumerate().filter(|(_, i)| !i.hidden) {
        let rows = height(item, room, value_width);
        if y >= body.y as i32 && y + rows as i32 <= body.bottom() as i32 {
            let at = Rect::new(body.x, y as u16, body.width, rows);
            ui.hit(at, Hit::Field(n));
            draw_item(ui, item, n == form.focus, at, label, room);
            if n == form.focus {
                anchor = Some((body.x + label + 2, at.y, at.y + value_rows(item, room)));
            }
        }
        y += rows as i32;
    }
    if scroll > 0 {
        ui.put_right(area.right(), body.y, "↑ more", Role::Dim, 8);
    }
    if y > body.bottom() as i32 {
        ui.put_right(area.right(), body.bottom().saturating_sub(1), "↓ more", Role::Dim, 8);
    }
    let after = (y.max(body.y as i32) as u16).min(body.bottom());
    if room == Room::Tight {
        draw_band(ui, form, Rect { y: body.bottom(), height: band, ..area });
    }
    let y = body.bottom().saturating_sub(note_rows);
    if y >= after {
        let mut at = Rect { x: area.x + 1, y, width: area.width.saturating_sub(2), height: note_rows };
        for note in notes {
            let used = ui.paragraph(at, note, Role::Dim);
            at = Rect { y: at.y + used, height: at.height.saturating_sub(used), ..at };
        }
    }
    if buttons > 0 {
        let focus = (form.focus == form.items.len()).then_some(form.button);
        draw_buttons(ui, &form.buttons, focus, Rect { y: area.bottom().saturating_sub(1), height: 1, ..area });
    }
    if let (Some((x, top, bottom)), Some(_)) = (anchor, &form.popup) {
        draw_popup(ui, form, x, top, bottom, area);
    }
}

/// A centred row of buttons; the focused one is reversed and in brackets like the others.
pub fn draw_buttons(ui: &mut Ui<'_>, buttons: &[&str], focus: Option<usize>, row: Rect) {
    let total: usize = buttons.iter().map(|b| text::width(b) + 7).sum::<usize>().saturating_sub(3);
    let mut x = row.x + (row.width as usize).saturating_sub(total) as u16 / 2;
    for (n, button) in buttons.iter().enumerate() {
        let shown = format!("[ {button} ]");
        let w = text::width(&shown) as u16;
        let role = if focus == Some(n) { Role::Focus } else { Role::Text };
        if focus == Some(n) && x > row.x {
            ui.put(x - 1, row.y, "▸", Role::Accent, 1);
        }
        ui.put(x, row.y, &shown, role, row.right().saturating_sub(x) as usize);
        ui.hit(Rect::new(x, row.y, w, 1), Hit::Button(n));
        x += w + 3;
    }
}

fn value_rows(item: &Item, room: Room) -> u16 {
    match (&item.kind, room) {
        (Kind::Area, Room::Tight) => 2,
        (Kind::Area, _) => 4,
        (Kind::Choice(options), Room::Airy | Room::Snug) => options.len().max(1) as u16,
        _ => 1,
    }
}

fn below(item: &Item) -> (String, Role) {
    if let Some(problem) = item.problem.as_ref().filter(|_| item.touched) {
        return (format!("✗ {problem}"), Role::Bad);
    }
    if let Some((role, notice)) = &item.notice {
        return (notice.clone(), *role);
    }
    if let Kind::Choice(options) = &item.kind
        && let Some(option) = options.get(item.chosen).filter(|o| !o.help.is_empty())
    {
        return (format!("{}: {}", option.label, option.help), Role::Dim);
    }
    (item.help.clone(), Role::Dim)
}

fn height(item: &Item, room: Room, width: u16) -> u16 {
    let help = if room == Room::Tight { 0 } else { reserved_help(item, width) };
    value_rows(item, room) + help + u16::from(room == Room::Airy)
}

/// Rows under a field: enough for its longest help, so that nothing moves while choosing.
fn reserved_help(item: &Item, width: u16) -> u16 {
    let lines = |text: &str| if text.is_empty() { 0 } else { text::wrap(text, width.max(1) as usize).len() as u16 };
    let longest = match &item.kind {
        Kind::Choice(options) => options.iter().map(|o| lines(&format!("{}: {}", o.label, o.help))).max().unwrap_or(0),
        _ => lines(&item.help),
    };
    longest.max(lines(&below(item).0))
}

fn scroll(form: &Form, room: Room, width: u16, rows: u16) -> u16 {
    let (mut top, mut bottom, mut y) = (0, 0, 0);
    for (n, item) in form.items.iter().enumerate().filter(|(_, i)| !i.hidden) {
        let h = height(item, room, width);
        if n == form.focus {
            (top, bottom) = (y, y + h);
        }
        y += h;
    }
    if form.focus >= form.items.len() {
        (top, bottom) = (y, y);
    }
    let most = y.saturating_sub(rows);
    bottom.saturating_sub(rows).min(top).min(most)
}

fn draw_item(ui: &mut Ui<'_>, item: &Item, focused: bool, at: Rect, label: u16, room: Room) {
    if focused {
        ui.put(at.x, at.y, "▸", Role::Accent, 1);
    }
    let role = if focused { Role::Accent } else { Role::Text };
    ui.put(at.x + 2, at.y, &text::end(&item.label, label as usize - 1), role, label as usize);
    let x = at.x + label + 2;
    let mut width = at.right().saturating_sub(x) as usize;
    let rows = value_rows(item, room);
    if let Some((role, status)) = &item.status {
        let value = if item.is_empty() { text::width(&item.placeholder).max(6) } else { text::width(&shown_value(item)) };
        let room = (width / 2).max(width.saturating_sub(value + 4));
        let shown = text::end(status, room);
        ui.put_right(at.right(), at.y, &shown, *role, room);
        width = width.saturating_sub(text::width(&shown) + 1);
    } else if room == Room::Tight && item.touched && item.problem.is_some() {
        ui.put_right(at.right(), at.y, "✗", Role::Bad, 1);
        width = width.saturating_sub(2);
    }
    let value = Rect::new(x, at.y, width as u16, rows);
    draw_value(ui, item, focused, value, room);
    if room != Room::Tight {
        let (help, role) = below(item);
        let rest = Rect { x, y: at.y + rows, width: at.right().saturating_sub(x), height: at.height.saturating_sub(rows) };
        ui.paragraph(rest, &help, role);
    }
}

fn draw_value(ui: &mut Ui<'_>, item: &Item, focused: bool, at: Rect, room: Room) {
    let width = at.width as usize;
    if let Some(why) = item.locked {
        let x = ui.put(at.x, at.y, &text::middle(&shown_value(item), width), Role::Text, width);
        ui.put(x + 1, at.y, why, Role::Dim, (at.right()).saturating_sub(x + 1) as usize);
        return;
    }
    match &item.kind {
        Kind::Flag => {
            let shown = if item.on { "[x] on" } else { "[ ] off" };
            ui.put(at.x, at.y, shown, if focused { Role::Accent } else { Role::Text }, width);
        }
        Kind::Choice(options) if room == Room::Tight => {
            let shown = options.get(item.chosen).map_or("", |o| o.label.as_str());
            let more = if options.len() > 1 { format!("  ({} of {})", item.chosen + 1, options.len()) } else { String::new() };
            ui.pieces(at.x, at.y, &[(shown, if focused { Role::Accent } else { Role::Text }), (&more, Role::Dim)], width);
        }
        Kind::Choice(options) => {
            for (n, option) in options.iter().enumerate() {
                let on = n == item.chosen;
                let mark = if on { "● " } else { "○ " };
                let role = if on && focused {
                    Role::Accent
                } else if on {
                    Role::Text
                } else {
                    Role::Dim
                };
                ui.pieces(at.x, at.y + n as u16, &[(mark, role), (&option.label, role)], width);
            }
        }
        Kind::Area => {
            if item.is_empty() && !focused {
                ui.put(at.x, at.y, "(none)", Role::Dim, width);
                return;
            }
            let at = at.intersection(ui.buf.area);
            (&item.area).render(at, ui.buf);
            if ui.theme.ascii {
                asciify(ui, at);
            }
            if !focused {
                for y in at.top()..at.bottom() {
                    for x in at.left()..at.right() {
                        ui.buf[(x, y)].modifier.remove(ratatui::style::Modifier::REVERSED);
                    }
                }
            }
        }
        _ if item.origin == Some(Origin::Stored) => {
            let x = ui.put(at.x, at.y, MASK, Role::Text, width);
            ui.put(x + 1, at.y, "stored; typing replaces it", Role::Dim, at.right().saturating_sub(x + 1) as usize);
            if focused {
                ui.cursor(at.x, at.y);
            }
        }
        Kind::Secret { .. } if item.origin.is_none_or(|o| o == Origin::Typed) => draw_secret(ui, item, focused, at),
        Kind::Pick { .. } | Kind::Path => {
            if item.is_empty() {
                let hint = match (item.required, focused) {
                    (_, true) => "type to search, ↓ lists",
                    (true, false) => item.placeholder.as_str(),
                    (false, false) => "(none)",
                };
                ui.put(at.x, at.y, hint, Role::Dim, width);
            } else {
                let shown = text::middle(&shown_value(item), width.saturating_sub(2));
                let x = ui.put(at.x, at.y, &shown, Role::Text, width);
                ui.put(x + 1, at.y, "▾", Role::Dim, 1);
            }
            if focused {
                ui.cursor(at.x, at.y);
            }
        }
        _ => {
            let prompt = item.origin.filter(|o| *o != Origin::Typed).map(|o| format!("{}: ", o.prompt())).unwrap_or_default();
            let x = ui.put(at.x, at.y, &prompt, Role::Dim, width);
            let room = at.right().saturating_sub(x) as usize;
            if focused {
                let (shown, column) = item.line.view(room);
                ui.put(x, at.y, &shown, Role::Text, room);
                ui.cursor(x + column as u16, at.y);
            }
            if item.line.is_empty() {
                let hint = match (&item.follows, item.placeholder.as_str(), item.required) {
                    (Some(follows), ..) => follows,
                    (None, "", false) => "(none)",
                    (None, hint, _) => hint,
                };
                ui.put(x, at.y, hint, Role::Dim, room);
            } else if !focused {
                ui.put(x, at.y, &text::middle(item.line.text(), room), Role::Text, room);
            }
        }
    }
}

fn shown_value(item: &Item) -> String {
    item.called.clone().unwrap_or_else(|| item.value())
}

fn draw_secret(ui: &mut Ui<'_>, item: &Item, focused: bool, at: Rect) {
    let width = at.width as usize;
    let lines = item.line.text().lines().count();
    if item.line.is_empty() {
        ui.put(at.x, at.y, if item.required || item.held { &item.placeholder } else { "(none)" }, Role::Dim, width);
        if focused {
            ui.cursor(at.x, at.y);
        }
        return;
    }
    let revealed = item.revealed.filter(|until| *until > ui.now);
    let x = if let Some(until) = revealed {
        ui.wake(until);
        let (shown, _) = item.line.view(width.saturating_sub(12));
        ui.put(at.x, at.y, &shown, Role::Text, width)
    } else {
        ui.put(at.x, at.y, MASK, Role::Text, width)
    };
    if lines > 1 {
        ui.put(x + 1, at.y, &format!("{lines} lines"), Role::Dim, at.right().saturating_sub(x + 1) as usize);
    }
    if focused {
        ui.cursor(x.min(at.right().saturating_sub(1)), at.y);
    }
}

fn asciify(ui: &mut Ui<'_>, at: Rect) {
    for y in at.top()..at.bottom() {
        for x in at.left()..at.right() {
            let symbol: String = ui.buf[(x, y)].symbol().chars().map(|c| ui.theme.char(c)).collect();
            ui.buf[(x, y)].set_symbol(&symbol);
        }
    }
}

fn draw_band(ui: &mut Ui<'_>, form: &Form, area: Rect) {
    if area.height < 2 {
        return;
    }
    ui.put(area.x, area.y, &"─".repeat(area.width as usize), Role::Line, area.width as usize);
    if let Some(item) = form.focused() {
        let (help, role) = below(item);
        let help = if help.is_empty() { item.label.clone() } else { help };
        let at = Rect { x: area.x + 1, y: area.y + 1, width: area.width.saturating_sub(2), height: area.height - 1 };
        let used = ui.paragraph(at, &help, role);
        // Elsewhere a failure stands below its field; here it has no other place.
        let failed = form.items.iter().filter(|i| !i.hidden).find_map(|i| i.notice.as_ref().filter(|(role, _)| *role == Role::Bad));
        if let Some((_, notice)) = failed.filter(|(_, notice)| *notice != help) {
            ui.paragraph(Rect { y: at.y + used, height: at.height.saturating_sub(used), ..at }, &format!("✗ {notice}"), Role::Bad);
        }
    }
}
