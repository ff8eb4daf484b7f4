//! The keys, as one table. The loop looks a key up here, the hint bar and the help are drawn
//! from here, and the palette offers the same actions by name: what is shown is what works.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key (or the palette) asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
    Left,
    Right,
    Next,
    Previous,
    Enter,
    Back,
    Toggle,
    Filter,
    Palette,
    Help,
    Quit,
    New,
    SyncNow,
    Verify,
    Plan,
    Import,
    Remove,
    Edit,
    Duplicate,
    Delete,
    Auto,
    Approve,
    Cancel,
    Connections,
    Log,
    Engine,
    Doctor,
    Refresh,
    Copy,
    Sort,
    Tab1,
    Tab2,
    Tab3,
    Tab4,
    Pause,
    Play,
    Test,
    Reveal,
    Origin,
    Submit,
    Json,
    TakeOver,
    Open,
}

/// Where a key is valid. A screen names its contexts from the inside out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Context {
    Global,
    Dashboard,
    /// Any list that has a cursor.
    List,
    Filter,
    Form,
    Picker,
    Review,
    Connections,
    Plan,
    Log,
    Engine,
    Setup,
    /// The choice of the destination.
    Choose,
    Question,
    Text,
    Palette,
}

/// One line of the table.
pub struct Binding {
    pub context: Context,
    /// Names as [`name`] gives them; the first is shown.
    pub keys: &'static [&'static str],
    pub action: Action,
    /// A word for the hint bar; empty: not shown there.
    pub hint: &'static str,
    /// The sentence of the help and the palette.
    pub help: &'static str,
}

const fn key(context: Context, keys: &'static [&'static str], action: Action, hint: &'static str, help: &'static str) -> Binding {
    Binding { context, keys, action, hint, help }
}

use Action as A;
use Context as C;

