//! What all syncs of one connection and region know together: what was deleted just now, what a
//! creation ran into, and how AWS shows a key.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::account::Account;
use crate::model::Memory;

/// How long a listing may still show a secret that we deleted.
const DELETED_SECONDS: i64 = 600;
/// Deletions remembered over restarts: more in ten minutes are confirmed by nobody, and only
/// cost a question to the operator.
const DELETED_KEPT: usize = 100;

/// What all syncs of one connection and region know together.
pub struct Shared {
    account: Arc<Account>,
    memory: Arc<dyn Memory>,
    /// Prefix of everything remembered.
    place: String,
    deleted: Mutex<Vec<(String, i64)>>,
}

impl Shared {
    pub fn new(account: Arc<Account>, memory: Arc<dyn Memory>, place: String) -> Self {
        let stored = memory.get(&format!("{place}|deleted")).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
        Self { account, memory, place, deleted: Mutex::new(stored) }
    }

    /// Secrets Manager answered with a listing.
    pub fn answered(&self) {
        self.account.settle();
    }

    /// Remembers that we deleted a secret just now.
    pub fn note_deleted(&self, arn: &str) {
        let now = jiff::Timestamp::now().as_second();
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.retain(|(a, at)| a != arn && now - at < DELETED_SECONDS);
        deleted.push((arn.to_string(), now));
        let kept: Vec<_> = deleted.iter().rev().take(DELETED_KEPT).collect();
        self.memory.put(&format!("{}|deleted", self.place), serde_json::json!(kept));
    }

    /// A deletion was taken back: its secret may be seen alive again.
    pub fn forget_deleted(&self, arn: &str) {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).retain(|(a, _)| a != arn);
    }

    /// True when we deleted this secret within the last ten minutes.
    pub fn deleted_recently(&self, arn: &str) -> bool {
        let now = jiff::Timestamp::now().as_second();
        let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.iter().any(|(a, at)| a == arn && now - at < DELETED_SECONDS)
    }

    /// The form in which AWS shows a configured key alias, once that was seen.
    pub fn key_form(&self, configured: &str) -> Option<String> {
        self.memory.get(&format!("{}|key|{configured}", self.place))?.as_str().map(str::to_string)
    }

    pub fn learn_key_form(&self, configured: &str, shown: &str) {
        self.memory.put(&format!("{}|key|{configured}", self.place), shown.into());
    }

    /// Names of secrets of others that a creation ran into and no listing has shown yet.
    pub fn met(&self) -> BTreeSet<String> {
        self.recall("met").and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default()
    }

    /// A creation ran into this secret of somebody else's.
    pub fn note_met(&self, name: &str) {
        self.change_met(|names| names.insert(name.to_string()));
    }

    /// Forgets the names for which `still` is false.
    pub fn keep_met(&self, still: impl Fn(&str) -> bool) {
        self.change_met(|names| {
            let before = names.len();
            names.retain(|name| still(name));
            names.len() != before
        });
    }

    fn change_met(&self, change: impl FnOnce(&mut BTreeSet<String>) -> bool) {
        let _one = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = self.met();
        if change(&mut names) {
            self.remember("met", serde_json::json!(names));
        }
    }

    /// A fact of one secret.
    pub fn recall(&self, name: &str) -> Option<serde_json::Value> {
        self.memory.get(&format!("{}|{name}", self.place))
    }

    pub fn remember(&self, name: &str, value: serde_json::Value) {
        self.memory.put(&format!("{}|{name}", self.place), value);
    }
}
