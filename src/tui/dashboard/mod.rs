//! The dashboard: the table of syncs and the details of the selected one. State and keys are
//! here, drawing in [`table`] and [`detail`].

pub mod detail;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use crossterm::event::KeyEvent;

use super::actions;
use super::app::Page;
use super::connections::list::Connections;
use super::form::line::Line;
use super::form::picker::fuzzy;
use super::fx::{Call, Effect, Fx, Level, Load, Move, Reply, Ticket};
use super::keys::{Action, Context};
use super::modal::{Modal, Question, Verdict, scrolled};
use super::panes::engine::EnginePane;
use super::panes::log::LogPane;
use super::ui::Hit;
use super::words;
use super::world::World;
use crate::destination::registry;
use crate::model::Time;
use crate::model::board::{Card, Event};
use crate::model::run::{RunKind, RunRecord, RunStatus};
use crate::model::sync::SyncDoc;
use crate::service::Priority;

/// The details follow the cursor once it rests this long, so that moving costs a few bytes.
const REST_MS: i64 = 150;
/// Runs of the history pane.
const HISTORY: usize = 60;

/// How the table is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    #[default]
    Status,
    Name,
    Destination,
    Last,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Status => Self::Name,
            Self::Name => Self::Destination,
            Self::Destination => Self::Last,
            Self::Last => Self::Status,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Name => "name",
            Self::Destination => "destination",
            Self::Last => "last synced",
        }
    }
}

/// The tabs of the details.
pub const TABS: [&str; 4] = ["overview", "live", "secrets", "history"];

/// The dashboard's state.
#[derive(Default)]
pub struct Dashboard {
    /// Names in the order shown. Rows keep their place while runs come and go.
    pub order: Vec<String>,
    pub selected: Option<String>,
    pub marked: BTreeSet<String>,
    pub filter: Line,
    pub filtering: bool,
    pub sort: Sort,
    pub tab: usize,
    pub zoom: bool,
    /// Whose details are shown.
    pub shown: Option<String>,
    rest: Option<Time>,
    pub history: Load<Vec<RunRecord>>,
    pub document: Load<SyncDoc>,
    /// Documents of the other syncs, as they were last seen or fetched in advance.
    known: BTreeMap<String, SyncDoc>,
    ahead: Option<Ticket>,
    /// First line of the details.
    pub scroll: usize,
    /// First row of the table, kept by the drawing.
    pub top: std::cell::Cell<usize>,
}

impl Dashboard {
    pub fn contexts(&self) -> Vec<Context> {
        if self.filtering { vec![Context::Filter] } else { vec![Context::Dashboard, Context::List] }
    }

    pub fn captures(&self) -> bool {
        self.filtering
    }

