//! The wizard: destination, then the five steps Source, Destination, Sync Options, Details and
//! Review, with the dashboard's fields and words. Drawn from the destinations' forms; no
//! destination is named here. Editing and duplicating walk the same steps.

pub mod document;
pub mod draft;
pub mod pickers;
pub mod review;
pub mod review_view;
pub mod steps;
pub mod view;

use crossterm::event::KeyEvent;
use serde_json::Value;

use super::app::Page;
use super::connections::edit::Edit;
use super::form::{Form, FormEvent};
use super::fx::{Call, Effect, Fx, Level, Load, Move, Reply, Ticket};
use super::keys::{Action, Context};
use super::modal::{Decision, Modal, Question, Verdict, scrolled};
use super::theme::Role;
use super::ui::Hit;
use super::world::World;
use crate::destination::{Provider, TestReport, registry};
use crate::model::Map;
use crate::model::connection::ConnectionView;
use crate::source::Project;
use review::Review;

/// The steps' names, as the dashboard writes them.
pub const STEPS: [&str; 5] = ["Source", "Destination", "Sync Options", "Details", "Review"];
/// The value of the row that opens the connection form.
pub const NEW: &str = "\u{1}new";
const REVIEW: usize = 4;
/// How the notice of a target's failed test begins.
const TARGET_FAILED: &str = "Destination: ";

/// A sync being written.
pub struct Wizard {
    /// `None` while the destination is being chosen.
    pub provider: Option<&'static dyn Provider>,
    /// The kind whose forms are laid out, also while another one is being chosen.
    laid_out: Option<&'static str>,
    pub choose_at: usize,
    /// An index into [`STEPS`].
    pub step: usize,
    /// The furthest step reached.
    pub reached: usize,
    /// Source, Destination, Sync Options, Details.
    pub forms: [Form; 4],
    /// The stored sync that is edited.
    pub replaces: Option<String>,
    /// Members that the forms do not show, kept from the edited document.
    pub base: Value,
    pub dirty: bool,
    pub projects: Vec<Project>,
    /// The connection's test, with the target where the Destination step names one, and what
    /// was tested last.
    pub test: Load<TestReport>,
    tested: Option<String>,
    pub review: Review,
}

impl Wizard {
    /// A fresh one, at the choice of the destination.
    pub fn new(world: &World) -> Self {
        // What is connected already is the likelier wish.
        let connected = registry::ALL.iter().position(|p| !world.connections_of(p.spec().app.app).is_empty());
        Self {
            provider: None,
            laid_out: None,
            choose_at: connected.unwrap_or(0),
            step: 0,
            reached: 0,
            forms: Default::default(),
            replaces: None,
            base: Value::Object(Default::default()),
            dirty: false,
            projects: Vec::new(),
            test: Load::default(),
            tested: None,
            review: Review::default(),
        }
    }

    /// One that edits a stored sync, or starts from a copy of it. `None` when its kind is unknown.
    pub fn from_document(document: &Value, sync: &str, copy: bool, world: &World, fx: &mut Fx) -> Option<Self> {
        let kind = document.get("destination")?.as_str()?;
        let mut wizard = Self::new(world);
        wizard.choose(registry::find(kind)?, world, fx);
        wizard.base = document.clone();
        wizard.fill(document);
        if copy {
            if let Some(name) = wizard.forms[3].item_mut("name") {
                name.set(&format!("{sync}-copy"));
            }
            wizard.dirty = true;
        } else {
            wizard.replaces = Some(sync.to_string());
        }
        wizard.reached = REVIEW;
        wizard.connections_changed(world, fx);
        wizard.validate(world);
        Some(wizard)
    }

    /// Takes a destination and lays out its forms; what was filled in for the source stays.
    fn choose(&mut self, provider: &'static dyn Provider, world: &World, fx: &mut Fx) {
        let kind = provider.spec().kind;
        let before = self.laid_out.replace(kind);
        if before.is_none() {
            self.forms[0] = steps::source();
            self.forms[3] = steps::details();
        }
        if before != Some(kind) {
            self.forms[1] = steps::destination(provider.spec());
            self.forms[2] = steps::options(provider.spec());
            self.base = Value::Object(Default::default());
            self.test.clear(fx);
            self.tested = None;
            self.reached = 0;
        }
        self.provider = Some(provider);
        self.connections_changed(world, fx);
        self.enter(0, world, fx);
    }

