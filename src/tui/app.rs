//! The state of the terminal app and its one transition: [`update`] takes a message and
//! returns the effects. Nothing here waits, reads or writes; the loop ([`super::driver`]) does.

use crossterm::event::{Event as Input, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect, Size};

use super::actions;
use super::connections::edit::Edit;
use super::connections::list::Connections;
use super::dashboard::Dashboard;
use super::fx::{Call, Effect, Fx, Level, Move, Reply, Ticket};
use super::keys::{self, Action, Context};
use super::modal::Modal;
use super::panes::engine::EnginePane;
use super::panes::log::LogPane;
use super::panes::plan::PlanPane;
use super::setup::Setup;
use super::ui::{Drawn, Hit};
use super::wizard::Wizard;
use super::world::World;
use crate::model::Time;
use crate::model::board::{Board, Event};
use crate::service::{Draft, ServiceError};

/// A thing that happened.
#[allow(clippy::large_enum_variant, reason = "passed once, never stored in numbers")]
pub enum Msg {
    Input(Input),
    /// A fresh picture of everything.
    Board(Box<Board>),
    /// A change of it.
    Event(Box<Event>),
    Reply(Ticket, Reply),
    /// The picture could not be had.
    Lost(ServiceError),
    /// A moment that a screen waited for.
    Tick,
}

/// A screen over the dashboard.
pub enum Page {
    Setup(Setup),
    Wizard(Box<Wizard>),
    Connections(Connections),
    Edit(Box<Edit>),
    Plan(Box<PlanPane>),
    Log(LogPane),
    Engine(EnginePane),
}

/// Everything on screen and behind it.
pub struct App {
    pub world: World,
    pub dashboard: Dashboard,
    pub pages: Vec<Page>,
    pub modals: Vec<Modal>,
    /// What the last frame left for the mouse.
    pub hits: Vec<(Rect, Hit)>,
    pub actions: actions::Pending,
    pub fx: Fx,
    /// A new sync was asked for before it is known whether an unfinished one waits.
    wants_new: bool,
}

impl App {
    /// The first state; ask [`Self::begin`] for its effects.
    pub fn new(world: World) -> Self {
        Self {
            world,
            dashboard: Dashboard::default(),
            pages: Vec::new(),
            modals: Vec::new(),
            hits: Vec::new(),
            actions: actions::Pending::default(),
            fx: Fx::default(),
            wants_new: false,
        }
    }

    /// What is asked at the start.
    pub fn begin(&mut self) -> Vec<Effect> {
        self.fx.now = self.world.now;
        self.world.connections.ask(&mut self.fx, Call::Connections);
        self.world.draft.ask(&mut self.fx, Call::Draft);
        std::mem::take(&mut self.fx.effects)
    }

    /// What an app that ends now would lose: a new sync that is being written.
    pub fn unfinished(&self) -> Option<Draft> {
        self.pages.iter().find_map(|page| match page {
            Page::Wizard(wizard) => wizard.draft(self.world.now),
            _ => None,
        })
    }

    /// The contexts of the screen in front, from the inside out.
    pub fn contexts(&self) -> Vec<Context> {
        if let Some(modal) = self.modals.last() {
            return modal.contexts();
        }
        let mut contexts = match self.pages.last() {
            None => self.dashboard.contexts(),
            Some(Page::Setup(_)) => vec![Context::Setup, Context::List],
            Some(Page::Wizard(w)) => w.contexts(),
            Some(Page::Connections(_)) => vec![Context::Connections, Context::List],
            Some(Page::Edit(e)) => e.contexts(),
            Some(Page::Plan(p)) => p.contexts(),
            Some(Page::Log(_)) => vec![Context::Log, Context::List],
            Some(Page::Engine(_)) => vec![Context::Engine, Context::List],
        };
        contexts.push(Context::Global);
        contexts
    }

    /// True when plain characters are text.
    pub fn captures(&self) -> bool {
        if let Some(modal) = self.modals.last() {
            return modal.captures();
        }
        match self.pages.last() {
            None => self.dashboard.captures(),
            Some(Page::Wizard(w)) => w.captures(),
            Some(Page::Edit(e)) => e.form.captures(),
            Some(Page::Plan(p)) => p.captures(),
            _ => false,
        }
    }

