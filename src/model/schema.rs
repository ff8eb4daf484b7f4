//! The key schema: a template that turns a source key into a destination key and back.
//!
//! Placeholders are `{{secretKey}}` (exactly once) and `{{environment}}` (the environment's
//! slug). Substitution is plain text: no escaping, no logic.

use super::Problems;

const KEY: &str = "{{secretKey}}";
const ENVIRONMENT: &str = "{{environment}}";

/// A key schema with the environment filled in: everything is prefix + key + suffix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySchema {
    /// Literal text before the key.
    pub prefix: String,
    /// Literal text after the key.
    pub suffix: String,
}

impl KeySchema {
    /// Fills in the environment slug and splits the template. `None` or an empty template
    /// means: the key is used as it is. The template is assumed to be valid, see [`check`].
    pub fn new(template: Option<&str>, environment: &str) -> Self {
        let Some(template) = template.map(str::trim).filter(|t| !t.is_empty()) else {
            return Self::default();
        };
        let (prefix, suffix) = template.split_once(KEY).unwrap_or((template, ""));
        Self { prefix: prefix.replace(ENVIRONMENT, environment), suffix: suffix.replace(ENVIRONMENT, environment) }
    }

    /// True when every key of the destination matches.
    pub fn is_open(&self) -> bool {
        self.prefix.is_empty() && self.suffix.is_empty()
    }

    /// The destination key for a source key.
    pub fn apply(&self, source_key: &str) -> String {
        format!("{}{source_key}{}", self.prefix, self.suffix)
    }

    /// The part of a destination key between prefix and suffix, or `None` when the key does
    /// not match. The middle must not be empty, and must not hold `/` when prefix or suffix
    /// does: `/svc/{{secretKey}}` manages `/svc/A` and leaves `/svc/x/A` alone.
    pub fn strip<'k>(&self, key: &'k str) -> Option<&'k str> {
        let middle = key.strip_prefix(self.prefix.as_str())?.strip_suffix(self.suffix.as_str())?;
        let slashed = self.prefix.contains('/') || self.suffix.contains('/');
        let foreign = slashed && middle.contains('/');
        if middle.is_empty() || foreign { None } else { Some(middle) }
    }

    /// True when this schema manages the destination key.
    pub fn matches(&self, key: &str) -> bool {
        if self.is_open() { !key.is_empty() } else { self.strip(key).is_some() }
    }

    /// The same schema in another alphabet (a destination that converts or folds names
    /// compares schema and key in its own form).
    pub fn map(&self, f: impl Fn(&str) -> String) -> Self {
        Self { prefix: f(&self.prefix), suffix: f(&self.suffix) }
    }
}

/// The server's rules for `syncOptions.keySchema`: at most 255 characters of
/// `[A-Za-z0-9_/-]` and the two placeholders, `{{secretKey}}` exactly once.
pub fn check(template: &str, field: &str, problems: &mut Problems) {
    let template = template.trim();
    if template.is_empty() {
        return;
    }
    if template.chars().count() > 255 {
        problems.add(field, "max-length", "Key Schema may have at most 255 characters.");
    }
    match template.matches(KEY).count() {
        0 if template.contains("${secretKey}") => {
            problems.add(field, "secret-key-placeholder", "Key Schema must contain {{secretKey}}, with two braces, instead of ${secretKey}.");
        }
        0 => problems.add(field, "secret-key-placeholder", "Key Schema must contain {{secretKey}}."),
        1 => {}
        n => problems.add(
            field,
            "secret-key-placeholder",
            format!("Key Schema must contain {{{{secretKey}}}} exactly once; it stands there {n} times."),
        ),
    }
    let rest = template.replace(KEY, "").replace(ENVIRONMENT, "");
    if let Some(bad) = rest.chars().find(|c| !(c.is_ascii_alphanumeric() || "_/-".contains(*c))) {
        problems.add(
            field,
            "alphabet",
            format!(
                "Key Schema may hold letters, digits, _ / - and the placeholders {{{{secretKey}}}} and {{{{environment}}}}; {:?} is not allowed.",
                bad
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_examples() {
        let cases = [
            (None, "ANY", Some("ANY")),
            (Some("APP_{{secretKey}}"), "APP_TOKEN", Some("TOKEN")),
            (Some("APP_{{secretKey}}"), "APP_", None),
            (Some("{{environment}}-{{secretKey}}"), "prod-TOKEN", None),
            (Some("/svc/{{secretKey}}"), "/svc/x/TOKEN", None),
            (Some("/svc/{{secretKey}}"), "/svc/TOKEN", Some("TOKEN")),
            (Some("{{secretKey}}_{{environment}}"), "A_dev", Some("A")),
        ];
        for (template, key, stripped) in cases {
            let schema = KeySchema::new(template, "dev");
            assert_eq!(schema.strip(key), stripped, "{template:?} {key}");
            assert_eq!(schema.matches(key), stripped.is_some(), "{template:?} {key}");
        }
    }

    #[test]
    fn substitution_does_not_escape() {
        assert_eq!(KeySchema::new(Some("{{environment}}/{{secretKey}}"), "dev").apply("A=B&C"), "dev/A=B&C");
    }

    #[test]
    fn rules_are_reported_together() {
        let mut problems = Problems::default();
        check("a b{{environment}}", "syncOptions.keySchema", &mut problems);
        let rules: Vec<_> = problems.0.iter().map(|p| p.rule.as_str()).collect();
        assert_eq!(rules, ["secret-key-placeholder", "alphabet"]);
        let mut problems = Problems::default();
        check("{{secretKey}}-{{secretKey}}", "syncOptions.keySchema", &mut problems);
        assert_eq!(problems.0.len(), 1);
    }

    /// An answer in the documentation of one destination writes it so.
    #[test]
    fn a_shell_like_placeholder_is_told_the_right_one() {
        let mut problems = Problems::default();
        check("PIPELINE_${secretKey}", "syncOptions.keySchema", &mut problems);
        assert!(problems.0[0].message.contains("{{secretKey}}, with two braces"), "{problems:?}");
    }
}
