//! Secret values (Secret Retrieval, 20190301).

use axum::extract::{Path, State as Extract};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::State;
use super::reply::{Answer, Query, Refusal, page, tagged};
use super::store::{Secret, stamp};
use crate::model::Time;

/// A value can be read while the secret is active or being updated (the old one then), and
/// until an expiry rule blocks it.
fn readable(secret: &Secret, now: Time) -> Result<(), Refusal> {
    let blocked = secret.expiry().is_some_and(|(at, blocks)| blocks && at <= now);
    if matches!(secret.state.as_str(), "ACTIVE" | "UPDATING") && !blocked { Ok(()) } else { Err(Refusal::not_found()) }
}

fn bundle(secret: &Secret, query: &Query, now: Time) -> Answer {
    readable(secret, now)?;
    let asked = ["stage", "versionNumber", "secretVersionName"].iter().filter(|n| query.contains_key(**n)).count();
    if asked > 1 {
        return Err(Refusal::invalid("stage, versionNumber and secretVersionName exclude each other"));
    }
    let found = if let Some(stage) = query.get("stage") {
        if !matches!(stage.as_str(), "CURRENT" | "PENDING" | "LATEST" | "PREVIOUS" | "DEPRECATED") {
            return Err(Refusal::invalid("stage is not valid"));
        }
        secret.versions.iter().rev().find(|v| v.stages.contains(&stage.as_str()))
    } else if let Some(number) = query.get("versionNumber") {
        let number: u64 = number.parse().map_err(|_| Refusal::invalid("versionNumber must be a number"))?;
        secret.versions.iter().find(|v| v.number == number)
    } else if let Some(name) = query.get("secretVersionName") {
        secret.versions.iter().find(|v| v.name.as_ref() == Some(name))
    } else {
        secret.current()
    };
    let version = found.ok_or_else(Refusal::not_found)?;
    let content_type = secret.extra.get("sandboxContentType").and_then(|v| v.as_str()).unwrap_or("BASE64");
    let body = json!({
        "secretId": secret.id, "versionNumber": version.number, "versionName": version.name, "stages": version.stages,
        "timeCreated": stamp(version.created), "timeOfDeletion": version.time_of_deletion.map(stamp), "timeOfExpiry": secret.expiry().map(|(at, _)| stamp(at)),
        "metadata": secret.extra.get("metadata").cloned().unwrap_or_else(|| json!({})),
        "secretBundleContent": { "contentType": content_type, "content": STANDARD.encode(&version.content) },
    });
    Ok(tagged(body, &secret.etag()))
}

pub(super) async fn get(Extract(state): Extract<State>, Path(id): Path<String>, query: Query) -> Answer {
    state.with(|i| {
        i.right("SECRET_BUNDLE_READ")?;
        let now = i.now();
        bundle(i.find(&id)?, &query, now)
    })
}

pub(super) async fn by_name(Extract(state): Extract<State>, query: Query, body: axum::body::Bytes) -> Answer {
    state.with(|i| {
        i.right("SECRET_BUNDLE_READ")?;
        if !body.is_empty() {
            return Err(Refusal::new(400, "CannotParseRequest", "this operation takes no body"));
        }
        let name = query.get("secretName").ok_or_else(|| Refusal::missing("secretName"))?;
        let vault = query.get("vaultId").ok_or_else(|| Refusal::missing("vaultId"))?;
        let (hidden, now) = (i.hidden.clone(), i.now());
        let secret = i
            .secrets
            .iter()
            .find(|s| &s.name == name && &s.vault == vault && readable(s, now).is_ok() && !hidden.contains(&s.compartment))
            .ok_or_else(Refusal::not_found)?;
        bundle(secret, &query, now)
    })
}

pub(super) async fn versions(Extract(state): Extract<State>, Path(id): Path<String>, query: Query) -> Answer {
    state.with(|i| {
        i.right("SECRET_BUNDLE_READ")?;
        let (size, now) = (i.page_size, i.now());
        let secret = i.find(&id)?;
        readable(secret, now)?;
        let items = secret
            .versions
            .iter()
            .rev()
            .map(|v| {
                json!({
                    "secretId": secret.id, "versionNumber": v.number, "versionName": v.name, "stages": v.stages, "timeCreated": stamp(v.created),
                    "timeOfDeletion": v.time_of_deletion.map(stamp), "timeOfExpiry": null,
                })
            })
            .collect();
        page(items, &query, size)
    })
}
