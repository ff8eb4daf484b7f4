//! Things that belong to a place or a credential, not to a session: every session of this process
//! that names the same one has the same, for as long as somebody holds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What is shared, by name.
pub(super) struct Common<T>(Mutex<BTreeMap<String, Weak<T>>>);

impl<T> Common<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The one of this name; made where nobody holds it.
    pub(super) fn of(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, held| held.strong_count() > 0);
        if let Some(held) = all.get(name).and_then(Weak::upgrade) {
            return held;
        }
        let made = Arc::new(make());
        all.insert(name.to_string(), Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_thing_while_somebody_holds_it() {
        static ALL: Common<u8> = Common::new();
        let (first, other) = (ALL.of("a", || 1), ALL.of("b", || 2));
        assert_eq!((*ALL.of("a", || 9), *other), (1, 2));
        drop(first);
        assert_eq!(*ALL.of("a", || 3), 3, "nothing is kept for nobody");
    }
}
