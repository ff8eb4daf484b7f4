//! What entries and ledger rows of this destination remember, and what follows from it:
//! ownership, key differences, the daily number of writes. No values, no calls.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::keyid::{KeyMatch, KeyRef};
use super::ops::{Content, Got, Listed};
use super::shared::Shared;
use super::tags::Tags;
use crate::destination::{Entry, Read};
use crate::model::ledger::LedgerRow;

/// How long after a write of ours a listing may still show the state before it.
const LAG_SECONDS: i64 = 600;
/// Value writes of one secret within a day: AWS keeps about 100 versions for 24 hours.
const WRITES_PER_DAY: u32 = 90;

/// What an entry of ours remembers for comparing and writing. No values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub tags: Tags,
    pub key: Option<String>,
    /// The listing showed an older state of ours and nothing fresher could be had.
    #[serde(default)]
    pub lagging: bool,
}

impl Facts {
    pub fn of(entry: Option<&Entry>) -> Self {
        entry.and_then(|e| serde_json::from_value(e.facts.clone()).ok()).unwrap_or_default()
    }
}

/// What the ledger row of a secret remembers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Keys of tags that this sync set.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// The `keyId` last written.
    #[serde(default)]
    pub key: Option<String>,
    /// What AWS showed although `key` had been written: accepted as its other form.
    #[serde(default)]
    pub key_shown: Option<String>,
    /// Start (Unix seconds) and number of value writes within a day.
    #[serde(default)]
    pub writes: (i64, u32),
    /// This sync created the secret.
    #[serde(default)]
    pub created: bool,
}

impl Detail {
    pub fn of(row: Option<&LedgerRow>) -> Self {
        row.and_then(|r| serde_json::from_value(r.detail.clone()).ok()).unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The detail of a secret that was just created.
    pub fn created(tags: &Tags, key: Option<&str>) -> Self {
        let now = jiff::Timestamp::now().as_second();
        Self { tags: tags.keys().cloned().collect(), key: key.map(str::to_string), key_shown: None, writes: (now, 1), created: true }
    }

    /// Remembers that the key was written while AWS showed `shown`.
    pub fn note_key(&mut self, configured: Option<&str>, shown: Option<&str>) {
        // The second time in a row that AWS shows another form than was written: it is a form
        // of the same key, and not worth a write per run.
        let again = self.key.as_deref() == configured;
        self.key_shown = again.then(|| shown.unwrap_or_default().to_string());
        self.key = configured.map(str::to_string);
    }

    /// Counts one more value write of the running day; an error's text when there were too many.
    pub fn count_write(&mut self) -> Result<(), String> {
        let now = jiff::Timestamp::now().as_second();
        let (since, count) = self.writes;
        if now - since >= 86_400 {
            self.writes = (now, 1);
        } else if count < WRITES_PER_DAY {
            self.writes = (since, count + 1);
        } else {
            return Err(format!("written {WRITES_PER_DAY} times within a day, which AWS's limit on versions does not bear"));
        }
        Ok(())
    }
}

/// Why AWS or somebody else owns a secret, and it is never touched.
pub fn untouchable(listed: &Listed, region: &str) -> Option<String> {
    if let Some(owner) = &listed.owner {
        return Some(format!("it is managed by the AWS service {owner}"));
    }
    if let Some(kind) = &listed.kind {
        return Some(format!("it is a managed external secret (type {kind})"));
    }
    let primary = listed.primary_region.as_deref().filter(|p| *p != region)?;
    Some(format!("it is a replica of a secret in {primary}"))
}

pub const ROTATED: &str =
    "AWS rotates this secret: a write would break the rotation and its users. Remove the key from the sync, or switch the rotation off";

/// True when a secret that shows `shown` does not use the configured key.
pub fn key_differs(shared: &Shared, key: &KeyRef, text: &str, shown: Option<&str>, detail: &Detail) -> bool {
    // AWS keeps showing another form although we wrote this key: that form is the same key.
    if detail.key.as_deref() == Some(text) && detail.key_shown.as_deref() == Some(shown.unwrap_or_default()) {
        return false;
    }
    match key.compare(&KeyRef::returned(shown)) {
        KeyMatch::Same => false,
        KeyMatch::Different => true,
        KeyMatch::CannotTell => {
            let shown = shown.unwrap_or_default();
            match shared.key_form(text) {
                Some(known) => known != shown,
                // Written by us with this very text, or never compared before: not a difference
                // that could be proved, so nothing is written.
                None => false,
            }
        }
    }
}

/// True within ten minutes of our own write.
pub fn is_recent(row: &LedgerRow) -> bool {
    let age = jiff::Timestamp::now().as_second() - row.written_at.as_second();
    (-60..LAG_SECONDS).contains(&age)
}

/// A value read, in the planner's words.
pub fn read(got: Got) -> Read {
    let stamp = Some(got.version);
    match got.value {
        Content::Text(value) => Read { value: Some(value), stamp, problem: None },
        Content::Binary => Read { value: None, stamp, problem: Some("it holds a binary value".into()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ninety_first_write_of_a_day_is_refused() {
        let mut detail = Detail::default();
        for _ in 0..WRITES_PER_DAY {
            detail.count_write().expect("within the limit");
        }
        assert!(detail.count_write().is_err());
        detail.writes.0 -= 86_400;
        detail.count_write().expect("the next day");
        assert_eq!(detail.writes.1, 1);
    }

    #[test]
    fn the_second_rewrite_of_a_key_accepts_the_form_that_aws_shows() {
        let mut detail = Detail::default();
        detail.note_key(Some("alias/a"), None);
        assert_eq!(detail.key_shown, None);
        detail.note_key(Some("alias/a"), Some("form"));
        assert_eq!(detail.key_shown.as_deref(), Some("form"));
        detail.note_key(Some("alias/b"), Some("form"));
        assert_eq!(detail.key_shown, None);
    }
}
