//! The list that hangs open below a field: type to filter, pick, or use what was typed.

use crossterm::event::{KeyCode, KeyEvent};
use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};

use super::line::Line;
use super::{Form, FormEvent, Item, Kind};
use crate::destination::Choice;
use crate::tui::keys::Action;
use crate::tui::modal::scrolled_by;

/// The open list.
#[derive(Default)]
pub struct Popup {
    pub query: Line,
    /// The row that the arrows or a click marked, and where it stood. It stays marked while lists come and go.
    marked: Option<(usize, Row)>,
    /// The field's value when the list was opened: its row is the first one marked.
    value: String,
    /// Rows of the list on the screen, kept by the drawing.
    pub page: std::cell::Cell<usize>,
}

/// A row of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    Choice(Choice),
    /// Use the typed text.
    Typed(String),
}

impl Row {
    fn value(&self) -> &str {
        match self {
            Self::Choice(choice) => &choice.value,
            Self::Typed(text) => text,
        }
    }

    /// True when the text is all of this row's name or value.
    fn is(&self, text: &str) -> bool {
        matches!(self, Self::Choice(c) if c.value == text || c.label == text)
    }
}

impl Popup {
    fn standing(&self, rows: &[Row]) -> Option<usize> {
        let (at, row) = self.marked.as_ref()?;
        if rows.get(*at) == Some(row) { Some(*at) } else { rows.iter().position(|r| r == row) }
    }

    /// The row that Enter takes, an index into `rows` where there are any.
    pub fn at(&self, rows: &[Row]) -> usize {
        let typed = self.query.text().trim();
        let own = || (typed.is_empty() || typed == self.value).then(|| rows.iter().position(|r| r.value() == self.value)).flatten();
        self.standing(rows).or_else(own).unwrap_or(0)
    }

    /// Takes pasted text.
    pub fn insert(&mut self, text: &str) {
        self.query.insert(text);
        self.marked = None;
    }

    /// Marks a row, and keeps it marked.
    pub fn mark(&mut self, rows: &[Row], at: usize) {
        self.marked = rows.get(at).map(|row| (at, row.clone()));
    }
}

/// Sorts `texts` by how well they match, keeping the given order among equals; indices into `texts`.
pub fn fuzzy<'t>(query: &str, texts: impl Iterator<Item = &'t str>) -> Vec<usize> {
    let query = query.trim();
    if query.is_empty() {
        return (0..texts.count()).collect();
    }
    let pattern = Pattern::parse(query, CaseMatching::Smart, Normalization::Smart);
    let mut config = Config::DEFAULT;
    config.prefer_prefix = true;
    let mut matcher = Matcher::new(config);
    let mut buffer = Vec::new();
    let mut hits: Vec<(u32, usize)> =
        texts.enumerate().filter_map(|(i, t)| Some((pattern.score(Utf32Str::new(t, &mut buffer), &mut matcher)?, i))).collect();
    hits.sort_by_key(|(score, i)| (std::cmp::Reverse(*score), *i));
    hits.into_iter().map(|(_, i)| i).collect()
}

/// The folder to look into and the start of a name, for a path typed so far.
pub fn split_path(typed: &str) -> (String, String) {
    let typed = typed.trim();
    match typed.rfind('/') {
        None => ("/".into(), typed.to_string()),
        Some(0) => ("/".into(), typed[1..].to_string()),
        Some(i) => (typed[..i].to_string(), typed[i + 1..].to_string()),
    }
}

/// A folder below another. Lists give names or full paths.
fn join(parent: &str, child: &str) -> String {
    if child.starts_with('/') { child.to_string() } else { format!("{}/{child}", parent.trim_end_matches('/')) }
}

/// From this many characters on a text may mean an id that its row does not show.
const ID_CHARS: usize = 8;
/// From this many characters on a text is also looked for beside the names.
const ASIDE_CHARS: usize = 3;

/// What a row shows beside its name, empty for nothing.
pub fn aside(choice: &Choice) -> &str {
    match &choice.detail {
        Some(detail) => detail,
        None if choice.label != choice.value => &choice.value,
        None => "",
    }
}

