//! The list of connections: test, add, edit, remove.

use std::collections::BTreeMap;

use ratatui::layout::Rect;
use serde_json::Value;

use super::edit::Edit;
use crate::destination::{TestReport, registry};
use crate::model::connection::ConnectionView;
use crate::service::ServiceErrorKind;
use crate::tui::app::Page;
use crate::tui::fx::{Call, Effect, Fx, Load, Reply, Ticket};
use crate::tui::keys::Action;
use crate::tui::modal::{Modal, Question, Verdict, scrolled};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::{Hit, Ui};
use crate::tui::world::World;

/// The list's state.
#[derive(Default)]
pub struct Connections {
    at: usize,
    tests: BTreeMap<String, Load<TestReport>>,
}

fn all(world: &World) -> &[ConnectionView] {
    world.connections.value.as_deref().unwrap_or_default()
}

impl Connections {
    fn selected<'w>(&self, world: &'w World) -> Option<&'w ConnectionView> {
        all(world).get(self.at.min(all(world).len().saturating_sub(1)))
    }

    pub fn can(&self, action: Action, world: &World) -> bool {
        match action {
            Action::Edit | Action::Test | Action::Delete | Action::Copy => self.selected(world).is_some(),
            _ => true,
        }
    }

    pub fn act(&mut self, action: Action, world: &mut World, fx: &mut Fx) {
        match action {
            Action::Back => fx.pop(),
            Action::Refresh => world.connections.ask(fx, Call::Connections),
            Action::New => fx.push(Page::Edit(Box::new(Edit::choose()))),
            _ => self.act_on_selected(action, world, fx),
        }
        scrolled(&mut self.at, action, all(world).len());
    }

    fn act_on_selected(&mut self, action: Action, world: &World, fx: &mut Fx) {
        let Some(view) = self.selected(world) else {
            return;
        };
        match action {
            Action::Edit => {
                if let Some(edit) = Edit::from_view(view) {
                    fx.push(Page::Edit(Box::new(edit)));
                }
            }
            Action::Test => self.tests.entry(view.name.clone()).or_default().ask(fx, Call::Test { name: view.name.clone() }),
            Action::Copy => fx.effect(Effect::Copy(view.name.clone())),
            Action::Delete => {
                let question = if view.used_by.is_empty() {
                    let lines = vec!["No sync uses it.".into(), "Its credentials are forgotten.".into()];
                    let question = Question::new(format!("Remove the connection {}?", view.name), lines, "Keep it");
                    question.button("Remove it", Verdict::RemoveConnection(view.name.clone()))
                } else {
                    let used = text::count(view.used_by.len(), "sync uses it", "syncs use it");
                    let lines = vec![format!("{used}: {}.", view.used_by.join(", ")), "Delete them, or give them another connection, first.".into()];
                    Question::new(format!("{} cannot be removed", view.name), lines, "Keep it")
                };
                fx.ask(Modal::Question(question));
            }
            _ => {}
        }
    }

    pub fn click(&mut self, hit: &Hit) -> bool {
        if let Hit::Row(n) = hit {
            self.at = *n;
        }
        false
    }

    pub fn reply(&mut self, ticket: Ticket, reply: Reply, _world: &World) -> Option<Reply> {
        match reply {
            Reply::Report(answer) => match self.tests.values_mut().find(|t| t.awaits(ticket)) {
                Some(test) => {
                    test.take(answer);
                    None
                }
                None => Some(Reply::Report(answer)),
            },
            other => Some(other),
        }
    }

    /// Draws into the work area.
    pub fn draw(&self, ui: &mut Ui<'_>, world: &World, area: Rect) {
        let views = all(world);
        let inside = ui.frame(area, &format!("Connections {}", views.len()), "");
        let width = inside.width as usize;
        if views.is_empty() {
            let (text, role) = match (&world.connections.error, world.connections.busy()) {
                (Some(error), _) => (format!("✗ {} (r asks again)", error.message), Role::Bad),
                (None, true) => ("asking …".into(), Role::Dim),
                (None, false) => {
                    ("No connections yet. n adds one: first the Hanzo KMS account, then the place that receives the secrets.".into(), Role::Text)
                }
            };
            ui.paragraph(
                Rect { x: inside.x + 3, y: inside.y + 1, width: inside.width.saturating_sub(6), height: inside.height.saturating_sub(1) },
                &text,
                role,
            );
            return;
        }
        let (name, app) = (width * 3 / 10, width / 4);
        ui.put(inside.x + 3, inside.y, "NAME", Role::Dim, name);
        ui.put(inside.x + 4 + name as u16, inside.y, "APP", Role::Dim, app);
        ui.put(inside.x + 5 + (name + app) as u16, inside.y, "METHOD", Role::Dim, 20);
        let detail = (inside.height / 2).min(10);
        let rows = inside.height.saturating_sub(detail + 2) as usize;
        let at = self.at.min(views.len() - 1);
        let top = (at + 1).saturating_sub(rows.max(1));
        for (n, view) in views.iter().enumerate().skip(top).take(rows) {
            let y = inside.y + 1 + (n - top) as u16;
            let title = registry::app(&view.app).map_or(view.app.as_str(), |a| a.title);
            ui.put(inside.x, y, if n == at { "▸" } else { " " }, Role::Accent, 1);
            ui.put(inside.x + 3, y, &text::middle(&crate::model::text::sanitise(&view.name), name), Role::Text, name);
            ui.put(inside.x + 4 + name as u16, y, title, Role::Text, app);
            ui.put(inside.x + 5 + (name + app) as u16, y, &view.method, Role::Text, width.saturating_sub(name + app + 5));
            ui.hit(Rect::new(inside.x, y, inside.width, 1), Hit::Row(n));
        }
        let y = inside.y + 1 + rows as u16;
        ui.divider(area, y, &views[at].name, "");
        let below = Rect { x: inside.x + 1, y: y + 1, width: inside.width.saturating_sub(2), height: inside.bottom().saturating_sub(y + 1) };
        self.draw_detail(ui, &views[at], below);
    }

    fn draw_detail(&self, ui: &mut Ui<'_>, view: &ConnectionView, mut area: Rect) {
        let mut line = |ui: &mut Ui<'_>, label: &str, text: &str, role: Role| {
            let room = Rect { x: area.x + 14, width: area.width.saturating_sub(14), ..area };
            if area.height > 0 {
                ui.put(area.x, area.y, label, Role::Dim, 13);
                let used = ui.paragraph(room, text, role).max(1).min(area.height);
                area.y += used;
                area.height -= used;
            }
        };
        let used = if view.used_by.is_empty() { "no sync".into() } else { view.used_by.join(", ") };
        line(ui, "Used by", &used, Role::Text);
        if let Some(test) = self.tests.get(&view.name) {
            match (&test.value, &test.error) {
                _ if test.busy() => {
                    let text = format!("{} testing …", ui.spinner());
                    line(ui, "Test", &text, Role::Warn);
                }
                (_, Some(error)) => {
                    let advice = if error.kind == ServiceErrorKind::Auth { " (e edits the credentials)" } else { "" };
                    line(ui, "Test", &format!("✗ {}{advice}", error.message), Role::Bad);
                }
                (Some(report), None) => {
                    let identity = if report.identity.is_empty() { String::new() } else { format!(": {}", report.identity) };
                    line(ui, "Test", &format!("✓ works{identity}"), Role::Good);
                    for note in &report.notes {
                        line(ui, "", note, Role::Dim);
                    }
                }
                _ => {}
            }
        }
        if let Some(fields) = view.public.get("credentials").and_then(Value::as_object) {
            for (key, value) in fields {
                line(ui, key, &plain(value), Role::Text);
            }
        }
        for (key, value) in view.public.as_object().into_iter().flatten() {
            if !["name", "id", "app", "method", "credentials"].contains(&key.as_str()) {
                line(ui, key, &plain(value), Role::Text);
            }
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}
