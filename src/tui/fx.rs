//! What the screens ask of the world: calls of the service with tickets, and a few effects on
//! the terminal. `update` only collects them; [`execute`] carries a call out, outside the loop.
//! An answer comes back with its ticket; whoever no longer waits for that ticket ignores it.

use std::sync::Arc;

use serde_json::Value;

use super::app::Page;
use super::modal::{Modal, Verdict};
use crate::destination::{Choice, TestReport};
use crate::model::connection::ConnectionView;
use crate::model::plan::PlanDoc;
use crate::model::run::RunRecord;
use crate::model::sync::SyncDoc;
use crate::model::{Finding, Map, Time};
use crate::service::{
    Approval, ChoicesAsk, Draft, FolderAsk, PlanTarget, RunRequest, ServerRival, Service, ServiceError, ServiceErrorKind, SyncInput,
};
use crate::source::Project;

/// Names one call; answers carry it.
pub type Ticket = u64;

type Answer<T> = Result<T, ServiceError>;

/// A question to the service.
pub enum Call {
    Watch,
    Connections,
    Projects {
        account: String,
    },
    Folders(FolderAsk),
    Choices(ChoicesAsk),
    Test {
        name: String,
    },
    /// A connection together with a `destinationConfig`.
    TestAt {
        name: String,
        config: Map,
    },
    Try {
        document: Value,
    },
    SaveConnection {
        document: Value,
        replace: bool,
    },
    RemoveConnection {
        name: String,
    },
    Plan {
        target: PlanTarget,
        verify: bool,
    },
    /// The server's own syncs that write where a draft does.
    ServerRivals {
        target: PlanTarget,
    },
    SwitchOffRival {
        target: PlanTarget,
        id: String,
    },
    Check {
        input: SyncInput,
        replaces: Option<String>,
    },
    Create {
        input: SyncInput,
    },
    Update {
        name: String,
        input: SyncInput,
    },
    Delete {
        name: String,
    },
    Enable {
        name: String,
        on: bool,
    },
    Document {
        name: String,
    },
    Sync {
        name: String,
    },
    /// The documents of all syncs.
    Syncs,
    Start(RunRequest),
    Cancel {
        run: String,
    },
    Approve(Approval),
    History {
        name: String,
        limit: usize,
    },
    Pause(bool),
    Doctor,
    Draft,
}

/// An answer, by its type. `Act` is that of a call whose success needs no data.
#[allow(clippy::large_enum_variant, reason = "passed once, never stored in numbers")]
pub enum Reply {
    Connections(Answer<Vec<ConnectionView>>),
    Projects(Answer<Vec<Project>>),
    Choices(Answer<Vec<Choice>>),
    Report(Answer<TestReport>),
    Connection(Answer<ConnectionView>),
    Plan(Answer<PlanDoc>),
    Rivals(Answer<Vec<ServerRival>>),
    Rival(Answer<ServerRival>),
    Sync(Answer<SyncDoc>),
    Syncs(Answer<Vec<SyncDoc>>),
    Document(Answer<Value>),
    Run(Answer<String>),
    History(Answer<Vec<RunRecord>>),
    Findings(Answer<Vec<Finding>>),
    Draft(Answer<Option<Draft>>),
    Act(Answer<()>),
}

/// What the loop does for the screens.
pub enum Effect {
    Call(Ticket, Call),
    /// Nobody waits for this answer any more.
    Abandon(Ticket),
    /// Copies a text to the terminal's clipboard (OSC 52).
    Copy(String),
    /// Bell and notification, where the options allow them.
    Notify(String),
    /// Pauses or resumes the demo's play.
    Play(bool),
    /// Keeps an unfinished sync, or forgets it. A later one overtakes those that wait.
    Keep(Option<Box<Draft>>),
    Redraw,
    Suspend,
    Quit,
}

/// How far the operator's attention moves.
pub enum Move {
    Push(Page),
    Pop,
    Ask(Modal),
    Toast(Level, String),
    /// Back to the dashboard, on this sync's live pane.
    Land(String),
    Do(Verdict),
    /// A connection was stored.
    Stored(Box<ConnectionView>),
    /// Asks for the stored connections again: others may have changed them.
    Connections,
    /// A new sync: the wizard, or first the question about the unfinished one.
    NewSync,
    /// Keeps an unfinished sync, or forgets it.
    Keep(Option<Box<Draft>>),
    Refresh,
}

/// How bad a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Good,
    Warn,
    Bad,
}

/// Collects what an update wants.
#[derive(Default)]
pub struct Fx {
    next: Ticket,
    /// The moment of the update, at which questions begin.
    pub now: Time,
    pub effects: Vec<Effect>,
    pub moves: Vec<Move>,
}

