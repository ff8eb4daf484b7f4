//! Which variables of a repository its deployment environments hide. Atlassian: "Variables and
//! secrets": a deployment variable wins over a repository variable of the same name.
//!
//! No call is made for it: what the lists of environments showed, whenever a sync read them,
//! is kept (names, never values), and a sync to the repository's own variables is warned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::destination::Desired;
use crate::model::Memory;
use crate::model::text::{brief, names};

/// Names told in one warning.
const TOLD: usize = 5;

/// One environment as it was listed last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Environment {
    /// Unknown while only its uuid was ever seen.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    keys: BTreeSet<String>,
    /// The day of the list, `2026-03-01`.
    #[serde(default)]
    seen: String,
}

/// The environments of one repository, by uuid.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Known(BTreeMap<String, Environment>);

/// What is known of one repository's environments.
pub struct Overrides {
    memory: Arc<dyn Memory>,
    key: String,
    /// The names in the environment that is open, as the run leaves them.
    open: Mutex<Option<(String, BTreeSet<String>)>>,
}

impl Overrides {
    /// `repository` is the stem under which facts of the repository are kept.
    pub fn new(memory: Arc<dyn Memory>, repository: &str) -> Self {
        Self { memory, key: format!("{repository}/overrides"), open: Mutex::new(None) }
    }

    fn open(&self) -> MutexGuard<'_, Option<(String, BTreeSet<String>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) -> Known {
        self.memory.get(&self.key).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default()
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let before = self.load();
        let mut after = before.clone();
        change(&mut after);
        if after != before
            && let Ok(value) = serde_json::to_value(&after)
        {
            self.memory.put(&self.key, value);
        }
    }

    /// All environments were listed: those that are gone are forgotten, the others get their names.
    pub fn environments(&self, listed: impl Iterator<Item = (String, Option<String>)>) {
        let listed: BTreeMap<String, Option<String>> = listed.collect();
        self.change(|known| {
            known.0.retain(|uuid, _| listed.contains_key(uuid));
            for (uuid, name) in listed {
                let entry = known.0.entry(uuid).or_default();
                entry.name = name.or(entry.name.take());
            }
        });
    }

    /// An environment is gone.
    pub fn forget(&self, uuid: &str) {
        *self.open() = None;
        self.change(|known| {
            known.0.remove(uuid);
        });
    }

    /// The variables of an environment were listed.
    pub fn listed<'k>(&self, uuid: &str, keys: impl Iterator<Item = &'k str>) {
        *self.open() = Some((uuid.to_string(), keys.map(str::to_string).collect()));
    }

    /// A variable of the listed environment was written, or deleted.
    pub fn wrote(&self, key: &str, there: bool) {
        if let Some((_, keys)) = self.open().as_mut() {
            if there {
                keys.insert(key.to_string())
            } else {
                keys.remove(key)
            };
        }
    }

    /// Warnings about variables of the repository that builds for an environment do not see.
    pub fn warnings(&self, desired: &[Desired]) -> Vec<String> {
        let hidden = |(uuid, environment): (&String, &Environment)| {
            let hidden: Vec<String> = desired.iter().filter(|d| environment.keys.contains(&d.key)).map(|d| brief(&d.key, 60)).collect();
            (!hidden.is_empty()).then(|| {
                format!(
                    "Deployments to {} do not see {}: the environment has {} of the same name, which {} (listed {}).",
                    brief(environment.name.as_deref().unwrap_or(uuid), 60),
                    names(&hidden, TOLD),
                    if hidden.len() == 1 { "a variable" } else { "variables" },
                    if hidden.len() == 1 { "wins" } else { "win" },
                    environment.seen
                )
            })
        };
        self.load().0.iter().filter_map(hidden).collect()
    }
}

impl Drop for Overrides {
    /// The run is over: what it left in the environment is kept.
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some((uuid, keys)) = open else { return };
        let today = jiff::Zoned::now().date().to_string();
        self.change(|known| {
            let entry = known.0.entry(uuid).or_default();
            // The day alone is not worth a write to the disk in every run.
            if entry.keys != keys || entry.seen.is_empty() {
                (entry.keys, entry.seen) = (keys, today);
            }
        });
    }
}
