//! Names and values that OCI Vault holds.
//!
//! Limits: Oracle's "Secret Management FAQ" and "Creating a Secret". Whether the 25 KB of a
//! secret bundle count before or after base64 is not documented, so only what exceeds both
//! readings is refused here; the service answers for the rest.

use super::super::{KeySpace, ValueVerdict};

/// Characters of a name.
const NAME_MAX: usize = 255;
/// Decoded bytes of a value: 25 KB by the larger reading.
pub(super) const VALUE_MAX: usize = 25_600;

/// The key space of every vault: case-sensitive, no conversion.
pub(super) struct Names;

impl KeySpace for Names {
    fn convert(&self, key: &str) -> Result<String, String> {
        if key.is_empty() {
            return Err("a secret name must not be empty".into());
        }
        if let Some(bad) = key.chars().find(|c| !(c.is_ascii_alphanumeric() || "_-.".contains(*c))) {
            return Err(format!("an OCI Vault secret name may hold letters, digits, _ - and . only; {bad:?} is not allowed"));
        }
        if key.len() > NAME_MAX {
            return Err(format!("an OCI Vault secret name may have at most {NAME_MAX} characters; this one has {}", key.len()));
        }
        Ok(key.to_string())
    }

    fn check_value(&self, value: &str) -> ValueVerdict {
        match value.len() {
            0 => ValueVerdict::Skip("OCI Vault does not hold empty values".into()),
            n if n > VALUE_MAX => ValueVerdict::Fail(format!("the value has {n} bytes; OCI Vault holds at most {VALUE_MAX} (25 KB)")),
            _ => ValueVerdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_their_limits() {
        let (fits, long) = ("n".repeat(255), "n".repeat(256));
        for good in ["a.b-c_D", "0", &fits] {
            assert_eq!(Names.convert(good).as_deref(), Ok(good));
        }
        for (bad, word) in [("é", "'é'"), ("a b", "' '"), ("a/b", "'/'"), (long.as_str(), "256"), ("", "empty")] {
            assert!(Names.convert(bad).is_err_and(|e| e.contains(word)), "{bad}");
        }
        assert_ne!(Names.fold("a"), Names.fold("A"));
    }

    #[test]
    fn values_at_their_limits() {
        assert!(matches!(Names.check_value(""), ValueVerdict::Skip(_)));
        for n in [1, 18_750, 18_751, 25_600] {
            assert_eq!(Names.check_value(&"v".repeat(n)), ValueVerdict::Fine, "{n}");
        }
        assert!(matches!(Names.check_value(&"v".repeat(25_601)), ValueVerdict::Fail(_)));
        // Bytes count, not characters.
        assert!(matches!(Names.check_value(&"🗝".repeat(6_401)), ValueVerdict::Fail(_)));
    }
}