impl Fx {
    /// Asks the service; the answer carries the ticket.
    pub fn call(&mut self, call: Call) -> Ticket {
        self.next += 1;
        self.effects.push(Effect::Call(self.next, call));
        self.next
    }

    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub fn push(&mut self, page: Page) {
        self.moves.push(Move::Push(page));
    }

    pub fn pop(&mut self) {
        self.moves.push(Move::Pop);
    }

    pub fn ask(&mut self, modal: Modal) {
        self.moves.push(Move::Ask(modal));
    }

    pub fn toast(&mut self, level: Level, text: impl Into<String>) {
        self.moves.push(Move::Toast(level, text.into()));
    }
}

/// Something that is fetched: the last good value, the last error, and whether an answer is awaited.
#[derive(Debug, Clone)]
pub struct Load<T> {
    pub value: Option<T>,
    pub error: Option<ServiceError>,
    /// The awaited answer's, and when it was asked for.
    ticket: Option<(Ticket, Time)>,
}

impl<T> Default for Load<T> {
    fn default() -> Self {
        Self { value: None, error: None, ticket: None }
    }
}

impl<T> Load<T> {
    /// Asks, abandoning an earlier question. The old value stays until the answer is here.
    pub fn ask(&mut self, fx: &mut Fx, call: Call) {
        self.give_up(fx);
        self.error = None;
        self.ticket = Some((fx.call(call), fx.now));
    }

    /// Waits no longer; what is known stays.
    pub fn give_up(&mut self, fx: &mut Fx) {
        if let Some((old, _)) = self.ticket.take() {
            fx.effect(Effect::Abandon(old));
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, fx: &mut Fx) {
        self.give_up(fx);
        *self = Self::default();
    }

    /// True when this ticket is the awaited one.
    pub fn awaits(&self, ticket: Ticket) -> bool {
        self.ticket.is_some_and(|(t, _)| t == ticket)
    }

    /// Takes the answer.
    pub fn take(&mut self, answer: Answer<T>) {
        self.ticket = None;
        match answer {
            Ok(value) => (self.value, self.error) = (Some(value), None),
            Err(error) => self.error = Some(error),
        }
    }

    pub fn busy(&self) -> bool {
        self.ticket.is_some()
    }

    /// When the awaited answer was asked for; `None` when none is awaited.
    pub fn since(&self) -> Option<Time> {
        self.ticket.map(|(_, since)| since)
    }

    /// True when nothing was asked yet.
    pub fn untouched(&self) -> bool {
        self.ticket.is_none() && self.value.is_none() && self.error.is_none()
    }
}

/// Carries out one call.
pub async fn execute(service: Arc<dyn Service>, call: Call) -> Reply {
    match call {
        Call::Watch => Reply::Act(Err(ServiceError::new(ServiceErrorKind::Invalid, "the loop watches by itself"))),
        Call::Connections => Reply::Connections(service.connections().await),
        Call::Projects { account } => Reply::Projects(service.projects(&account).await),
        Call::Folders(ask) => Reply::Choices(service.folders(ask).await),
        Call::Choices(ask) => Reply::Choices(service.choices(ask).await),
        Call::Test { name } => Reply::Report(service.test_connection(&name).await),
        Call::TestAt { name, config } => Reply::Report(service.test_destination(&name, config).await),
        Call::Try { document } => Reply::Report(service.try_connection(document).await),
        Call::SaveConnection { document, replace } => Reply::Connection(service.save_connection(document, replace).await),
        Call::RemoveConnection { name } => Reply::Act(service.remove_connection(&name).await),
        Call::Plan { target, verify } => Reply::Plan(service.plan(target, verify).await),
        Call::ServerRivals { target } => Reply::Rivals(service.server_rivals(target).await),
        Call::SwitchOffRival { target, id } => Reply::Rival(service.switch_off_rival(target, &id).await),
        Call::Check { input, replaces } => Reply::Act(service.check_sync(input, replaces).await),
        Call::Create { input } => Reply::Sync(service.create_sync(input).await),
        Call::Update { name, input } => Reply::Sync(service.update_sync(&name, input).await),
        Call::Delete { name } => Reply::Act(service.delete_sync(&name).await),
        Call::Enable { name, on } => Reply::Sync(service.set_enabled(&name, on).await),
        Call::Document { name } => Reply::Document(service.document(&name).await),
        Call::Sync { name } => Reply::Sync(service.sync(&name).await),
        Call::Syncs => Reply::Syncs(service.syncs().await),
        Call::Start(request) => Reply::Run(service.start(request).await),
        Call::Cancel { run } => Reply::Act(service.cancel(&run).await),
        Call::Approve(approval) => Reply::Act(service.approve(approval).await),
        Call::History { name, limit } => Reply::History(service.history(&name, limit).await),
        Call::Pause(on) => Reply::Act(service.pause(on).await),
        Call::Doctor => Reply::Findings(service.doctor().await),
        Call::Draft => Reply::Draft(service.draft().await),
    }
}
