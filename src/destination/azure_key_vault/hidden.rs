//! Names that a write found deleted and that are not this sync's: deleted since the plan looked,
//! or where the list of deleted secrets is closed to it. Such a write is refused, and the next
//! plan shows the name and asks before it is brought back and overwritten. Remembered over
//! restarts, because the next run is often another process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::SERVICE;
use super::keys::Keys;
use crate::destination::KeySpace as _;
use crate::model::Memory;

/// What one sync met in one vault.
pub(super) struct Hidden {
    memory: Arc<dyn Memory>,
    place: String,
    /// By folded name, as the write spelled them.
    names: Mutex<BTreeMap<String, String>>,
}

impl Hidden {
    /// `vault`: the vault's identity.
    pub fn new(memory: Arc<dyn Memory>, sync_id: &str, vault: &str) -> Self {
        let place = format!("{SERVICE}|deleted|{sync_id}|{vault}");
        let names: Vec<String> = memory.get(&place).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
        let names = names.into_iter().map(|name| (Keys.fold(&name), name)).collect();
        Self { memory, place, names: Mutex::new(names) }
    }

    /// The names not settled yet, by folded name.
    pub fn names(&self) -> BTreeMap<String, String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A write met this name deleted.
    pub fn met(&self, name: &str) {
        self.change(|names| names.insert(Keys.fold(name), name.to_string()).as_deref() != Some(name));
    }

    /// Forgets the (folded) names for which `still` is false: they live again, or are gone for good.
    pub fn keep(&self, still: impl Fn(&str) -> bool) {
        self.change(|names| {
            let before = names.len();
            names.retain(|fold, _| still(fold));
            names.len() != before
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, String>) -> bool) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut names) {
            self.memory.put(&self.place, serde_json::json!(names.values().collect::<Vec<_>>()));
        }
    }
}
