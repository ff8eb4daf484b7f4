//! Which keys and values a Bitbucket variable can have.
//!
//! From Atlassian's page "Variables and secrets": names are ASCII letters, digits and
//! underscores, do not start with a digit and are case-sensitive; values do not support line
//! breaks, base64 is the documented way round.

use crate::destination::{KeySpace, ValueVerdict};

/// Names that the build's shell defines: overriding them breaks builds.
const SHELL: &[&str] = &[
    "PATH",
    "HOME",
    "PWD",
    "OLDPWD",
    "SHELL",
    "USER",
    "LOGNAME",
    "IFS",
    "TERM",
    "LANG",
    "HOSTNAME",
    "SHLVL",
    "TMPDIR",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
];

/// The alphabet of variables, in a repository as in an environment.
#[derive(Debug, Default, Clone)]
pub struct Keys {
    /// True once this server has refused an empty value.
    pub refuses_empty: bool,
}

impl KeySpace for Keys {
    fn convert(&self, key: &str) -> Result<String, String> {
        let mut characters = key.chars();
        match characters.next() {
            None => return Err("a Bitbucket variable needs a name".into()),
            Some(first) if first.is_ascii_digit() => return Err("a Bitbucket variable must not start with a digit".into()),
            Some(_) => {}
        }
        match key.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '_')) {
            Some(odd) => Err(format!(
                "{:?} is not allowed in a Bitbucket variable's name, only letters, digits and _ are",
                crate::model::text::sanitise(&odd.to_string())
            )),
            None => Ok(key.to_string()),
        }
    }

    fn check_value(&self, value: &str) -> ValueVerdict {
        if value.is_empty() && self.refuses_empty {
            return ValueVerdict::Skip("the value is empty, and Bitbucket refused an empty value before; an existing variable stays as it is".into());
        }
        let body = value.trim_end_matches(['\n', '\r']);
        if body.contains(['\n', '\r']) {
            return ValueVerdict::Fail(
                "the value holds line breaks, which Bitbucket variables do not support: store it base64-encoded and decode it in the pipeline".into(),
            );
        }
        if body.len() != value.len() {
            return ValueVerdict::Fail(
                "the value ends in a newline, and Bitbucket variables do not support line breaks: remove it at the source, or store the value \
                 base64-encoded and decode it in the pipeline"
                    .into(),
            );
        }
        ValueVerdict::Fine
    }

    fn warn(&self, key: &str) -> Option<String> {
        if key == "CI" || key.starts_with("BITBUCKET_") {
            return Some("Bitbucket defines this variable itself; a variable of this name overrides it in every build".into());
        }
        SHELL.contains(&key).then(|| "the build's shell defines this variable; overriding it breaks most builds".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_and_names_that_do_not() {
        let keys = Keys::default();
        for name in ["A", "a", "_x", "A1_b", "BITBUCKET_X", "CI"] {
            assert_eq!(keys.convert(name).as_deref(), Ok(name));
        }
        for name in ["", "1A", "A-B", "A.B", "A B", "Ä", "A\u{1b}"] {
            let reason = keys.convert(name).expect_err(name);
            assert!(!reason.contains('\u{1b}'), "{reason:?}");
        }
        assert_ne!(keys.fold("abc"), keys.fold("ABC"));
    }

    #[test]
    fn line_breaks_fail_and_the_rest_passes() {
        let keys = Keys::default();
        for value in ["a\nb", "a\r\nb", "a\rb"] {
            assert!(matches!(keys.check_value(value), ValueVerdict::Fail(r) if r.contains("base64") && r.contains("line breaks")), "{value:?}");
        }
        assert!(matches!(keys.check_value("a\n"), ValueVerdict::Fail(r) if r.contains("ends in a newline")));
        let long = "x".repeat(40 * 1024);
        for value in ["", "  lead", "quote\"'$HOME", "🦀", long.as_str()] {
            assert_eq!(keys.check_value(value), ValueVerdict::Fine);
        }
        assert!(matches!(Keys { refuses_empty: true }.check_value(""), ValueVerdict::Skip(_)));
    }

    #[test]
    fn reserved_names_warn() {
        let keys = Keys::default();
        for name in ["BITBUCKET_COMMIT", "CI", "PATH"] {
            assert!(keys.warn(name).is_some(), "{name}");
        }
        assert_eq!(keys.warn("CI_TOKEN"), None);
    }
}