/// Every key of the app, the most useful first within a context.
pub static BINDINGS: &[Binding] = &[
    key(C::Dashboard, &["n"], A::New, "new", "Create a sync"),
    key(C::Dashboard, &["s"], A::SyncNow, "sync", "Sync now"),
    key(C::Dashboard, &["p"], A::Plan, "plan", "Show what a sync would change"),
    key(C::Dashboard, &["e"], A::Edit, "edit", "Edit the sync"),
    key(C::Dashboard, &["a"], A::Auto, "auto", "Switch auto-sync on or off"),
    key(C::Dashboard, &["/"], A::Filter, "filter", "Filter by typing (fuzzy)"),
    key(C::Dashboard, &["A"], A::Approve, "approve", "Decide about keys that this sync did not write"),
    key(C::Dashboard, &["x"], A::Cancel, "cancel", "Cancel the run: what is in flight finishes"),
    key(C::Dashboard, &["i"], A::Import, "", "Import secrets from the destination"),
    key(C::Dashboard, &["v"], A::Verify, "", "Sync now and re-read every value that can be read"),
    key(C::Dashboard, &["R"], A::Remove, "", "Take the synced keys away from the destination"),
    key(C::Dashboard, &["D"], A::Duplicate, "", "Create a sync from a copy of this one"),
    key(C::Dashboard, &["d"], A::Delete, "", "Delete the sync"),
    key(C::Dashboard, &["Space"], A::Toggle, "", "Select several syncs"),
    key(C::Dashboard, &["o"], A::Sort, "", "Sort by another column"),
    key(C::Dashboard, &["Enter", "Right"], A::Enter, "", "Give the details the whole screen"),
    key(C::Dashboard, &["Esc", "Left", "h"], A::Back, "", "Back to the table; clears filter and selection"),
    key(C::Dashboard, &["Tab"], A::Next, "", "Next tab of the details"),
    key(C::Dashboard, &["Shift-Tab"], A::Previous, "", "Previous tab of the details"),
    key(C::Dashboard, &["1"], A::Tab1, "", "Overview"),
    key(C::Dashboard, &["2"], A::Tab2, "", "Live run"),
    key(C::Dashboard, &["3"], A::Tab3, "", "Secrets of the last run"),
    key(C::Dashboard, &["4"], A::Tab4, "", "History"),
    key(C::Dashboard, &["c"], A::Connections, "", "Connections"),
    key(C::Dashboard, &["l"], A::Log, "", "Log"),
    key(C::Dashboard, &["E"], A::Engine, "", "Engine: running, queued, rates and budgets"),
    key(C::Dashboard, &["P"], A::Pause, "", "Pause or resume all auto-syncs"),
    key(C::Dashboard, &["w"], A::Play, "", "Pause or resume the demo's own changes"),
    key(C::Dashboard, &["y"], A::Copy, "", "Copy the name"),
    key(C::Dashboard, &["r"], A::Refresh, "", "Take a fresh picture"),
    key(C::Filter, &["Enter", "Down"], A::Enter, "keep", "Keep the filter and go to the table"),
    key(C::Filter, &["Esc"], A::Back, "clear", "Clear the filter"),
    key(C::Picker, &["Enter"], A::Enter, "pick", "Pick the marked entry"),
    key(C::Picker, &["Up", "Ctrl-P"], A::Up, "move", "Up"),
    key(C::Picker, &["Down", "Ctrl-N"], A::Down, "", "Down"),
    key(C::Picker, &["PageUp"], A::PageUp, "", "A page up"),
    key(C::Picker, &["PageDown"], A::PageDown, "", "A page down"),
    key(C::Picker, &["Home"], A::Top, "", "To the first entry"),
    key(C::Picker, &["End"], A::Bottom, "", "To the last entry"),
    key(C::Picker, &["Tab", "Right"], A::Next, "", "Take the text as typed, or the entry called so; look inside a folder"),
    key(C::Picker, &["Ctrl-R"], A::Refresh, "again", "Ask again"),
    key(C::Picker, &["Esc"], A::Back, "close", "Close the list, keep the value; ends a question"),
    key(C::Form, &["Tab", "Ctrl-N"], A::Next, "field", "Next field"),
    key(C::Form, &["Enter"], A::Enter, "next", "Confirm and go to the next field or step"),
    key(C::Form, &["Esc"], A::Back, "back", "Back"),
    key(C::Form, &["PageDown", "Ctrl-S"], A::Submit, "step", "On to the next step from any field"),
    key(C::Form, &["PageUp"], A::Back, "", "Back to the step before"),
    key(C::Form, &["Down"], A::Down, "", "Next field, or open the list"),
    key(C::Form, &["Up"], A::Up, "", "Previous field"),
    key(C::Form, &["Shift-Tab", "Ctrl-P"], A::Previous, "", "Previous field"),
    key(C::Form, &["Left"], A::Left, "", "Previous choice"),
    key(C::Form, &["Right"], A::Right, "", "Next choice"),
    key(C::Form, &["Space"], A::Toggle, "change", "Switch, or the next choice"),
    key(C::Form, &["Ctrl-O"], A::Open, "list", "Open the list of this field"),
    key(C::Form, &["Ctrl-T"], A::Test, "test", "Test the connection"),
    key(C::Form, &["Ctrl-E"], A::Origin, "typed/env/file/command", "Where this value comes from: typed, environment, file or command"),
    key(C::Form, &["F2"], A::Reveal, "reveal", "Show this field's value for 10 seconds"),
    key(C::Form, &["Ctrl-R"], A::Refresh, "", "Ask the provider again"),
    key(C::Review, &["Enter"], A::Enter, "choose", "Press the marked button"),
    key(C::Review, &["Left", "Shift-Tab"], A::Left, "", "Previous button"),
    key(C::Review, &["Right", "Tab"], A::Right, "button", "Next button"),
    key(C::Review, &["J"], A::Json, "JSON", "Show the JSON, the command and curl"),
    key(C::Review, &["T"], A::TakeOver, "take over", "Switch off the server's own sync that writes to the same place"),
    key(C::Review, &["Ctrl-R", "r"], A::Refresh, "plan again", "Compute the plan again"),
    key(C::Review, &["y"], A::Copy, "", "Copy the JSON"),
    key(C::Review, &["Esc"], A::Back, "back", "Back to Details"),
    key(C::Connections, &["n"], A::New, "new", "Add a connection"),
    key(C::Connections, &["e", "Enter"], A::Edit, "edit", "Edit the connection"),
    key(C::Connections, &["t"], A::Test, "test", "Test the connection"),
    key(C::Connections, &["d"], A::Delete, "remove", "Remove the connection"),
    key(C::Connections, &["y"], A::Copy, "", "Copy the name"),
    key(C::Connections, &["r", "Ctrl-R"], A::Refresh, "", "Ask again"),
    key(C::Connections, &["Esc", "q"], A::Back, "back", "Back"),
    key(C::Plan, &["s"], A::SyncNow, "sync", "Sync now"),
    key(C::Plan, &["v"], A::Verify, "verify", "Plan again and re-read every value that can be read"),
    key(C::Plan, &["A"], A::Approve, "approve", "Decide about keys that this sync did not write"),
    key(C::Plan, &["r", "Ctrl-R"], A::Refresh, "again", "Plan again"),
    key(C::Plan, &["/"], A::Filter, "filter", "Filter by typing"),
    key(C::Plan, &["Esc", "q"], A::Back, "back", "Back"),
    key(C::Log, &["Esc", "q"], A::Back, "back", "Back"),
    key(C::Engine, &["P"], A::Pause, "pause", "Pause or resume all auto-syncs"),
    key(C::Engine, &["r"], A::Doctor, "check", "Check directories, permissions and connections"),
    key(C::Engine, &["Esc", "q"], A::Back, "back", "Back"),
    key(C::Choose, &["Enter"], A::Enter, "choose", "Take the marked destination"),
    key(C::Choose, &["Esc", "q"], A::Back, "back", "Back to the dashboard"),
    key(C::Setup, &["Enter"], A::Enter, "start", "Take the marked step"),
    key(C::Setup, &["Esc"], A::Back, "later", "Go to the dashboard"),
    key(C::Question, &["Enter"], A::Enter, "choose", "Press the marked button"),
    key(C::Question, &["Right", "Tab"], A::Right, "button", "Next button"),
    key(C::Question, &["Left", "Shift-Tab"], A::Left, "", "Previous button"),
    key(C::Question, &["Esc"], A::Back, "back", "Back, nothing is done"),
    key(C::Text, &["Esc", "q", "?", "Enter"], A::Back, "close", "Close"),
    key(C::Palette, &["Enter"], A::Enter, "do it", "Carry out the marked command"),
    key(C::Palette, &["Esc"], A::Back, "close", "Close"),
    key(C::List, &["Up", "k"], A::Up, "move", "Up"),
    key(C::List, &["Down", "j"], A::Down, "", "Down"),
    key(C::List, &["PageUp", "Ctrl-B"], A::PageUp, "", "A page up"),
    key(C::List, &["PageDown", "Ctrl-F"], A::PageDown, "", "A page down"),
    key(C::List, &["Home", "g"], A::Top, "", "To the top"),
    key(C::List, &["End", "G"], A::Bottom, "", "To the end"),
    key(C::Global, &[":"], A::Palette, "commands", "Every command by name"),
    key(C::Global, &["?", "F1"], A::Help, "help", "The keys that are valid here"),
    key(C::Global, &["q"], A::Quit, "quit", "Quit"),
];

