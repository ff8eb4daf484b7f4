//! CreateSecret, PutSecretValue, UpdateSecret, DeleteSecret, RestoreSecret.

use base64::Engine as _;
use serde_json::{Value, json};

use super::input::{Call, Refusal, refuse};
use super::labels::{check_count, read_tags};
use super::read::usable;
use super::world::{Content, Secret, World, seconds};

/// Largest value in bytes.
const VALUE_MAX: usize = 65_536;

/// The value of a request: at most one of text and binary, 1 to 65,536 bytes.
fn content(call: &Call<'_>) -> Result<Option<Content>, Refusal> {
    let text = call.text("SecretString", 1, usize::MAX)?;
    let binary = call.text("SecretBinary", 1, usize::MAX)?;
    let found = match (text, binary) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(refuse(
                "InvalidParameterException",
                "You can't specify both a binary secret value and a string secret value in the same secret.",
            ));
        }
        (Some(text), None) => Content::Text(text.to_string()),
        (None, Some(encoded)) => Content::Binary(
            base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map_err(|_| refuse("SerializationException", "SecretBinary must be base64."))?,
        ),
    };
    let size = match &found {
        Content::Text(text) => text.len(),
        Content::Binary(bytes) => bytes.len(),
        Content::Nothing => 0,
    };
    if size > VALUE_MAX {
        return Err(refuse(
            "ValidationException",
            format!(
                "1 validation error detected: Value at 'secretString' failed to satisfy constraint: Member must have length less than or equal to {VALUE_MAX}"
            ),
        ));
    }
    Ok(Some(found))
}

/// The idempotency token, which becomes the version's id.
fn token(call: &Call<'_>) -> Result<String, Refusal> {
    call.text("ClientRequestToken", 32, 64)?
        .map(str::to_string)
        .ok_or_else(|| refuse("InvalidRequestException", "You must provide a ClientRequestToken value. We recommend a UUID-type value."))
}

fn taken(token: &str, arn: &str) -> Refusal {
    refuse(
        "ResourceExistsException",
        format!("You can't use ClientRequestToken {token} because that value is already in use for a version of secret {arn}."),
    )
}

/// Refuses what is somebody else's.
fn own(secret: &Secret, region: &str) -> Result<(), Refusal> {
    if let Some(owner) = &secret.owner {
        return Err(refuse("InvalidRequestException", format!("You can't modify a secret that is managed by another service ({owner}).")));
    }
    match secret.primary_region.as_deref() {
        Some(primary) if primary != region => Err(refuse(
            "InvalidRequestException",
            format!("Operation not permitted on a replica secret. Call must be made in primary secret's region: {primary}"),
        )),
        _ => Ok(()),
    }
}

/// CreateSecret.
pub fn create(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let name = call.required("Name", 1, 512)?;
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c)) {
        return Err(refuse(
            "ValidationException",
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
        ));
    }
    let (token, content, tags, now) = (token(call)?, content(call)?, read_tags(call)?, world.now_ms());
    let description = call.text("Description", 0, 2048)?.filter(|d| !d.is_empty()).map(str::to_string);
    let key = call.text("KmsKeyId", 0, 2048)?;
    world.allowed(call, name)?;
    if !tags.is_empty() {
        world.permits(call, "TagResource", name)?;
    }
    check_count(&tags)?;
    if let Some(blocks) = world.region(call.region).blocked.get_mut(name).filter(|b| **b > 0) {
        *blocks -= 1;
        return Err(scheduled());
    }
    if let Some(there) = world.region(call.region).secrets.get(name) {
        if there.deleted.is_some() {
            return Err(scheduled());
        }
        return match there.versions.iter().find(|v| v.id == token) {
            Some(version) if Some(&version.content) == content.as_ref() => Ok(json!({ "ARN": there.arn, "Name": there.name, "VersionId": token })),
            Some(_) => Err(taken(&token, &there.arn)),
            None => Err(refuse("ResourceExistsException", format!("The operation failed because the secret {name} already exists."))),
        };
    }
    let key = world.resolve_key(key, call.region)?;
    let mut secret = world.blank(call.region, name, now);
    secret.description = description;
    secret.tags = tags;
    secret.key = key.clone();
    let mut out = json!({ "ARN": secret.arn, "Name": name });
    if let Some(content) = content {
        secret.add(token.clone(), content, now, key);
        out["VersionId"] = json!(token);
    }
    world.region(call.region).secrets.insert(name.to_string(), secret);
    Ok(out)
}

fn scheduled() -> Refusal {
    refuse("InvalidRequestException", "You can't create this secret because a secret with this name is already scheduled for deletion.")
}

