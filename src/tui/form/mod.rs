//! Forms: a list of fields, the focus, and the list of choices that may hang open below one.
//! The wizard and the connection form are made of these; what a field means is theirs, how it
//! is edited and drawn is here ([`view`]).

mod item;
pub mod line;
pub mod picker;
mod picker_view;
pub mod view;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tui_textarea::{Input, Key};

use super::keys::Action;
pub use item::{Item, Kind, Opt, Origin};
use picker::Popup;

/// What happened in a form, for its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormEvent {
    None,
    /// A field's value changed.
    Changed(usize),
    /// The list of this field is wanted (opened, or another folder looked into); `again`: even if it is there.
    Need {
        item: usize,
        again: bool,
    },
    /// A list was closed before its answer came.
    GaveUp(usize),
    /// Enter on the last field of a form without buttons.
    Submit,
    /// A button was pressed.
    Press(usize),
    Back,
}

/// Fields and a focus.
#[derive(Default)]
pub struct Form {
    pub items: Vec<Item>,
    /// An index into `items`; `items.len()` is the row of buttons.
    pub focus: usize,
    pub buttons: Vec<&'static str>,
    pub button: usize,
    pub popup: Option<Popup>,
}

impl Form {
    /// A form with the focus on its first field.
    pub fn new(items: Vec<Item>) -> Self {
        let mut form = Self { items, ..Self::default() };
        let first = form.visible().next();
        form.focus = first.unwrap_or(0);
        form
    }

    fn visible(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.items.iter().enumerate().filter(|(_, i)| !i.hidden).map(|(n, _)| n)
    }

    pub fn item(&self, id: &str) -> Option<&Item> {
        self.items.iter().find(|i| i.id == id)
    }

    pub fn item_mut(&mut self, id: &str) -> Option<&mut Item> {
        self.items.iter_mut().find(|i| i.id == id)
    }

    pub fn position(&self, id: &str) -> Option<usize> {
        self.items.iter().position(|i| i.id == id)
    }

    /// The value of a visible field, empty when there is none.
    pub fn value(&self, id: &str) -> String {
        self.item(id).filter(|i| !i.hidden).map(Item::value).unwrap_or_default()
    }

    pub fn focused(&self) -> Option<&Item> {
        self.items.get(self.focus)
    }

    /// True when typed characters are text.
    pub fn captures(&self) -> bool {
        self.popup.is_some() || self.focused().is_some_and(Item::takes_text)
    }

    /// Puts the focus on the first visible field with a problem; false when there is none.
    pub fn focus_problem(&mut self) -> bool {
        let found = self.visible().find(|n| self.items[*n].problem.is_some());
        for item in &mut self.items {
            item.touched = true;
        }
        if let Some(n) = found {
            self.focus = n;
        }
        found.is_some()
    }

    fn step(&mut self, by: isize) -> bool {
        let mut stops: Vec<usize> = self.visible().collect();
        if !self.buttons.is_empty() {
            stops.push(self.items.len());
        }
        let here = stops.iter().position(|s| *s == self.focus).unwrap_or(0) as isize;
        if let Some(item) = self.items.get_mut(self.focus) {
            item.touched = true;
        }
        match stops.get((here + by).max(0) as usize) {
            Some(next) if here + by >= 0 => {
                self.focus = *next;
                true
            }
            _ => false,
        }
    }

    fn is_last(&self) -> bool {
        self.buttons.is_empty() && self.visible().next_back() == Some(self.focus)
    }

    /// Carries out an action that [`Self::can`] allows.
    pub fn act(&mut self, action: Action) -> FormEvent {
        if self.popup.is_some() {
            return self.act_in_popup(action);
        }
        let n = self.focus;
        let on_buttons = n >= self.items.len();
        match action {
            Action::Next => {
                if !self.step(1) {
                    let first = self.visible().next();
                    self.focus = first.unwrap_or(0);
                }
                FormEvent::None
            }
            Action::Previous => {
                self.step(-1);
                FormEvent::None
            }
            Action::Up => {
                self.step(-1);
                FormEvent::None
            }
            Action::Down if self.items.get(n).is_some_and(|i| i.picks() && i.is_empty() && i.locked.is_none()) => self.open(""),
            Action::Down => {
                self.step(1);
                FormEvent::None
            }
            Action::Open if self.items.get(n).is_some_and(|i| i.picks() && i.locked.is_none()) => self.open_with_value(false),
            Action::Left if on_buttons => {
                self.button = self.button.saturating_sub(1);
                FormEvent::None
            }
            Action::Right if on_buttons => {
                self.button = (self.button + 1).min(self.buttons.len().saturating_sub(1));
                FormEvent::None
            }
            Action::Left | Action::Right | Action::Toggle => {
                let by = if action == Action::Left { -1 } else { 1 };
                if self.items.get_mut(n).is_some_and(|i| i.cycle(by)) { FormEvent::Changed(n) } else { FormEvent::None }
            }
            Action::Origin => match self.items.get_mut(n) {
                Some(item) if item.origin.is_some() => {
                    item.origin = item.origin.map(|o| o.next(item.held));
                    item.line.set("");
                    item.revealed = None;
                    FormEvent::Changed(n)
                }
                _ => FormEvent::None,
            },
            Action::Refresh => FormEvent::Need { item: n, again: true },
            Action::Enter if on_buttons => FormEvent::Press(self.button),
            Action::Enter if self.items.get(n).is_some_and(|i| i.picks() && i.is_empty() && i.required && i.locked.is_none()) => self.open(""),
            Action::Enter if self.is_last() => {
                if let Some(item) = self.items.get_mut(n) {
                    item.touched = true;
                }
                FormEvent::Submit
            }
            Action::Enter => {
                self.step(1);
                FormEvent::None
            }
            Action::Submit if self.buttons.is_empty() => FormEvent::Submit,
            Action::Submit => FormEvent::Press(0),
            Action::Back => FormEvent::Back,
            _ => FormEvent::None,
        }
    }

