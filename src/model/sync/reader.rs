//! Rules of single members, and typed reading of an object's members.

use serde_json::Value;

use crate::model::{Map, Problems, text};

/// Reports an unknown member with a suggestion. `field` is its full path, `word` its last part.
pub fn unknown<'k>(field: &str, word: &str, known: impl Iterator<Item = &'k str>, problems: &mut Problems) {
    let hint = text::closest(word, known).map(|k| format!(" Did you mean {k}?")).unwrap_or_default();
    problems.add(text::brief(field, 120), "unknown-field", format!("{:?} is not a known member.{hint}", text::brief(word, 60)));
}

/// The server's slug rule: lower-case letters and digits in groups joined by single hyphens.
pub fn check_slug(field: &str, value: &str, max: usize, problems: &mut Problems) {
    if value.is_empty() {
        return;
    }
    let fits = value.split('-').all(|group| !group.is_empty() && group.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    if !fits {
        problems.add(field, "slug", format!("{field} must be slug-friendly: lower-case letters and digits, in groups joined by single hyphens."));
    }
    if value.chars().count() > max {
        problems.add(field, "max-length", format!("{field} may have at most {max} characters."));
    }
}

/// Checks a secret path and returns it without its trailing slash.
pub fn check_path(field: &str, path: &str, problems: &mut Problems) -> String {
    let trimmed = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    if trimmed.is_empty() {
        return trimmed.to_string();
    }
    if !trimmed.starts_with('/') {
        problems.add(field, "absolute-path", format!("{field} must start with / (the root folder is /)."));
    } else if trimmed.len() > 1 && trimmed[1..].split('/').any(|s| s.is_empty() || s == "." || s == ".." || s.chars().any(char::is_control)) {
        problems.add(field, "path", format!("{field} must be folder names joined by single slashes."));
    }
    trimmed.to_string()
}

/// Reads typed members of an object and reports what does not fit.
pub struct Reader<'a> {
    pub object: &'a Map,
    /// Put before the member's name in reports, e.g. `destinationConfig.`.
    pub prefix: &'a str,
    pub problems: &'a mut Problems,
}

impl Reader<'_> {
    /// A trimmed text of at most `max` characters. Control characters are refused.
    pub fn text(&mut self, field: &str, required: bool, max: usize) -> Option<String> {
        let path = format!("{}{field}", self.prefix);
        match self.object.get(field) {
            None | Some(Value::Null) if required => {
                self.problems.add(&path, "required", format!("{path} is required."));
                None
            }
            None | Some(Value::Null) => None,
            Some(Value::String(s)) => {
                let s = s.trim();
                if s.is_empty() && required {
                    self.problems.add(&path, "required", format!("{path} must not be empty."));
                }
                if s.chars().count() > max {
                    self.problems.add(&path, "max-length", format!("{path} may have at most {max} characters."));
                }
                if s.chars().any(|c| c.is_control() && c != '\n') {
                    self.problems.add(&path, "control-characters", format!("{path} must not hold control characters."));
                }
                Some(s.to_string())
            }
            Some(_) => {
                self.problems.add(&path, "type", format!("{path} must be a text."));
                None
            }
        }
    }

    /// A boolean.
    pub fn flag(&mut self, field: &str) -> Option<bool> {
        match self.object.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::Bool(b)) => Some(*b),
            Some(_) => {
                let path = format!("{}{field}", self.prefix);
                self.problems.add(&path, "type", format!("{path} must be true or false."));
                None
            }
        }
    }

    /// A whole number within bounds.
    pub fn number(&mut self, field: &str, min: i64, max: i64) -> Option<i64> {
        let path = format!("{}{field}", self.prefix);
        match self.object.get(field) {
            None | Some(Value::Null) => None,
            Some(v) => match v.as_i64() {
                Some(n) if (min..=max).contains(&n) => Some(n),
                _ => {
                    self.problems.add(&path, "range", format!("{path} must be a whole number from {min} to {max}."));
                    None
                }
            },
        }
    }
}
