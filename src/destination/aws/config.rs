//! The sync's own settings for this destination: read from the open parts of the sync
//! document, checked offline.

use std::collections::BTreeMap;

use serde_json::Value;

use super::keyid::KeyRef;
use super::names::name_problem;
use super::spec::{MANY_TO_ONE, ONE_TO_ONE, is_region};
use super::tags::{TAGS_MAX, tag_problem};
use crate::destination::Target;
use crate::http::{ApiError, ErrorKind};
use crate::model::schema::KeySchema;
use crate::model::sync::{Reader, SyncOptions};
use crate::model::{Map, Problems};

/// Everything a run needs to know of the sync.
#[derive(Debug, Clone)]
pub struct Config {
    pub region: String,
    /// The one secret's final name (schema applied), when all keys live in it.
    pub secret_name: Option<String>,
    /// `keyId`, parsed.
    pub key: Option<KeyRef>,
    /// `keyId` as configured.
    pub key_text: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub metadata_as_tags: bool,
    /// Days, 7 to 30.
    pub recovery_window: i64,
    pub force_delete: bool,
}

/// Days a deleted secret can be restored unless configured otherwise; AWS's own default.
pub const DEFAULT_WINDOW: i64 = 30;

/// Checks `destinationConfig` and this destination's members of `syncOptions`.
pub fn check(config: &Map, options: &SyncOptions, problems: &mut Problems) {
    let mut reader = Reader { object: config, prefix: "destinationConfig.", problems };
    let region = reader.text("region", true, 64).unwrap_or_default();
    let mapping = reader.text("mappingBehavior", true, 64).unwrap_or_default();
    let many = mapping == MANY_TO_ONE;
    let secret_name = reader.text("secretName", many, 256).filter(|n| !n.is_empty());
    if !region.is_empty() && !is_region(&region) {
        problems.add("destinationConfig.region", "region", "destinationConfig.region must look like us-east-1.");
    }
    if !mapping.is_empty() && !many && mapping != ONE_TO_ONE {
        problems.add("destinationConfig.mappingBehavior", "choice", "destinationConfig.mappingBehavior must be one-to-one or many-to-one.");
    }
    match &secret_name {
        Some(name) if many => {
            if let Some(why) = name_problem(name) {
                problems.add("destinationConfig.secretName", "alphabet", format!("destinationConfig.secretName {why}."));
            }
        }
        Some(_) if mapping == ONE_TO_ONE => {
            problems.add("destinationConfig.secretName", "not-applicable", "destinationConfig.secretName goes with many-to-one only.");
        }
        _ => {}
    }
    check_options(options, many, problems);
}

fn check_options(options: &SyncOptions, many: bool, problems: &mut Problems) {
    let mut reader = Reader { object: &options.extra, prefix: "syncOptions.", problems };
    let key = reader.text("keyId", false, 256);
    let metadata = reader.flag("syncSecretMetadataAsTags").unwrap_or(false);
    let window = reader.number("recoveryWindowDays", 7, 30);
    let force = reader.flag("forceDelete").unwrap_or(false);
    if let Some(key) = key {
        if key.is_empty() {
            problems.add(
                "syncOptions.keyId",
                "min-length",
                "syncOptions.keyId must not be empty: leave it out for the key that AWS takes by itself.",
            );
        } else if let Some(bad) = key.chars().find(|c| !(c.is_ascii_alphanumeric() || ":/_-".contains(*c))) {
            problems.add("syncOptions.keyId", "alphabet", format!("syncOptions.keyId may hold letters, digits and : / _ -; {bad:?} is not allowed."));
        } else if KeyRef::parse(&key).is_none() {
            problems.add(
                "syncOptions.keyId",
                "key-id",
                "syncOptions.keyId must be a key id (a UUID or mrk-…), alias/NAME, or the ARN of a key or alias: a bare name lacks its alias/ prefix.",
            );
        }
    }
    if metadata && many {
        problems.add(
            "syncOptions.syncSecretMetadataAsTags",
            "not-applicable",
            "syncOptions.syncSecretMetadataAsTags cannot be used with many-to-one mapping: one secret holds all keys.",
        );
    }
    if force && window.is_some() {
        problems.add(
            "syncOptions.forceDelete",
            "contradiction",
            "syncOptions.forceDelete and recoveryWindowDays exclude each other: give one of them.",
        );
    }
    check_tags(options.extra.get("tags"), problems);
}

