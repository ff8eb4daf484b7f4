//! Users, tenancies, compartments; vaults and keys.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Extension, Path, State as Extract};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use super::State;
use super::reply::{Answer, Query, Refusal, page};
use super::store::{Inner, Key, Vault, stamp};
use crate::model::Time;

/// The vault whose management endpoint this is; absent where all keys are served.
#[derive(Clone)]
pub(super) struct Only(pub String);

fn need<'q>(query: &'q HashMap<String, String>, name: &str) -> Result<&'q str, Refusal> {
    query.get(name).map(String::as_str).filter(|v| !v.is_empty()).ok_or_else(|| Refusal::missing(name))
}

pub(super) async fn user(Extract(state): Extract<State>, Path(id): Path<String>) -> Answer {
    state.with(|i| {
        i.right("USER_INSPECT")?;
        if !i.has_user(&id) {
            return Err(Refusal::not_found());
        }
        let body = json!({
            "id": id, "compartmentId": super::TENANCY, "name": "deploy-bot", "description": "the sandbox's user", "lifecycleState": "ACTIVE",
            "timeCreated": stamp(Time::UNIX_EPOCH), "isMfaActivated": false,
        });
        Ok(Json(body).into_response())
    })
}

pub(super) async fn tenancy(Extract(state): Extract<State>, Path(id): Path<String>) -> Answer {
    state.with(|i| {
        i.right("TENANCY_INSPECT")?;
        let name = i.tenancies.get(&id).ok_or_else(Refusal::not_found)?;
        Ok(Json(json!({ "id": id, "name": name, "description": name, "homeRegionKey": "FRA" })).into_response())
    })
}

fn compartment_json(i: &Inner, id: &str) -> Option<Value> {
    let c = i.compartments.iter().find(|c| c.id == id)?;
    Some(json!({
        "id": c.id, "compartmentId": c.parent, "name": c.name, "description": format!("the {} compartment", c.name),
        "lifecycleState": "ACTIVE", "isAccessible": true, "timeCreated": stamp(Time::UNIX_EPOCH),
    }))
}

pub(super) async fn compartment(Extract(state): Extract<State>, Path(id): Path<String>) -> Answer {
    state.with(|i| {
        i.right("COMPARTMENT_INSPECT")?;
        compartment_json(i, &id).filter(|_| !i.hidden.contains(&id)).map(|c| Json(c).into_response()).ok_or_else(Refusal::not_found)
    })
}

pub(super) async fn compartments(Extract(state): Extract<State>, query: Query) -> Answer {
    state.with(|i| {
        i.right("COMPARTMENT_INSPECT")?;
        let parent = need(&query, "compartmentId")?;
        i.place(parent)?;
        let subtree = query.get("compartmentIdInSubtree").is_some_and(|v| v == "true");
        if subtree && !i.tenancies.contains_key(parent) {
            return Err(Refusal::invalid("compartmentIdInSubtree is only allowed on the tenancy (root compartment)"));
        }
        if query.get("accessLevel").is_some_and(|v| !matches!(v.as_str(), "ANY" | "ACCESSIBLE")) {
            return Err(Refusal::invalid("accessLevel must be ANY or ACCESSIBLE"));
        }
        let active = query.get("lifecycleState").is_none_or(|s| s.eq_ignore_ascii_case("ACTIVE"));
        let ids: Vec<String> =
            i.compartments.iter().filter(|c| active && (subtree || c.parent == parent) && !i.hidden.contains(&c.id)).map(|c| c.id.clone()).collect();
        let items = ids.iter().filter_map(|id| compartment_json(i, id)).collect();
        page(items, &query, i.page_size)
    })
}

fn vault_json(v: &Vault) -> Value {
    json!({
        "id": v.id, "displayName": v.name, "compartmentId": v.compartment, "lifecycleState": "ACTIVE", "vaultType": "DEFAULT",
        "managementEndpoint": v.management_endpoint, "cryptoEndpoint": v.management_endpoint.replace("-management.", "-crypto."),
        "timeCreated": stamp(Time::UNIX_EPOCH), "wrappingkeyId": v.id.replace("vault", "key"), "definedTags": {}, "freeformTags": {},
    })
}

pub(super) async fn vaults(Extract(state): Extract<State>, query: Query) -> Answer {
    state.with(|i| {
        i.right("VAULT_INSPECT")?;
        let place = need(&query, "compartmentId")?;
        i.place(place)?;
        let mut list: Vec<&Vault> = i.vaults.iter().filter(|v| v.compartment == place).collect();
        if query.get("sortBy").is_some_and(|s| s == "DISPLAYNAME") {
            list.sort_by(|a, b| a.name.cmp(&b.name));
        }
        page(list.into_iter().map(vault_json).collect(), &query, i.page_size)
    })
}

pub(super) async fn vault(Extract(state): Extract<State>, Path(id): Path<String>) -> Answer {
    state.with(|i| {
        i.right("VAULT_READ")?;
        let vault = i.vaults.iter().find(|v| v.id == id && !i.hidden.contains(&v.compartment)).ok_or_else(Refusal::not_found)?;
        Ok(Json(vault_json(vault)).into_response())
    })
}

fn key_json(k: &Key, single: bool) -> Value {
    let mut out = json!({
        "id": k.id, "displayName": k.name, "compartmentId": k.compartment, "vaultId": k.vault, "lifecycleState": k.state,
        "protectionMode": "SOFTWARE", "timeCreated": stamp(Time::UNIX_EPOCH), "definedTags": {}, "freeformTags": {},
    });
    if let Some(map) = out.as_object_mut() {
        if single {
            map.insert("keyShape".into(), json!({ "algorithm": k.algorithm, "length": 32 }));
            map.insert("currentKeyVersion".into(), json!(k.id));
        } else {
            map.insert("algorithm".into(), json!(k.algorithm));
        }
    }
    out
}

pub(super) async fn keys(Extract(state): Extract<State>, only: Option<Extension<Only>>, query: Query) -> Answer {
    state.with(|i| {
        i.right("KEY_INSPECT")?;
        let place = need(&query, "compartmentId")?;
        i.place(place)?;
        let items = i
            .keys
            .iter()
            .filter(|k| k.compartment == place && only.as_ref().is_none_or(|o| o.0.0 == k.vault))
            .filter(|k| query.get("algorithm").is_none_or(|a| k.algorithm.eq_ignore_ascii_case(a)))
            .filter(|k| query.get("protectionMode").is_none_or(|m| m == "SOFTWARE") && !k.id.is_empty())
            .map(|k| key_json(k, false))
            .collect();
        page(items, &query, i.page_size)
    })
}

pub(super) async fn key(Extract(state): Extract<State>, only: Option<Extension<Only>>, Path(id): Path<String>) -> Answer {
    state.with(|i| {
        i.right("KEY_READ")?;
        let key = i
            .keys
            .iter()
            .find(|k| k.id == id && only.as_ref().is_none_or(|o| o.0.0 == k.vault) && !i.hidden.contains(&k.compartment))
            .ok_or_else(Refusal::not_found)?;
        Ok(Json(key_json(key, true)).into_response())
    })
}
