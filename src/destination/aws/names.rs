//! Names and values a secret can have.
//!
//! Facts: API reference of CreateSecret (name of 1 to 512 ASCII letters, digits and
//! `/_+=.@-`; value of at least one character) and the service quota of 65,536 bytes.

use crate::destination::{KeySpace, ValueVerdict};

/// Longest name in characters.
pub const NAME_MAX: usize = 512;
/// Answers' names are documented up to this; what AWS does with longer ones is its decision.
const NAME_SAFE: usize = 256;
/// Largest value in bytes of UTF-8.
pub const VALUE_MAX: usize = 65_536;

/// Why a text is no secret name, as the end of a sentence.
pub fn name_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".into());
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "/_+=.@-".contains(*c))) {
        return Some(format!("holds {bad:?}; AWS allows letters, digits and / _ + = . @ -"));
    }
    (name.len() > NAME_MAX).then(|| format!("has {} characters; AWS allows {NAME_MAX}", name.len()))
}

/// One secret per key.
pub struct SecretNames;

impl KeySpace for SecretNames {
    fn convert(&self, key: &str) -> Result<String, String> {
        match name_problem(key) {
            None => Ok(key.to_string()),
            Some(why) => Err(format!("the secret name {why}")),
        }
    }

    fn check_value(&self, value: &str) -> ValueVerdict {
        if value.is_empty() {
            return ValueVerdict::Skip("the value is empty, and AWS Secrets Manager cannot hold an empty secret".into());
        }
        too_large(value)
    }

    fn warn(&self, key: &str) -> Option<String> {
        if key.len() > NAME_SAFE {
            return Some(format!("the name has {} characters: AWS documents 512 for requests and 256 for answers, and may refuse it", key.len()));
        }
        let ending = key.rsplit_once('-').map(|(_, tail)| tail).unwrap_or_default();
        (ending.len() == 6 && ending.bytes().all(|b| b.is_ascii_alphanumeric()))
            .then(|| "the name ends in a hyphen and six characters, which partial ARNs in policies and tools may mistake for AWS's own suffix".into())
    }
}

/// All keys as members of one JSON object: any text is a key.
pub struct ObjectMembers;

impl KeySpace for ObjectMembers {
    fn convert(&self, key: &str) -> Result<String, String> {
        if key.is_empty() { Err("the key is empty".into()) } else { Ok(key.to_string()) }
    }

    fn schema_on_keys(&self) -> bool {
        false
    }

    fn check_value(&self, value: &str) -> ValueVerdict {
        too_large(value)
    }
}

fn too_large(value: &str) -> ValueVerdict {
    if value.len() > VALUE_MAX {
        return ValueVerdict::Fail(format!("the value has {} bytes; AWS Secrets Manager holds {VALUE_MAX}", value.len()));
    }
    ValueVerdict::Fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_their_limits() {
        let names = SecretNames;
        assert!(names.convert(&"a".repeat(512)).is_ok());
        assert!(names.convert(&"a".repeat(513)).expect_err("too long").contains("513"));
        for bad in ["a b", "a!", "ü", ""] {
            assert!(names.convert(bad).is_err(), "{bad}");
        }
        assert_eq!(names.convert("app/_+=.@-Z9").as_deref(), Ok("app/_+=.@-Z9"));
        assert!(names.warn(&"a".repeat(257)).is_some());
        assert!(names.warn("db-a1b2c3").is_some());
        assert!(names.warn("db-a1b2c").is_none());
        assert_ne!(names.fold("a/B"), names.fold("a/b"));
    }

    #[test]
    fn values_are_counted_in_bytes() {
        let names = SecretNames;
        assert_eq!(names.check_value(&"a".repeat(65_536)), ValueVerdict::Fine);
        assert!(matches!(names.check_value(&"a".repeat(65_537)), ValueVerdict::Fail(_)));
        assert_eq!(names.check_value(&"é".repeat(32_768)), ValueVerdict::Fine);
        assert!(matches!(names.check_value(&"é".repeat(32_769)), ValueVerdict::Fail(_)));
        assert!(matches!(names.check_value(""), ValueVerdict::Skip(_)));
        assert_eq!(ObjectMembers.check_value(""), ValueVerdict::Fine);
    }
}
