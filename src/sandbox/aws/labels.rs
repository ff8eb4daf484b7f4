//! TagResource, UntagResource, UpdateSecretVersionStage.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::input::{Call, Refusal, refuse};
use super::read::usable;
use super::world::World;

/// Reads and checks `Tags`.
pub fn read_tags(call: &Call<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let mut out = BTreeMap::new();
    for tag in call.list("Tags")? {
        let key = tag.get("Key").and_then(Value::as_str).unwrap_or_default();
        let value = tag.get("Value").and_then(Value::as_str).unwrap_or_default();
        check(key, value)?;
        out.insert(key.to_string(), value.to_string());
    }
    Ok(out)
}

fn check(key: &str, value: &str) -> Result<(), Refusal> {
    let invalid = |what: &str| refuse("InvalidParameterException", what.to_string());
    let legal = |t: &str| t.chars().all(|c| c.is_alphanumeric() || " _.:/=+-@".contains(c));
    if !(1..=128).contains(&key.chars().count()) || value.chars().count() > 256 {
        return Err(refuse("ValidationException", "1 validation error detected: Value at 'tags' failed to satisfy constraint: length"));
    }
    if key.to_ascii_lowercase().starts_with("aws:") {
        return Err(invalid("Invalid tag key: aws: prefixed tag key names are not allowed for external use."));
    }
    if !legal(key) || !legal(value) {
        return Err(invalid("The tag keys and values can only contain letters, digits, spaces and _ . : / = + - @"));
    }
    Ok(())
}

/// Refuses a set of tags that is too large.
pub fn check_count(tags: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if tags.len() > 50 { Err(refuse("InvalidParameterException", "You can't add more than 50 tags to a secret.")) } else { Ok(()) }
}

/// TagResource: adds and overwrites, never removes.
pub fn tag(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let (tags, now) = (read_tags(call)?, world.now_ms());
    let secret = world.find(call, call.secret_id()?)?;
    usable(secret)?;
    let mut all = secret.tags.clone();
    all.extend(tags);
    check_count(&all)?;
    secret.tags = all;
    secret.changed = now;
    Ok(json!({}))
}

/// UntagResource: absent keys are no error.
pub fn untag(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let keys = call.list("TagKeys")?;
    let now = world.now_ms();
    let secret = world.find(call, call.secret_id()?)?;
    usable(secret)?;
    for key in keys.iter().filter_map(Value::as_str) {
        if key.starts_with("aws:") {
            return Err(refuse("InvalidParameterException", "Reserved tags can't be removed."));
        }
        secret.tags.remove(key);
    }
    secret.changed = now;
    Ok(json!({}))
}

/// UpdateSecretVersionStage: moves a label from one version to another.
pub fn move_stage(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let stage = call.required("VersionStage", 1, 256)?;
    let (from, to) = (call.text("RemoveFromVersionId", 32, 64)?, call.text("MoveToVersionId", 32, 64)?);
    let now = world.now_ms();
    let secret = world.find(call, call.secret_id()?)?;
    usable(secret)?;
    let holder = secret.versions.iter().find(|v| v.stages.contains(stage)).map(|v| v.id.clone());
    if holder.as_deref() != from && holder.is_some() {
        return Err(refuse(
            "InvalidParameterException",
            format!(
                "The parameter RemoveFromVersionId can't be empty. Staging label {stage} is currently attached to version {}.",
                holder.unwrap_or_default()
            ),
        ));
    }
    if let Some(to) = to
        && !secret.versions.iter().any(|v| v.id == to)
    {
        return Err(refuse("InvalidParameterException", "The version to move the label to does not exist."));
    }
    if stage == "AWSCURRENT" {
        if to.is_none() {
            return Err(refuse("InvalidParameterException", "The label AWSCURRENT can only be moved."));
        }
        for version in &mut secret.versions {
            version.stages.remove("AWSPREVIOUS");
            if Some(version.id.as_str()) == from {
                version.stages.insert("AWSPREVIOUS".into());
            }
        }
    }
    for version in &mut secret.versions {
        version.stages.remove(stage);
        if Some(version.id.as_str()) == to {
            version.stages.insert(stage.to_string());
        }
    }
    secret.changed = now;
    Ok(json!({ "ARN": secret.arn, "Name": secret.name }))
}
