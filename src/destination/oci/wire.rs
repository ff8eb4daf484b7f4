//! The JSON that the services answer with. Only the members that are used; unknown members
//! and unknown words are tolerated, as Oracle's SDKs do.

use serde::Deserialize;

use crate::model::{SecretValue, Time};

/// Where a secret stands in its life (Oracle's "Secret" data type, `lifecycleState`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Active,
    /// Between two states; the word is the service's.
    Moving(String),
    PendingDeletion,
    Deleted,
    /// FAILED, or a word that is not known here.
    Failed(String),
}

impl State {
    pub fn of(word: &str) -> Self {
        match word.to_ascii_uppercase().as_str() {
            "ACTIVE" => Self::Active,
            "" => Self::Failed("in no state that the answer names".into()),
            "CREATING" | "UPDATING" | "CANCELLING_DELETION" | "SCHEDULING_DELETION" | "DELETING" => Self::Moving(word.to_ascii_uppercase()),
            "PENDING_DELETION" => Self::PendingDeletion,
            "DELETED" => Self::Deleted,
            _ => Self::Failed(crate::model::text::brief(word, 40)),
        }
    }

    /// Which of several entries with one name speaks for it: the lowest.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Moving(_) => 1,
            Self::PendingDeletion => 2,
            Self::Failed(_) => 3,
            Self::Deleted => 4,
        }
    }
}

/// SecretSummary of the list, and Secret of single answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Secret {
    pub id: String,
    pub secret_name: String,
    #[serde(default)]
    pub vault_id: Option<String>,
    #[serde(default)]
    pub compartment_id: Option<String>,
    #[serde(default)]
    pub key_id: Option<String>,
    #[serde(default)]
    pub lifecycle_state: String,
    #[serde(default)]
    pub lifecycle_details: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub freeform_tags: Option<serde_json::Value>,
    #[serde(default)]
    pub defined_tags: Option<serde_json::Value>,
    #[serde(default)]
    pub time_created: Option<String>,
    #[serde(default)]
    pub time_of_deletion: Option<String>,
    #[serde(default)]
    pub last_rotation_time: Option<String>,
    #[serde(default)]
    pub is_replica: Option<bool>,
    #[serde(default)]
    pub rotation_status: Option<String>,
    #[serde(default)]
    pub rotation_config: Option<serde_json::Value>,
    #[serde(default)]
    pub is_auto_generation_enabled: Option<bool>,
    #[serde(default)]
    pub time_of_current_version_expiry: Option<String>,
    /// Not in the list.
    #[serde(default)]
    pub secret_rules: Option<serde_json::Value>,
    /// Not in the list of today's service; where a list has it, it is the exact stamp.
    #[serde(default)]
    pub current_version_number: Option<u64>,
}

impl Secret {
    pub fn state(&self) -> State {
        State::of(&self.lifecycle_state)
    }

    /// When it will be erased.
    pub fn until(&self) -> Option<Time> {
        self.time_of_deletion.as_deref().and_then(|t| t.parse().ok())
    }

    /// When the current content expired, if it has.
    pub fn expired(&self, now: Time) -> Option<Time> {
        self.time_of_current_version_expiry.as_deref().and_then(|t| t.parse().ok()).filter(|at| *at <= now)
    }

    /// When the content expired, if a rule of the secret blocks reading it since.
    pub fn locked_by_expiry(&self, now: Time) -> Option<Time> {
        let rules = self.secret_rules.as_ref().and_then(serde_json::Value::as_array)?;
        let blocks = |r: &serde_json::Value| r.get("isSecretContentRetrievalBlockedOnExpiry").and_then(serde_json::Value::as_bool) == Some(true);
        self.expired(now).filter(|_| rules.iter().any(blocks))
    }

    /// A tag's text.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.freeform_tags.as_ref()?.get(name)?.as_str()
    }

    /// Everything of the list's entry that an outside change would move, short of the value
    /// itself: the list carries neither version nor time of change.
    pub fn mark(&self) -> String {
        let mut facts = vec![
            serde_json::json!(self.id),
            serde_json::json!(self.key_id),
            serde_json::json!(self.time_created),
            serde_json::json!(self.last_rotation_time),
            serde_json::json!(self.description),
            serde_json::json!(self.freeform_tags),
            serde_json::json!(self.defined_tags),
        ];
        // Under an expiry rule every version has an end of its own.
        facts.extend(self.time_of_current_version_expiry.as_ref().map(|at| serde_json::json!(at)));
        let facts = serde_json::Value::Array(facts);
        blake3::hash(facts.to_string().as_bytes()).to_hex()[..32].to_string()
    }
}

/// The stamp of a content: a version never changes and its number only grows, so version and
/// id are exact. Behind them stands the [`Secret::mark`] of the list's entry at that moment, by
/// which a later list, which knows no version, shows whether something may have changed.
pub(super) fn stamp(id: &str, version: u64, mark: &str) -> String {
    format!("{version}@{id}#{mark}")
}

/// The version inside a stamp.
pub(super) fn version_of(stamp: &str) -> Option<u64> {
    stamp.split_once('@')?.0.parse().ok()
}