/// The choices that match, the best first: what is called so, whose name matches, beside whose
/// name it stands, and last whose id begins so. Ids match by chance where little is typed.
fn matching(choices: &[Choice], typed: &str) -> Vec<usize> {
    let lower = typed.to_lowercase();
    let mut found: Vec<usize> = Vec::new();
    if !typed.is_empty() {
        let called = |c: &Choice| c.value == typed || c.label == typed;
        let alike = |c: &Choice| c.value.to_lowercase() == lower || c.label.to_lowercase() == lower;
        found.extend((0..choices.len()).filter(|i| called(&choices[*i])));
        found.extend((0..choices.len()).filter(|i| !called(&choices[*i]) && alike(&choices[*i])));
    }
    found.extend(fuzzy(typed, choices.iter().map(|c| c.label.as_str())));
    let chars = typed.chars().count();
    if chars >= ASIDE_CHARS {
        found.extend((0..choices.len()).filter(|i| aside(&choices[*i]).to_lowercase().contains(&lower)));
    }
    if chars >= ID_CHARS {
        found.extend((0..choices.len()).filter(|i| choices[*i].value.to_lowercase().starts_with(&lower)));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|i| seen.insert(*i));
    found
}

/// The rows that match the query. The text itself stands second, behind the best match: it is
/// within reach however many entries match.
pub fn rows(item: &Item, popup: &Popup) -> Vec<Row> {
    let empty = Vec::new();
    let choices = item.choices.value.as_ref().unwrap_or(&empty);
    let typed = popup.query.text().trim();
    let mut out = Vec::new();
    match item.kind {
        Kind::Path => {
            let (parent, start) = split_path(typed);
            if start.is_empty() {
                out.push(Row::Choice(Choice { value: parent.clone(), label: parent.clone(), detail: Some("this folder".into()) }));
            }
            let fresh = item.asked.as_deref().is_some_and(|a| a.ends_with(&format!("\n{parent}")));
            let texts: Vec<&str> = choices.iter().map(|c| c.value.rsplit('/').next().unwrap_or(&c.value)).collect();
            if fresh {
                out.extend(fuzzy(&start, texts.into_iter()).into_iter().map(|i| {
                    let path = join(&parent, &choices[i].value);
                    Row::Choice(Choice { label: path.clone(), value: path, detail: choices[i].detail.clone() })
                }));
                // Stable: the others stay in their order.
                out.sort_by_key(|row| row.value() != typed);
            }
        }
        _ => out.extend(matching(choices, typed).into_iter().map(|i| Row::Choice(choices[i].clone()))),
    }
    let free = item.free();
    let text = if typed.is_empty() { popup.value.as_str() } else { typed };
    if free && !text.is_empty() && !out.iter().any(|r| r.is(text)) {
        let behind = usize::from(!typed.is_empty()).min(out.len());
        out.insert(behind, Row::Typed(text.to_string()));
    }
    if typed.is_empty() && may_be_empty(item) {
        out.insert(0, Row::Typed(String::new()));
    }
    out
}

/// True where nothing is a choice, too.
fn may_be_empty(item: &Item) -> bool {
    item.kind == (Kind::Pick { free: true }) && !item.required
}

/// The row that Tab takes. What was typed becomes no other entry than the one called so.
fn meant(item: &Item, popup: &Popup, rows: &[Row]) -> Option<Row> {
    let typed = popup.query.text().trim();
    if typed.is_empty() || popup.standing(rows).is_some() {
        return rows.get(popup.at(rows)).cloned();
    }
    if let Some(row) = rows.iter().find(|r| r.value() == typed) {
        return Some(row.clone());
    }
    let mut called = rows.iter().filter(|r| r.is(typed));
    match (called.next(), called.next(), rows) {
        (Some(row), None, _) => Some(row.clone()),
        // In a list that takes no text the text is a filter, and means the one entry it leaves.
        (None, _, [only]) if item.kind == (Kind::Pick { free: false }) => Some(only.clone()),
        _ => None,
    }
}

