//! Validation errors that name the field and the rule, several at a time.

use serde::{Deserialize, Serialize};

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// Dotted path as the JSON writes it, e.g. `syncOptions.keySchema`.
    pub field: String,
    /// The rule's stable word, e.g. `required`, `slug`, `max-length`, `unknown-field`.
    pub rule: String,
    /// A sentence for the operator.
    pub message: String,
}

/// All broken rules of one document, reported together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems(pub Vec<FieldProblem>);

impl Problems {
    /// One broken rule.
    pub fn one(field: impl Into<String>, rule: &str, message: impl Into<String>) -> Self {
        let mut problems = Self::default();
        problems.add(field, rule, message);
        problems
    }

    /// Records one broken rule.
    pub fn add(&mut self, field: impl Into<String>, rule: &str, message: impl Into<String>) {
        self.0.push(FieldProblem { field: field.into(), rule: rule.into(), message: message.into() });
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok(value)` when nothing is wrong, the problems otherwise.
    pub fn into_result<T>(self, value: T) -> Result<T, Problems> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Like the plain text, with the word of each rule: for logs, where nobody sees the form.
    pub fn ruled(&self) -> String {
        let told = |p: &FieldProblem| match p.field.as_str() {
            "" => format!("{} [{}]", p.message, p.rule),
            field => format!("{field}: {} [{}]", p.message, p.rule),
        };
        self.0.iter().map(told).collect::<Vec<_>>().join("; ")
    }

    /// The message of the first problem of `field`, for a form to show beside it.
    pub fn of(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|p| p.field == field).map(|p| p.message.as_str())
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = |p: &FieldProblem| if p.field.is_empty() { p.message.clone() } else { format!("{}: {}", p.field, p.message) };
        f.write_str(&super::text::joined(&self.0.iter().map(told).collect::<Vec<_>>()))
    }
}

impl std::error::Error for Problems {}
