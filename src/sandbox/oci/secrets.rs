//! Secrets without their values (Vault Secret Management, 20180608).

use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::State;
use super::reply::{Answer, Query, Refusal, empty, page, tagged};
use super::store::{Inner, Secret, VERSIONS, stamp};
use crate::model::Time;

/// Bytes of a content, decoded.
const CONTENT: usize = 25_600;

const CREATE_FIELDS: &[&str] = &[
    "compartmentId",
    "vaultId",
    "keyId",
    "secretName",
    "secretContent",
    "description",
    "freeformTags",
    "definedTags",
    "metadata",
    "secretRules",
    "rotationConfig",
    "replicationConfig",
    "secretGenerationContext",
    "enableAutoGeneration",
];
const UPDATE_FIELDS: &[&str] = &[
    "secretContent",
    "currentVersionNumber",
    "description",
    "freeformTags",
    "definedTags",
    "metadata",
    "secretRules",
    "rotationConfig",
    "replicationConfig",
    "enableAutoGeneration",
    "secretGenerationContext",
];

fn object(body: &[u8], known: &[&str]) -> Result<Map<String, Value>, Refusal> {
    let parse = |m: String| Refusal::new(400, "CannotParseRequest", m);
    let value: Value = serde_json::from_slice(body).map_err(|_| parse("the body is not valid JSON".into()))?;
    let Value::Object(map) = value else { return Err(parse("the body is not an object".into())) };
    if let Some(unknown) = map.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(parse(format!("Unrecognized field \"{unknown}\"")));
    }
    Ok(map.into_iter().filter(|(_, v)| !v.is_null()).collect())
}

fn text<'m>(map: &'m Map<String, Value>, name: &str) -> Result<&'m str, Refusal> {
    map.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).ok_or_else(|| Refusal::missing(name))
}

/// The content of a create or update, decoded.
struct Content {
    bytes: Vec<u8>,
    /// The version's name.
    name: Option<String>,
    stage: String,
}

fn content(map: &Map<String, Value>) -> Result<Option<Content>, Refusal> {
    let Some(given) = map.get("secretContent") else { return Ok(None) };
    if given.get("contentType").and_then(Value::as_str) != Some("BASE64") {
        return Err(Refusal::new(400, "CannotParseRequest", "Invalid typeId provided"));
    }
    let encoded = given.get("content").and_then(Value::as_str).unwrap_or_default();
    let bytes = STANDARD.decode(encoded).map_err(|_| Refusal::invalid("content has an invalid format"))?;
    if bytes.is_empty() {
        return Err(Refusal::invalid("content must not be empty"));
    }
    if bytes.len() > CONTENT {
        return Err(Refusal::invalid("the secret bundle is larger than 25 KB"));
    }
    let stage = given.get("stage").and_then(Value::as_str).unwrap_or("CURRENT").to_string();
    if !matches!(stage.as_str(), "CURRENT" | "PENDING") {
        return Err(Refusal::invalid("stage must be CURRENT or PENDING"));
    }
    Ok(Some(Content { bytes, name: given.get("name").and_then(Value::as_str).map(str::to_string), stage }))
}

fn tags(map: &Map<String, Value>) -> Result<Option<Value>, Refusal> {
    let Some(given) = map.get("freeformTags") else { return Ok(None) };
    let object = given.as_object().ok_or_else(|| Refusal::invalid("freeformTags must be a map"))?;
    let fits = object.len() <= 10 && object.iter().all(|(k, v)| (1..=100).contains(&k.len()) && v.as_str().is_some_and(|v| v.len() <= 256));
    fits.then(|| Some(given.clone())).ok_or_else(|| Refusal::invalid("freeformTags exceed their limits"))
}

fn keep_extra(secret: &mut Secret, map: &Map<String, Value>) {
    for name in ["description", "definedTags", "metadata", "secretRules", "rotationConfig", "replicationConfig", "secretGenerationContext"] {
        if let Some(value) = map.get(name) {
            secret.extra.insert(name.to_string(), value.clone());
        }
    }
    if let Some(auto) = map.get("enableAutoGeneration") {
        secret.extra.insert("isAutoGenerationEnabled".into(), auto.clone());
    }
}

fn if_match(headers: &HeaderMap, secret: &Secret) -> Result<(), Refusal> {
    match headers.get("if-match").and_then(|v| v.to_str().ok()) {
        Some(etag) if etag != secret.etag() => Err(Refusal::new(412, "NoEtagMatch", "The etag does not match.")),
        _ => Ok(()),
    }
}

