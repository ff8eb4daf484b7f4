//! For tests: an app without a terminal and without a service. Calls are answered from a
//! table at once, or held back to see what waiting looks like.

use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Rect, Size};

use super::app::{self, App, Msg};
use super::fx::{Call, Effect, Reply, Ticket};
use super::theme::Theme;
use super::{TuiOptions, view};
use crate::model::Time;
use crate::model::board::{Board, Event};
use crate::service::Draft;

mod sample;

pub use sample::*;

/// The moment at which every test starts.
pub fn start() -> Time {
    "2026-11-25T12:04:51Z".parse().expect("a time")
}

/// So many seconds before [`start`].
pub fn before(seconds: i64) -> Time {
    start() - jiff::SignedDuration::from_secs(seconds)
}

fn after(seconds: i64) -> Time {
    before(-seconds)
}

struct Still;

impl super::Clock for Still {
    fn now(&self) -> Time {
        start()
    }
}

/// Answers a call, or leaves it unanswered.
pub type Answers = Box<dyn Fn(&Call) -> Option<Reply>>;

/// The app and what it asked for.
pub struct Harness {
    pub app: App,
    pub now: Time,
    pub answers: Answers,
    /// While true no call is answered.
    pub hold: bool,
    /// Calls that nobody answered yet.
    pub open: Vec<(Ticket, Call)>,
    pub copied: Vec<String>,
    /// The drafts that the screens asked to keep, in order.
    pub kept: Vec<Option<Draft>>,
    pub quit: bool,
    /// The demo, where this is one.
    pub demo: Option<std::sync::Arc<DemoStub>>,
}

/// A demo's controls, which remember what they were told.
pub struct DemoStub {
    pub quiet: bool,
    /// Every pause and its end, in order.
    pub told: std::sync::Mutex<Vec<bool>>,
}

impl super::DemoControls for DemoStub {
    fn pause(&self, paused: bool) {
        self.told.lock().expect("one thread").push(paused);
    }

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn describe(&self) -> String {
        "everything here is made up".into()
    }
}

impl Harness {
    /// With the sample world.
    pub fn new(width: u16, height: u16) -> Self {
        let mut harness = Self::cold(width, height);
        harness.begin(board());
        harness
    }

    /// Before anything is known.
    pub fn cold(width: u16, height: u16) -> Self {
        Self::made(width, height, None)
    }

    /// As the demo, with the sample world.
    pub fn demo(width: u16, height: u16, quiet: bool) -> Self {
        let stub = DemoStub { quiet, told: Default::default() };
        let mut harness = Self::made(width, height, Some(std::sync::Arc::new(stub)));
        harness.begin(board());
        harness
    }

    fn made(width: u16, height: u16, demo: Option<std::sync::Arc<DemoStub>>) -> Self {
        let options = TuiOptions {
            no_color: false,
            ascii: false,
            zone: jiff::tz::TimeZone::UTC,
            clock: std::sync::Arc::new(Still),
            demo: demo.clone().map(|d| d as std::sync::Arc<dyn super::DemoControls>),
            mouse: true,
            bell: false,
            notify: false,
            start: None,
        };
        let app = App::new(options.world(Size { width, height }));
        Self { app, now: start(), answers: Box::new(answer), hold: false, open: Vec::new(), copied: Vec::new(), kept: Vec::new(), quit: false, demo }
    }

    /// Starts, with this picture.
    pub fn begin(&mut self, board: Board) {
        let effects = self.app.begin();
        self.carry_out(effects);
        self.send(Msg::Board(Box::new(board)));
        self.rest();
    }

