//! Draws the wizard: the header of steps, the form in front or the Review.

use ratatui::layout::Rect;

use super::{REVIEW, STEPS, Wizard, review_view, steps};
use crate::destination::registry;
use crate::tui::form::view as form_view;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::{Hit, Ui};
use crate::tui::world::World;

/// Draws into the work area.
pub fn draw(ui: &mut Ui<'_>, wizard: &Wizard, world: &World, area: Rect) {
    let Some(provider) = wizard.provider else {
        return draw_choice(ui, wizard, world, area);
    };
    let frame = area;
    let inside = ui.frame(area, "", "");
    draw_steps(ui, wizard, inside);
    let name = if wizard.step == REVIEW { wizard.forms[3].value("name") } else { STEPS[wizard.step].to_string() };
    let note = match (wizard.step, wizard.review.json) {
        (REVIEW, false) => "J shows the JSON, the command and curl",
        (REVIEW, true) => "J shows the plan",
        _ => "",
    };
    ui.divider(frame, inside.y + 1, &name, note);
    let body = Rect { x: inside.x + 1, y: inside.y + 2, width: inside.width.saturating_sub(2), height: inside.height.saturating_sub(2) };
    if wizard.step == REVIEW {
        return review_view::draw(ui, wizard, world, body, frame);
    }
    let spec = provider.spec();
    let notes: Vec<&str> = match wizard.step {
        0 => vec![steps::SOURCE_NOTE],
        1 => spec.notes.to_vec(),
        2 => spec.import_note.into_iter().collect(),
        _ => Vec::new(),
    };
    let airy = body.height > 12;
    let form_area = Rect { y: body.y + u16::from(airy), height: body.height - u16::from(airy), ..body };
    form_view::draw(ui, &wizard.forms[wizard.step], form_area, &notes);
}

fn draw_steps(ui: &mut Ui<'_>, wizard: &Wizard, area: Rect) {
    let total: usize = STEPS.iter().map(|s| text::width(s) + 2).sum();
    let gap = (area.width as usize).saturating_sub(total + 4) / (STEPS.len() - 1);
    let joint = match gap {
        0..=2 => " ".to_string(),
        3..=4 => format!(" {} ", "─".repeat(gap - 2)),
        _ => " ─── ".to_string(),
    };
    let used = total + text::width(&joint) * (STEPS.len() - 1);
    let mut x = area.x + (area.width as usize).saturating_sub(used) as u16 / 2;
    for (n, step) in STEPS.iter().enumerate() {
        let (symbol, role) = match n {
            n if n == wizard.step => ("◉ ", Role::Accent),
            n if n < wizard.step || n <= wizard.reached => ("● ", Role::Text),
            _ => ("○ ", Role::Dim),
        };
        let right = area.right();
        x = ui.pieces(x, area.y, &[(symbol, role), (step, role)], right.saturating_sub(x) as usize);
        if n + 1 < STEPS.len() {
            x = ui.put(x, area.y, &joint, Role::Line, right.saturating_sub(x) as usize);
        }
    }
}

fn draw_choice(ui: &mut Ui<'_>, wizard: &Wizard, world: &World, area: Rect) {
    let inside = ui.frame(area, "Where should the secrets go?", "");
    let mut y = inside.y + 1;
    for (n, provider) in registry::ALL.iter().enumerate() {
        let spec = provider.spec();
        if y + 1 >= inside.bottom() {
            break;
        }
        let selected = n == wizard.choose_at;
        ui.put(inside.x + 1, y, if selected { "▸" } else { " " }, Role::Accent, 1);
        ui.put(inside.x + 3, y, spec.title, if selected { Role::Accent } else { Role::Text }, 30);
        let connections = world.connections_of(spec.app.app);
        let note = match connections.as_slice() {
            [] => format!("needs {} {} connection: added on the way", article(spec.app.title), spec.app.title),
            [one] => format!("connection {}", one.name),
            many => format!("{} connections", many.len()),
        };
        ui.put(inside.x + 26, y, &note, Role::Dim, inside.width.saturating_sub(28) as usize);
        ui.hit(Rect::new(inside.x, y, inside.width, 1), Hit::Row(n));
        y += 2;
    }
    if registry::ALL.is_empty() {
        ui.put(inside.x + 3, y, "This build knows no destination.", Role::Warn, inside.width as usize);
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}
