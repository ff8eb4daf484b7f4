//! The Review step: checks the draft, fetches its plan, asks about foreign keys, and creates.

use serde_json::Value;

use super::{REVIEW, Wizard};
use crate::model::board::Waiting;
use crate::model::plan::PlanDoc;
use crate::model::run::{RunKind, Trigger};
use crate::model::sync::SyncDoc;
use crate::service::{Approval, PlanTarget, RunRequest, ServerRival, ServiceError, SyncInput};
use crate::tui::fx::{Call, Fx, Level, Load, Move, Reply, Ticket};
use crate::tui::keys::Action;
use crate::tui::modal::{self, Decision, Modal, Question, Verdict, scrolled};
use crate::tui::world::World;

/// What is being done after a button was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    #[default]
    Idle,
    Storing,
    Approving,
    Starting,
}

/// The state of the step.
#[derive(Default)]
pub struct Review {
    pub document: Value,
    pub check: Load<()>,
    pub plan: Load<PlanDoc>,
    /// What the plan waits for, as the engine tells it.
    pub waiting: Option<Waiting>,
    /// The server's own syncs on auto-sync that write to the same place.
    pub rivals: Load<Vec<ServerRival>>,
    switching: Option<Ticket>,
    /// The marked button.
    pub at: usize,
    pub scroll: usize,
    /// True while JSON, command and curl are shown.
    pub json: bool,
    pub decision: Option<(Vec<String>, Decision)>,
    pub stage: Stage,
    ticket: Option<Ticket>,
    run: bool,
    /// Why storing or starting failed.
    pub error: Option<ServiceError>,
    stored: Option<String>,
}

impl Review {
    pub fn can(&self, action: Action) -> bool {
        match action {
            Action::Enter | Action::Left | Action::Right => self.stage == Stage::Idle,
            Action::TakeOver => self.stage == Stage::Idle && self.switching.is_none() && self.rival().is_some(),
            _ => true,
        }
    }

    /// The sync of the server that is asked about next.
    pub fn rival(&self) -> Option<&ServerRival> {
        self.rivals.value.as_ref()?.first()
    }

    /// True when a button would only meet a broken rule.
    pub fn blocked(&self) -> bool {
        self.check.error.is_some()
    }
}

impl Wizard {
    /// The labels of the buttons; the first is the default.
    pub fn buttons(&self) -> [&'static str; 3] {
        // With auto-sync on the next look at the source starts it anyway.
        match (self.replaces.is_some(), self.review.document.get("isEnabled") == Some(&Value::Bool(true))) {
            (true, true) => ["Save and sync", "Save, leave it to auto-sync", "Back"],
            (true, false) => ["Save and sync", "Save, do not sync", "Back"],
            (false, true) => ["Create and sync", "Create, leave it to auto-sync", "Back"],
            (false, false) => ["Create and sync", "Create, do not sync", "Back"],
        }
    }

    pub(super) fn begin_review(&mut self, fx: &mut Fx) {
        let document = self.document();
        let same = self.review.document == document && self.review.plan.value.is_some();
        self.review.document = document;
        (self.review.at, self.review.scroll, self.review.stage, self.review.error) = (0, 0, Stage::Idle, None);
        if !same {
            self.review.decision = None;
            self.ask_plan(fx);
        }
    }

    fn input(&self) -> SyncInput {
        SyncInput { document: self.review.document.clone(), destination: self.provider.map(|p| p.spec().kind.to_string()) }
    }

    fn ask_plan(&mut self, fx: &mut Fx) {
        let input = self.input();
        let replaces = self.replaces.clone();
        let target = PlanTarget::Draft { document: input.document.clone(), replaces: replaces.clone() };
        self.review.check.ask(fx, Call::Check { input, replaces });
        (self.review.plan.value, self.review.waiting) = (None, None);
        self.review.plan.ask(fx, Call::Plan { target: target.clone(), verify: false });
        self.review.rivals.clear(fx);
        // Without auto-sync here the two engines do not fight.
        if self.review.document.get("isEnabled") == Some(&Value::Bool(true)) {
            self.review.rivals.ask(fx, Call::ServerRivals { target });
        }
    }