impl Form {
    /// Opens the list with a query.
    pub fn open(&mut self, query: &str) -> FormEvent {
        let (is_path, value) = self.focused().map(|i| (i.kind == Kind::Path, i.value())).unwrap_or_default();
        let mut popup = Popup { value: if is_path { String::new() } else { value }, ..Popup::default() };
        if is_path && !query.starts_with('/') {
            popup.query.insert("/");
        }
        popup.query.insert(query);
        self.popup = Some(popup);
        FormEvent::Need { item: self.focus, again: false }
    }

    /// Opens the whole list in place of the value.
    pub fn open_emptied(&mut self) -> FormEvent {
        let event = self.open("");
        if let Some(popup) = self.popup.as_mut().filter(|_| self.items.get(self.focus).is_some_and(may_be_empty)) {
            popup.value.clear();
        }
        event
    }

    /// Opens the whole list with the value marked. `edit`: a value that no list gave is there to be edited.
    pub fn open_with_value(&mut self, edit: bool) -> FormEvent {
        let Some(item) = self.focused() else {
            return FormEvent::None;
        };
        let value = item.value();
        let listed = item.called.is_some() || item.choices.value.iter().flatten().any(|c| c.value == value);
        if item.kind == Kind::Path || (edit && !listed) { self.open(&value) } else { self.open("") }
    }

    /// Marks a row of the open list; false when none is open.
    pub fn mark(&mut self, at: usize) -> bool {
        let (Some(popup), Some(item)) = (&mut self.popup, self.items.get(self.focus)) else {
            return false;
        };
        let rows = rows(item, popup);
        popup.mark(&rows, at);
        true
    }

    /// Keeps the marked row marked, whatever arrives: what Enter takes is what was seen.
    pub fn pin(&mut self) {
        if let (Some(popup), Some(item)) = (&mut self.popup, self.items.get(self.focus))
            && !popup.query.text().trim().is_empty()
        {
            let rows = rows(item, popup);
            popup.mark(&rows, popup.at(&rows));
        }
    }

    pub(super) fn act_in_popup(&mut self, action: Action) -> FormEvent {
        let n = self.focus;
        let (Some(popup), Some(item)) = (&mut self.popup, self.items.get_mut(n)) else {
            return FormEvent::None;
        };
        let rows = rows(item, popup);
        let at = popup.at(&rows);
        // One row stays in sight.
        let page = popup.page.get().saturating_sub(1).max(1);
        let row = match action {
            Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::Top | Action::Bottom => {
                let mut to = at;
                scrolled_by(&mut to, action, rows.len(), page);
                popup.mark(&rows, to);
                None
            }
            Action::Back => {
                self.popup = None;
                return if item.choices.busy() { FormEvent::GaveUp(n) } else { FormEvent::None };
            }
            Action::Refresh => return FormEvent::Need { item: n, again: true },
            Action::Next if item.kind == Kind::Path => {
                if let Some(Row::Choice(choice)) = rows.get(at) {
                    let inside = format!("{}/", choice.value.trim_end_matches('/'));
                    popup.query.set(&inside);
                    popup.marked = None;
                    return FormEvent::Need { item: n, again: false };
                }
                // Nothing to look into: the text is taken as it is.
                rows.get(at).cloned()
            }
            Action::Next => meant(item, popup, &rows),
            Action::Enter => rows.get(at).cloned(),
            _ => None,
        };
        row.map_or(FormEvent::None, |row| self.take(row))
    }

    /// Makes a row the field's value and closes the list.
    fn take(&mut self, row: Row) -> FormEvent {
        let n = self.focus;
        self.popup = None;
        let Some(item) = self.items.get_mut(n) else {
            return FormEvent::None;
        };
        let before = (item.value(), item.called.take());
        match row {
            Row::Choice(choice) => {
                item.line.set(&choice.value);
                item.called = (choice.label != choice.value).then_some(choice.label);
            }
            // The value as it was keeps its name, though no list tells it now.
            Row::Typed(text) if text == before.0 => item.called.clone_from(&before.1),
            Row::Typed(text) => item.line.set(&text),
        }
        item.before = Some(before);
        item.touched = true;
        FormEvent::Changed(n)
    }

