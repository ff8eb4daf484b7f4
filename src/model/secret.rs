//! Secret text that cannot be printed by accident.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret value, token or key. `Debug` prints `***`, there is no `Display` and no serde;
/// the memory is wiped when the last holder goes. Cloning shares the one copy.
#[derive(Clone)]
pub struct SecretValue(Arc<Zeroizing<String>>);

impl SecretValue {
    /// Takes over `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The text itself. Every call site is a place where a secret may leave: keep it short.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Length in bytes of the UTF-8 text.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for the empty text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Equality in time that depends on the lengths only.
    pub fn same_as(&self, other: &SecretValue) -> bool {
        let (a, b) = (self.expose().as_bytes(), other.expose().as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y)) == 0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<String> for SecretValue {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_text() {
        let value = SecretValue::new("hunter2");
        assert_eq!(format!("{value:?}"), "***");
        assert_eq!(format!("{:?}", Some(&value)), "Some(***)");
    }

    #[test]
    fn equality_is_by_content() {
        assert!(SecretValue::new("a").same_as(&SecretValue::new("a")));
        assert!(!SecretValue::new("a").same_as(&SecretValue::new("b")));
        assert!(!SecretValue::new("a").same_as(&SecretValue::new("ab")));
    }
}