/// Stores a version under a token: `true` when it is new.
fn store(secret: &mut Secret, token: &str, content: Content, now: i64) -> Result<bool, Refusal> {
    if let Some(there) = secret.versions.iter().find(|v| v.id == token) {
        return if there.content == content { Ok(false) } else { Err(taken(token, &secret.arn)) };
    }
    secret.make_room(now)?;
    secret.add(token.to_string(), content, now, secret.key.clone());
    Ok(true)
}

/// PutSecretValue (the labels AWSCURRENT and AWSPREVIOUS move by themselves; other labels are not taken here).
pub fn put(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let id = call.secret_id()?;
    let (token, content, now) = (token(call)?, content(call)?, world.now_ms());
    let Some(content) = content else {
        return Err(refuse("InvalidRequestException", "You must provide either SecretString or SecretBinary."));
    };
    let key = world.find(call, id)?.key.clone();
    world.usable(key.as_deref(), "EncryptionFailure")?;
    let secret = world.find(call, id)?;
    usable(secret)?;
    own(secret, call.region)?;
    store(secret, &token, content, now)?;
    let stages = secret.versions.iter().find(|v| v.id == token).map(|v| v.stages.clone()).unwrap_or_default();
    Ok(json!({ "ARN": secret.arn, "Name": secret.name, "VersionId": token, "VersionStages": stages }))
}

/// UpdateSecret: key and description without a version, a value with one.
pub fn update(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let id = call.secret_id()?;
    let (content, now) = (content(call)?, world.now_ms());
    let description = call.text("Description", 0, 2048)?.map(str::to_string);
    let key = match call.text("KmsKeyId", 0, 2048)? {
        Some(given) => Some(world.resolve_key(Some(given), call.region)?),
        None => None,
    };
    let under = match &key {
        Some(key) => key.clone(),
        None => world.find(call, id)?.key.clone(),
    };
    world.usable(under.as_deref(), "EncryptionFailure")?;
    let secret = world.find(call, id)?;
    usable(secret)?;
    own(secret, call.region)?;
    let mut out = json!({ "ARN": secret.arn, "Name": secret.name });
    if let Some(content) = content {
        let token = token(call)?;
        if let Some(key) = key.clone() {
            secret.key = key;
        }
        store(secret, &token, content, now)?;
        out["VersionId"] = json!(token);
    }
    if let Some(key) = key {
        // The labelled versions are encrypted again under the new key; none is added.
        secret.versions.iter_mut().filter(|v| !v.stages.is_empty()).for_each(|v| v.key = key.clone());
        secret.key = key;
    }
    if let Some(description) = description {
        secret.description = Some(description).filter(|d| !d.is_empty());
    }
    secret.changed = now;
    Ok(out)
}

/// DeleteSecret.
pub fn delete(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let id = call.secret_id()?;
    let (force, window, now) = (call.flag("ForceDeleteWithoutRecovery")?, call.number("RecoveryWindowInDays")?, world.now_ms());
    if force && window.is_some() {
        return Err(refuse("InvalidParameterException", "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays."));
    }
    let days = window.unwrap_or(30);
    if !(7..=30).contains(&days) {
        return Err(refuse("InvalidParameterException", "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive)."));
    }
    let blocks = world.name_blocks;
    let secret = match world.find(call, id) {
        Ok(secret) => secret,
        // A forced deletion of what is not there succeeds, and proves nothing.
        Err(e) if force && e.code == "ResourceNotFoundException" => {
            let arn = if id.starts_with("arn:") { id.to_string() } else { world.blank(call.region, id, now).arn };
            let name = arn.rsplit(":secret:").next().unwrap_or_default();
            let name = name.rsplit_once('-').map_or(name, |(n, _)| n).to_string();
            return Ok(json!({ "ARN": arn, "Name": name, "DeletionDate": seconds(now) }));
        }
        Err(e) => return Err(e),
    };
    own(secret, call.region)?;
    if secret.primary_region.is_some() {
        return Err(refuse("InvalidParameterException", "You can't delete secret that still has replica regions."));
    }
    let (name, arn) = (secret.name.clone(), secret.arn.clone());
    if force {
        let region = world.region(call.region);
        region.secrets.remove(&name);
        region.blocked.insert(name.clone(), blocks);
        return Ok(json!({ "ARN": arn, "Name": name, "DeletionDate": seconds(now) }));
    }
    usable(secret)?;
    secret.deleted = Some((now, days));
    Ok(json!({ "ARN": arn, "Name": name, "DeletionDate": seconds(now + days * 86_400_000) }))
}

/// RestoreSecret.
pub fn restore(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let id = call.secret_id()?;
    let (blocks, now) = (world.restore_blocks, world.now_ms());
    let secret = world.find(call, id)?;
    if secret.deleted.take().is_some() {
        secret.settling = blocks;
        secret.changed = now;
    }
    Ok(json!({ "ARN": secret.arn, "Name": secret.name }))
}
