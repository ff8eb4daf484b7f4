//! One writer at a time per destination object, whatever syncs point at it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::http::{ApiError, Cx};

/// Turns by destination identity.
#[derive(Default)]
pub struct Targets(Mutex<HashMap<String, Arc<AsyncMutex<()>>>>);

impl Targets {
    /// Waits for the turn at a target; visibly, when another run holds it.
    pub async fn turn(&self, identity: &str, cx: &Cx) -> Result<OwnedMutexGuard<()>, ApiError> {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            slots.entry(identity.to_string()).or_default().clone()
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
}