    /// Asks whether the server's own sync is to be switched off.
    fn ask_take_over(&self, fx: &mut Fx) {
        let Some(rival) = self.review.rival() else { return };
        let lines = vec![rival.text.clone(), "What it wrote stays, and it can be switched on again in the dashboard.".to_string()];
        let question = Question::new("Switch auto-sync off at the KMS server?", lines, "Leave it on");
        fx.ask(Modal::Question(question.button("Switch it off", Verdict::TakeOver(rival.sync.id.clone()))));
    }

    /// Switches a sync of the server's own off.
    pub fn take_over(&mut self, id: String, fx: &mut Fx) {
        let target = PlanTarget::Draft { document: self.review.document.clone(), replaces: self.replaces.clone() };
        self.review.switching = Some(fx.call(Call::SwitchOffRival { target, id }));
    }

    fn on_switched(&mut self, answer: Result<ServerRival, ServiceError>, fx: &mut Fx) {
        self.review.switching = None;
        match answer {
            Ok(done) => {
                if let Some(rivals) = &mut self.review.rivals.value {
                    rivals.retain(|r| r.sync.id != done.sync.id);
                }
                let runs = if done.sync.running { "; its run that is queued or going goes on to its end" } else { "" };
                Self::toast(fx, Level::Good, format!("auto-sync of {} is off at the KMS server{runs}", done.sync.name));
            }
            Err(error) => self.review.error = Some(error),
        }
    }

    pub(super) fn act_in_review(&mut self, action: Action, world: &World, fx: &mut Fx) {
        match action {
            Action::Left => self.review.at = self.review.at.saturating_sub(1),
            Action::Right => self.review.at = (self.review.at + 1) % 3,
            Action::Json => (self.review.json, self.review.scroll) = (!self.review.json, 0),
            Action::Refresh => self.ask_plan(fx),
            Action::TakeOver => self.ask_take_over(fx),
            Action::Copy => {
                let text = serde_json::to_string_pretty(&self.review.document).unwrap_or_default();
                Self::copy(fx, text, "the JSON");
            }
            Action::Back if self.review.json => (self.review.json, self.review.scroll) = (false, 0),
            Action::Back if self.review.stage != Stage::Idle => {}
            Action::Back => self.leave_review(world, fx),
            Action::Enter => match self.review.at {
                0 => self.create(true, fx),
                1 => self.create(false, fx),
                _ => self.leave_review(world, fx),
            },
            _ => scrolled(&mut self.review.scroll, action, 5000),
        }
    }

    /// Back to the forms. What is asked of the document as it was is waited for no longer.
    fn leave_review(&mut self, world: &World, fx: &mut Fx) {
        self.review.plan.give_up(fx);
        self.review.check.give_up(fx);
        self.review.rivals.give_up(fx);
        self.enter(REVIEW - 1, world, fx);
    }

    /// Something waits, or goes on: perhaps the plan.
    pub fn waits(&mut self, sync: &str, waiting: Option<&Waiting>) {
        if self.review.plan.busy() && self.forms[3].value("name").eq_ignore_ascii_case(sync) {
            self.review.waiting = waiting.cloned();
        }
    }

    /// Stores the sync and, when `run`, starts it; asks first about keys it did not write.
    pub(super) fn create(&mut self, run: bool, fx: &mut Fx) {
        if self.review.blocked() {
            return Self::toast(fx, Level::Warn, "Some fields need another look first: Esc goes back to them");
        }
        if run && self.review.plan.busy() && self.review.decision.is_none() {
            return Self::toast(fx, Level::Info, "The plan is still being made: it tells what a first sync would delete");
        }
        if run
            && self.review.decision.is_none()
            && let Some(plan) = self.review.plan.value.as_ref().filter(|p| !p.needs_approval.is_empty())
        {
            let name = self.forms[3].value("name").to_lowercase();
            return fx.ask(modal::approval(None, &name, &self.place(), plan));
        }
        let input = self.input();
        let call = match &self.replaces {
            Some(name) => Call::Update { name: name.clone(), input },
            None => Call::Create { input },
        };
        self.review.run = run;
        self.review.error = None;
        self.review.stage = Stage::Storing;
        self.review.ticket = Some(fx.call(call));
    }