    pub fn contexts(&self) -> Vec<Context> {
        if self.provider.is_none() {
            return vec![Context::Choose, Context::List];
        }
        if self.step == REVIEW {
            return vec![Context::Review, Context::List];
        }
        if self.forms[self.step].popup.is_some() { vec![Context::Picker] } else { vec![Context::Form] }
    }

    pub fn captures(&self) -> bool {
        self.provider.is_some() && self.step < REVIEW && self.forms[self.step].captures()
    }

    pub fn can(&self, action: Action) -> bool {
        if self.provider.is_none() {
            return true;
        }
        if self.step == REVIEW {
            return self.review.can(action);
        }
        match action {
            Action::Test => self.step < 2,
            _ => self.forms[self.step].can(action),
        }
    }

    pub fn act(&mut self, action: Action, world: &mut World, fx: &mut Fx) {
        if self.provider.is_none() {
            return self.act_in_choice(action, world, fx);
        }
        if self.step == REVIEW {
            return self.act_in_review(action, world, fx);
        }
        match action {
            Action::Test => self.run_test(world, fx, true),
            Action::Reveal => {
                let form = &mut self.forms[self.step];
                if let Some(item) = form.items.get_mut(form.focus) {
                    item.revealed = world.now.checked_add(jiff::SignedDuration::from_secs(10)).ok();
                }
            }
            _ => {
                let event = self.forms[self.step].act(action);
                self.on_event(event, world, fx);
            }
        }
    }

    fn act_in_choice(&mut self, action: Action, world: &World, fx: &mut Fx) {
        match action {
            Action::Enter => {
                if let Some(provider) = registry::ALL.get(self.choose_at) {
                    self.choose(*provider, world, fx);
                }
            }
            Action::Back => self.close(fx),
            _ => scrolled(&mut self.choose_at, action, registry::ALL.len()),
        }
    }

    pub fn text(&mut self, key: &KeyEvent, world: &mut World, fx: &mut Fx) {
        if self.provider.is_some() && self.step < REVIEW {
            let event = self.forms[self.step].text(key);
            self.on_event(event, world, fx);
        }
    }

    pub fn paste(&mut self, text: &str, world: &mut World, fx: &mut Fx) {
        if self.provider.is_some() && self.step < REVIEW {
            let event = self.forms[self.step].paste(text);
            self.on_event(event, world, fx);
        }
    }

    pub fn click(&mut self, hit: &Hit) -> bool {
        if self.provider.is_none() {
            if let Hit::Row(n) = hit {
                self.choose_at = *n;
                return true;
            }
            return false;
        }
        if self.step == REVIEW {
            if let Hit::Button(n) = hit {
                self.review.at = *n;
                return true;
            }
            return false;
        }
        super::form_click(&mut self.forms[self.step], hit)
    }

    fn on_event(&mut self, event: FormEvent, world: &mut World, fx: &mut Fx) {
        match event {
            FormEvent::None | FormEvent::Press(_) => {}
            FormEvent::Changed(n) => self.changed(n, world, fx),
            FormEvent::Need { item, again } => self.need(self.step, item, again, world, fx),
            FormEvent::GaveUp(n) => self.give_up(self.step, n, fx),
            FormEvent::Submit => {
                self.validate(world);
                if !self.forms[self.step].focus_problem() {
                    if self.step == 1 {
                        self.run_test(world, fx, false);
                    }
                    self.enter(self.step + 1, world, fx);
                }
            }
            FormEvent::Back if self.step > 0 => self.enter(self.step - 1, world, fx),
            FormEvent::Back if self.replaces.is_some() || !self.base.as_object().is_none_or(|o| o.is_empty()) => self.close(fx),
            FormEvent::Back => self.provider = None,
        }
    }