/// True when two stamps are of one version of one secret, whatever else moved at it.
pub(super) fn same_version(a: &str, b: &str) -> bool {
    exact(a).is_some() && exact(a) == exact(b)
}

/// What of a stamp names one version of one secret.
fn exact(stamp: &str) -> Option<&str> {
    stamp.rsplit_once('#').map(|(exact, _)| exact)
}

/// The mark inside a stamp.
pub(super) fn mark_of(stamp: &str) -> Option<&str> {
    stamp.rsplit_once('#').map(|(_, mark)| mark)
}

/// SecretVersionSummary.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    pub version_number: u64,
    #[serde(default)]
    pub stages: Vec<String>,
    /// Present once its deletion is scheduled.
    #[serde(default)]
    pub time_of_deletion: Option<String>,
}

impl Version {
    /// Neither current nor pending, previous, latest, or a stage that is not known here.
    pub fn only_deprecated(&self) -> bool {
        !self.stages.is_empty() && self.stages.iter().all(|s| s.eq_ignore_ascii_case("DEPRECATED"))
    }
}

/// SecretBundle: one version's content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bundle {
    #[serde(default)]
    pub secret_id: String,
    #[serde(default)]
    pub version_number: Option<u64>,
    #[serde(default)]
    pub secret_bundle_content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Content {
    #[serde(default)]
    pub content_type: String,
    #[serde(default)]
    pub content: Option<String>,
}

impl Bundle {
    /// The value as text, or why it is none.
    pub fn value(&self) -> Result<SecretValue, String> {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let Some(content) = &self.secret_bundle_content else {
            return Err("the current version carries no content".into());
        };
        if !content.content_type.eq_ignore_ascii_case("BASE64") {
            return Err(format!("the content is of type {:?}, which is not known here", crate::model::text::brief(&content.content_type, 40)));
        }
        let Some(text) = content.content.as_deref() else { return Err("the current version carries no content".into()) };
        let bytes = STANDARD.decode(text.trim()).map(zeroize::Zeroizing::new).map_err(|_| "the content is not valid base64".to_string())?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(SecretValue::new(text)),
            Err(_) => Err(format!("the content is binary ({} bytes), not text", bytes.len())),
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Some(text) = self.secret_bundle_content.as_mut().and_then(|c| c.content.as_mut()) {
            zeroize::Zeroize::zeroize(text);
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Compartment {
    pub id: String,
    /// The parent.
    #[serde(default)]
    pub compartment_id: Option<String>,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub lifecycle_state: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Vault {
    pub id: String,
    #[serde(default)]
    pub display_name: String,
    #[serde(default)]
    pub compartment_id: String,
    #[serde(default)]
    pub lifecycle_state: String,
    #[serde(default)]
    pub vault_type: Option<String>,
    #[serde(default)]
    pub management_endpoint: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Key {
    pub id: String,
    #[serde(default)]
    pub display_name: String,
    #[serde(default)]
    pub vault_id: Option<String>,
    #[serde(default)]
    pub lifecycle_state: String,
    #[serde(default)]
    pub algorithm: Option<String>,
    #[serde(default)]
    pub protection_mode: Option<String>,
    /// Only in the answer of a single key.
    #[serde(default)]
    pub key_shape: Option<KeyShape>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct KeyShape {
    #[serde(default)]
    pub algorithm: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(content: serde_json::Value) -> Bundle {
        serde_json::from_value(serde_json::json!({"secretId": "s", "versionNumber": 1, "secretBundleContent": content})).expect("bundle")
    }

    #[test]
    fn odd_contents_are_told_apart() {
        let value = |c| bundle(c).value().map(|v| v.expose().to_string());
        assert_eq!(value(serde_json::json!({"contentType": "BASE64", "content": "aGk="})), Ok("hi".into()));
        assert_eq!(value(serde_json::json!({"contentType": "BASE64", "content": ""})), Ok(String::new()));
        assert!(value(serde_json::json!({"contentType": "BASE64", "content": "%%"})).is_err_and(|e| e.contains("base64")));
        assert!(value(serde_json::json!({"contentType": "BASE64", "content": "/w=="})).is_err_and(|e| e.contains("binary")));
        assert!(value(serde_json::json!({"contentType": "PKCS12", "content": "aGk="})).is_err_and(|e| e.contains("PKCS12")));
        for none in
            [serde_json::Value::Null, serde_json::json!({"contentType": "BASE64"}), serde_json::json!({"contentType": "BASE64", "content": null})]
        {
            assert!(bundle(none).value().is_err_and(|e| e.contains("no content")));
        }
    }

    #[test]
    fn unknown_states_are_failures_and_rank_below_living_ones() {
        assert_eq!(State::of("creating"), State::Moving("CREATING".into()));
        assert_eq!(State::of("ARCHIVED"), State::Failed("ARCHIVED".into()));
        assert!(State::of("ACTIVE").rank() < State::of("UPDATING").rank());
        assert!(State::of("PENDING_DELETION").rank() < State::of("FAILED").rank());
        assert!(State::of("FAILED").rank() < State::of("DELETED").rank());
    }
}
