//! What stands over a screen: a question before harm, the help, the palette. A question names
//! the object, the count and the consequence; its first button is the safe one and the default.

mod view;

use crossterm::event::KeyEvent;

use super::app::App;
use super::form::line::Line;
use super::form::picker;
use super::fx::{Fx, Move, Reply, Ticket};
use super::keys::{Action, BINDINGS, Binding, Context};
use super::text;
use super::ui::Hit;
use super::world::World;
use crate::model::plan::{Action as PlanAction, PlanDoc};
use crate::model::run::RunKind;
use crate::service::Priority;

pub use view::draw;

/// What the operator decided; carried out by [`super::actions`].
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Close, do nothing.
    Nothing,
    Quit,
    /// Leave the page in front, edits and all.
    Discard,
    /// Take away what earlier configurations of a sync left behind.
    RemoveLeftBehind(String),
    /// Take the secrets of syncs away, with auto-sync off where it is on.
    RemoveForGood {
        syncs: Vec<String>,
        auto: Vec<String>,
    },
    /// Leave the wizard, its draft kept for later.
    SetAside,
    /// Go on with the unfinished sync.
    Resume,
    /// Begin a new sync; an unfinished one is forgotten.
    StartAnew,
    Start {
        syncs: Vec<String>,
        kind: RunKind,
        verify: bool,
        priority: Option<Priority>,
    },
    Cancel {
        sync: String,
        run: String,
    },
    Enable {
        syncs: Vec<String>,
        on: bool,
    },
    Forget {
        syncs: Vec<String>,
        remove_first: bool,
    },
    RemoveConnection(String),
    Pause(bool),
    Plan(String),
    Edit {
        sync: String,
        copy: bool,
    },
    /// Fetch what needs approval and ask.
    AskApproval(String),
    /// Keys that this sync did not write.
    Decide {
        sync: Option<String>,
        keys: Vec<String>,
        decision: Decision,
    },
    /// Switch a sync of the server's own off, by its id.
    TakeOver(String),
    /// Store a connection whose test failed.
    SaveAnyway,
    Select(String),
    Act(Action),
}

/// About keys that a sync did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    KeepAlways,
    KeepNow,
    Delete,
}

/// A button of a question.
pub struct Button {
    pub label: String,
    pub verdict: Verdict,
    /// Pressed only when the word was typed.
    pub guarded: bool,
}

/// A question.
pub struct Question {
    pub title: String,
    pub lines: Vec<String>,
    /// Objects concerned, scrolled with the arrows.
    pub list: Vec<(String, String)>,
    pub after: Vec<String>,
    pub buttons: Vec<Button>,
    pub at: usize,
    pub scroll: usize,
    /// How far it can be scrolled, kept by the drawing.
    pub reach: std::cell::Cell<usize>,
    /// What must be typed for the guarded buttons, and what was typed.
    pub confirm: Option<(String, Line)>,
    /// A guarded button was pressed before its word was typed.
    refused: bool,
}

impl Question {
    /// A question whose first button does nothing.
    pub fn new(title: impl Into<String>, lines: Vec<String>, safe: &str) -> Self {
        Self::bare(title, lines).button(safe, Verdict::Nothing)
    }

    /// A question whose buttons all do something; Esc is the way out.
    pub fn bare(title: impl Into<String>, lines: Vec<String>) -> Self {
        Self {
            title: title.into(),
            lines,
            list: Vec::new(),
            after: Vec::new(),
            buttons: Vec::new(),
            at: 0,
            scroll: 0,
            reach: Default::default(),
            confirm: None,
            refused: false,
        }
    }

    pub fn button(mut self, label: impl Into<String>, verdict: Verdict) -> Self {
        self.buttons.push(Button { label: label.into(), verdict, guarded: false });
        self
    }

    fn armed(&self) -> bool {
        self.confirm.as_ref().is_none_or(|(word, typed)| typed.text().trim() == word)
    }
}