pub(super) async fn list(Extract(state): Extract<State>, query: Query) -> Answer {
    state.with(|i| {
        i.right("SECRET_INSPECT")?;
        let place = query.get("compartmentId").ok_or_else(|| Refusal::missing("compartmentId"))?;
        i.place(place)?;
        if let Some(vault) = query.get("vaultId")
            && !i.vaults.iter().any(|v| &v.id == vault)
        {
            return Err(Refusal::not_found());
        }
        let mut found: Vec<&Secret> = i
            .secrets
            .iter()
            .filter(|s| &s.compartment == place && query.get("vaultId").is_none_or(|v| &s.vault == v))
            .filter(|s| query.get("name").is_none_or(|n| &s.name == n))
            .filter(|s| query.get("lifecycleState").is_none_or(|l| s.state.eq_ignore_ascii_case(l)))
            .collect();
        match query.get("sortBy").map(String::as_str) {
            Some("NAME") => found.sort_by(|a, b| a.name.cmp(&b.name)),
            None | Some("TIMECREATED") => {}
            Some(_) => return Err(Refusal::invalid("sortBy must be TIMECREATED or NAME")),
        }
        if query.get("sortOrder").is_some_and(|o| o == "DESC") {
            found.reverse();
        }
        page(found.into_iter().map(Secret::summary).collect(), &query, i.page_size)
    })
}

pub(super) async fn get(Extract(state): Extract<State>, Path(id): Path<String>) -> Answer {
    state.with(|i| {
        i.right("SECRET_READ")?;
        let secret = i.find(&id)?;
        Ok(tagged(secret.full(), &secret.etag()))
    })
}

pub(super) async fn create(Extract(state): Extract<State>, headers: HeaderMap, body: Bytes) -> Answer {
    state.with(|i| create_in(i, &headers, &body))
}

fn create_in(i: &mut Inner, headers: &HeaderMap, body: &[u8]) -> Answer {
    for right in ["SECRET_CREATE", "KEY_ENCRYPT", "KEY_DECRYPT", "VAULT_CREATE_SECRET"] {
        i.right(right)?;
    }
    let map = object(body, CREATE_FIELDS)?;
    let token = headers.get("opc-retry-token").and_then(|v| v.to_str().ok()).filter(|_| !i.forgets_tokens);
    let sum = blake3::hash(body).to_hex().to_string();
    if let Some(token) = token {
        if !(30..=36).contains(&token.len()) {
            return Err(Refusal::invalid("opc-retry-token must have 30 to 36 characters"));
        }
        if let Some((then, id)) = i.tokens.get(token).cloned() {
            let alive = i.secrets.iter().find(|s| s.id == id && s.state != "DELETED" && then == sum);
            let secret = alive.ok_or_else(|| Refusal::new(409, "InvalidatedRetryToken", "The retry token was invalidated by a later operation."))?;
            return Ok(tagged(secret.full(), &secret.etag()));
        }
    }
    let (place, vault, key) = (text(&map, "compartmentId")?, text(&map, "vaultId")?, text(&map, "keyId")?);
    let name = text(&map, "secretName")?;
    i.place(place)?;
    let related = |what: &str| Refusal::new(400, "RelatedResourceNotAuthorizedOrNotFound", format!("{what} is not authorized or was not found"));
    if !i.vaults.iter().any(|v| v.id == vault) {
        return Err(related("vaultId"));
    }
    let key_fits = i.keys.iter().any(|k| k.id == key && k.vault == vault && k.state == "ENABLED");
    if !key_fits {
        return Err(related("keyId"));
    }
    if i.keys.iter().any(|k| k.id == key && k.algorithm != "AES") {
        return Err(Refusal::invalid("the key must be a symmetric key"));
    }
    if name.len() > 255 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err(Refusal::invalid("secretName is not valid"));
    }
    let generated = map.get("enableAutoGeneration") == Some(&Value::Bool(true));
    let given = content(&map)?;
    if given.is_none() && !generated {
        return Err(Refusal::missing("secretContent"));
    }
    if given.as_ref().is_some_and(|c| c.stage != "CURRENT") {
        return Err(Refusal::invalid("a new secret's content must be CURRENT"));
    }
    // Names are unique per vault, over all compartments, until the secret is erased.
    if i.secrets.iter().any(|s| s.vault == vault && s.name == name && s.state != "DELETED") {
        return Err(Refusal::invalid(format!("Secret with name {name} already exists")));
    }
    if i.secrets.iter().filter(|s| s.state != "DELETED").count() >= i.limit {
        return Err(Refusal::new(400, "LimitExceeded", "The secret count limit of the tenancy is reached."));
    }
    let freeform = tags(&map)?;
    let (place, vault, key, name) = (place.to_string(), vault.to_string(), key.to_string(), name.to_string());
    let mut secret = i.blank(&place, &vault, &key, &name);
    let (bytes, version_name) = given.map_or((b"generated-by-the-service".to_vec(), None), |c| (c.bytes, c.name));
    let number = secret.push(bytes, version_name, vec!["CURRENT"]);
    secret.current = number;
    if let Some(freeform) = freeform {
        secret.freeform_tags = freeform;
    }
    keep_extra(&mut secret, &map);
    secret.pass("CREATING", "ACTIVE", i.delays.create);
    let answer = tagged(secret.full(), &secret.etag());
    if let Some(token) = token {
        i.tokens.insert(token.to_string(), (sum, secret.id.clone()));
    }
    i.secrets.push(secret);
    Ok(answer)
}

