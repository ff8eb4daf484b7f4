//! The plan document: what `plan --json` prints and what the screens show.

use serde::{Deserialize, Serialize};

use super::run::Requests;

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, strum::Display, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Action {
    Create,
    Update,
    Restore,
    Delete,
    Import,
}

/// The printed plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanDoc {
    pub sync: String,
    pub source: SourceSide,
    pub destination: DestinationSide,
    pub changes: Vec<ChangeDoc>,
    /// Number of keys that already are as they should be.
    pub unchanged: usize,
    pub skipped: Vec<SkippedDoc>,
    pub conflicts: Vec<ConflictDoc>,
    /// Keys that no run touches before the operator agreed (or `--allow-delete`).
    pub needs_approval: Vec<ApprovalDoc>,
    pub warnings: Vec<String>,
    pub requests: Requests,
}

impl PlanDoc {
    /// True when a run would write nothing.
    pub fn is_noop(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes have this action.
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|c| c.action == action).count()
    }
}

/// What the source holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceSide {
    pub secrets: usize,
    /// False when something that belongs to the source could not be read: nothing is deleted then.
    pub complete: bool,
}

/// What the destination holds within reach of the key schema.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationSide {
    pub keys: usize,
    pub complete: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeDoc {
    pub action: Action,
    pub key: String,
    pub source_key: Option<String>,
    /// True when the ledger shows that this sync wrote the key.
    pub owned: bool,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedDoc {
    pub key: Option<String>,
    pub source_key: Option<String>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictDoc {
    pub keys: Vec<String>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalDoc {
    pub key: String,
    pub reason: String,
}
