//! Draws the list that hangs open at a field: what was said instead of it, its rows, its foot.

use ratatui::layout::Rect;

use super::picker::{self, Row};
use super::{Form, Item};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::{Hit, Ui};

/// Draws the open list of the focused field: below its line (`bottom`), or above it (`top`).
pub(super) fn draw_popup(ui: &mut Ui<'_>, form: &Form, x: u16, top: u16, bottom: u16, area: Rect) {
    let (Some(popup), Some(item)) = (&form.popup, form.focused()) else {
        return;
    };
    let rows = picker::rows(item, popup);
    let width = area.right().saturating_sub(x).min(66);
    // Beside a long label there is little room: the list reaches out to the left, over it.
    let wide = if width < 50 { 60.min(area.width.saturating_sub(2)).max(width + 1) } else { width + 1 };
    let left = x.saturating_sub(1).min(area.right().saturating_sub(wide));
    let under = area.bottom().saturating_sub(bottom);
    let over = top.saturating_sub(area.y);
    let free = item.free();
    let nothing = match (item.none_listed, free) {
        ("", true) => "Nothing is listed here: type the value.",
        ("", false) => "Nothing to pick from.",
        (said, _) => said,
    };
    let listed = rows.iter().filter(|r| matches!(r, Row::Choice(_))).count();
    let asking = asking(ui, item);
    let message: Option<(String, Role)> = if let Some(asking) = asking.as_ref().filter(|_| listed == 0) {
        let meanwhile = if free { "Typing works meanwhile. " } else { "" };
        Some((format!("{asking}. {meanwhile}Esc gives up."), Role::Warn))
    } else if let Some(error) = &item.choices.error {
        let form = item.unlisted().map_or(String::new(), |u| format!("{} ", u.text));
        Some((format!("✗ {form}{}", error.message), Role::Bad))
    } else if item.choices.value.as_ref().is_some_and(Vec::is_empty) && listed == 0 {
        Some((nothing.into(), Role::Dim))
    } else if rows.is_empty() && !item.choices.busy() {
        Some((
            if item.choices.value.is_some() { "Nothing matches.".into() } else { "Fill in the fields above first, or type the value.".into() },
            Role::Dim,
        ))
    } else {
        None
    };
    let nothing_listed = free && !item.choices.busy() && item.choices.value.as_ref().is_some_and(Vec::is_empty);
    let message_rows = message.as_ref().map_or(0, |(m, _)| text::wrap(m, wide.saturating_sub(3) as usize).len().min(6) as u16);
    let wanted = (rows.len().min(10) as u16 + message_rows).max(1) + 2;
    let (y, height) = if under >= wanted || under >= over {
        (bottom, wanted.min(under.max(3)))
    } else {
        let height = wanted.min(over);
        (top - height, height)
    };
    let frame = Rect::new(left, y, wide, height).intersection(ui.buf.area);
    if frame.height < 3 || frame.width < 8 {
        return;
    }
    // The query is edited in the field's own line.
    ui.clear(Rect::new(x, top, width, 1));
    let (shown, column) = popup.query.view(width as usize - 1);
    ui.put(x, top, &shown, Role::Text, width as usize - 1);
    if shown.is_empty() {
        let hint = if nothing_listed { "type the value" } else { "type to filter" };
        ui.put(x, top, hint, Role::Dim, width as usize - 1);
    }
    ui.cursor(x + column as u16, top);

    ui.clear(frame);
    let inside = ui.frame(frame, "", "");
    // However long the message, the marked row is seen.
    let most = inside.height.saturating_sub(rows.len().min(2) as u16);
    let used = message.map_or(0, |(m, role)| ui.paragraph(Rect { height: message_rows.min(most), ..inside }, &m, role));
    let list = Rect { y: inside.y + used, height: inside.height.saturating_sub(used), ..inside };
    popup.page.set(list.height as usize);
    let at = popup.at(&rows);
    let first = at.saturating_sub((list.height as usize).saturating_sub(1));
    for (line, (n, row)) in rows.iter().enumerate().skip(first).take(list.height as usize).enumerate() {
        let y = list.y + line as u16;
        if n == at {
            ui.put(list.x, y, "▸", Role::Accent, 1);
        }
        let role = if n == at { Role::Accent } else { Role::Text };
        let room = list.width.saturating_sub(3) as usize;
        match row {
            Row::Choice(choice) => {
                let detail = picker::aside(choice);
                // The name comes first: the detail takes what is left, a third where both are long.
                let aside = if detail.is_empty() { 0 } else { text::width(detail).min(room / 3) + 2 };
                let label = text::middle(&choice.label, room.saturating_sub(aside));
                let end = ui.put(list.x + 2, y, &label, role, room);
                let left = list.right().saturating_sub(end + 3) as usize;
                ui.put(end + 2, y, &text::middle(detail, left), Role::Dim, left);
            }
            Row::Typed(typed) => {
                let said =
                    if typed.is_empty() { "leave it empty".into() } else { format!("use {} as typed", text::middle(typed, room.saturating_sub(14))) };
                ui.put(list.x + 2, y, &said, role, room);
            }
        }
        ui.hit(Rect::new(list.x, y, list.width, 1), Hit::Row(n));
    }
    let all = item.choices.value.as_ref().map_or(0, Vec::len);
    let foot = if item.choices.error.is_some() {
        if free { " Ctrl-R asks again · or type the value " } else { " Ctrl-R asks again " }.to_string()
    } else if let Some(asking) = asking.filter(|_| listed > 0) {
        format!(" {asking} · Esc gives up ")
    } else if listed == 0 && item.choices.busy() {
        // The message above says the rest.
        if free { " type the value " } else { "" }.to_string()
    } else if nothing_listed {
        " type the value ".to_string()
    } else {
        format!(" {listed} of {} · type to filter ", all.max(listed))
    };
    ui.put(frame.x + 2, frame.bottom() - 1, &foot, Role::Dim, frame.width.saturating_sub(4) as usize);
}

/// How long an answer is waited for by now; `None` when none is.
fn asking(ui: &mut Ui<'_>, item: &Item) -> Option<String> {
    let since = item.choices.since()?;
    Some(format!("{} asking for {}", ui.spinner(), ui.elapsed(since)))
}