    fn changed(&mut self, n: usize, world: &World, fx: &mut Fx) {
        let id = self.forms[self.step].items[n].id.clone();
        if self.forms[self.step].items[n].value() == NEW {
            // Until the new connection is stored, the one chosen before stays.
            let item = &mut self.forms[self.step].items[n];
            let (value, called) = item.before.take().unwrap_or_default();
            item.set(&value);
            item.called = called;
            let app = if id == "connectionId" { self.provider.map(|p| p.spec().app) } else { Some(&crate::source::APP) };
            if let Some(app) = app {
                fx.push(Page::Edit(Box::new(Edit::new(app))));
            }
            return;
        }
        self.dirty = true;
        let item = &mut self.forms[self.step].items[n];
        let picked = item.picks() && !item.is_empty();
        // Taking what stands there already changes nothing below.
        let same = item.before.take().is_some_and(|(value, _)| value == item.value());
        if !same {
            self.clear_dependents(&id);
            if id == "connectionId" {
                self.run_test(world, fx, false);
            } else if id.starts_with("destinationConfig.") && self.tested.take().is_some() {
                // What was found was found at another target.
                self.test.clear(fx);
                self.test = Load::default();
                self.show_test();
            }
        }
        self.validate(world);
        if picked {
            self.keep(world, fx);
        }
        // A pick is a decision: the focus goes on by itself.
        if picked && self.forms[self.step].items[n].problem.is_none() {
            let last = self.forms[self.step].items.iter().rposition(|i| !i.hidden) == Some(n);
            if !last {
                self.forms[self.step].act(Action::Next);
            }
        }
    }

    /// Goes to a step.
    fn enter(&mut self, step: usize, world: &World, fx: &mut Fx) {
        self.step = step;
        self.reached = self.reached.max(step);
        self.validate(world);
        self.keep(world, fx);
        if step == REVIEW {
            return self.begin_review(fx);
        }
        let form = &mut self.forms[step];
        let first = form.items.iter().position(|i| !i.hidden && i.is_empty() && i.required).or_else(|| form.items.iter().position(|i| !i.hidden));
        form.focus = first.unwrap_or(0);
        if step == 0 {
            // The list of projects is wanted for sure: it also names projects and environments.
            if let Some(n) = self.forms[0].position("projectId") {
                self.need(0, n, false, world, fx);
            }
        }
        if step == 1 {
            self.run_test(world, fx, false);
        }
    }

    /// Leaves, asking when edits would be lost.
    fn close(&mut self, fx: &mut Fx) {
        if !self.dirty {
            return fx.pop();
        }
        let question = match &self.replaces {
            Some(name) => {
                let stays = "The changes made here are lost; the stored sync is untouched.";
                Question::new(format!("Leave {name} as it was?"), vec![stays.into()], "Stay").button("Leave", Verdict::Discard)
            }
            None => {
                let stays = "Nothing has been created. What was filled in can wait: the next new sync asks whether to go on with it.";
                let question = Question::new("Leave without creating the sync?", vec![stays.into()], "Stay");
                question.button("Leave, keep it", Verdict::SetAside).button("Leave, forget it", Verdict::Discard)
            }
        };
        fx.ask(Modal::Question(question));
    }

    /// Abandons what is still asked for.
    pub fn leave(&mut self, fx: &mut Fx) {
        self.test.clear(fx);
        self.review.plan.clear(fx);
        self.review.check.clear(fx);
        self.review.rivals.clear(fx);
        for item in self.forms.iter_mut().flat_map(|f| &mut f.items) {
            item.choices.clear(fx);
        }
    }

    /// Tests the connection of this step, and the target once its fields are filled in; the
    /// same things once unless asked again.
    fn run_test(&mut self, world: &World, fx: &mut Fx, again: bool) {
        let name = if self.step == 0 { self.account(world) } else { Some(self.forms[1].value("connectionId")).filter(|n| !n.is_empty()) };
        let Some(name) = name else {
            return;
        };
        let at = if self.step == 1 { self.target() } else { None };
        let what = format!("{name} {}", Value::Object(at.clone().unwrap_or_default()));
        if !again && self.tested.as_ref() == Some(&what) {
            return;
        }
        self.tested = Some(what);
        self.test.clear(fx);
        let call = match at {
            Some(config) => Call::TestAt { name, config },
            None => Call::Test { name },
        };
        self.test.ask(fx, call);
        self.show_test();
    }

