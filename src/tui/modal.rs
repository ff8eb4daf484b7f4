//! What stands over a screen: a question before harm, the help, the palette. A question names
//! the object, the count and the consequence; its first button is the safe one and the default.

use crossterm::event::KeyEvent;
use ratatui::layout::Rect;

use super::app::App;
use super::form::line::Line;
use super::form::{picker, view};
use super::fx::{Fx, Move, Reply, Ticket};
use super::keys::{Action, BINDINGS, Binding, Context};
use super::text;
use super::theme::Role;
use super::ui::{Hit, Ui};
use super::wizard::review_view::{self, Row};
use super::world::World;
use crate::model::plan::{Action as PlanAction, PlanDoc};
use crate::model::run::RunKind;
use crate::service::Priority;

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
    let last = len.saturating_sub(1);
    *at = match action {
        Action::Up => at.saturating_sub(1),
        Action::Down => (*at + 1).min(last),
        Action::PageUp => at.saturating_sub(10),
        Action::PageDown => (*at + 10).min(last),
        Action::Top => 0,
        Action::Bottom => last,
        _ => *at,
    }
    .min(last);
}

/// Draws the modal over an area.
pub fn draw(ui: &mut Ui<'_>, modal: &Modal, area: Rect) {
    match modal {
        Modal::Question(q) => draw_question(ui, q, area),
        Modal::Text { title, lines, scroll } => draw_text(ui, title, lines, *scroll, area),
        Modal::Palette { query, entries, at } => draw_palette(ui, query, entries, *at, area),
    }
}

/// A blank, framed box in the middle of an area; returns its inside.
fn centred(ui: &mut Ui<'_>, title: &str, width: u16, height: u16, area: Rect) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    let at = Rect::new(area.x + (area.width - width) / 2, area.y + (area.height - height) / 2, width, height);
    ui.drawn.cursor = None;
    ui.drawn.hits.clear();
    ui.clear(at);
    let inside = ui.frame(at, title, "");
    Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside }
}

fn draw_question(ui: &mut Ui<'_>, q: &Question, area: Rect) {
    let width = 72.min(area.width.saturating_sub(4)).max(20);
    let room = width.saturating_sub(4) as usize;
    let stacked = q.buttons.iter().map(|b| text::width(&b.label) + 7).sum::<usize>() > room + 3;
    let button_rows = if stacked { q.buttons.len() } else { 1 };
    let (before, list, after) = question_rows(q, room);
    // Lines before the list are as they are; of the list as much as there is room for.
    let fixed = before.len() + after.len() + usize::from(q.confirm.is_some()) + usize::from(!list.is_empty()) + 1 + 2;
    let list_rows = list.len().min((area.height as usize).saturating_sub(fixed + button_rows)).min(10);
    if fixed + list_rows + button_rows > area.height as usize || (list_rows == 0 && !list.is_empty()) {
        return draw_small_question(ui, q, area);
    }
    q.reach.set(list.len() - list_rows);
    let inside = centred(ui, &q.title, width, (fixed + list_rows + button_rows) as u16, area);
    let mut y = inside.y;
    let mut put = |ui: &mut Ui<'_>, row: &Row| {
        review_view::put(ui, row, inside.x, y, room as u16);
        y += 1;
        y
    };
    for row in &before {
        put(ui, row);
    }
    let first = q.scroll.min(list.len() - list_rows);
    for row in list.iter().skip(first).take(list_rows) {
        put(ui, row);
    }
    if !list.is_empty() {
        let y = put(ui, &Vec::new()) - 1;
        if list.len() > list_rows {
            ui.put_right(inside.right(), y, &format!("{} of {} ↑↓", first + list_rows, list.len()), Role::Dim, room);
        }
    }
    for row in &after {
        put(ui, row);
    }
    draw_confirm(ui, q, Rect { y, ..inside });
    let bottom = inside.bottom();
    if stacked {
        for n in 0..q.buttons.len() {
            let row = Rect { y: bottom.saturating_sub((button_rows - n) as u16), height: 1, ..inside };
            draw_button(ui, q, n, row);
        }
    } else {
        let labels: Vec<&str> = q.buttons.iter().map(|b| b.label.as_str()).collect();
        view::draw_buttons(ui, &labels, Some(q.at), Rect { y: bottom.saturating_sub(1), height: 1, ..inside });
    }
}

/// The lines before the list, the list, and the lines after it.
fn question_rows(q: &Question, room: usize) -> (Vec<Row>, Vec<Row>, Vec<Row>) {
    let wrapped = |lines: &[String]| -> Vec<Row> { lines.iter().flat_map(|l| text::wrap(l, room)).map(|l| vec![(l, Role::Text)]).collect() };
    let widest = |texts: &mut dyn Iterator<Item = &String>| texts.map(|t| text::width(t)).max().unwrap_or(0);
    let column = text::share(room.saturating_sub(2), widest(&mut q.list.iter().map(|l| &l.0)), widest(&mut q.list.iter().map(|l| &l.1)));
    let list = q.list.iter().map(|(name, detail)| {
        let name = text::pad(&crate::model::text::sanitise(name), column);
        vec![("  ".to_string(), Role::Text), (name, Role::Accent), ("  ".to_string(), Role::Text), (detail.clone(), Role::Dim)]
    });
    (wrapped(&q.lines), list.collect(), wrapped(&q.after))
}

