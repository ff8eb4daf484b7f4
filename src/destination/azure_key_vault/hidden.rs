//! Names that a write found deleted and that are not this sync's: deleted since the plan looked,
//! or where the list of deleted secrets is closed to it. Such a write is refused, and the next
//! plan shows the name and asks before it is brought back and overwritten. Remembered over
//! restarts, because the next run is often another process.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::SERVICE;
use crate::model::Memory;

/// What one sync met in one vault.
pub(super) struct Hidden {
    memory: Arc<dyn Memory>,
    place: String,
    /// Folded names.
    names: Mutex<BTreeSet<String>>,
}

impl Hidden {
    /// `vault`: the vault's identity.
    pub fn new(memory: Arc<dyn Memory>, sync_id: &str, vault: &str) -> Self {
        let place = format!("{SERVICE}|deleted|{sync_id}|{vault}");
        let names = memory.get(&place).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
        Self { memory, place, names: Mutex::new(names) }
    }

    /// The names not settled yet.
    pub fn names(&self) -> BTreeSet<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A write met this name deleted.
    pub fn met(&self, fold: &str) {
        self.change(|names| names.insert(fold.to_string()));
    }

    /// Forgets the names for which `still` is false: they live again, or are gone for good.
    pub fn keep(&self, still: impl Fn(&str) -> bool) {
        self.change(|names| {
            let before = names.len();
            names.retain(|name| still(name));
            names.len() != before
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<String>) -> bool) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut names) {
            self.memory.put(&self.place, serde_json::json!(*names));
        }
    }
}
