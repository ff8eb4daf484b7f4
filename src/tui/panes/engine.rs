//! The engine as a whole: what runs, what is queued, requests a second, rate budgets, and the
//! checks of `doctor`.

use ratatui::layout::Rect;

use crate::model::Finding;
use crate::tui::fx::{Call, Fx, Load, Move, Reply, Ticket};
use crate::tui::keys::Action;
use crate::tui::modal::{Verdict, scrolled};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::Ui;
use crate::tui::wizard::review_view::{Row, draw_rows};
use crate::tui::words;
use crate::tui::world::World;

/// Cells of a sync's name in the list of runs.
const NAME: usize = 25;

/// Cells of a fact's label.
const LABEL: usize = 11;

/// The pane's state.
#[derive(Default)]
pub struct EnginePane {
    doctor: Load<Vec<Finding>>,
    scroll: usize,
}

impl EnginePane {
    pub fn act(&mut self, action: Action, world: &mut World, fx: &mut Fx) {
        match action {
            Action::Back => fx.pop(),
            Action::Pause => fx.moves.push(Move::Do(Verdict::Pause(!world.board.engine.paused))),
            Action::Doctor => self.doctor.ask(fx, Call::Doctor),
            _ => scrolled(&mut self.scroll, action, 1000),
        }
    }

    pub fn reply(&mut self, ticket: Ticket, reply: Reply) -> Option<Reply> {
        match reply {
            Reply::Findings(answer) if self.doctor.awaits(ticket) => {
                self.doctor.take(answer);
                None
            }
            other => Some(other),
        }
    }

    /// Draws into the work area.
    pub fn draw(&self, ui: &mut Ui<'_>, world: &World, area: Rect) {
        let inside = ui.frame(area, "Engine", "");
        let body = Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside };
        let rows = self.rows(ui, world, body.width as usize);
        draw_rows(ui, &rows, self.scroll, body);
    }

    fn rows(&self, ui: &mut Ui<'_>, world: &World, width: usize) -> Vec<Row> {
        let mut rows = facts(ui, world, width);
        rows.push(Vec::new());
        if self.doctor.busy() {
            rows.push(vec![(format!("{} checking …", ui.spinner()), Role::Warn)]);
        } else if let Some(error) = &self.doctor.error {
            rows.push(vec![(format!("✗ {}", error.message), Role::Bad)]);
        } else if self.doctor.untouched() {
            rows.push(vec![("r checks directories, permissions, connections and clocks".into(), Role::Dim)]);
        }
        for finding in self.doctor.value.iter().flatten() {
            let (symbol, role) = if finding.ok { ("✓ ", Role::Good) } else { ("✗ ", Role::Bad) };
            rows.push(vec![(symbol.into(), role), (format!("{}: {}", finding.what, finding.detail), Role::Text)]);
            if let Some(fix) = &finding.fix {
                rows.extend(text::wrap(fix, width.saturating_sub(4)).into_iter().map(|l| vec![(format!("    {l}"), Role::Warn)]));
            }
        }
        rows
    }
}

/// What the engine is at: where it runs, what runs, what each run does or waits for, requests and
/// budgets, in at most `width` cells.
pub fn facts(ui: &mut Ui<'_>, world: &World, width: usize) -> Vec<Row> {
    let facts = &world.board.engine;
    let mut rows: Vec<Row> = Vec::new();
    let place = if facts.attached { "in another process (kms-sync run); this terminal is attached to it" } else { "in this process" };
    rows.push(fact("Engine", place.into(), Role::Text));
    let paused = if facts.paused { ("‖ paused: no sync starts by itself (P resumes)", Role::Warn) } else { ("✓ on", Role::Good) };
    rows.push(fact("Auto-sync", paused.0.into(), paused.1));
    let standing = if facts.standing > 0 { format!(", {} waiting (keeping no other back)", facts.standing) } else { String::new() };
    rows.push(fact("Runs", format!("{} running, {} queued{standing}", facts.running, facts.queued), Role::Text));
    // First what an operator may have to act on.
    for card in world.board.cards.values() {
        let Some(run) = &card.run else { continue };
        let status = words::of_card(card);
        let room = width.saturating_sub(NAME + text::width(&status.word) + 2);
        let waits = match &run.waiting {
            Some(w) => ui.wait(&w.reason, w.until, room),
            None => words::phase_sentence(run.phase).to_string(),
        };
        let name = text::pad(&format!("{} {}", status.symbol, crate::model::text::sanitise(&card.name)), NAME - 1);
        rows.push(vec![(name + " ", status.role), (format!("{}: {waits}", status.word), Role::Text)]);
    }
    if facts.rates.is_empty() {
        rows.push(fact("Requests", "none in the last seconds".into(), Role::Dim));
    }
    let rates: Vec<String> = facts.rates.iter().map(|(service, rate)| format!("{service} {rate:.1}/s")).collect();
    for (i, line) in text::wrap(&rates.join(", "), width.saturating_sub(LABEL)).into_iter().filter(|l| !l.is_empty()).enumerate() {
        rows.push(fact(if i == 0 { "Requests" } else { "" }, line, Role::Text));
    }
    for (i, (connection, budget)) in facts.budgets.iter().enumerate() {
        rows.push(fact(if i == 0 { "Budgets" } else { "" }, format!("{} {budget}", text::pad(connection, 16)), Role::Text));
    }
    rows
}

fn fact(label: &str, said: String, role: Role) -> Row {
    vec![(text::pad(label, LABEL), Role::Dim), (said, role)]
}