/// The question about the keys of a plan that wait for the operator. `sync`: the stored one, `None` for a draft.
pub fn approval(sync: Option<String>, name: &str, place: &str, plan: &PlanDoc) -> Modal {
    let keys: Vec<(String, String)> = plan.needs_approval.iter().map(|a| (a.key.clone(), a.reason.clone())).collect();
    let deletions = plan.needs_approval.iter().filter(|a| plan.changes.iter().any(|c| c.key == a.key && c.action == PlanAction::Delete)).count();
    let foreign = plan.needs_approval.iter().all(|a| plan.changes.iter().any(|c| c.key == a.key && !c.owned));
    let (verb, short) = match deletions {
        0 => ("Overwrite", "overwrite"),
        n if n == keys.len() => ("Delete", "delete"),
        _ => ("Delete or overwrite", "delete or overwrite"),
    };
    let names: Vec<String> = keys.iter().map(|k| k.0.clone()).collect();
    let n = names.len();
    let decide = |decision| Verdict::Decide { sync: sync.clone(), keys: names.clone(), decision };
    let whose = if foreign { " that this sync did not write" } else { "" };
    let title = format!("{verb} {}{whose}?", text::count(n, "secret", "secrets"));
    let mut question = Question::bare(title, vec![place.to_string()])
        .button("Keep them, always", decide(Decision::KeepAlways))
        .button("Keep them this time", decide(Decision::KeepNow));
    question.buttons.push(Button { label: format!("{verb} {n}"), verdict: decide(Decision::Delete), guarded: true });
    question.list = keys;
    question.after = vec![format!("To {short} them type the sync's name, {name}:")];
    question.confirm = Some((name.to_string(), Line::default()));
    Modal::Question(question)
}

/// A command of the palette.
pub struct Entry {
    pub label: String,
    pub keys: String,
    pub verdict: Verdict,
}

/// Something over the screen.
pub enum Modal {
    Question(Question),
    Text { title: String, lines: Vec<(String, String)>, scroll: usize },
    Palette { query: Line, entries: Vec<Entry>, at: usize },
}

impl Modal {
    /// The keys that are valid on the screen in front.
    pub fn help(app: &App) -> Self {
        let typing = app.captures();
        let keys = |b: &Binding| super::keys::acting(b, typing).collect::<Vec<_>>().join(" ");
        let lines = app.bindings().into_iter().map(|b: &Binding| (keys(b), b.help.to_string())).collect();
        Modal::Text { title: "Keys that work here".into(), lines, scroll: 0 }
    }

    /// Every command by name, then every sync.
    pub fn palette(app: &App) -> Self {
        let commands = app
            .bindings()
            .into_iter()
            .filter(|b| !matches!(b.context, Context::List | Context::Global) || matches!(b.action, Action::Help | Action::Quit))
            .filter(|b| !matches!(b.action, Action::Palette | Action::Next | Action::Previous | Action::Back))
            .map(|b| Entry { label: b.help.into(), keys: b.keys[0].into(), verdict: Verdict::Act(b.action) });
        let syncs = app.world.board.cards.keys().map(|name| Entry {
            label: format!("Go to {name}"),
            keys: String::new(),
            verdict: Verdict::Select(name.clone()),
        });
        let entries = if app.pages.is_empty() { commands.chain(syncs).collect() } else { commands.collect() };
        Modal::Palette { query: Line::default(), entries, at: 0 }
    }

    pub fn contexts(&self) -> Vec<Context> {
        match self {
            Modal::Question(_) => vec![Context::Question, Context::List],
            Modal::Text { .. } => vec![Context::Text, Context::List],
            Modal::Palette { .. } => vec![Context::Palette, Context::List],
        }
    }

    pub fn captures(&self) -> bool {
        match self {
            Modal::Question(q) => q.confirm.is_some(),
            Modal::Text { .. } => false,
            Modal::Palette { .. } => true,
        }
    }