fn check_tags(tags: Option<&Value>, problems: &mut Problems) {
    const FIELD: &str = "syncOptions.tags";
    let list = match tags {
        None | Some(Value::Null) => return,
        Some(Value::Array(list)) => list,
        Some(_) => return problems.add(FIELD, "type", "syncOptions.tags must be a list of {\"key\",\"value\"}."),
    };
    if list.len() > TAGS_MAX {
        problems.add(FIELD, "max-items", format!("syncOptions.tags may hold at most {TAGS_MAX} tags."));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, tag) in list.iter().enumerate() {
        let field = format!("{FIELD}.{i}");
        let Some(pair) = read_tag(tag) else {
            problems.add(&field, "type", format!("{field} must be {{\"key\",\"value\"}}, both texts (the value may be empty), and nothing else."));
            continue;
        };
        if let Some(why) = tag_problem(&pair.0, &pair.1) {
            problems.add(&field, "tag", format!("{field}: {why}."));
        }
        if !seen.insert(pair.0.clone()) {
            problems.add(&field, "unique", format!("{field}: the tag key {:?} stands there twice.", crate::model::text::brief(&pair.0, 60)));
        }
    }
}

fn read_tag(tag: &Value) -> Option<(String, String)> {
    let map = tag.as_object().filter(|m| m.keys().all(|k| k == "key" || k == "value"))?;
    Some((map.get("key")?.as_str()?.to_string(), map.get("value")?.as_str()?.to_string()))
}

impl Config {
    /// Reads a target. The document was checked when it was stored; what is wrong all the same
    /// (an edited file, a schema that makes the secret's name illegal) is an error here.
    pub fn new(target: &Target) -> Result<Self, ApiError> {
        let invalid = |text: String| ApiError::new(ErrorKind::Invalid, super::spec::SERVICE, text);
        let mut problems = Problems::default();
        check(&target.config, &target.options, &mut problems);
        if !problems.is_empty() {
            return Err(invalid(problems.to_string()));
        }
        let text = |map: &Map, name: &str| map.get(name).and_then(Value::as_str).map(|s| s.trim().to_string()).filter(|s| !s.is_empty());
        let extra = &target.options.extra;
        let region = text(&target.config, "region").unwrap_or_default();
        let secret_name = match text(&target.config, "secretName").filter(|_| is_many(&target.config)) {
            None => None,
            Some(raw) => {
                let name = KeySchema::new(target.options.key_schema.as_deref(), &target.environment_slug).apply(&raw);
                if let Some(why) = name_problem(&name) {
                    return Err(invalid(format!("the key schema makes the secret's name {name:?}, which {why}")));
                }
                Some(name)
            }
        };
        let key_text = text(extra, "keyId");
        Ok(Self {
            region,
            secret_name,
            key: key_text.as_deref().and_then(KeyRef::parse),
            key_text,
            tags: extra.get("tags").and_then(Value::as_array).map(|l| l.iter().filter_map(read_tag).collect()).unwrap_or_default(),
            metadata_as_tags: extra.get("syncSecretMetadataAsTags").and_then(Value::as_bool).unwrap_or(false),
            recovery_window: extra.get("recoveryWindowDays").and_then(Value::as_i64).unwrap_or(DEFAULT_WINDOW),
            force_delete: extra.get("forceDelete").and_then(Value::as_bool).unwrap_or(false),
        })
    }

    /// For the plan, when deletions are final.
    pub fn deletion_warning(&self) -> Option<String> {
        self.force_delete.then(|| "Delete Without Recovery is on: what a run deletes can never be restored".to_string())
    }