/// Where there is no room for all of it: one button at a time, and everything above it scrolls.
fn draw_small_question(ui: &mut Ui<'_>, q: &Question, area: Rect) {
    let inside = centred(ui, &q.title, area.width, area.height, area);
    let room = inside.width as usize;
    let (before, list, after) = question_rows(q, room);
    let rows: Vec<Row> = before.into_iter().chain(list).chain(after).collect();
    let body = (inside.height as usize).saturating_sub(1 + usize::from(q.confirm.is_some()));
    q.reach.set(rows.len().saturating_sub(body));
    let first = q.scroll.min(q.reach.get());
    for (i, row) in rows.iter().skip(first).take(body).enumerate() {
        review_view::put(ui, row, inside.x, inside.y + i as u16, inside.width);
    }
    if q.reach.get() > 0 {
        ui.put_right(inside.right(), inside.bottom(), &format!(" {} of {} ↑↓ ", first + body, rows.len()), Role::Dim, room);
    }
    let bottom = inside.bottom().saturating_sub(1);
    draw_confirm(ui, q, Rect { y: bottom.saturating_sub(1), ..inside });
    let count = format!("{}/{} →", q.at + 1, q.buttons.len());
    let row = Rect { y: bottom, height: 1, width: inside.width.saturating_sub(text::width(&count) as u16 + 1), ..inside };
    draw_button(ui, q, q.at, row);
    if q.buttons.len() > 1 {
        ui.put_right(inside.right(), bottom, &count, Role::Dim, room);
    }
}

/// The line in which the word is typed.
fn draw_confirm(ui: &mut Ui<'_>, q: &Question, at: Rect) {
    if let Some((word, typed)) = &q.confirm {
        let room = at.width as usize;
        let (shown, column) = typed.view(room.saturating_sub(3));
        let end = ui.pieces(at.x, at.y, &[("> ", Role::Accent), (&shown, Role::Text)], room);
        if q.refused && !q.armed() {
            // The word stands above: what is to be done with it is said where the cursor is.
            let missing = if shown.is_empty() { format!("✗ type {word} here first") } else { format!("✗ that is not {word}") };
            ui.put(end + 2, at.y, &missing, Role::Bad, at.right().saturating_sub(end + 2) as usize);
        }
        ui.cursor(at.x + 2 + column as u16, at.y);
    }
}

/// One button in a row of its own.
fn draw_button(ui: &mut Ui<'_>, q: &Question, n: usize, row: Rect) {
    let Some(button) = q.buttons.get(n) else { return };
    let label = if button.guarded && !q.armed() { format!("{} (type the name)", button.label) } else { button.label.clone() };
    view::draw_buttons(ui, &[&label], (q.at == n).then_some(0), row);
    if let Some(last) = ui.drawn.hits.last_mut() {
        last.1 = Hit::Button(n);
    }
}

fn draw_text(ui: &mut Ui<'_>, title: &str, lines: &[(String, String)], scroll: usize, area: Rect) {
    let height = (lines.len() as u16 + 2).min(area.height.saturating_sub(2)).max(4);
    let inside = centred(ui, title, 76.min(area.width.saturating_sub(2)), height, area);
    let rows = inside.height as usize;
    let first = scroll.min(lines.len().saturating_sub(rows));
    let keys = lines.iter().map(|l| text::width(&l.0)).max().unwrap_or(0).min(20);
    for (i, (key, help)) in lines.iter().skip(first).take(rows).enumerate() {
        let y = inside.y + i as u16;
        let gap = if keys > 0 { "  " } else { "" };
        ui.pieces(inside.x, y, &[(&text::pad(key, keys), Role::Key), (gap, Role::Text), (help, Role::Text)], inside.width as usize);
    }
    if lines.len() > rows {
        ui.put_right(inside.right(), inside.bottom(), &format!(" {} of {} ↑↓ ", (first + rows).min(lines.len()), lines.len()), Role::Dim, 24);
    }
}

fn draw_palette(ui: &mut Ui<'_>, query: &Line, entries: &[Entry], at: usize, area: Rect) {
    let rows = matching(query, entries);
    let height = (entries.len() as u16 + 3).min(16).min(area.height.saturating_sub(2)).max(5);
    let inside = centred(ui, "Commands", 64.min(area.width.saturating_sub(2)), height, area);
    let width = inside.width as usize;
    let (shown, column) = query.view(width.saturating_sub(3));
    ui.pieces(inside.x, inside.y, &[(": ", Role::Accent), (&shown, Role::Text)], width);
    ui.cursor(inside.x + 2 + column as u16, inside.y);
    let room = inside.height.saturating_sub(1) as usize;
    let first = at.saturating_sub(room.saturating_sub(1));
    for (i, (n, entry)) in rows.iter().map(|i| &entries[*i]).enumerate().skip(first).take(room).enumerate() {
        let y = inside.y + 1 + i as u16;
        let role = if n == at { Role::Accent } else { Role::Text };
        ui.put(inside.x, y, if n == at { "▸" } else { " " }, Role::Accent, 1);
        ui.put(inside.x + 2, y, &text::end(&entry.label, width.saturating_sub(12)), role, width);
        ui.put_right(inside.right(), y, &entry.keys, Role::Dim, 10);
        ui.hit(Rect::new(inside.x, y, inside.width, 1), Hit::Row(n));
    }
    if rows.is_empty() {
        ui.put(inside.x + 2, inside.y + 1, "No command matches.", Role::Dim, width);
    }
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