    pub fn can(&self, action: Action) -> bool {
        match self {
            Modal::Question(q) => {
                !matches!(action, Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::Top | Action::Bottom) || q.reach.get() > 0
            }
            _ => true,
        }
    }

    pub fn text(&mut self, key: &KeyEvent) {
        match self {
            Modal::Question(Question { confirm: Some((_, line)), refused, .. }) => {
                line.key(key);
                *refused = false;
            }
            Modal::Palette { query, at, .. } => {
                query.key(key);
                *at = 0;
            }
            _ => {}
        }
    }

    pub fn paste(&mut self, text: &str) {
        match self {
            Modal::Question(Question { confirm: Some((_, line)), .. }) | Modal::Palette { query: line, .. } => line.insert(text),
            _ => {}
        }
    }

    /// True when the click presses.
    pub fn click(&mut self, hit: &Hit) -> bool {
        match (self, hit) {
            (Modal::Question(q), Hit::Button(n)) => {
                q.at = *n;
                true
            }
            (Modal::Palette { at, .. }, Hit::Row(n)) => {
                *at = *n;
                true
            }
            _ => false,
        }
    }

    /// Modals wait for no answer.
    pub fn reply(&mut self, _ticket: Ticket, reply: Reply) -> Option<Reply> {
        Some(reply)
    }
}

fn matching(query: &Line, entries: &[Entry]) -> Vec<usize> {
    picker::fuzzy(query.text(), entries.iter().map(|e| e.label.as_str()))
}

/// Carries out an action on the modal in front.
pub fn act(modal: &mut Modal, action: Action, _world: &World, fx: &mut Fx) {
    let close = || Move::Do(Verdict::Nothing);
    if action == Action::Back {
        return fx.moves.push(close());
    }
    match modal {
        Modal::Question(q) => match action {
            Action::Left => q.at = q.at.saturating_sub(1),
            Action::Right => q.at = (q.at + 1) % q.buttons.len().max(1),
            Action::Enter => {
                let armed = q.armed();
                match q.buttons.get(q.at) {
                    Some(button) if button.guarded && !armed => q.refused = true,
                    Some(button) => fx.moves.push(Move::Do(button.verdict.clone())),
                    None => {}
                }
            }
            _ => scrolled(&mut q.scroll, action, q.reach.get() + 1),
        },
        Modal::Text { lines, scroll, .. } => scrolled(scroll, action, lines.len()),
        Modal::Palette { query, entries, at } => {
            let rows = matching(query, entries);
            match action {
                Action::Enter => {
                    let verdict = rows.get(*at).map_or(Verdict::Nothing, |i| entries[*i].verdict.clone());
                    fx.moves.push(Move::Do(verdict));
                }
                _ => scrolled(at, action, rows.len()),
            }
        }
    }
}

/// Moves a cursor or an offset over `len` rows.
pub fn scrolled(at: &mut usize, action: Action, len: usize) {
    scrolled_by(at, action, len, 10);
}

/// [`scrolled`] by pages of so many rows.
pub fn scrolled_by(at: &mut usize, action: Action, len: usize, page: usize) {
    let last = len.saturating_sub(1);
    *at = match action {
        Action::Up => at.saturating_sub(1),
        Action::Down => (*at + 1).min(last),
        Action::PageUp => at.saturating_sub(page),
        Action::PageDown => (*at + page).min(last),
        Action::Top => 0,
        Action::Bottom => last,
        _ => *at,
    }
    .min(last);
}

/// The pieces of the hint bar: key and word, as many as fit.
pub fn hints(app: &App) -> Vec<(&'static str, &'static str)> {
    let typing = app.captures();
    let mut hints: Vec<(&str, &str)> =
        app.bindings().into_iter().filter(|b| !b.hint.is_empty()).map(|b| (super::keys::shown(b, typing), b.hint)).collect();
    debug_assert!(hints.len() <= BINDINGS.len());
    hints.truncate(14);
    hints
}