    /// Whether an action means something now.
    pub fn can(&self, action: Action) -> bool {
        if let Some(modal) = self.modals.last() {
            return modal.can(action);
        }
        match action {
            Action::Play => return self.world.demo.is_some() && !self.world.demo_quiet && self.pages.is_empty(),
            Action::Palette => return !self.captures(),
            Action::Quit => return self.pages.is_empty() && !self.captures(),
            _ => {}
        }
        match self.pages.last() {
            None => self.dashboard.can(action, &self.world),
            Some(Page::Wizard(w)) => w.can(action),
            Some(Page::Edit(e)) => e.can(action),
            Some(Page::Connections(c)) => c.can(action, &self.world),
            Some(Page::Plan(p)) => p.can(action),
            _ => true,
        }
    }

    /// The bindings that work now, for the hint bar and the help.
    pub fn bindings(&self) -> Vec<&'static keys::Binding> {
        let typing = self.captures();
        keys::valid(&self.contexts(), |a| self.can(a)).into_iter().filter(|b| keys::acting(b, typing).next().is_some()).collect()
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Key(key) if key.kind != KeyEventKind::Release => self.key(&key),
            Input::Paste(text) => self.paste(&text),
            Input::Mouse(mouse) => self.mouse(mouse),
            Input::Resize(width, height) => {
                self.world.size = Size { width, height };
                self.fx.effect(Effect::Redraw);
            }
            _ => {}
        }
    }

    fn key(&mut self, key: &KeyEvent) {
        let name = keys::name(key);
        match name.as_str() {
            "Ctrl-C" => return actions::quit(self, true),
            "Ctrl-Z" => return self.fx.effect(Effect::Suspend),
            "Ctrl-L" => return self.fx.effect(Effect::Redraw),
            _ => {}
        }
        let typing = self.captures();
        let binding = (!typing || !keys::is_text(&name)).then(|| keys::lookup(&self.contexts(), &name, |a| self.can(a))).flatten();
        match binding {
            Some(binding) => self.act(binding.action),
            None => self.type_key(key),
        }
    }

    /// Carries out an action on the screen in front.
    pub fn act(&mut self, action: Action) {
        if let Some(modal) = self.modals.last_mut() {
            return super::modal::act(modal, action, &self.world, &mut self.fx);
        }
        match action {
            Action::Palette => return self.modals.push(Modal::palette(self)),
            Action::Help => return self.modals.push(Modal::help(self)),
            Action::Quit => return actions::quit(self, false),
            Action::Play => return actions::play(self),
            _ => {}
        }
        let (world, fx) = (&mut self.world, &mut self.fx);
        match self.pages.last_mut() {
            None => self.dashboard.act(action, world, fx),
            Some(Page::Setup(s)) => s.act(action, fx),
            Some(Page::Wizard(w)) => w.act(action, world, fx),
            Some(Page::Connections(c)) => c.act(action, world, fx),
            Some(Page::Edit(e)) => e.act(action, world, fx),
            Some(Page::Plan(p)) => p.act(action, world, fx),
            Some(Page::Log(l)) => l.act(action, world, fx),
            Some(Page::Engine(e)) => e.act(action, world, fx),
        }
    }

    fn type_key(&mut self, key: &KeyEvent) {
        if let Some(modal) = self.modals.last_mut() {
            return modal.text(key);
        }
        let (world, fx) = (&mut self.world, &mut self.fx);
        match self.pages.last_mut() {
            None => self.dashboard.text(key, world),
            Some(Page::Wizard(w)) => w.text(key, world, fx),
            Some(Page::Edit(e)) => e.text(key, world, fx),
            Some(Page::Plan(p)) => p.text(key),
            _ => {}
        }
    }

    fn paste(&mut self, text: &str) {
        if let Some(modal) = self.modals.last_mut() {
            return modal.paste(text);
        }
        let (world, fx) = (&mut self.world, &mut self.fx);
        match self.pages.last_mut() {
            None => self.dashboard.paste(text, world),
            Some(Page::Wizard(w)) => w.paste(text, world, fx),
            Some(Page::Edit(e)) => e.paste(text, world, fx),
            Some(Page::Plan(p)) => p.paste(text),
            _ => {}
        }
    }

    fn mouse(&mut self, mouse: MouseEvent) {
        match mouse.kind {
            MouseEventKind::ScrollUp => self.scroll(Action::Up),
            MouseEventKind::ScrollDown => self.scroll(Action::Down),
            MouseEventKind::Down(MouseButton::Left) => {
                let at = Position { x: mouse.column, y: mouse.row };
                let hit = self.hits.iter().rev().find(|(area, _)| area.contains(at)).map(|(_, hit)| hit.clone());
                if let Some(hit) = hit {
                    self.click(hit);
                }
            }
            _ => {}
        }
    }

    fn scroll(&mut self, action: Action) {
        if self.can(action) {
            self.act(action);
        }
    }

    fn click(&mut self, hit: Hit) {
        if let Some(modal) = self.modals.last_mut() {
            if modal.click(&hit) {
                self.act(Action::Enter);
            }
            return;
        }
        let press = match self.pages.last_mut() {
            None => self.dashboard.click(&hit, &self.world),
            Some(Page::Setup(s)) => s.click(&hit),
            Some(Page::Wizard(w)) => w.click(&hit),
            Some(Page::Edit(e)) => super::form_click(&mut e.form, &hit),
            Some(Page::Connections(c)) => c.click(&hit),
            _ => false,
        };
        if press {
            self.act(Action::Enter);
        }
    }

    fn event(&mut self, event: &Event) {
        self.world.board.apply(event);
        self.dashboard.event(event, &mut self.world, &mut self.fx);
        actions::event(self, event);
        match event {
            Event::Notice { level, text, sync } => {
                let level = match level.as_str() {
                    "error" => Level::Bad,
                    "warn" => Level::Warn,
                    _ => Level::Info,
                };
                let text = sync.as_ref().map_or_else(|| text.clone(), |s| format!("{s}: {text}"));
                self.world.note(level, text);
            }
            Event::Waiting { sync, waiting } => {
                for page in &mut self.pages {
                    match page {
                        Page::Wizard(w) => w.waits(sync, waiting.as_ref()),
                        Page::Plan(p) => p.waits(sync, waiting.as_ref()),
                        _ => {}
                    }
                }
            }
            Event::Finished { sync, record } => {
                for page in &mut self.pages {
                    if let Page::Plan(pane) = page {
                        pane.finished(sync, &mut self.fx);
                    }
                }
                let (level, text) = super::words::finished(sync, record);
                self.fx.effect(Effect::Notify(text.clone()));
                self.world.note(level, text);
            }
            _ => {}
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        if let Reply::Connections(answer) = reply {
            if self.world.connections.awaits(ticket) {
                self.world.connections.take(answer);
                for page in &mut self.pages {
                    if let Page::Wizard(w) = page {
                        w.connections_changed(&self.world, &mut self.fx);
                    }
                }
                self.first_steps();
            }
            return;
        }
        if let Reply::Draft(answer) = reply {
            if self.world.draft.awaits(ticket) {
                self.world.draft.take(answer);
                self.first_steps();
                if std::mem::take(&mut self.wants_new) {
                    self.new_sync();
                }
            }
            return;
        }
        let Some(reply) = actions::reply(self, ticket, reply) else {
            return;
        };
        let (world, fx) = (&mut self.world, &mut self.fx);
        let mut reply = Some(reply);
        for modal in &mut self.modals {
            reply = reply.and_then(|r| modal.reply(ticket, r));
        }
        for page in self.pages.iter_mut().rev() {
            let Some(r) = reply else { return };
            reply = match page {
                Page::Wizard(w) => w.reply(ticket, r, world, fx),
                Page::Edit(e) => e.reply(ticket, r, world, fx),
                Page::Connections(c) => c.reply(ticket, r, world),
                Page::Plan(p) => p.reply(ticket, r),
                Page::Engine(e) => e.reply(ticket, r),
                Page::Setup(_) | Page::Log(_) => Some(r),
            };
        }
        if let Some(r) = reply {
            self.dashboard.reply(ticket, r);
        }
    }

    /// The guided set-up opens by itself where nothing is configured yet; otherwise the screen asked for at the start.
    fn first_steps(&mut self) {
        let start = std::mem::replace(&mut self.world.start, super::Start::Done);
        if start == super::Start::Done || !self.pages.is_empty() {
            return;
        }
        let connections = &self.world.connections;
        if !self.world.loaded || self.world.draft.busy() || (connections.value.is_none() && connections.error.is_none()) {
            self.world.start = start;
            return;
        }
        let kms = self.world.connections_of(crate::source::APP.app).is_empty();
        match start {
            _ if kms && self.world.connections.value.is_some() && self.world.board.cards.is_empty() => {
                self.pages.push(Page::Setup(Setup::default()));
            }
            super::Start::Screen(super::Screen::Connections) => self.pages.push(Page::Connections(Connections::default())),
            super::Start::Screen(super::Screen::NewSync) => self.new_sync(),
            _ => {}
        }
    }

    /// Opens the wizard; asks first when a sync was begun and not finished.
    fn new_sync(&mut self) {
        if self.world.draft.busy() {
            self.wants_new = true;
            return;
        }
        match self.world.draft.value.as_ref().and_then(Option::as_ref) {
            Some(draft) => {
                let question = super::wizard::draft::question(draft, &self.world);
                self.modals.push(question);
            }
            None => self.pages.push(Page::Wizard(Box::new(Wizard::new(&self.world)))),
        }
        self.step(Move::Connections);
    }

    /// Carries out the moves that the screens asked for.
    fn settle(&mut self) {
        for _ in 0..16 {
            if self.fx.moves.is_empty() {
                break;
            }
            for step in std::mem::take(&mut self.fx.moves) {
                self.step(step);
            }
        }
    }

    fn step(&mut self, step: Move) {
        match step {
            Move::Push(page) => {
                if matches!(page, Page::Connections(_)) {
                    self.step(Move::Connections);
                }
                self.pages.push(page);
            }
            Move::Connections => self.world.connections.ask(&mut self.fx, Call::Connections),
            Move::Pop => match self.pages.pop() {
                Some(Page::Wizard(mut wizard)) => wizard.leave(&mut self.fx),
                Some(Page::Plan(mut plan)) => plan.leave(&mut self.fx),
                _ => {}
            },
            Move::Ask(modal) => self.modals.push(modal),
            Move::Toast(level, text) => self.world.note(level, text),
            Move::Land(sync) => {
                self.pages.clear();
                self.dashboard.land(&sync, &self.world);
            }
            Move::Do(verdict) => {
                self.modals.pop();
                actions::carry_out(self, verdict);
            }
            Move::Stored(view) => {
                self.world.connections.ask(&mut self.fx, Call::Connections);
                if let Some(all) = &mut self.world.connections.value {
                    all.retain(|c| c.name != view.name);
                    all.push((*view).clone());
                }
                for page in &mut self.pages {
                    match page {
                        Page::Wizard(w) => w.stored(&view, &self.world, &mut self.fx),
                        Page::Setup(s) => s.stored(&view),
                        _ => {}
                    }
                }
            }
            Move::NewSync => self.new_sync(),
            Move::Keep(draft) => {
                self.world.draft.value = Some(draft.as_deref().cloned());
                self.fx.effect(Effect::Keep(draft));
            }
            Move::Refresh => self.fx.effect(Effect::Call(0, Call::Watch)),
        }
    }
}

/// The one transition.
pub fn update(app: &mut App, msg: Msg, now: Time) -> Vec<Effect> {
    (app.world.now, app.fx.now) = (now, now);
    match msg {
        Msg::Input(input) => app.input(input),
        Msg::Board(board) => {
            app.world.board = *board;
            app.world.loaded = true;
            app.world.lost = None;
            app.dashboard.board(&mut app.world, &mut app.fx);
            app.first_steps();
        }
        Msg::Event(event) => app.event(&event),
        Msg::Reply(ticket, reply) => app.reply(ticket, reply),
        Msg::Lost(error) => app.world.lost = Some(error),
        Msg::Tick => app.dashboard.tick(&mut app.world, &mut app.fx),
    }
    app.settle();
    std::mem::take(&mut app.fx.effects)
}

/// Takes what the frame left behind.
pub fn drawn(app: &mut App, drawn: Drawn) {
    app.hits = drawn.hits;
}