    /// The `destinationConfig`, when nothing of it is missing or wrong.
    fn target(&self) -> Option<Map> {
        let mut fields = self.forms[1].items.iter().filter(|i| i.id.starts_with("destinationConfig.") && !i.hidden).peekable();
        fields.peek()?;
        let complete = fields.all(|i| i.problem.is_none() && !(i.required && i.is_empty()));
        if complete { self.document().get("destinationConfig")?.as_object().cloned() } else { None }
    }

    fn show_test(&mut self) {
        let id = if self.step == 0 { "sourceConnection" } else { "connectionId" };
        let status = match (&self.test.value, &self.test.error) {
            _ if self.test.busy() => Some((Role::Warn, "◐ testing …".to_string())),
            (_, Some(_)) => Some((Role::Bad, "✗ does not work".to_string())),
            (Some(report), None) if report.identity.is_empty() => Some((Role::Good, "✓ works".to_string())),
            (Some(report), None) => Some((Role::Good, format!("✓ works: {}", report.identity))),
            (None, None) => None,
        };
        let notice = match (&self.test.value, &self.test.error) {
            (_, Some(error)) => Some((Role::Bad, error.message.clone())),
            // What was found at the target: more than who we are.
            (Some(report), None) if self.step > 0 && self.target().is_some() => report.notes.first().map(|note| (Role::Good, format!("✓ {note}"))),
            _ => None,
        };
        if let Some(item) = self.forms[self.step.min(1)].item_mut(id) {
            (item.status, item.notice) = (status, notice);
        }
    }

    /// Takes an answer; gives back what is not for this wizard.
    pub fn reply(&mut self, ticket: Ticket, reply: Reply, world: &mut World, fx: &mut Fx) -> Option<Reply> {
        match reply {
            Reply::Report(answer) if self.test.awaits(ticket) => {
                match &answer {
                    Err(error) if self.step > 1 => Self::toast(fx, Level::Bad, format!("{TARGET_FAILED}{}", error.message)),
                    Err(_) => {}
                    // What failed before is not so any more.
                    Ok(_) => world.settle(|told| told.starts_with(TARGET_FAILED)),
                }
                self.test.take(answer);
                self.show_test();
                None
            }
            Reply::Projects(_) | Reply::Choices(_) => self.take_choices(ticket, reply, world, fx),
            other => self.reply_in_review(ticket, other, world, fx),
        }
    }

    /// A connection was stored from here: take it.
    pub fn stored(&mut self, view: &ConnectionView, world: &World, fx: &mut Fx) {
        let Some(provider) = self.provider else {
            return;
        };
        let (form, id) = if view.app == provider.spec().app.app { (1, "connectionId") } else { (0, "sourceConnection") };
        if let Some(item) = self.forms[form].item_mut(id) {
            item.set(&view.name);
            item.touched = true;
        }
        self.tested = None;
        self.dirty = true;
        self.connections_changed(world, fx);
        self.clear_dependents(id);
        if self.step < 2 {
            self.run_test(world, fx, true);
            if form == 0 {
                self.enter(0, world, fx);
            }
        }
        self.validate(world);
    }

    /// What the operator decided about foreign keys of the plan.
    pub fn decided(&mut self, keys: Vec<String>, decision: Decision, fx: &mut Fx) {
        self.review.decision = Some((keys, decision));
        self.create(true, fx);
    }

    /// The title of the screen.
    pub fn title(&self) -> String {
        match (&self.replaces, self.provider) {
            (Some(name), _) => format!("Edit {name}"),
            (None, Some(p)) => format!("New sync to {}", p.spec().title),
            (None, None) => "New sync".into(),
        }
    }

    fn toast(fx: &mut Fx, level: Level, text: impl Into<String>) {
        fx.moves.push(Move::Toast(level, text.into()));
    }

    fn copy(fx: &mut Fx, text: String, what: &str) {
        fx.effect(Effect::Copy(text));
        Self::toast(fx, Level::Info, format!("copied {what}"));
    }
}
