//! What each sync has carried over, by its last successful run: the source's content together
//! with the configuration. Equal marks need no run; a run that does not succeed leaves none,
//! so that whatever it left half-done is found again, by this process or the next.

use crate::model::Memory;
use crate::model::sync::SyncConfig;
use crate::store::Store;

fn key(sync_id: &str) -> String {
    format!("carried:{sync_id}")
}

/// The content, and a print of everything in the configuration that decides what is written where.
pub(super) fn mark(config: &SyncConfig, content: &str) -> String {
    let mut document = serde_json::to_value(config).unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        for harmless in ["name", "description", "isEnabled"] {
            members.remove(harmless);
        }
    }
    format!("{content}|{}", &blake3::hash(document.to_string().as_bytes()).to_hex()[..16])
}

/// A run begins: nothing is certain until it succeeds.
pub(super) fn forget(store: &Store, sync_id: &str) {
    store.put(&key(sync_id), serde_json::Value::Null);
}

/// A run succeeded.
pub(super) fn remember(store: &Store, sync_id: &str, config: &SyncConfig, content: &str) {
    store.put(&key(sync_id), mark(config, content).into());
}

/// True when the last run of this sync carried exactly this over.
pub(super) fn is(store: &Store, config: &SyncConfig, content: &str) -> bool {
    let Ok(state) = store.sync_state(&config.name) else { return false };
    store.get(&key(&state.id)).is_some_and(|m| m.as_str() == Some(&mark(config, content)))
}
