//! Names and values of variables. Microsoft: "Define variables" (naming, reserved prefixes)
//! and "Variable groups for Azure Pipelines"; the service stores more than the pages allow,
//! so only what cannot work is refused and the rest is warned of.

use crate::destination::{KeySpace, ValueVerdict};
use crate::model::text::brief;

/// Our own bound on a name; the service publishes none.
const LONGEST: usize = 400;
/// Names that begin so are stored and then hidden from tasks and scripts.
const RESERVED: &[&str] = &["endpoint", "input", "secret", "path", "securefile"];
/// Predefined variables win over variables of these names.
const PREDEFINED: &[&str] = &["system.", "agent.", "build.", "release."];

pub(super) struct Keys;

impl KeySpace for Keys {
    fn convert(&self, key: &str) -> Result<String, String> {
        if key.is_empty() {
            return Err("a variable must have a name".into());
        }
        let length = key.chars().count();
        if length > LONGEST {
            return Err(format!("a variable name of {length} characters is longer than {LONGEST}"));
        }
        if let Some(c) = key.chars().find(|c| c.is_control()) {
            return Err(format!("a variable name cannot hold the control character U+{:04X}", c as u32));
        }
        if key.trim() != key {
            return Err("a variable name cannot begin or end with a space".into());
        }
        Ok(key.to_string())
    }

    fn fold(&self, key: &str) -> String {
        key.to_lowercase()
    }

    fn check_value(&self, value: &str) -> ValueVerdict {
        if value.is_empty() {
            return ValueVerdict::Skip("Azure DevOps ignores an empty value of a secret variable; an existing value stays".into());
        }
        if value.contains('\0') {
            return ValueVerdict::Fail("the value holds a NUL character, which aborts every pipeline job that uses the group".into());
        }
        ValueVerdict::Fine
    }

    fn warn(&self, key: &str) -> Option<String> {
        let folded = self.fold(key);
        if let Some(prefix) = RESERVED.iter().find(|p| folded.starts_with(**p)) {
            return Some(format!("names that begin with {prefix:?} are stored, but not available to tasks and scripts"));
        }
        if let Some(prefix) = PREDEFINED.iter().find(|p| folded.starts_with(**p)) {
            return Some(format!("pipelines predefine variables that begin with {prefix:?}, and theirs win"));
        }
        let odd = key.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c)))?;
        Some(format!("{} is outside the documented letters, digits, . and _: pipelines may not be able to use it", brief(&format!("{odd:?}"), 20)))
    }
}

/// The name a script sees: upper case, `.` and spaces as `_`.
pub(super) fn script_form(key: &str) -> String {
    key.to_uppercase().replace(['.', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["A", "a.b", "a_b", "9lives", "with-hyphen", "with space", "ünicode", "endpoint_x"] {
            assert_eq!(Keys.convert(good).as_deref(), Ok(good));
        }
        for bad in ["", " a", "a ", "a\nb", "a\0b", "a\u{7f}"] {
            assert!(Keys.convert(bad).is_err(), "{bad:?}");
        }
        assert!(Keys.convert(&"x".repeat(400)).is_ok());
        assert!(Keys.convert(&"x".repeat(401)).expect_err("too long").contains("401"));
        assert_eq!(Keys.fold("DB_Password"), Keys.fold("db_PASSWORD"));
        assert_eq!(script_form("a.b"), script_form("A_B"));
    }

    #[test]
    fn warnings_do_not_stop_a_write() {
        for odd in ["a b", "ünicode", "SecretFoo", "PATH", "Endpoint.x", "system.debug", "Agent.Name", "a=b", "secureFile1"] {
            assert!(Keys.warn(odd).is_some(), "{odd}");
        }
        for fine in ["DB_PASSWORD", "a.b-c_9", "MY_PATH", "systemd"] {
            assert_eq!(Keys.warn(fine), None, "{fine}");
        }
    }

    #[test]
    fn values() {
        assert!(matches!(Keys.check_value(""), ValueVerdict::Skip(why) if why.contains("stays")));
        assert!(matches!(Keys.check_value("a\0b"), ValueVerdict::Fail(_)));
        for fine in [" ", "$(x)", "##vso[task]", "line\r\nline\n", &"x".repeat(1 << 20)] {
            assert_eq!(Keys.check_value(fine), ValueVerdict::Fine);
        }
    }
}
