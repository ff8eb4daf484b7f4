//! One writer at a time per destination object, whatever syncs point at it and whatever they
//! call it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::http::{ApiError, Cx};
use crate::model::sync::SyncConfig;

/// Targets whose place is remembered.
const REMEMBERED: usize = 4096;

/// Turns by [`crate::destination::Destination::writers`].
#[derive(Default)]
pub struct Targets {
    turns: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    /// The places that runs have opened, by what their syncs call them.
    places: Mutex<HashMap<String, String>>,
}

/// What a sync calls its target: equal texts are the same place, different ones may be.
/// `connection` is the connection's id.
pub(super) fn name(connection: &str, config: &SyncConfig) -> String {
    serde_json::json!([connection, config.destination, config.destination_config]).to_string()
}

impl Targets {
    /// Waits for the turn at a target; visibly, when another run holds it.
    pub async fn turn(&self, place: &str, cx: &Cx) -> Result<OwnedMutexGuard<()>, ApiError> {
        let slot = {
            let mut slots = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            slots.entry(place.to_string()).or_default().clone()
        };
        if let Ok(guard) = slot.clone().try_lock_owned() {
            return Ok(guard);
        }
        let shown = cx.waiting("another run writes to the same destination", None);
        let guard = tokio::select! {
            guard = slot.lock_owned() => Ok(guard),
            () = cx.cancel_token().cancelled() => Err(ApiError::cancelled("kms-sync")),
        };
        drop(shown);
        guard
    }

    /// A target was opened: from now on its place is known by this name, too.
    pub(super) fn learn(&self, name: String, place: &str) {
        let mut known = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(name, place.to_string());
    }

    /// True when two names are one place, as far as known without asking anybody.
    pub fn same(&self, a: &str, b: &str) -> bool {
        let known = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        a == b || known.get(a).is_some_and(|place| known.get(b) == Some(place))
    }
}