pub(super) async fn update(Extract(state): Extract<State>, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    state.with(|i| {
        i.right("SECRET_UPDATE")?;
        let map = object(&body, UPDATE_FIELDS)?;
        let delay = i.delays.update;
        let secret = i.find(&id)?;
        if secret.state != "ACTIVE" {
            return Err(Refusal::incorrect_state(&id, &secret.state));
        }
        if_match(&headers, secret)?;
        let given = content(&map)?;
        let ways = [given.is_some(), map.contains_key("currentVersionNumber"), map.contains_key("secretRules")];
        if ways.iter().filter(|w| **w).count() > 1 || (given.is_some() && map.contains_key("replicationConfig")) {
            return Err(Refusal::invalid("content, current version number, rules and replication exclude each other in one update"));
        }
        if secret.extra.get("isReplica") == Some(&Value::Bool(true)) {
            return Err(Refusal::new(409, "Conflict", "A replica cannot be updated."));
        }
        if let Some(Content { bytes, name, stage }) = given {
            if name.is_some() && secret.versions.iter().any(|v| v.name == name) {
                return Err(Refusal::invalid("Secret version name already exists"));
            }
            if secret.versions.iter().filter(|v| v.time_of_deletion.is_none()).count() >= VERSIONS {
                return Err(Refusal::new(400, "LimitExceeded", "The secret version count limit (30) is reached."));
            }
            let reuse = secret
                .extra
                .get("secretRules")
                .and_then(Value::as_array)
                .is_some_and(|rules| rules.iter().any(|r| r.get("ruleType").and_then(Value::as_str) == Some("SECRET_REUSE_RULE")));
            if reuse && secret.versions.iter().any(|v| v.content == bytes) {
                // The service's own words are not published.
                return Err(Refusal::invalid("the content was used in an earlier version and must not be reused"));
            }
            let number = secret.push(bytes, name, vec!["PENDING"]);
            // The new content is what readers get when the update has settled, not before.
            secret.coming = (stage == "CURRENT").then_some(number);
        }
        if let Some(number) = map.get("currentVersionNumber") {
            let number =
                number.as_u64().filter(|n| secret.versions.iter().any(|v| v.number == *n)).ok_or_else(|| Refusal::invalid("no such version"))?;
            secret.coming = Some(number);
        }
        if let Some(freeform) = tags(&map)? {
            secret.freeform_tags = freeform;
        }
        keep_extra(secret, &map);
        secret.pass("UPDATING", "ACTIVE", delay);
        Ok(tagged(secret.full(), &secret.etag()))
    })
}

/// The time of deletion in a body, or 30 days from now; 1 to 30 days are accepted.
fn deletion_time(body: &[u8], now: Time) -> Result<Time, Refusal> {
    let map = if body.is_empty() { Map::new() } else { object(body, &["timeOfDeletion"])? };
    let days = |n: i64| now + jiff::SignedDuration::from_hours(24 * n);
    let Some(given) = map.get("timeOfDeletion") else { return Ok(days(30)) };
    let at: Time = given.as_str().and_then(|t| t.parse().ok()).ok_or_else(|| Refusal::invalid("timeOfDeletion is not a time"))?;
    if at < days(1) || at > days(30) {
        return Err(Refusal::invalid("ScheduledTimeOfDeletion is in invalid range"));
    }
    Ok(at)
}

