//! Runs: one execution of a sync, import or removal, and the documents that report it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Time;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::EnumString, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum RunKind {
    Sync,
    Import,
    Remove,
}

/// Why a run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Trigger {
    Manual,
    Auto,
    Created,
    Drift,
}

impl Trigger {
    /// True when no operator is watching: such a run deletes only what the ledger owns.
    pub fn unattended(self) -> bool {
        matches!(self, Trigger::Auto | Trigger::Drift)
    }
}

/// A run to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRequest {
    pub sync: String,
    pub kind: RunKind,
    pub trigger: Trigger,
    /// Re-read what can be read.
    #[serde(default)]
    pub verify: bool,
    /// Write every value of this sync again that cannot be read back.
    #[serde(default)]
    pub rewrite: bool,
    /// The operator agreed to delete or overwrite what this sync did not write.
    #[serde(default)]
    pub allow_delete: bool,
    /// The operator wants what needs approval left alone this time, and the rest done.
    #[serde(default)]
    pub withhold: bool,
    /// For imports: `source` or `destination`; `None` takes the sync's own behaviour.
    #[serde(default)]
    pub prioritize: Option<Priority>,
    /// For removals: only what earlier settings wrote and the present ones no longer reach.
    #[serde(default)]
    pub left_behind: bool,
}

impl RunRequest {
    /// A run that reads no more than it must, deletes only what the sync owns, and asks for the rest.
    pub fn new(sync: impl Into<String>, kind: RunKind, trigger: Trigger) -> Self {
        Self {
            sync: sync.into(),
            kind,
            trigger,
            verify: false,
            rewrite: false,
            allow_delete: false,
            withhold: false,
            prioritize: None,
            left_behind: false,
        }
    }
}

/// Whose value wins when both sides of an import have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Priority {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RunStatus {
    Succeeded,
    Failed,
    Cancelled,
    /// The process ended before the run did.
    Interrupted,
    /// The run stopped before its first write and asks the operator.
    NeedsApproval,
}

/// One finished run, as `sync --json` and `history --json` print it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    pub id: String,
    /// The sync's name.
    pub sync: String,
    pub kind: RunKind,
    pub trigger: Trigger,
    pub status: RunStatus,
    pub message: Option<String>,
    pub started_at: Time,
    pub finished_at: Option<Time>,
    pub counts: Counts,
    /// Every key that was not unchanged.
    pub secrets: Vec<SecretOutcome>,
    pub requests: Requests,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub created: u64,
    pub updated: u64,
    pub restored: u64,
    pub deleted: u64,
    pub imported: u64,
    pub unchanged: u64,
    pub skipped: u64,
    pub failed: u64,
    /// Keys that wait for the operator's approval.
    #[serde(default)]
    pub withheld: u64,
    /// Keys whose turn did not come before the run ended.
    #[serde(default, rename = "notReached")]
    pub not_reached: u64,
}

impl Counts {
    /// Adds one outcome.
    pub fn add(&mut self, outcome: Outcome) {
        let slot = match outcome {
            Outcome::Created => &mut self.created,
            Outcome::Updated => &mut self.updated,
            Outcome::Restored => &mut self.restored,
            Outcome::Deleted => &mut self.deleted,
            Outcome::Imported => &mut self.imported,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Failed | Outcome::Conflict => &mut self.failed,
            Outcome::Withheld => &mut self.withheld,
            Outcome::NotReached => &mut self.not_reached,
        };
        *slot += 1;
    }

    /// Writes at either side.
    pub fn writes(&self) -> u64 {
        self.created + self.updated + self.restored + self.deleted + self.imported
    }
}

/// What became of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Outcome {
    Created,
    Updated,
    Restored,
    Deleted,
    Imported,
    /// Left alone on purpose; the reason says why.
    Skipped,
    /// Two things claim one key, or the destination's object is not ours to touch. Counts as failed.
    Conflict,
    Failed,
    /// Waits for the operator's approval.
    Withheld,
    /// The run ended before this key's turn.
    NotReached,
}

impl Outcome {
    /// True for writes that were done, at either side.
    pub fn written(self) -> bool {
        matches!(self, Self::Created | Self::Updated | Self::Restored | Self::Deleted | Self::Imported)
    }

    /// Where it stands in a record: what needs the operator most comes first.
    pub fn rank(self) -> u8 {
        match self {
            Self::Failed | Self::Conflict => 0,
            Self::Withheld => 1,
            Self::NotReached => 2,
            Self::Skipped => 3,
            _ => 4,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretOutcome {
    pub key: String,
    pub source_key: Option<String>,
    pub outcome: Outcome,
    pub reason: Option<String>,
}

/// What a run (or a plan) cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Requests sent, retries included.
    pub total: u64,
    pub retries: u64,
    /// Milliseconds spent waiting for quotas, Retry-After and settling objects.
    pub waited_ms: u64,
    /// Bytes of request bodies.
    pub bytes_sent: u64,
    /// Bytes of response bodies.
    pub bytes_received: u64,
    /// Service → call → count, retries included.
    pub by_call: BTreeMap<String, BTreeMap<String, u64>>,
}