    /// The key as CreateSecret takes it: the default key is asked for by leaving it out.
    pub fn key_for_create(&self) -> Option<&str> {
        self.key_text.as_deref().filter(|_| self.key != Some(KeyRef::Default))
    }

    /// The key as UpdateSecret takes it: the default key is asked for by an empty text.
    pub fn key_for_update(&self) -> Option<&str> {
        self.key_text.as_deref().map(|text| if self.key == Some(KeyRef::Default) { "" } else { text })
    }
}

/// True when the configuration maps all keys to one secret.
pub fn is_many(config: &Map) -> bool {
    config.get("mappingBehavior").and_then(Value::as_str).map(str::trim) == Some(MANY_TO_ONE)
}

/// A text member of `destinationConfig`.
pub fn member<'m>(config: &'m Map, name: &str) -> &'m str {
    config.get(name).and_then(Value::as_str).map(str::trim).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(config: Value, extra: Value) -> Vec<(String, String)> {
        let mut out = Problems::default();
        let options = SyncOptions { extra: extra.as_object().cloned().unwrap_or_default(), ..SyncOptions::default() };
        check(config.as_object().expect("object"), &options, &mut out);
        out.0.into_iter().map(|p| (p.field, p.rule)).collect()
    }

    #[test]
    fn the_documented_sample_is_fine() {
        assert_eq!(problems(json!({"region": "us-east-1", "mappingBehavior": "one-to-one"}), json!({})), []);
        assert_eq!(
            problems(json!({"region": "us-east-1", "mappingBehavior": "many-to-one", "secretName": "app/prod"}), json!({"recoveryWindowDays": 7})),
            []
        );
    }

    #[test]
    fn every_rule_names_its_field() {
        let one = json!({"region": "us-east-1", "mappingBehavior": "one-to-one"});
        let many = json!({"region": "us-east-1", "mappingBehavior": "many-to-one", "secretName": "a"});
        let cases = [
            (json!({}), json!({}), vec![("destinationConfig.region", "required"), ("destinationConfig.mappingBehavior", "required")]),
            (
                json!({"region": "mars", "mappingBehavior": "both"}),
                json!({}),
                vec![("destinationConfig.region", "region"), ("destinationConfig.mappingBehavior", "choice")],
            ),
            (json!({"region": "us-east-1", "mappingBehavior": "many-to-one"}), json!({}), vec![("destinationConfig.secretName", "required")]),
            (
                json!({"region": "us-east-1", "mappingBehavior": "many-to-one", "secretName": "a b"}),
                json!({}),
                vec![("destinationConfig.secretName", "alphabet")],
            ),
            (one.clone(), json!({"keyId": "mykey"}), vec![("syncOptions.keyId", "key-id")]),
            (one.clone(), json!({"keyId": "a b"}), vec![("syncOptions.keyId", "alphabet")]),
            (one.clone(), json!({"keyId": " "}), vec![("syncOptions.keyId", "min-length")]),
            (one.clone(), json!({"recoveryWindowDays": 6}), vec![("syncOptions.recoveryWindowDays", "range")]),
            (one.clone(), json!({"recoveryWindowDays": 31}), vec![("syncOptions.recoveryWindowDays", "range")]),
            (one.clone(), json!({"forceDelete": true, "recoveryWindowDays": 7}), vec![("syncOptions.forceDelete", "contradiction")]),
            (one.clone(), json!({"tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}), vec![("syncOptions.tags.1", "unique")]),
            (one.clone(), json!({"tags": [{"key": "aws:x", "value": ""}]}), vec![("syncOptions.tags.0", "tag")]),
            (one, json!({"tags": "a=b"}), vec![("syncOptions.tags", "type")]),
            (many, json!({"syncSecretMetadataAsTags": true}), vec![("syncOptions.syncSecretMetadataAsTags", "not-applicable")]),
        ];
        for (config, extra, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(f, r)| (f.to_string(), r.to_string())).collect();
            assert_eq!(problems(config.clone(), extra.clone()), expected, "{config} {extra}");
        }
    }
}