pub(super) async fn schedule(Extract(state): Extract<State>, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    state.with(|i| {
        i.right("SECRET_DELETE")?;
        let (now, delay) = (i.now(), i.delays.schedule);
        let secret = i.find(&id)?;
        if secret.state != "ACTIVE" {
            return Err(Refusal::incorrect_state(&id, &secret.state));
        }
        if_match(&headers, secret)?;
        secret.time_of_deletion = Some(deletion_time(&body, now)?);
        secret.pass("SCHEDULING_DELETION", "PENDING_DELETION", delay);
        Ok(empty(&secret.etag()))
    })
}

pub(super) async fn cancel(Extract(state): Extract<State>, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    state.with(|i| {
        i.right("SECRET_DELETE")?;
        let delay = i.delays.cancel;
        let secret = i.find(&id)?;
        if !body.is_empty() {
            return Err(Refusal::new(400, "CannotParseRequest", "this operation takes no body"));
        }
        if secret.state != "PENDING_DELETION" {
            return Err(Refusal::incorrect_state(&id, &secret.state));
        }
        if_match(&headers, secret)?;
        secret.time_of_deletion = None;
        secret.pass("CANCELLING_DELETION", "ACTIVE", delay);
        Ok(empty(&secret.etag()))
    })
}

fn version_json(secret: &Secret, number: u64) -> Option<Value> {
    let v = secret.versions.iter().find(|v| v.number == number)?;
    Some(json!({
        "secretId": secret.id, "versionNumber": v.number, "name": v.name, "stages": v.stages, "contentType": "BASE64",
        "timeCreated": stamp(v.created), "timeOfDeletion": v.time_of_deletion.map(stamp), "timeOfExpiry": null, "isContentAutoGenerated": false,
    }))
}

pub(super) async fn versions(Extract(state): Extract<State>, Path(id): Path<String>, query: Query) -> Answer {
    state.with(|i| {
        i.right("SECRET_VERSION_INSPECT")?;
        let size = i.page_size;
        let secret = i.find(&id)?;
        let mut numbers: Vec<u64> = secret.versions.iter().map(|v| v.number).collect();
        if query.get("sortOrder").is_none_or(|o| o != "ASC") {
            numbers.reverse();
        }
        page(numbers.into_iter().filter_map(|n| version_json(secret, n)).collect(), &query, size)
    })
}

pub(super) async fn version(Extract(state): Extract<State>, Path((id, number)): Path<(String, u64)>) -> Answer {
    state.with(|i| {
        i.right("SECRET_VERSION_READ")?;
        let secret = i.find(&id)?;
        let body = version_json(secret, number).ok_or_else(Refusal::not_found)?;
        Ok(tagged(body, &secret.etag()))
    })
}

pub(super) async fn schedule_version(Extract(state): Extract<State>, Path((id, number)): Path<(String, u64)>, body: Bytes) -> Answer {
    state.with(|i| {
        for right in ["SECRET_VERSION_DELETE", "SECRET_UPDATE"] {
            i.right(right)?;
        }
        let (now, delay) = (i.now(), i.delays.update);
        let secret = i.find(&id)?;
        if secret.state != "ACTIVE" {
            return Err(Refusal::incorrect_state(&id, &secret.state));
        }
        let at = deletion_time(&body, now)?;
        let pending = secret.versions.iter().filter(|v| v.time_of_deletion.is_some()).count();
        let version = secret.versions.iter_mut().find(|v| v.number == number).ok_or_else(Refusal::not_found)?;
        if !version.stages.contains(&"DEPRECATED") || version.time_of_deletion.is_some() {
            return Err(Refusal::new(409, "IncorrectState", "only deprecated versions can be deleted"));
        }
        if pending >= VERSIONS {
            return Err(Refusal::new(400, "LimitExceeded", "The limit (30) of secret versions pending deletion is reached."));
        }
        version.time_of_deletion = Some(at);
        // It takes the right to update the secret: like an update, it passes through a state.
        secret.pass("UPDATING", "ACTIVE", delay);
        Ok(empty(&secret.etag()))
    })
}

pub(super) async fn cancel_version(Extract(state): Extract<State>, Path((id, number)): Path<(String, u64)>) -> Answer {
    state.with(|i| {
        i.right("SECRET_VERSION_DELETE")?;
        let secret = i.find(&id)?;
        let version = secret.versions.iter_mut().find(|v| v.number == number).ok_or_else(Refusal::not_found)?;
        if version.time_of_deletion.take().is_none() {
            return Err(Refusal::new(409, "IncorrectState", "the version is not pending deletion"));
        }
        secret.touch();
        Ok(empty(&secret.etag()))
    })
}