/// The name of a key as the table spells it: `s`, `R`, `Ctrl-T`, `Shift-Tab`, `F2`, `Space`.
pub fn name(key: &KeyEvent) -> String {
    let mut out = String::new();
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        out.push_str("Ctrl-");
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        out.push_str("Alt-");
    }
    match key.code {
        KeyCode::Char(' ') => out.push_str("Space"),
        KeyCode::Char(c) if out.starts_with("Ctrl-") => out.extend(c.to_uppercase()),
        KeyCode::Char(c) => out.push(c),
        KeyCode::BackTab => out.push_str("Shift-Tab"),
        KeyCode::Tab if key.modifiers.contains(KeyModifiers::SHIFT) => out.push_str("Shift-Tab"),
        KeyCode::F(n) => out.push_str(&format!("F{n}")),
        KeyCode::Enter => out.push_str("Enter"),
        other => out.push_str(&format!("{other:?}")),
    }
    out
}

/// True for keys that type a character.
pub fn is_text(name: &str) -> bool {
    name == "Space" || name.chars().count() == 1
}

/// The keys of a binding that act; while `typing`, the others are text.
pub fn acting(binding: &Binding, typing: bool) -> impl Iterator<Item = &'static str> {
    binding.keys.iter().copied().filter(move |k| !typing || !is_text(k))
}

/// How a key is written in the hint bar.
pub fn shown(binding: &Binding, typing: bool) -> &'static str {
    match acting(binding, typing).next().unwrap_or(binding.keys[0]) {
        "Up" => "↑↓",
        "Right" => "→",
        "Left" => "←",
        "Down" => "↓",
        key => key,
    }
}

/// The first binding of a key in these contexts, innermost first, among those that `valid` lets pass.
pub fn lookup(contexts: &[Context], key: &str, valid: impl Fn(Action) -> bool) -> Option<&'static Binding> {
    contexts.iter().find_map(|c| BINDINGS.iter().find(|b| b.context == *c && b.keys.contains(&key) && valid(b.action)))
}

/// The valid bindings of these contexts, for help and hint bar; a key that an inner context took is left out.
pub fn valid(contexts: &[Context], can: impl Fn(Action) -> bool) -> Vec<&'static Binding> {
    let mut taken: Vec<&str> = Vec::new();
    let mut out = Vec::new();
    for context in contexts {
        for binding in BINDINGS.iter().filter(|b| b.context == *context && can(b.action)) {
            if taken.contains(&binding.keys[0]) {
                continue;
            }
            taken.extend(binding.keys);
            out.push(binding);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things_in_one_context() {
        for (i, a) in BINDINGS.iter().enumerate() {
            for b in &BINDINGS[i + 1..] {
                if a.context == b.context {
                    assert!(a.keys.iter().all(|k| !b.keys.contains(k)), "{:?}: {:?} and {:?}", a.context, a.keys, b.keys);
                }
            }
        }
    }

    #[test]
    fn names_follow_the_table() {
        let cases = [
            (KeyCode::Char('R'), KeyModifiers::SHIFT, "R"),
            (KeyCode::Char('t'), KeyModifiers::CONTROL, "Ctrl-T"),
            (KeyCode::BackTab, KeyModifiers::SHIFT, "Shift-Tab"),
            (KeyCode::Char(' '), KeyModifiers::NONE, "Space"),
            (KeyCode::PageUp, KeyModifiers::NONE, "PageUp"),
            (KeyCode::F(2), KeyModifiers::NONE, "F2"),
        ];
        for (code, modifiers, expected) in cases {
            assert_eq!(name(&KeyEvent::new(code, modifiers)), expected);
        }
    }
}
