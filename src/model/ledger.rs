//! The ledger: per sync and destination key, what this tool wrote last and how the
//! destination stamped it. It proves ownership and saves reads; it never holds a value.

use serde::{Deserialize, Serialize};

use super::Time;

/// The destination's own mark of a state of one key: an AWS version id, a Key Vault
/// `updated` second, a group's `modifiedOn`, a variable's uuid. Opaque to the planner.
pub type Stamp = String;

/// How a place was reached when a sync wrote there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceSettings {
    /// The sync as it was then.
    pub config: super::sync::SyncConfig,
    /// The environment's name as the source told it.
    pub environment_name: Option<String>,
}

/// A place that holds, or may hold, keys that a sync wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenPlace {
    /// The destination's identity.
    pub target: String,
    /// `None` for places last written by a version that did not record it.
    pub settings: Option<PlaceSettings>,
    /// Keys written there, or about to be, and not deleted since; in no order.
    pub keys: Vec<String>,
}

/// One ledger row. Key: (sync id, target, folded key).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The key's identity at the destination: folded as the destination compares keys.
    pub fold: String,
    /// The key as it was written.
    pub key: String,
    /// The source key it came from.
    pub source_key: String,
    /// The destination's stable handle (ARN, uuid, OCID), where there is one.
    pub remote_id: Option<String>,
    /// Stamp after our last write.
    pub stamp: Option<Stamp>,
    /// Stamp before our last write: a lagging list may still show it.
    pub previous_stamp: Option<Stamp>,
    /// Keyed hash (hex) of the value we wrote last; `None` when never confirmed.
    pub value_hash: Option<String>,
    /// When the last write was confirmed (or intended, while `intent` is set).
    pub written_at: Time,
    /// A write that was announced and not confirmed: the process may have died in between.
    pub intent: Option<Intent>,
    /// The provider's own facts (tags it set, key ids it learned). Never values.
    pub detail: serde_json::Value,
}

/// Member of a row's `detail` that keeps the hash of a value this sync deleted.
const LAST_HASH: &str = "deletedHash";
/// Member of a row's `detail`: the key held the wanted value already, and another sync stood for it.
const BESIDE: &str = "besideAnother";

impl LedgerRow {
    /// True for a key that this sync wrote, or was about to write, and did not delete since.
    pub fn stands(&self) -> bool {
        self.value_hash.is_some() || self.intent.is_some()
    }

    /// True for a key that this sync wrote at some time, as far as it was confirmed. A creation
    /// that was announced only may have met the name in somebody else's hands.
    pub fn was_ours(&self) -> bool {
        self.value_hash.is_some() || self.buried_hash().is_some() || self.intent.as_ref().is_none_or(|i| i.action != "create")
    }

    /// Turns the row into the memory of a key this sync deleted: it proves ownership, and saves
    /// a read, when the key comes back while its deletion is pending.
    pub fn bury(&mut self) {
        self.stand_beside(false);
        if !self.detail.is_object() {
            self.detail = serde_json::json!({});
        }
        self.detail[LAST_HASH] = self.value_hash.take().into();
    }

    /// Forgets what a write of this sync ends: that the key was deleted, or another's.
    pub fn revive(&mut self) {
        if let Some(detail) = self.detail.as_object_mut() {
            detail.remove(LAST_HASH);
            detail.remove(BESIDE);
        }
    }

    /// Marks a row of a key that was found as wanted and that another sync stands for: this one
    /// carries the key as well, so that the other does not delete it, and has written nothing.
    pub fn stand_beside(&mut self, beside: bool) {
        if !self.detail.is_object() && beside {
            self.detail = serde_json::json!({});
        }
        match (beside, self.detail.as_object_mut()) {
            (true, Some(detail)) => _ = detail.insert(BESIDE.into(), true.into()),
            (false, Some(detail)) => _ = detail.remove(BESIDE),
            (_, None) => {}
        }
    }

    /// True for a row that only stands beside another sync's.
    pub fn stands_beside(&self) -> bool {
        self.detail.get(BESIDE).is_some()
    }

    /// The hash of the value that was deleted.
    pub fn buried_hash(&self) -> Option<&str> {
        self.detail.get(LAST_HASH)?.as_str()
    }
}

/// A write announced before it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// `create`, `update`, `restore` or `delete`.
    pub action: String,
    /// The idempotency token the write carries (a version id, a retry token).
    pub token: String,
    /// Keyed hash of the value about to be written.
    pub value_hash: Option<String>,
    /// When it was announced.
    pub at: Time,
}

/// What another local sync stands for at the same target.
#[derive(Debug, Clone, PartialEq)]
pub struct Other {
    /// The sync's name.
    pub sync: String,
    pub row: LedgerRow,
}

/// What the planner may know of the past of one sync at one target.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Rows by folded key.
    pub rows: std::collections::HashMap<String, LedgerRow>,
    /// Folded keys that other local syncs stand for at the same target: what they wrote, and what
    /// they found there as they want it. Of several, the one that wrote last.
    pub others: std::collections::HashMap<String, Other>,
    /// Objects (by their handle) that other local syncs wrote through another target, which this
    /// one's listing may reach: an object that holds many keys, a wider or narrower place.
    pub other_objects: std::collections::HashMap<String, String>,
    /// Folded keys the operator approved for deletion or overwriting.
    pub approved: std::collections::HashSet<String>,
    /// Folded foreign keys the operator chose to keep, always.
    pub kept: std::collections::HashSet<String>,
    /// Folded keys whose value an import was to carry into the source and did not, or not
    /// provably: nothing overwrites or deletes them before the operator agreed.
    pub unproven: std::collections::HashSet<String>,
    /// True once a run of this sync at this target has succeeded.
    pub settled: bool,
}

/// Computes the keyed hash that stands for a value in the ledger. The key is random and
/// local, so a short secret cannot be guessed from the database alone.
#[derive(Clone)]
pub struct Hasher([u8; 32]);

impl Hasher {
    /// A hasher with the state directory's key.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Keyed BLAKE3 of the value, hex.
    pub fn hash(&self, value: &super::SecretValue) -> String {
        blake3::keyed_hash(&self.0, value.expose().as_bytes()).to_hex().to_string()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher(***)")
    }
}
