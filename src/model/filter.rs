//! Which source keys a sync carries: `syncOptions.includeKeys` and `excludeKeys`, an extension
//! of ours that the KMS server does not know. Patterns are matched against whole source keys,
//! before the key schema: `*` stands for any text, `?` for one character, case counts.

use serde_json::Value;

use super::{Map, Problems, text};

/// Most patterns in one list.
const MAX_PATTERNS: usize = 100;
/// Longest pattern, in characters.
const MAX_LENGTH: usize = 256;

/// A sync's patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFilter {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl KeyFilter {
    /// The filter of these patterns. Without any it lets every key through.
    pub fn new(include: &[String], exclude: &[String]) -> Self {
        Self { include: include.to_vec(), exclude: exclude.to_vec() }
    }

    /// True when there are no patterns.
    pub fn is_open(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// True for a key that some included pattern matches (all do, when none is named) and no
    /// excluded one.
    pub fn selects(&self, key: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| matches(p, key));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// The same filter in another alphabet: `f` converts the literal parts of each pattern.
    pub fn map(&self, f: impl Fn(&str) -> String) -> Self {
        let convert = |pattern: &String| {
            let mut out = String::with_capacity(pattern.len());
            let mut rest = pattern.as_str();
            while let Some(at) = rest.find(['*', '?']) {
                out.push_str(&f(&rest[..at]));
                out.push_str(&rest[at..=at]);
                rest = &rest[at + 1..];
            }
            out.push_str(&f(rest));
            out
        };
        Self { include: self.include.iter().map(convert).collect(), exclude: self.exclude.iter().map(convert).collect() }
    }
}

/// Matches in time linear in text times pattern, whatever the pattern.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when a star has to take one more character.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, t) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Reads one list of patterns from `syncOptions` and reports what is wrong with it.
pub fn read(options: &Map, field: &str, problems: &mut Problems) -> Vec<String> {
    let path = format!("syncOptions.{field}");
    let list = match options.get(field) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            problems.add(&path, "type", format!("{path} must be a list of patterns such as [\"DB_*\"]."));
            return Vec::new();
        }
    };
    if list.len() > MAX_PATTERNS {
        problems.add(&path, "max-items", format!("{path} may hold at most {MAX_PATTERNS} patterns."));
    }
    let mut out = Vec::with_capacity(list.len());
    for (i, item) in list.iter().enumerate() {
        let path = format!("{path}.{i}");
        let Some(pattern) = item.as_str().map(str::trim) else {
            problems.add(&path, "type", format!("{path} must be a text."));
            continue;
        };
        if pattern.is_empty() {
            problems.add(&path, "min-length", format!("{path} must not be empty."));
        } else if pattern.chars().count() > MAX_LENGTH {
            problems.add(&path, "max-length", format!("{path} may have at most {MAX_LENGTH} characters."));
        } else if let Some(bad) = pattern.chars().find(|c| c.is_control() || matches!(c, '[' | ']' | '{' | '}' | '\\')) {
            problems.add(
                &path,
                "pattern",
                format!("{path}: {:?} has no meaning in a pattern; * stands for any text, ? for one character.", text::sanitise(&bad.to_string())),
            );
        }
        out.push(pattern.to_string());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> KeyFilter {
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_string()).collect::<Vec<_>>();
        KeyFilter::new(&texts(include), &texts(exclude))
    }

    #[test]
    fn patterns_match_whole_keys() {
        for (pattern, key, fits) in [
            ("DB_*", "DB_HOST", true),
            ("DB_*", "DB_", true),
            ("DB_*", "XDB_HOST", false),
            ("DB_*", "db_host", false),
            ("*", "", true),
            ("*_KEY", "API_KEY_KEY", true),
            ("*_KEY", "API_KEYS", false),
            ("A?C", "ABC", true),
            ("A?C", "AC", false),
            ("A*B*C", "A1B2B3C", true),
            ("A*B*C", "A1B2B3", false),
            ("**é*", "café!", true),
            ("plain", "plain", true),
            ("a*a*a*a*a*a*a*a*b", &"a".repeat(300), false),
        ] {
            assert_eq!(matches(pattern, key), fits, "{pattern} {key}");
        }
    }

    #[test]
    fn excluded_wins_over_included() {
        let some = filter(&["DB_*", "API_KEY"], &["*_TEST"]);
        assert!(some.selects("DB_HOST") && some.selects("API_KEY"));
        assert!(!some.selects("DB_TEST") && !some.selects("OTHER"));
        assert!(filter(&[], &["*_TEST"]).selects("OTHER"));
        assert!(filter(&[], &[]).is_open() && filter(&[], &[]).selects("anything"));
    }

    #[test]
    fn another_alphabet_keeps_the_wildcards() {
        let mapped = filter(&["DB_*_?X"], &[]).map(|part| part.replace('_', "-").to_lowercase());
        assert!(mapped.selects("db-a-1x") && !mapped.selects("DB_A_1X"));
    }

    #[test]
    fn every_rule_names_its_field() {
        for (value, expected) in [
            (serde_json::json!("DB_*"), vec![("syncOptions.includeKeys", "type")]),
            (
                serde_json::json!([1, "", "a{b}", "x".repeat(257)]),
                vec![
                    ("syncOptions.includeKeys.0", "type"),
                    ("syncOptions.includeKeys.1", "min-length"),
                    ("syncOptions.includeKeys.2", "pattern"),
                    ("syncOptions.includeKeys.3", "max-length"),
                ],
            ),
            (serde_json::json!(vec!["A"; 101]), vec![("syncOptions.includeKeys", "max-items")]),
            (serde_json::json!(null), vec![]),
            (serde_json::json!(["DB_*", " API "]), vec![]),
        ] {
            let mut problems = Problems::default();
            let options: Map = [("includeKeys".to_string(), value)].into_iter().collect();
            read(&options, "includeKeys", &mut problems);
            let found: Vec<_> = problems.0.iter().map(|p| (p.field.as_str(), p.rule.as_str())).collect();
            assert_eq!(found, expected);
        }
    }
}
