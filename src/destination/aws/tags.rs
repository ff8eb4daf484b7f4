//! Tags: what is wanted on a secret, what differs, and which removals are ours.
//!
//! Facts: at most 50 tags per secret, key 1 to 128 and value 0 to 256 characters, letters,
//! digits, spaces and `_.:/=+-@`, the prefix `aws:` reserved (API reference of TagResource).
//! TagResource adds and overwrites and never removes; UntagResource of an absent key succeeds.

use std::collections::{BTreeMap, BTreeSet};

/// Tags a secret may have.
pub const TAGS_MAX: usize = 50;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// Why a pair is no tag, as a sentence without its full stop.
pub fn tag_problem(key: &str, value: &str) -> Option<String> {
    let shown = crate::model::text::brief(key, 60);
    if key.is_empty() || key.chars().count() > 128 {
        return Some(format!("the tag key {shown:?} must have 1 to 128 characters"));
    }
    if value.chars().count() > 256 {
        return Some(format!("the value of tag {shown:?} has more than 256 characters"));
    }
    if key.to_ascii_lowercase().starts_with("aws:") {
        return Some(format!("the tag key {shown:?} uses the prefix aws:, which AWS keeps for itself"));
    }
    let bad = |c: &char| !(c.is_alphanumeric() || *c == ' ' || "_.:/=+-@".contains(*c));
    if let Some(c) = key.chars().find(bad) {
        return Some(format!("the tag key {shown:?} holds {c:?}; AWS allows letters, digits, spaces and _ . : / = + - @"));
    }
    value.chars().find(bad).map(|c| format!("the value of tag {shown:?} holds {c:?}; AWS allows letters, digits, spaces and _ . : / = + - @"))
}

/// The tags wanted on one secret, and what of its metadata cannot be a tag.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    pub tags: Tags,
    /// Sentences about metadata that was left out.
    pub left_out: Vec<String>,
}

impl Wanted {
    /// Configured tags over the secret's metadata (when that is asked for). `foreign` is the
    /// number of tags of others that the secret carries and keeps.
    pub fn new(configured: &Tags, metadata: Option<&[(String, String)]>, foreign: usize) -> Self {
        let room = TAGS_MAX.saturating_sub(foreign);
        let mut wanted = Self { tags: configured.clone(), left_out: Vec::new() };
        for (key, value) in metadata.unwrap_or_default() {
            if configured.contains_key(key) {
                continue;
            }
            if let Some(why) = tag_problem(key, value) {
                wanted.left_out.push(format!("metadata left out of the tags: {why}"));
            } else if wanted.tags.len() >= room && !wanted.tags.contains_key(key) {
                wanted
                    .left_out
                    .push(format!("metadata {:?} left out of the tags: a secret has at most {TAGS_MAX}", crate::model::text::brief(key, 60)));
            } else {
                wanted.tags.insert(key.clone(), value.clone());
            }
        }
        wanted
    }

    /// The notes as one text.
    pub fn note(&self) -> Option<String> {
        (!self.left_out.is_empty()).then(|| self.left_out.join("; "))
    }
}

/// What must be written so that `present` becomes as wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TagDelta {
    pub set: Tags,
    pub remove: BTreeSet<String>,
}

impl TagDelta {
    /// Only differences are set; only keys that we set before (`ours`) and want no more are removed.
    pub fn new(present: &Tags, wanted: &Tags, ours: &BTreeSet<String>) -> Self {
        Self {
            set: wanted.iter().filter(|(k, v)| present.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect(),
            remove: ours.iter().filter(|k| present.contains_key(*k) && !wanted.contains_key(*k) && !k.starts_with("aws:")).cloned().collect(),
        }
    }

    /// True when nothing differs.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// True when tags must be removed first, because adding first would pass the limit.
    pub fn remove_first(&self, present: &Tags) -> bool {
        present.len() + self.set.keys().filter(|k| !present.contains_key(*k)).count() > TAGS_MAX
    }

    /// For the plan: `tags differ (+team, -old)`.
    pub fn reason(&self) -> String {
        let mut parts: Vec<String> = self.set.keys().map(|k| format!("+{k}")).collect();
        parts.extend(self.remove.iter().map(|k| format!("-{k}")));
        parts.truncate(6);
        crate::model::text::brief(&format!("tags differ ({})", parts.join(", ")), 160)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn configured_wins_and_illegal_metadata_is_left_out() {
        let metadata = vec![("team".into(), "b".into()), ("owner".into(), "x".into()), ("aws:no".into(), "1".into()), ("bad?".into(), "1".into())];
        let wanted = Wanted::new(&tags(&[("team", "a")]), Some(&metadata), 0);
        assert_eq!(wanted.tags, tags(&[("team", "a"), ("owner", "x")]));
        assert_eq!(wanted.left_out.len(), 2);
        assert_eq!(Wanted::new(&tags(&[]), None, 0), Wanted::default());
    }

    #[test]
    fn the_fifty_first_is_left_out() {
        let metadata: Vec<_> = (0..51).map(|i| (format!("k{i:02}"), String::new())).collect();
        let wanted = Wanted::new(&Tags::new(), Some(&metadata), 0);
        assert_eq!((wanted.tags.len(), wanted.left_out.len()), (50, 1));
        assert_eq!(Wanted::new(&Tags::new(), Some(&metadata), 10).tags.len(), 40);
    }

    #[test]
    fn only_ours_are_removed_and_only_differences_set() {
        let present = tags(&[("keep", "1"), ("mine", "1"), ("same", "1"), ("change", "1")]);
        let ours = ["mine".to_string(), "gone".to_string(), "same".to_string()].into();
        let delta = TagDelta::new(&present, &tags(&[("same", "1"), ("change", "2")]), &ours);
        assert_eq!(delta.set, tags(&[("change", "2")]));
        assert_eq!(delta.remove, ["mine".to_string()].into());
        assert_eq!(delta.reason(), "tags differ (+change, -mine)");
        assert!(!delta.remove_first(&present));
        let full: Tags = (0..50).map(|i| (format!("k{i}"), String::new())).collect();
        assert!(TagDelta::new(&full, &tags(&[("new", "")]), &["k1".to_string()].into()).remove_first(&full));
    }

    #[test]
    fn unicode_letters_are_legal() {
        assert_eq!(tag_problem("équipe", "réseau 1"), None);
        assert!(tag_problem("k", &"a".repeat(257)).is_some());
        assert!(tag_problem("", "").is_some());
        assert!(tag_problem("a", "tab\there").is_some());
    }
}