    /// The destination in words.
    pub fn place(&self) -> String {
        let config = self.review.document.get("destinationConfig").and_then(Value::as_object).cloned().unwrap_or_default();
        self.provider.map(|p| p.label(&config)).unwrap_or_default()
    }

    pub(super) fn reply_in_review(&mut self, ticket: Ticket, reply: Reply, world: &mut World, fx: &mut Fx) -> Option<Reply> {
        match reply {
            Reply::Act(answer) if self.review.check.awaits(ticket) => {
                if let Err(error) = &answer {
                    self.spread(&error.fields);
                }
                self.review.check.take(answer);
            }
            Reply::Plan(answer) if self.review.plan.awaits(ticket) => self.review.plan.take(answer),
            // What could not be asked is not warned of: the plan says what matters about the server.
            Reply::Rivals(answer) if self.review.rivals.awaits(ticket) => self.review.rivals.take(answer),
            Reply::Rival(answer) if self.review.switching == Some(ticket) => self.on_switched(answer, fx),
            Reply::Sync(answer) if self.review.ticket == Some(ticket) => self.on_stored(answer, world, fx),
            Reply::Act(answer) if self.review.ticket == Some(ticket) => match answer {
                Ok(()) => self.start(fx),
                Err(error) => self.stuck(error),
            },
            Reply::Run(answer) if self.review.ticket == Some(ticket) => {
                let name = self.review.stored.clone().unwrap_or_default();
                if let Err(error) = answer {
                    Self::toast(fx, Level::Bad, format!("{name} is stored, its run did not start: {}", error.message));
                }
                fx.moves.push(Move::Land(name));
            }
            other => return Some(other),
        }
        None
    }

    fn on_stored(&mut self, answer: Result<SyncDoc, ServiceError>, world: &mut World, fx: &mut Fx) {
        let doc = match answer {
            Ok(doc) => doc,
            Err(error) => {
                self.spread(&error.fields);
                return self.stuck(error);
            }
        };
        let word = if self.replaces.is_some() { "saved" } else { "created" };
        world.note(Level::Good, format!("{} {word}", doc.name));
        self.dirty = false;
        if self.replaces.is_none() {
            fx.moves.push(Move::Keep(None));
        }
        self.replaces.get_or_insert_with(|| doc.name.clone());
        self.review.stored = Some(doc.name.clone());
        let (keys, decision) = self.review.decision.clone().unwrap_or((Vec::new(), Decision::KeepNow));
        let approval = match decision {
            Decision::KeepAlways => Some(Approval { sync: doc.name.clone(), approve: Vec::new(), keep: keys }),
            Decision::Delete => Some(Approval { sync: doc.name.clone(), approve: keys, keep: Vec::new() }),
            Decision::KeepNow => None,
        };
        match approval {
            Some(approval) => {
                self.review.stage = Stage::Approving;
                self.review.ticket = Some(fx.call(Call::Approve(approval)));
            }
            None => self.start(fx),
        }
    }

    fn start(&mut self, fx: &mut Fx) {
        let name = self.review.stored.clone().unwrap_or_default();
        if !self.review.run {
            return fx.moves.push(Move::Land(name));
        }
        self.review.stage = Stage::Starting;
        let withhold = matches!(self.review.decision, Some((_, Decision::KeepNow)));
        let request = RunRequest { withhold, ..RunRequest::new(name, RunKind::Sync, Trigger::Created) };
        self.review.ticket = Some(fx.call(Call::Start(request)));
    }

    fn stuck(&mut self, error: ServiceError) {
        self.review.stage = Stage::Idle;
        self.review.ticket = None;
        self.review.error = Some(error);
    }
}
