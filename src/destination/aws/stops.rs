//! What further operations of a run need not try, because it failed the same way before.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::http::{ApiError, ErrorKind};
use crate::model::plan::Action;

/// After as many denials on different secrets an action is not tried on further ones.
const DENIALS: usize = 3;

/// What further operations of this run need not try.
#[derive(Default)]
pub struct Stops {
    denied: Mutex<HashMap<Action, Denied>>,
    keys: Mutex<HashMap<String, ApiError>>,
}

/// On which secrets an action was denied, and the last refusal.
type Denied = (HashSet<String>, Option<ApiError>);

impl Stops {
    /// The reason not to try this action, or a write under this KMS key, again.
    pub fn before(&self, action: Action, key: &str) -> Option<ApiError> {
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, Some(error))) = denied.get(&action).filter(|(names, _)| names.len() >= DENIALS) {
            return Some(error.clone().unsent(&format!("not tried, because it was denied {DENIALS} times")));
        }
        drop(denied);
        let error = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().filter(|_| action != Action::Delete);
        error.map(|error| error.unsent("not tried, because the KMS key failed before"))
    }

    /// Remembers a failure.
    pub fn note(&self, action: Action, name: &str, key: &str, error: &ApiError) {
        if error.kind == ErrorKind::Permission {
            let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
            let (names, last) = denied.entry(action).or_default();
            names.insert(name.to_string());
            *last = Some(error.clone());
        }
        if matches!(error.code.as_deref(), Some("EncryptionFailure" | "DecryptionFailure")) {
            self.keys.lock().unwrap_or_else(PoisonError::into_inner).entry(key.to_string()).or_insert_with(|| error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::aws::spec::SERVICE;

    #[test]
    fn an_action_stops_after_three_denials_and_a_key_after_one_failure() {
        let stops = Stops::default();
        let denied = ApiError::new(ErrorKind::Permission, SERVICE, "no");
        for name in ["a", "b", "b"] {
            stops.note(Action::Update, name, "", &denied);
        }
        assert!(stops.before(Action::Update, "").is_none());
        stops.note(Action::Update, "c", "", &denied);
        assert!(stops.before(Action::Update, "").is_some());
        assert!(stops.before(Action::Create, "").is_none());
        stops.note(Action::Create, "d", "alias/x", &ApiError::new(ErrorKind::Invalid, SERVICE, "no").code("EncryptionFailure"));
        assert!(stops.before(Action::Create, "alias/x").is_some());
        assert!(stops.before(Action::Create, "alias/y").is_none());
        assert!(stops.before(Action::Delete, "alias/x").is_none());
    }
}
