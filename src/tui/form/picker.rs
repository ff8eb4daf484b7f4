//! The list that hangs open below a field: type to filter, pick, or use what was typed.

use crossterm::event::{KeyCode, KeyEvent};
use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};

use super::line::Line;
use super::{Form, FormEvent, Item, Kind};
use crate::destination::Choice;
use crate::tui::keys::Action;

/// The open list.
#[derive(Default)]
pub struct Popup {
    pub query: Line,
    pub at: usize,
}

/// A row of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    Choice(Choice),
    /// Use the typed text.
    Typed(String),
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

/// The rows that match the query.
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
            }
        }
        _ => {
            let texts: Vec<String> =
                choices.iter().map(|c| if c.label == c.value { c.label.clone() } else { format!("{} {}", c.label, c.value) }).collect();
            out.extend(fuzzy(typed, texts.iter().map(String::as_str)).into_iter().map(|i| Row::Choice(choices[i].clone())));
        }
    }
    let free = matches!(item.kind, Kind::Path | Kind::Pick { free: true });
    if free && !typed.is_empty() && !out.iter().any(|r| matches!(r, Row::Choice(c) if c.value == typed)) {
        out.push(Row::Typed(typed.to_string()));
    }
    out
}

impl Form {
    /// Opens the list with a query.
    pub fn open(&mut self, query: &str) -> FormEvent {
        let mut popup = Popup::default();
        let is_path = self.focused().is_some_and(|i| i.kind == Kind::Path);
        if is_path && !query.starts_with('/') {
            popup.query.insert("/");
        }
        popup.query.insert(query);
        self.popup = Some(popup);
        FormEvent::Need { item: self.focus, again: false }
    }

    /// Opens the list on the value, to edit or to replace it.
    pub fn open_with_value(&mut self) -> FormEvent {
        let (is_path, value) = self.focused().map(|i| (i.kind == Kind::Path, i.value())).unwrap_or_default();
        if is_path {
            return self.open(&value);
        }
        let event = self.open("");
        let n = self.focus;
        let at = self
            .popup
            .as_ref()
            .map(|p| rows(&self.items[n], p))
            .and_then(|rows| rows.iter().position(|r| matches!(r, Row::Choice(c) if c.value == value)));
        if let Some(popup) = &mut self.popup {
            match at {
                Some(at) => popup.at = at,
                None => popup.query.insert(&value),
            }
        }
        event
    }

    pub(super) fn act_in_popup(&mut self, action: Action) -> FormEvent {
        let n = self.focus;
        let (Some(popup), Some(item)) = (&mut self.popup, self.items.get_mut(n)) else {
            return FormEvent::None;
        };
        let rows = rows(item, popup);
        let last = rows.len().saturating_sub(1);
        match action {
            Action::Up => popup.at = popup.at.saturating_sub(1),
            Action::Down => popup.at = (popup.at + 1).min(last),
            Action::PageUp => popup.at = popup.at.saturating_sub(8),
            Action::PageDown => popup.at = (popup.at + 8).min(last),
            Action::Back => self.popup = None,
            Action::Refresh => return FormEvent::Need { item: n, again: true },
            Action::Next if item.kind == Kind::Path => {
                if let Some(Row::Choice(choice)) = rows.get(popup.at.min(last)) {
                    let inside = format!("{}/", choice.value.trim_end_matches('/'));
                    popup.query.set(&inside);
                    popup.at = 0;
                    return FormEvent::Need { item: n, again: false };
                }
            }
            Action::Enter | Action::Next => {
                let Some(row) = rows.get(popup.at.min(last)) else {
                    return FormEvent::None;
                };
                item.before = Some((item.value(), item.called.take()));
                match row {
                    Row::Choice(choice) => {
                        item.line.set(&choice.value);
                        item.called = (choice.label != choice.value).then(|| choice.label.clone());
                    }
                    Row::Typed(text) => {
                        item.line.set(text);
                        item.called = None;
                    }
                }
                item.touched = true;
                self.popup = None;
                return FormEvent::Changed(n);
            }
            _ => {}
        }
        FormEvent::None
    }

    pub(super) fn text_in_popup(&mut self, key: &KeyEvent) -> FormEvent {
        let n = self.focus;
        if let Some(popup) = &mut self.popup
            && !matches!(key.code, KeyCode::Left | KeyCode::Right)
            && popup.query.key(key)
        {
            popup.at = 0;
            // Only a path may lead to another list by typing; a refused one is not asked for
            // again with every letter.
            if self.items.get(n).is_some_and(|i| i.kind == Kind::Path) {
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
