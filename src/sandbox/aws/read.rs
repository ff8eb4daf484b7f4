//! GetSecretValue, DescribeSecret, ListSecretVersionIds.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::input::{Call, Refusal, refuse};
use super::world::{Content, Secret, World, not_found, seconds};

/// Refuses calls that a scheduled (or just restored) secret does not take.
pub fn usable(secret: &mut Secret) -> Result<(), Refusal> {
    if secret.settling > 0 {
        secret.settling -= 1;
        return Err(marked());
    }
    if secret.deleted.is_some() { Err(marked()) } else { Ok(()) }
}

fn marked() -> Refusal {
    refuse("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
}

/// The value members of one version; also used by BatchGetSecretValue.
pub fn value(world: &mut World, call: &Call<'_>, id: &str, version: Option<&str>, stage: &str) -> Result<Map<String, Value>, Refusal> {
    let secret = world.find(call, id)?;
    usable(secret)?;
    let found = match version {
        Some(version) => secret.versions.iter().find(|v| v.id == version),
        None => secret.versions.iter().find(|v| v.stages.contains(stage)),
    };
    let Some(found) = found else {
        return Err(refuse("ResourceNotFoundException", format!("Secrets Manager can't find the specified secret value for staging label: {stage}")));
    };
    let mut out = Map::new();
    out.insert("ARN".into(), json!(secret.arn));
    out.insert("Name".into(), json!(secret.name));
    out.insert("VersionId".into(), json!(found.id));
    out.insert("VersionStages".into(), json!(found.stages));
    out.insert("CreatedDate".into(), seconds(found.created));
    match &found.content {
        Content::Text(text) => drop(out.insert("SecretString".into(), json!(text))),
        Content::Binary(bytes) => drop(out.insert("SecretBinary".into(), json!(base64::engine::general_purpose::STANDARD.encode(bytes)))),
        Content::Nothing => return Err(not_found()),
    }
    let key = found.key.clone();
    world.usable(key.as_deref(), "DecryptionFailure")?;
    Ok(out)
}

/// GetSecretValue.
pub fn get(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let id = call.secret_id()?;
    let version = call.text("VersionId", 32, 64)?;
    let stage = call.text("VersionStage", 1, 256)?.unwrap_or("AWSCURRENT");
    value(world, call, id, version, stage).map(Value::Object)
}

/// DescribeSecret: its date of deletion is the end of the window.
pub fn describe(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let secret = world.find(call, call.secret_id()?)?;
    let mut out = secret.common();
    if let Some(stages) = secret.stages() {
        out.insert("VersionIdsToStages".into(), stages);
    }
    if let Some((at, days)) = secret.deleted {
        out.insert("DeletedDate".into(), seconds(at + days * 86_400_000));
    }
    Ok(Value::Object(out))
}

/// ListSecretVersionIds (unlabelled versions only when asked for; one page).
pub fn versions(world: &mut World, call: &Call<'_>) -> Result<Value, Refusal> {
    let deprecated = call.flag("IncludeDeprecated")?;
    call.page_size(100)?;
    let secret = world.find(call, call.secret_id()?)?;
    let versions: Vec<Value> = secret
        .versions
        .iter()
        .filter(|v| deprecated || !v.stages.is_empty())
        .map(|v| {
            let keys = json!([v.key.as_deref().unwrap_or("DefaultEncryptionKey")]);
            json!({ "VersionId": v.id, "VersionStages": v.stages, "CreatedDate": seconds(v.created), "KmsKeyIds": keys })
        })
        .collect();
    Ok(json!({ "ARN": secret.arn, "Name": secret.name, "Versions": versions }))
}
