//! The first start: three steps from nothing to a first sync, each opening the form it needs.

use ratatui::layout::Rect;

use super::app::Page;
use super::connections::edit::Edit;
use super::fx::{Fx, Move};
use super::keys::Action;
use super::modal::scrolled;
use super::theme::Role;
use super::ui::{Hit, Ui};
use super::world::World;
use crate::model::connection::ConnectionView;
use crate::source::APP;

/// Title and explanation of each step.
const STEPS: [(&str, &str); 3] = [
    ("Hanzo KMS account", "Where the secrets come from: a machine identity with read access to the project. It is tested before it is saved."),
    (
        "Connection to a destination",
        "Where they go: credentials for one of the destinations, tested as well. The next step can add it on the way, too.",
    ),
    ("First sync", "Source, Destination, Sync Options, Details, Review. The Review shows what would change before anything is written."),
];

/// The guided set-up's state.
#[derive(Default)]
pub struct Setup {
    at: usize,
}

impl Setup {
    fn done(world: &World) -> [bool; 3] {
        let all = world.connections.value.as_deref().unwrap_or_default();
        [all.iter().any(|c| c.app == APP.app), all.iter().any(|c| c.app != APP.app), !world.board.cards.is_empty()]
    }

    pub fn act(&mut self, action: Action, fx: &mut Fx) {
        match action {
            Action::Back => fx.pop(),
            Action::Enter => match self.at {
                0 => fx.push(Page::Edit(Box::new(Edit::new(&APP)))),
                1 => fx.push(Page::Edit(Box::new(Edit::choose_destination()))),
                _ => fx.moves.push(Move::NewSync),
            },
            _ => scrolled(&mut self.at, action, STEPS.len()),
        }
    }

    pub fn click(&mut self, hit: &Hit) -> bool {
        if let Hit::Row(n) = hit {
            self.at = *n;
            return true;
        }
        false
    }

    /// A step is done: the next one is marked.
    pub fn stored(&mut self, view: &ConnectionView) {
        self.at = if view.app == APP.app { 1 } else { 2 };
    }

    /// Draws into the work area.
    pub fn draw(&self, ui: &mut Ui<'_>, world: &World, area: Rect) {
        let inside = ui.frame(area, "Welcome to kms-sync", "");
        let body = Rect { x: inside.x + 2, y: inside.y + 1, width: inside.width.saturating_sub(4), height: inside.height.saturating_sub(1) };
        let intro = intro();
        let used = ui.paragraph(body, &intro, Role::Text);
        let mut y = body.y + used + 1;
        let done = Self::done(world);
        for (n, (title, help)) in STEPS.iter().enumerate() {
            let selected = n == self.at;
            let (symbol, word) = if done[n] { ("✓", "done") } else { ("○", "to do") };
            ui.put(body.x, y, if selected { "▸" } else { " " }, Role::Accent, 1);
            let role = if selected { Role::Accent } else { Role::Text };
            ui.pieces(
                body.x + 2,
                y,
                &[(symbol, if done[n] { Role::Good } else { Role::Dim }), (&format!(" {}. {title}", n + 1), role)],
                body.width as usize,
            );
            ui.put_right(body.right(), y, word, if done[n] { Role::Good } else { Role::Dim }, 8);
            let room = Rect { x: body.x + 7, y: y + 1, width: body.width.saturating_sub(16), height: body.bottom().saturating_sub(y + 1).min(3) };
            let rows = ui.paragraph(room, help, Role::Dim);
            ui.hit(Rect::new(body.x, y, body.width, rows + 1), Hit::Row(n));
            y += rows + 2;
        }
        if y < body.bottom() {
            ui.put(
                body.x,
                body.bottom() - 1,
                "To look around first: kms-sync demo starts everything on this machine.",
                Role::Dim,
                body.width as usize,
            );
        }
    }
}

/// The introduction with the destinations' own names.
fn intro() -> String {
    let names: Vec<&str> = crate::destination::registry::ALL.iter().map(|p| p.spec().title).collect();
    let list = match names.as_slice() {
        [] => "its destinations".into(),
        [one] => (*one).to_string(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    };
    format!("Carries secrets from Hanzo KMS to {list}, and keeps them in step. Three steps lead to the first sync:")
}