    /// Passes a message and answers what it asks for.
    pub fn send(&mut self, message: Msg) {
        let effects = app::update(&mut self.app, message, self.now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Call(ticket, call) => {
                    let reply = if self.hold { None } else { (self.answers)(&call) };
                    match reply {
                        Some(reply) => self.send(Msg::Reply(ticket, reply)),
                        None => self.open.push((ticket, call)),
                    }
                }
                Effect::Abandon(ticket) => self.open.retain(|(t, _)| *t != ticket),
                Effect::Copy(text) => self.copied.push(text),
                Effect::Keep(draft) => self.kept.push(draft.map(|d| *d)),
                Effect::Quit => self.quit = true,
                Effect::Play(paused) => {
                    if let Some(demo) = &self.demo {
                        super::DemoControls::pause(&**demo, paused);
                    }
                }
                _ => {}
            }
        }
    }

    /// Answers what was held back.
    pub fn release(&mut self) {
        self.hold = false;
        for (ticket, call) in std::mem::take(&mut self.open) {
            if let Some(reply) = (self.answers)(&call) {
                self.send(Msg::Reply(ticket, reply));
            }
        }
    }

    /// Presses keys by name, separated by blanks.
    pub fn keys(&mut self, names: &str) -> &mut Self {
        for name in names.split_whitespace() {
            self.send(Msg::Input(Input::Key(key(name))));
        }
        self.rest();
        self
    }

    /// Types text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            self.send(Msg::Input(Input::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE))));
        }
        self
    }

    pub fn paste(&mut self, text: &str) {
        self.send(Msg::Input(Input::Paste(text.into())));
    }

    pub fn event(&mut self, event: Event) {
        self.send(Msg::Event(Box::new(event)));
    }

    /// Lets the cursor rest.
    pub fn rest(&mut self) {
        self.now += jiff::SignedDuration::from_millis(200);
        self.send(Msg::Tick);
        self.now -= jiff::SignedDuration::from_millis(200);
    }

    /// Draws into a buffer.
    pub fn buffer(&mut self) -> Buffer {
        let Size { width, height } = self.app.world.size;
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        let drawn = view::draw(&self.app, &mut buffer);
        app::drawn(&mut self.app, drawn);
        buffer
    }

    /// The words on the screen, without frames and line breaks.
    pub fn words(&mut self) -> String {
        self.screen().replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The screen as text.
    pub fn screen(&mut self) -> String {
        let buffer = self.buffer();
        let width = buffer.area.width as usize;
        let rows: Vec<String> =
            buffer.content().chunks(width.max(1)).map(|row| row.iter().map(|c| c.symbol()).collect::<String>().trim_end().to_string()).collect();
        rows.join("\n")
    }

    pub fn theme(&mut self, theme: Theme) -> &mut Self {
        self.app.world.theme = theme;
        self
    }

    /// Names of the calls that are not answered.
    pub fn asked(&self) -> Vec<&'static str> {
        self.open.iter().map(|(_, call)| word(call)).collect()
    }
}

/// What a call is called in assertions.
pub fn word(call: &Call) -> &'static str {
    match call {
        Call::Watch => "watch",
        Call::Connections => "connections",
        Call::Projects { .. } => "projects",
        Call::Folders(_) => "folders",
        Call::Choices(_) => "choices",
        Call::Test { .. } => "test",
        Call::TestAt { .. } => "test at",
        Call::Try { .. } => "try",
        Call::SaveConnection { .. } => "save",
        Call::RemoveConnection { .. } => "remove connection",
        Call::Plan { .. } => "plan",
        Call::ServerRivals { .. } => "server rivals",
        Call::SwitchOffRival { .. } => "switch off",
        Call::Check { .. } => "check",
        Call::Create { .. } => "create",
        Call::Update { .. } => "update",
        Call::Delete { .. } => "delete",
        Call::Enable { .. } => "enable",
        Call::Document { .. } => "document",
        Call::Sync { .. } => "sync",
        Call::Syncs => "syncs",
        Call::Start(_) => "start",
        Call::Cancel { .. } => "cancel",
        Call::Approve(_) => "approve",
        Call::History { .. } => "history",
        Call::Pause(_) => "pause",
        Call::Doctor => "doctor",
        Call::Draft => "draft",
    }
}

fn key(name: &str) -> KeyEvent {
    let (modifiers, rest) = match name.strip_prefix("Ctrl-") {
        Some(rest) => (KeyModifiers::CONTROL, rest.to_lowercase()),
        None => (KeyModifiers::NONE, name.to_string()),
    };
    let code = match rest.as_str() {
        "Enter" => KeyCode::Enter,
        "Esc" => KeyCode::Esc,
        "Tab" => KeyCode::Tab,
        "Shift-Tab" => KeyCode::BackTab,
        "Space" => KeyCode::Char(' '),
        "Up" => KeyCode::Up,
        "Down" => KeyCode::Down,
        "Left" => KeyCode::Left,
        "Right" => KeyCode::Right,
        "Home" => KeyCode::Home,
        "End" => KeyCode::End,
        "PageDown" => KeyCode::PageDown,
        "PageUp" => KeyCode::PageUp,
        "Backspace" => KeyCode::Backspace,
        "Delete" => KeyCode::Delete,
        "F1" => KeyCode::F(1),
        "F2" => KeyCode::F(2),
        one => KeyCode::Char(one.chars().next().expect("a key")),
    };
    KeyEvent::new(code, modifiers)
}
