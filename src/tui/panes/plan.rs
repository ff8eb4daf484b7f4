//! The plan of a stored sync: what a run would do, with the way to start it.

use crossterm::event::KeyEvent;
use ratatui::layout::Rect;

use crate::model::board::Waiting;
use crate::model::plan::PlanDoc;
use crate::model::run::RunKind;
use crate::service::PlanTarget;
use crate::tui::form::line::Line;
use crate::tui::fx::{Call, Fx, Load, Move, Reply, Ticket};
use crate::tui::keys::{Action, Context};
use crate::tui::modal::{Verdict, scrolled};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::ui::Ui;
use crate::tui::wizard::review_view::{READING, draw_asking, draw_rows, plan_rows, totals};
use crate::tui::world::World;

/// The pane's state.
pub struct PlanPane {
    sync: String,
    verify: bool,
    plan: Load<PlanDoc>,
    /// What the plan waits for, as the engine tells it.
    waiting: Option<Waiting>,
    scroll: usize,
    filter: Line,
    filtering: bool,
}

impl PlanPane {
    /// Asks for the plan at once.
    pub fn new(sync: &str, fx: &mut Fx) -> Self {
        let mut pane =
            Self { sync: sync.into(), verify: false, plan: Load::default(), waiting: None, scroll: 0, filter: Line::default(), filtering: false };
        pane.ask(fx);
        pane
    }

    fn ask(&mut self, fx: &mut Fx) {
        self.waiting = None;
        self.plan.ask(fx, Call::Plan { target: PlanTarget::Stored { name: self.sync.clone() }, verify: self.verify });
    }

    /// Something waits, or goes on: perhaps this plan.
    pub fn waits(&mut self, sync: &str, waiting: Option<&Waiting>) {
        if self.plan.busy() && sync == self.sync {
            self.waiting = waiting.cloned();
        }
    }

    /// Abandons what is still asked for.
    pub fn leave(&mut self, fx: &mut Fx) {
        self.plan.give_up(fx);
    }

    /// A run of this sync has ended: what it changed is no longer to be done.
    pub fn finished(&mut self, sync: &str, fx: &mut Fx) {
        if sync == self.sync {
            self.ask(fx);
        }
    }

    pub fn contexts(&self) -> Vec<Context> {
        if self.filtering { vec![Context::Filter] } else { vec![Context::Plan, Context::List] }
    }

    pub fn captures(&self) -> bool {
        self.filtering
    }

    pub fn can(&self, action: Action) -> bool {
        match action {
            Action::Approve => self.plan.value.as_ref().is_some_and(|p| !p.needs_approval.is_empty()),
            Action::Filter => self.plan.value.as_ref().is_some_and(|p| p.changes.len() + p.skipped.len() > 1),
            Action::SyncNow => self.plan.value.is_some(),
            _ => true,
        }
    }

    pub fn act(&mut self, action: Action, _world: &mut World, fx: &mut Fx) {
        if self.filtering {
            self.filtering = false;
            if action == Action::Back {
                self.filter.set("");
            }
            return;
        }
        match action {
            Action::Back if !self.filter.is_empty() => self.filter.set(""),
            Action::Back => fx.pop(),
            Action::Refresh => self.ask(fx),
            Action::Verify => {
                self.verify = true;
                self.ask(fx);
            }
            Action::Filter => self.filtering = true,
            Action::Approve => fx.moves.push(Move::Do(Verdict::AskApproval(self.sync.clone()))),
            Action::SyncNow => {
                let verdict = Verdict::Start { syncs: vec![self.sync.clone()], kind: RunKind::Sync, verify: self.verify, priority: None };
                fx.moves.push(Move::Do(verdict));
                fx.moves.push(Move::Land(self.sync.clone()));
            }
            _ => scrolled(&mut self.scroll, action, 5000),
        }
    }

    pub fn text(&mut self, key: &KeyEvent) {
        if self.filtering {
            self.filter.key(key);
            self.scroll = 0;
        }
    }

    pub fn paste(&mut self, text: &str) {
        if self.filtering {
            self.filter.insert(text);
        }
    }

    pub fn reply(&mut self, ticket: Ticket, reply: Reply) -> Option<Reply> {
        match reply {
            Reply::Plan(answer) if self.plan.awaits(ticket) => {
                self.plan.take(answer);
                None
            }
            other => Some(other),
        }
    }

    /// Draws into the work area.
    pub fn draw(&self, ui: &mut Ui<'_>, _world: &World, area: Rect) {
        let note = self.plan.value.as_ref().map(|p| totals(p, (area.width as usize).saturating_sub(self.sync.len() + 10))).unwrap_or_default();
        let inside = ui.frame(area, &format!("Plan of {}", self.sync), &note);
        let body = Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside };
        if self.plan.busy() {
            let what = if self.verify { "reading both sides in full, nothing is written …" } else { READING };
            return draw_asking(ui, what, self.plan.since(), self.waiting.as_ref(), body);
        }
        if let Some(error) = &self.plan.error {
            let used = ui.paragraph(body, &format!("✗ {}", error.message), Role::Bad);
            ui.put(body.x, body.y + used, "r plans again", Role::Dim, body.width as usize);
            return;
        }
        let Some(plan) = &self.plan.value else { return };
        self.draw_plan(ui, plan, body);
    }

    fn draw_plan(&self, ui: &mut Ui<'_>, plan: &PlanDoc, body: Rect) {
        let sides = format!(
            "source {}{}  destination {}{}  {} requests",
            text::count(plan.source.secrets, "secret", "secrets"),
            if plan.source.complete { "" } else { " (incomplete: nothing is deleted)" },
            text::count(plan.destination.keys, "key", "keys"),
            if plan.destination.complete { "" } else { " (incomplete)" },
            plan.requests.total
        );
        ui.put(body.x, body.y, &sides, Role::Dim, body.width as usize);
        let mut y = body.y + 1;
        if self.filtering || !self.filter.is_empty() {
            let (shown, column) = self.filter.view(body.width.saturating_sub(2) as usize);
            ui.pieces(body.x, y, &[("/", Role::Accent), (&shown, Role::Text)], body.width as usize);
            if self.filtering {
                ui.cursor(body.x + 1 + column as u16, y);
            }
            y += 1;
        }
        for warning in &plan.warnings {
            let room = Rect { y, height: body.bottom().saturating_sub(y).min(2), ..body };
            y += ui.paragraph(room, &format!("! {warning}"), Role::Warn);
        }
        let mut rows = plan_rows(plan, body.width as usize);
        if !self.filter.is_empty() {
            let texts: Vec<String> = rows.iter().map(|r| r.iter().map(|(t, _)| t.as_str()).collect()).collect();
            let hits = crate::tui::form::picker::fuzzy(self.filter.text(), texts.iter().map(String::as_str));
            let mut keep: Vec<usize> = hits;
            keep.sort_unstable();
            rows = keep.into_iter().map(|i| rows[i].clone()).collect();
        }
        if rows.is_empty() {
            let text = if self.filter.is_empty() { "✓ Nothing to change: both sides agree." } else { "Nothing matches: Esc clears the filter." };
            ui.put(body.x, y, text, Role::Good, body.width as usize);
        }
        draw_rows(ui, &rows, self.scroll, Rect { y, height: body.bottom().saturating_sub(y), ..body });
    }
}
