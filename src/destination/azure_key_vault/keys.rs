//! Names and values a vault can hold.

use crate::destination::{KeySpace, ValueVerdict};

/// Longest name, in characters.
const NAME_LIMIT: usize = 127;
/// The documented limit is "25k bytes": above 25 × 1,024 no reading of it allows the value.
/// Between 25,000 and this the service decides.
const VALUE_LIMIT: usize = 25_600;

/// `^[0-9A-Za-z-]{1,127}$`, compared without case; underscores become hyphens.
pub(super) struct Keys;

impl KeySpace for Keys {
    fn convert(&self, key: &str) -> Result<String, String> {
        let name = self.convert_part(key);
        if name.is_empty() {
            return Err("a Key Vault name must not be empty".into());
        }
        if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '-')) {
            return Err(format!("a Key Vault name may hold letters, digits and hyphens; {bad:?} is not allowed"));
        }
        let length = name.len();
        if length > NAME_LIMIT {
            return Err(format!("a Key Vault name may have at most {NAME_LIMIT} characters, this one has {length}"));
        }
        Ok(name)
    }

    fn fold(&self, key: &str) -> String {
        key.to_ascii_lowercase()
    }

    fn convert_part(&self, part: &str) -> String {
        part.replace('_', "-")
    }

    fn check_value(&self, value: &str) -> ValueVerdict {
        if value.len() > VALUE_LIMIT {
            return ValueVerdict::Fail(format!("the value has {} bytes; Key Vault takes at most 25 KB", value.len()));
        }
        ValueVerdict::Fine
    }
}

/// True for a name the service could have given.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_LIMIT).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::KeySchema;

    #[test]
    fn names_are_converted_and_nothing_is_dropped() {
        for (key, expected) in [
            ("A_B", Ok("A-B")),
            ("a-b", Ok("a-b")),
            ("-a--b-", Ok("-a--b-")),
            ("a.b", Err('.')),
            ("a b", Err(' ')),
            ("a/b", Err('/')),
            ("ü", Err('ü')),
        ] {
            match (Keys.convert(key), expected) {
                (Ok(name), Ok(wanted)) => assert_eq!(name, wanted),
                (Err(text), Err(bad)) => assert!(text.contains(&format!("{bad:?}")), "{text}"),
                (got, _) => panic!("{key}: {got:?}"),
            }
        }
        assert!(Keys.convert(&"x".repeat(127)).is_ok());
        assert!(Keys.convert(&"x".repeat(128)).is_err_and(|e| e.contains("128")));
        assert!(Keys.convert("").is_err());
    }

    #[test]
    fn collisions_share_a_fold() {
        let fold = |k: &str| Keys.fold(&Keys.convert(k).expect("name"));
        assert_eq!(fold("A_B"), fold("a-b"));
        assert_eq!(fold("A_B"), fold("A-B"));
        assert_eq!(fold("a"), fold("A"));
        assert_ne!(fold("a-b"), fold("a--b"));
    }

    #[test]
    fn schemas_match_in_the_vaults_alphabet() {
        for (template, name, middle) in [
            ("APP_{{secretKey}}", "APP-TOKEN", Some("token")),
            ("app-{{secretKey}}", "App-Token", Some("token")),
            ("{{environment}}_{{secretKey}}", "dev-A-B", Some("a-b")),
            ("APP_{{secretKey}}", "APP-", None),
            ("APP_{{secretKey}}", "OTHER-X", None),
        ] {
            let schema = KeySchema::new(Some(template), "dev").map(|p| Keys.fold(&Keys.convert_part(p)));
            assert_eq!(schema.strip(&Keys.fold(name)), middle, "{template} {name}");
        }
    }

    #[test]
    fn values_by_bytes() {
        let fine = |n: usize| Keys.check_value(&"x".repeat(n)) == ValueVerdict::Fine;
        assert!(fine(0) && fine(25_000) && fine(25_600) && !fine(25_601));
        assert!(matches!(Keys.check_value(&"ü".repeat(12_801)), ValueVerdict::Fail(_)), "bytes count, not characters");
    }
}