    fn card<'w>(&self, world: &'w World) -> Option<&'w Card> {
        world.board.cards.get(self.selected.as_deref()?)
    }

    /// When the cursor will have rested, for the drawing to wake then.
    pub fn resting(&self) -> Option<Time> {
        self.rest
    }

    pub fn can(&self, action: Action, world: &World) -> bool {
        use Action as A;
        let card = self.card(world);
        let targets = self.targets(world);
        match action {
            A::Approve => card.is_some_and(|c| c.run.is_none() && c.last.as_ref().is_some_and(|l| l.status == RunStatus::NeedsApproval)),
            A::Cancel => targets.iter().any(|c| c.run.is_some()),
            A::SyncNow | A::Verify => targets.iter().any(|c| c.run.is_none() && c.broken.is_none()),
            A::Plan | A::Import | A::Edit | A::Duplicate => card.is_some_and(|c| c.broken.is_none()),
            A::Remove | A::Delete | A::Auto | A::Toggle | A::Copy => card.is_some(),
            A::Enter | A::Tab1 | A::Tab2 | A::Tab3 | A::Tab4 | A::Next | A::Previous => card.is_some() || self.filtering,
            A::Back => self.filtering || self.zoom || !self.filter.is_empty() || !self.marked.is_empty(),
            A::Sort | A::Filter => world.board.cards.len() > 1,
            _ => true,
        }
    }

    /// The marked syncs, or the selected one.
    fn targets<'w>(&self, world: &'w World) -> Vec<&'w Card> {
        if self.marked.is_empty() {
            return self.card(world).into_iter().collect();
        }
        self.marked.iter().filter_map(|n| world.board.cards.get(n)).collect()
    }

    fn names(&self, world: &World, keep: impl Fn(&Card) -> bool) -> Vec<String> {
        self.targets(world).into_iter().filter(|c| keep(c)).map(|c| c.name.clone()).collect()
    }

    pub fn act(&mut self, action: Action, world: &mut World, fx: &mut Fx) {
        use Action as A;
        if self.filtering {
            return self.act_in_filter(action, world);
        }
        match action {
            A::Up | A::Down | A::PageUp | A::PageDown | A::Top | A::Bottom => self.scroll_by(action, world),
            A::Enter => self.zoom = true,
            A::Back if self.zoom => (self.zoom, self.scroll) = (false, 0),
            A::Back => {
                self.filter.set("");
                self.marked.clear();
                self.arrange(world);
            }
            A::Filter => {
                self.filtering = true;
                self.zoom = false;
            }
            A::Toggle => self.toggle(),
            A::Sort => {
                self.sort = self.sort.next();
                self.arrange(world);
            }
            A::Next => self.go_tab((self.tab + 1) % TABS.len(), fx),
            A::Previous => self.go_tab((self.tab + TABS.len() - 1) % TABS.len(), fx),
            A::Tab1 => self.go_tab(0, fx),
            A::Tab2 => self.go_tab(1, fx),
            A::Tab3 => self.go_tab(2, fx),
            A::Tab4 => self.go_tab(3, fx),
            A::Copy => {
                if let Some(name) = &self.selected {
                    fx.effect(Effect::Copy(name.clone()));
                    fx.toast(Level::Info, format!("copied {name}"));
                }
            }
            A::Refresh => {
                fx.moves.push(Move::Refresh);
                self.arrange(world);
                self.show_selected(fx);
            }
            A::New => fx.moves.push(Move::NewSync),
            A::Connections => fx.push(Page::Connections(Connections::default())),
            A::Log => fx.push(Page::Log(LogPane::default())),
            A::Engine => fx.push(Page::Engine(EnginePane::default())),
            A::Pause => fx.moves.push(Move::Do(Verdict::Pause(!world.board.engine.paused))),
            _ => self.act_on_syncs(action, world, fx),
        }
    }

    fn act_on_syncs(&mut self, action: Action, world: &World, fx: &mut Fx) {
        let Some(card) = self.card(world) else {
            return;
        };
        let name = card.name.clone();
        let mut order = |verdict| fx.moves.push(Move::Do(verdict));
        match action {
            Action::SyncNow | Action::Verify => {
                let syncs = self.names(world, |c| c.run.is_none() && c.broken.is_none());
                order(Verdict::Start { syncs, kind: RunKind::Sync, verify: action == Action::Verify, priority: None });
                self.tab = if self.tab == 0 { 1 } else { self.tab };
            }
            Action::Plan => order(Verdict::Plan(name)),
            Action::Edit => order(Verdict::Edit { sync: name, copy: false }),
            Action::Duplicate => order(Verdict::Edit { sync: name, copy: true }),
            Action::Auto => {
                let on = !card.enabled;
                order(Verdict::Enable { syncs: self.names(world, |c| c.enabled != on), on });
            }
            Action::Approve => order(Verdict::AskApproval(name)),
            Action::Cancel => {
                for card in self.targets(world) {
                    if let Some(run) = &card.run {
                        order(Verdict::Cancel { sync: card.name.clone(), run: run.id.clone() });
                    }
                }
            }
            Action::Import => ask_import(card, fx),
            Action::Remove => {
                let cards: Vec<(String, String, Option<u64>)> = self
                    .targets(world)
                    .into_iter()
                    .map(|c| {
                        let keys = c.last.as_ref().filter(|l| l.kind == RunKind::Sync && l.status == RunStatus::Succeeded);
                        let held = keys.map(|l| l.counts.unchanged + l.counts.created + l.counts.updated + l.counts.restored);
                        (c.name.clone(), c.destination_label.clone(), held)
                    })
                    .collect();
                let left = self.document.value.as_ref().filter(|d| cards.len() == 1 && d.name == cards[0].0).and_then(|d| d.left_behind);
                fx.ask(actions::ask_remove(&cards, left, &self.names(world, |c| c.enabled)));
            }
            Action::Delete => fx.ask(actions::ask_delete(self.names(world, |_| true))),
            _ => {}
        }
    }

    fn act_in_filter(&mut self, action: Action, world: &World) {
        self.filtering = false;
        if action == Action::Back {
            self.filter.set("");
        }
        self.arrange(world);
    }

    pub fn text(&mut self, key: &KeyEvent, world: &World) {
        if self.filtering && self.filter.key(key) {
            self.arrange(world);
        }
    }

    pub fn paste(&mut self, text: &str, world: &World) {
        if self.filtering {
            self.filter.insert(text);
            self.arrange(world);
        }
    }

    pub fn click(&mut self, hit: &Hit, world: &World) -> bool {
        match hit {
            Hit::Row(n) => {
                if let Some(name) = self.order.get(*n).cloned() {
                    self.move_to(name, world);
                }
            }
            Hit::Tab(n) => (self.tab, self.scroll) = (*n, 0),
            _ => {}
        }
        false
    }

    fn toggle(&mut self) {
        let Some(name) = self.selected.clone() else {
            return;
        };
        if !self.marked.remove(&name) {
            self.marked.insert(name);
        }
    }

    fn go_tab(&mut self, tab: usize, fx: &mut Fx) {
        (self.tab, self.scroll) = (tab, 0);
        if self.shown != self.selected {
            self.show_selected(fx);
        }
    }

    fn scroll_by(&mut self, action: Action, world: &World) {
        if self.zoom {
            // The drawing stops at the last line.
            return scrolled(&mut self.scroll, action, 4000);
        }
        let mut at = self.selected.as_ref().and_then(|s| self.order.iter().position(|n| n == s)).unwrap_or(0);
        scrolled(&mut at, action, self.order.len());
        if let Some(name) = self.order.get(at).cloned() {
            self.move_to(name, world);
        }
    }

    fn move_to(&mut self, name: String, world: &World) {
        if self.selected.as_ref() != Some(&name) {
            self.selected = Some(name);
            self.rest = world.now.checked_add(jiff::SignedDuration::from_millis(REST_MS)).ok();
        }
    }

    /// Puts the cursor on a sync and shows it at once.
    pub fn select(&mut self, name: &str, world: &World) {
        self.filter.set("");
        self.arrange(world);
        self.selected = Some(name.to_string());
        self.rest = Some(world.now);
    }

    /// Back from a wizard: the live pane of this sync.
    pub fn land(&mut self, name: &str, world: &World) {
        self.select(name, world);
        self.tab = 1;
    }

    fn show_selected(&mut self, fx: &mut Fx) {
        self.rest = None;
        self.scroll = 0;
        if self.shown != self.selected {
            self.history.clear(fx);
            if let (Some(name), Some(doc)) = (&self.shown, self.document.value.take()) {
                self.known.insert(name.clone(), doc);
            }
            self.document.clear(fx);
            // What was seen before is drawn at once: a pane that empties and fills costs a screen of bytes.
            self.document.value = self.selected.as_ref().and_then(|n| self.known.remove(n));
        }
        self.shown.clone_from(&self.selected);
        if let Some(name) = self.shown.clone() {
            self.history.ask(fx, Call::History { name: name.clone(), limit: HISTORY });
            self.document.ask(fx, Call::Sync { name });
        }
    }

    /// A moment that was waited for: the cursor may have rested.
    pub fn tick(&mut self, world: &mut World, fx: &mut Fx) {
        if self.rest.is_some_and(|at| at <= world.now) {
            self.show_selected(fx);
        }
    }

    /// A fresh picture.
    pub fn board(&mut self, world: &mut World, fx: &mut Fx) {
        self.arrange(world);
        self.ahead = Some(fx.call(Call::Syncs));
        self.show_selected(fx);
    }

    /// A change of the picture.
    pub fn event(&mut self, event: &Event, world: &mut World, fx: &mut Fx) {
        match event {
            Event::Card { card } => {
                let known = self.order.contains(&card.name);
                if !known || self.needs_move(card, world) {
                    self.arrange(world);
                }
                if self.shown.as_ref() == Some(&card.name) && card.run.is_none() {
                    self.document.ask(fx, Call::Sync { name: card.name.clone() });
                }
                if self.selected == self.shown.clone().or(self.selected.clone()) && self.shown.is_none() {
                    self.show_selected(fx);
                }
            }
            Event::Gone { name } => {
                self.known.remove(name);
                self.marked.remove(name);
                let at = self.order.iter().position(|n| n == name).unwrap_or(0);
                self.order.retain(|n| n != name);
                if self.selected.as_ref() == Some(name) {
                    self.selected = self.order.get(at).or(self.order.last()).cloned();
                    self.show_selected(fx);
                }
            }
            Event::Finished { sync, .. } => {
                if self.sort == Sort::Status {
                    self.arrange(world);
                }
                if self.shown.as_ref() == Some(sync) {
                    self.history.ask(fx, Call::History { name: sync.clone(), limit: HISTORY });
                    self.document.ask(fx, Call::Sync { name: sync.clone() });
                }
            }
            _ => {}
        }
    }

    fn needs_move(&self, card: &Card, world: &World) -> bool {
        self.sort == Sort::Status && card.run.is_none() && words::of_card(card).rank < 2 && self.filter.is_empty() && {
            let above = self.order.iter().position(|n| *n == card.name).unwrap_or(0);
            self.order[..above].iter().any(|n| world.board.cards.get(n).is_some_and(|c| words::of_card(c).rank > 1))
        }
    }

    pub fn reply(&mut self, ticket: Ticket, reply: Reply) {
        match reply {
            Reply::History(answer) if self.history.awaits(ticket) => self.history.take(answer),
            Reply::Sync(answer) if self.document.awaits(ticket) => self.document.take(answer),
            Reply::Syncs(Ok(docs)) if self.ahead == Some(ticket) => {
                self.known = docs.into_iter().map(|d| (d.name.clone(), d)).collect();
                if let (None, Some(name)) = (&self.document.value, &self.shown) {
                    self.document.value = self.known.remove(name);
                }
            }
            _ => {}
        }
    }

    /// Filters and sorts anew, keeping the cursor on its sync.
    pub fn arrange(&mut self, world: &World) {
        let cards: Vec<&Card> = world.board.cards.values().collect();
        let texts: Vec<String> = cards.iter().map(|c| format!("{} {} {}", c.name, c.destination_label, c.source_label)).collect();
        let filtered = !self.filter.text().trim().is_empty();
        let mut hits: Vec<&Card> = fuzzy(self.filter.text(), texts.iter().map(String::as_str)).into_iter().map(|i| cards[i]).collect();
        if !filtered || self.sort != Sort::Status {
            match self.sort {
                Sort::Status => hits.sort_by_key(|c| (words::of_card(c).rank, c.name.clone())),
                Sort::Name => hits.sort_by_key(|c| c.name.clone()),
                Sort::Destination => hits.sort_by_key(|c| (c.destination_label.clone(), c.name.clone())),
                Sort::Last => hits.sort_by_key(|c| (std::cmp::Reverse(c.last.as_ref().map(|l| l.at)), c.name.clone())),
            }
        }
        self.order = hits.into_iter().map(|c| c.name.clone()).collect();
        self.marked.retain(|n| world.board.cards.contains_key(n));
        if self.selected.as_ref().is_none_or(|s| !self.order.contains(s)) {
            self.selected = self.order.first().cloned();
            self.rest = Some(world.now);
        }
    }
}

fn ask_import(card: &Card, fx: &mut Fx) {
    let Some(spec) = registry::find(&card.destination).map(|p| p.spec()) else {
        return;
    };
    if let Some(refusal) = spec.import_note {
        return fx.toast(Level::Warn, refusal);
    }
    let start = |priority| Verdict::Start { syncs: vec![card.name.clone()], kind: RunKind::Import, verify: false, priority: Some(priority) };
    let lines = vec![
        format!("Secrets of {} that match the key schema are written into Hanzo KMS at {}.", card.destination_label, card.source_label),
        "Where both sides hold a key with different values, one of them wins:".into(),
    ];
    let question = Question::new(format!("Import secrets for {}?", card.name), lines, "Do not import")
        .button("Hanzo KMS wins", start(Priority::Source))
        .button(format!("{} wins", spec.short), start(Priority::Destination));
    fx.ask(Modal::Question(question));
}