    pub(super) fn text_in_popup(&mut self, key: &KeyEvent) -> FormEvent {
        let n = self.focus;
        let Some(popup) = &mut self.popup else {
            return FormEvent::None;
        };
        let (before, _) = split_path(popup.query.text());
        if !matches!(key.code, KeyCode::Left | KeyCode::Right) && popup.query.key(key) {
            popup.marked = None;
            // Emptied by hand: the value that stood there is not meant any more.
            if popup.query.text().is_empty() && self.items.get(n).is_some_and(may_be_empty) {
                popup.value.clear();
            }
            // Only a path may lead to another list by typing; a refused one is not asked for
            // again with every letter.
            if self.items.get(n).is_some_and(|i| i.kind == Kind::Path) && split_path(popup.query.text()).0 != before {
                return FormEvent::Need { item: n, again: false };
            }
        }
        FormEvent::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_asks_and_typing_does_not() {
        use crossterm::event::KeyModifiers;
        let press = |form: &mut Form, c, modifiers| form.text(&KeyEvent::new(KeyCode::Char(c), modifiers));
        let mut form = Form::new(vec![Item::new("vault", "Vault", "", Kind::Pick { free: true })]);
        // A control key is no letter to search by.
        assert_eq!(press(&mut form, 'w', KeyModifiers::CONTROL), FormEvent::None);
        assert!(form.popup.is_none());
        // But the one that clears a line searches anew.
        assert_eq!(press(&mut form, 'u', KeyModifiers::CONTROL), FormEvent::Need { item: 0, again: false });
        form.popup = None;
        assert_eq!(press(&mut form, 'o', KeyModifiers::NONE), FormEvent::Need { item: 0, again: false });
        assert_eq!(press(&mut form, 'c', KeyModifiers::NONE), FormEvent::None);
        assert_eq!(form.popup.as_ref().map(|p| p.query.text()), Some("oc"));
        // A path leads to another list with every slash.
        let mut form = Form::new(vec![Item::new("secretPath", "Secret Path", "", Kind::Path)]);
        press(&mut form, 'b', KeyModifiers::NONE);
        assert_eq!(press(&mut form, '/', KeyModifiers::NONE), FormEvent::Need { item: 0, again: false });
    }

    #[test]
    fn a_field_that_may_be_empty_can_be_emptied_and_is_not_filled_by_a_look() {
        use crossterm::event::KeyModifiers;
        for (required, emptied) in [(false, ""), (true, "prod")] {
            let mut item = Item::new("environment", "Environment", "", Kind::Pick { free: true });
            item.required = required;
            item.choices.value = Some(["dev", "prod"].map(|v| Choice { value: v.into(), label: v.into(), detail: None }).into());
            item.set("prod");
            let mut form = Form::new(vec![item]);
            form.open_with_value(false);
            form.act_in_popup(Action::Enter);
            assert_eq!(form.items[0].value(), "prod", "what stood there is marked");
            form.text(&KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
            form.act_in_popup(Action::Next);
            assert_eq!(form.items[0].value(), emptied);
            form.open_with_value(false);
            form.act_in_popup(Action::Next);
            assert_eq!(form.items[0].value(), emptied, "a look changes nothing");
        }
    }

    #[test]
    fn paths_are_walked_by_typing() {
        assert_eq!(split_path("bil"), ("/".into(), "bil".into()));
        assert_eq!(split_path("/bil"), ("/".into(), "bil".into()));
        assert_eq!(split_path("/billing/"), ("/billing".into(), String::new()));
        assert_eq!(split_path("/billing/x"), ("/billing".into(), "x".into()));
    }

    #[test]
    fn the_best_match_comes_first() {
        let names = ["kv-billing-test", "kv-billing", "payments"];
        assert_eq!(fuzzy("billing", names.into_iter()).len(), 2);
        assert_eq!(fuzzy("", names.into_iter()), [0, 1, 2]);
    }
}