    /// Whether an action means something where the focus is.
    pub fn can(&self, action: Action) -> bool {
        let item = self.focused();
        match action {
            Action::Toggle => item.is_some_and(|i| matches!(i.kind, Kind::Flag | Kind::Choice(_)) && i.locked.is_none()),
            Action::Left | Action::Right => item.is_none_or(|i| matches!(i.kind, Kind::Flag | Kind::Choice(_))),
            Action::Origin => item.is_some_and(|i| i.origin.is_some()),
            Action::Reveal => item.is_some_and(|i| matches!(i.kind, Kind::Secret { .. }) && i.origin == Some(Origin::Typed) && !i.is_empty()),
            Action::Open => item.is_some_and(|i| i.picks() && i.locked.is_none()),
            Action::Refresh => item.is_some_and(Item::picks) || self.popup.is_some(),
            // Inside a text area these keys edit.
            Action::Enter | Action::Up | Action::Down => !item.is_some_and(|i| i.kind == Kind::Area),
            _ => true,
        }
    }

    /// Takes a key that is no action: typing.
    pub fn text(&mut self, key: &KeyEvent) -> FormEvent {
        if self.popup.is_some() {
            return self.text_in_popup(key);
        }
        let n = self.focus;
        let Some(item) = self.items.get_mut(n).filter(|i| i.takes_text()) else {
            return FormEvent::None;
        };
        if item.picks() {
            return match key.code {
                // Cleared, as in a line; other chords are no text.
                KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => self.open_emptied(),
                KeyCode::Char(_) if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => FormEvent::None,
                KeyCode::Char(c) => self.open(c.encode_utf8(&mut [0; 4])),
                KeyCode::Backspace => self.open_with_value(true),
                KeyCode::Delete if !item.required => {
                    item.line.set("");
                    item.called = None;
                    FormEvent::Changed(n)
                }
                _ => FormEvent::None,
            };
        }
        let changed = match item.kind {
            Kind::Area => item.area.input(area_input(key)),
            _ => item.line.key(key) || (item.origin == Some(Origin::Stored) && matches!(key.code, KeyCode::Backspace | KeyCode::Delete)),
        };
        if changed {
            item.touched = true;
            item.take_over();
            FormEvent::Changed(n)
        } else {
            FormEvent::None
        }
    }

    /// Takes pasted text as text.
    pub fn paste(&mut self, text: &str) -> FormEvent {
        let n = self.focus;
        if let Some(popup) = &mut self.popup {
            popup.insert(text);
            return FormEvent::Need { item: n, again: false };
        }
        let Some(item) = self.items.get_mut(n).filter(|i| i.takes_text()) else {
            return FormEvent::None;
        };
        if item.picks() {
            return self.open(text);
        }
        match item.kind {
            Kind::Area => {
                let clean: String = text.replace("\r\n", "\n").replace('\r', "\n").chars().filter(|c| !c.is_control() || *c == '\n').collect();
                item.area.insert_str(clean);
            }
            _ => item.line.insert(text),
        }
        item.touched = true;
        item.take_over();
        FormEvent::Changed(n)
    }
}

/// The textarea's own key type, built here so that both crates may use different crossterms.
fn area_input(key: &KeyEvent) -> Input {
    let code = match key.code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        _ => Key::Null,
    };
    Input {
        key: code,
        ctrl: key.modifiers.contains(KeyModifiers::CONTROL),
        alt: key.modifiers.contains(KeyModifiers::ALT),
        shift: key.modifiers.contains(KeyModifiers::SHIFT),
    }
}
