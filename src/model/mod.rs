//! Domain types and their validation. No IO lives here, and no provider's name: what a
//! destination kind allows is asked through [`sync::KindRules`], which `destination/` implements.

pub mod board;
pub mod connection;
pub mod filter;
pub mod json;
pub mod ledger;
pub mod plan;
pub mod problems;
pub mod run;
pub mod schema;
pub mod secret;
pub mod sync;
pub mod text;

pub use problems::{FieldProblem, Problems};
pub use secret::SecretValue;

/// The JSON object type used for the open parts of documents (`destinationConfig`, credentials).
pub type Map = serde_json::Map<String, serde_json::Value>;

/// A moment, printed as RFC 3339 in UTC.
pub type Time = jiff::Timestamp;

/// This moment, to the millisecond: finer digits mean nothing to whoever reads them.
pub fn now() -> Time {
    let now = Time::now();
    Time::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// The answer of a connection test.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TestReport {
    /// Who we are there: `account 1234…, as arn:…`.
    pub identity: String,
    /// What was proved, and what could not be.
    pub notes: Vec<String>,
}

/// Something that can be picked.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Choice {
    /// What the configuration stores.
    pub value: String,
    /// What the operator reads.
    pub label: String,
    /// Dim text behind the label.
    pub detail: Option<String>,
}

/// A line of `doctor`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    pub ok: bool,
    /// What was looked at.
    pub what: String,
    pub detail: String,
    /// What to do when it is not well, or could be better.
    pub fix: Option<String>,
}

impl Finding {
    /// `ok`, `warning` (it works, and there is something to do) or `error`.
    pub fn level(&self) -> &'static str {
        match (self.ok, &self.fix) {
            (false, _) => "error",
            (true, Some(_)) => "warning",
            (true, None) => "ok",
        }
    }
}

/// Small facts that must outlive the process (a rate window, a learned id): never secrets.
/// The store implements it over its state database; [`Forgetful`] keeps nothing.
pub trait Memory: Send + Sync {
    fn get(&self, key: &str) -> Option<serde_json::Value>;
    fn put(&self, key: &str, value: serde_json::Value);
}

/// A [`Memory`] that forgets, for questions outside an engine and for tests.
#[derive(Debug, Default, Clone, Copy)]
pub struct Forgetful;

impl Memory for Forgetful {
    fn get(&self, _key: &str) -> Option<serde_json::Value> {
        None
    }

    fn put(&self, _key: &str, _value: serde_json::Value) {}
}
