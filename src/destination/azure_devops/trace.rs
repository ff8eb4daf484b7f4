//! Small facts that outlive the process: which states of a group this installation made, and
//! which group a sync wrote last. Never a value, never a variable's name.
//!
//! `modifiedOn` moves with every write of anybody. Two local syncs on one group would see
//! each other's writes as edits from outside and write for ever; so the stamps that our own
//! writes produced are kept as an unbroken chain, each made upon the one before.

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::Memory;

/// Stamps kept; a sync that did not run for so many writes of others checks once too often.
const KEPT: usize = 64;

/// What is known of one group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct GroupRow {
    /// Stamps of our writes, oldest first, with no foreign write between them.
    pub chain: Vec<String>,
    /// This installation made the group.
    pub created: bool,
}

impl GroupRow {
    /// True when nobody but us wrote between the state `then` and the state `now`.
    pub fn ours(&self, then: &str, now: &str) -> bool {
        self.chain.last().is_some_and(|last| last == now) && self.chain.iter().any(|s| s == then)
    }

    /// Our write turned state `base` into state `made`.
    pub fn wrote(&mut self, base: Option<&str>, made: &str) {
        let unbroken = base.is_some_and(|b| self.chain.last().is_some_and(|l| l == b));
        if !unbroken {
            self.chain.clear();
        }
        if self.chain.last().is_none_or(|l| l != made) {
            self.chain.push(made.to_string());
        }
        let surplus = self.chain.len().saturating_sub(KEPT);
        self.chain.drain(..surplus);
    }
}

/// Where a sync wrote last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SyncRow {
    pub group: i64,
    /// The group's name then.
    pub name: String,
    /// The source's environment then.
    pub environment: String,
    /// The name came from the configuration, not from the environment.
    pub explicit: bool,
    /// Somebody else wrote since this sync did: its values there are not proved, whatever
    /// stamp the ledger took over meanwhile.
    #[serde(default)]
    pub unproven: bool,
    /// Writes in a row that followed a foreign one.
    #[serde(default)]
    pub repairs: u32,
}

/// The rows of one project of one organisation.
#[derive(Clone)]
pub(super) struct Trace {
    memory: Arc<dyn Memory>,
    /// Base address and project.
    place: String,
}

impl Trace {
    pub fn new(memory: Arc<dyn Memory>, base: &url::Url, project: &str) -> Self {
        Self { memory, place: format!("azure-devops/{}/{}", base.as_str().trim_end_matches('/').to_lowercase(), project.to_lowercase()) }
    }

    pub fn group(&self, id: i64) -> GroupRow {
        self.get(&format!("{}/group/{id}", self.place)).unwrap_or_default()
    }

    pub fn keep_group(&self, id: i64, row: &GroupRow) {
        self.put(&format!("{}/group/{id}", self.place), row);
    }

    pub fn forget_group(&self, id: i64) {
        self.memory.put(&format!("{}/group/{id}", self.place), serde_json::Value::Null);
    }

    pub fn sync(&self, sync_id: &str) -> Option<SyncRow> {
        self.get(&format!("{}/sync/{sync_id}", self.place))
    }

    pub fn keep_sync(&self, sync_id: &str, row: &SyncRow) {
        if self.sync(sync_id).as_ref() != Some(row) {
            self.put(&format!("{}/sync/{sync_id}", self.place), row);
        }
    }

    pub fn forget_sync(&self, sync_id: &str) {
        self.memory.put(&format!("{}/sync/{sync_id}", self.place), serde_json::Value::Null);
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_value(self.memory.get(key)?).ok()
    }

    fn put<T: Serialize>(&self, key: &str, row: &T) {
        // Texts, numbers and flags always become JSON.
        if let Ok(value) = serde_json::to_value(row) {
            self.memory.put(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_breaks_where_somebody_else_wrote() {
        let mut row = GroupRow::default();
        row.wrote(None, "1");
        row.wrote(Some("1"), "2");
        assert!(row.ours("1", "2") && row.ours("2", "2"));
        assert!(!row.ours("1", "3"), "a stamp we did not make");
        row.wrote(Some("foreign"), "4");
        assert!(!row.ours("1", "4") && !row.ours("2", "4"), "what was written before may have been changed in between");
        assert!(row.ours("4", "4"));
        for n in 5..200 {
            row.wrote(Some(&(n - 1).to_string()), &n.to_string());
        }
        assert_eq!(row.chain.len(), KEPT);
    }
}
