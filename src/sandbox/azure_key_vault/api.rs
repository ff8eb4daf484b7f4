//! The data plane: what a request is answered, in the order the real service looks at it.

use axum::body::Bytes;
use axum::extract::{OriginalUri, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::store::{Held, Phase, Version};
use super::wire::{Asked, Fail, bad, bundle, deleted, described, fail, item, not_found, object, paged};
use super::{Inner, Operation, State};
use crate::sandbox::entra::TokenFault;
use crate::sandbox::tls::OverTls;

const VERSIONS: &[&str] = &["2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01"];
const VALUE_LIMIT: usize = 25_600;

pub(super) async fn handle(
    Shared(state): Shared<State>,
    OriginalUri(whole): OriginalUri,
    tls: Option<Extension<OverTls>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inner = state.inner();
    inner.vault.settle();
    let now = inner.now();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let host = headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let under = whole.path().strip_suffix(uri.path()).unwrap_or_default();
    let base = format!("{scheme}://{host}{under}");
    // The token is looked at before anything else: clients learn tenant and scope from the
    // refusal of a request without one, and such a request must have no effect.
    // The service's front end wants the length of whatever may have a body. (HTTP/2 frames say
    // where a body ends, and there the host is no header.)
    let unmeasured = matches!(method, Method::POST | Method::PUT | Method::PATCH)
        && headers.contains_key("host")
        && !headers.contains_key("content-length")
        && !headers.contains_key("transfer-encoding");
    let mut response = match inner.admit(&headers) {
        _ if unmeasured => (StatusCode::LENGTH_REQUIRED, "Length Required").into_response(),
        Err(refusal) => refusal,
        Ok(()) => match route(&mut inner, &method, &uri, &body, base) {
            Ok(answer) => answer,
            Err(fail) => (StatusCode::from_u16(fail.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(fail.body())).into_response(),
        },
    };
    let mut set = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            response.headers_mut().insert(name, value);
        }
    };
    set("x-ms-request-id", &uuid::Uuid::new_v4().to_string());
    set("x-ms-keyvault-region", "sandbox");
    set("x-ms-keyvault-service-version", "1.9.0.0");
    if let Ok(at) = jiff::Timestamp::from_second(now) {
        set("date", &crate::http::http_date(at));
    }
    response
}

impl Inner {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Response> {
        let given = headers.get("authorization").and_then(|h| h.to_str().ok()).and_then(|h| h.strip_prefix("Bearer ")).map(str::trim);
        let message = match given {
            None => "AKV10000: Request is missing a Bearer or PoP token.",
            Some(token) => match self.entra.check(token, &self.resource, &self.tenant) {
                Ok(_) => return Ok(()),
                Err(TokenFault::Unknown) => "[BearerReadAccessTokenFailed] AKV10045: The token could not be validated.",
                Err(TokenFault::Expired) => "[TokenExpired] AKV10046: The token is expired.",
                Err(TokenFault::Audience) => "AKV10022: Invalid audience.",
                Err(TokenFault::Tenant) => "AKV10032: Invalid issuer. Expected one of the vault's tenant's issuers.",
            },
        };
        let error = if given.is_some() { "error=\"invalid_token\", " } else { "" };
        let challenge = format!("Bearer {error}authorization=\"{}/{}\", resource=\"{}\"", self.authority, self.tenant, self.resource);
        let body = json!({"error": {"code": "Unauthorized", "message": message}});
        let mut response = (StatusCode::UNAUTHORIZED, Json(body)).into_response();
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert("www-authenticate", value);
        }
        Err(response)
    }

    fn permit(&self, operation: Operation, name: &str) -> Result<(), Fail> {
        let Some(rule) = self.forbidden.iter().find(|f| f.operation == operation && f.name.as_deref().is_none_or(|n| n.eq_ignore_ascii_case(name)))
        else {
            return Ok(());
        };
        let verb = operation.to_string();
        let message = match rule.inner.as_str() {
            "ForbiddenByPolicy" => format!(
                "The user, group or application 'appid=app-1;oid=oid-1;iss=https://sts.windows.net/{}/' does not have secrets {verb} permission on key vault 'sandbox;location=sandbox'.",
                self.tenant
            ),
            "ForbiddenByRbac" => format!(
                "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: appid=app-1;oid=oid-1\r\nAction: 'Microsoft.KeyVault/vaults/secrets/{verb}/action'\r\nAssignment: (not found)\r\nDecisionReason: null"
            ),
            "ForbiddenByFirewall" => "Client address is not authorized and caller is not a trusted service.\r\nClient address: 192.0.2.7".into(),
            "ForbiddenByConnection" => {
                "Public network access is disabled and request is not from a trusted service nor via an approved private link.".into()
            }
            _ => "Access denied.".into(),
        };
        Err(fail(403, "Forbidden", message).inner(&rule.inner))
    }
}

fn route(inner: &mut Inner, method: &Method, uri: &Uri, body: &[u8], base: String) -> Result<Response, Fail> {
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    let mut asked = Asked { base, query, body, api_version: String::new() };
    let decode = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
    let segments: Vec<String> = uri.path().trim_matches('/').split('/').map(decode).collect();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let known = matches!(parts.first(), Some(&"secrets" | &"deletedsecrets"));
    if !known {
        return Err(fail(404, "NotFound", "The resource was not found."));
    }
    asked.api_version = match asked.get("api-version") {
        None => return Err(bad("api-version must be specified")),
        Some(v) if VERSIONS.contains(&v) => v.to_string(),
        Some(v) => {
            return Err(bad(format!(
                "The specified version ({v}) is not recognized. Consider using the latest supported version ({}).",
                VERSIONS[VERSIONS.len() - 1]
            )));
        }
    };
    if let Some(name) = parts.get(1)
        && (name.is_empty() || name.len() > 127 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    {
        return Err(bad(format!("The request URI contains an invalid name: {name}")));
    }
    if method != Method::PUT && !inner.may_call() {
        return Err(throttled());
    }
    let name = parts.get(1).copied().unwrap_or_default();
    match (method.as_str(), &parts[..]) {
        ("GET", ["secrets"]) => list(inner, &asked, false),
        ("GET", ["deletedsecrets"]) => list(inner, &asked, true),
        ("GET", ["secrets", _]) => get(inner, &asked, name, None),
        ("GET", ["secrets", _, "versions"]) => versions(inner, &asked, name),
        ("GET", ["secrets", _, version]) => get(inner, &asked, name, Some(version)),
        ("PUT", ["secrets", _]) => put(inner, &asked, name),
        ("PATCH", ["secrets", _]) => patch(inner, &asked, name, None),
        ("PATCH", ["secrets", _, version]) => patch(inner, &asked, name, Some(version)),
        ("DELETE", ["secrets", _]) => delete(inner, &asked, name),
        ("GET", ["deletedsecrets", _]) => get_deleted(inner, &asked, name),
        ("POST", ["deletedsecrets", _, "recover"]) => recover(inner, &asked, name),
        ("DELETE", ["deletedsecrets", _]) => purge(inner, name),
        _ => Err(fail(405, "MethodNotAllowed", "The method is not allowed on this resource.")),
    }
}

fn list(inner: &mut Inner, asked: &Asked<'_>, of_deleted: bool) -> Result<Response, Fail> {
    inner.permit(Operation::List, "")?;
    let all: Vec<&Held> = inner.vault.secrets.values().filter(|h| if of_deleted { h.phase == Phase::Deleted } else { h.readable() }).collect();
    let items = all.into_iter().map(|h| {
        let shown = if of_deleted { deleted(inner, asked, h, None) } else { item(inner, asked, h, None) };
        (h.name.to_ascii_lowercase(), shown)
    });
    let items: Vec<_> = items.collect();
    paged(inner, asked, if of_deleted { "deletedsecrets" } else { "secrets" }, items)
}

fn versions(inner: &mut Inner, asked: &Asked<'_>, name: &str) -> Result<Response, Fail> {
    inner.permit(Operation::List, name)?;
    let held = inner.vault.get(name).filter(|h| h.readable());
    let items: Vec<_> = held.map(|h| h.versions.iter().map(|v| (v.id.clone(), item(inner, asked, h, Some(v)))).collect()).unwrap_or_default();
    paged(inner, asked, &format!("secrets/{name}/versions"), items)
}

fn get(inner: &mut Inner, asked: &Asked<'_>, name: &str, version: Option<&str>) -> Result<Response, Fail> {
    inner.permit(Operation::Get, name)?;
    let held = inner.vault.get(name).filter(|h| h.readable()).ok_or_else(|| not_found(name))?;
    let shown = match version {
        None => held.current(),
        Some(id) => held.versions.iter().find(|v| v.id == id).ok_or_else(|| not_found(name))?,
    };
    if !shown.enabled {
        return Err(fail(403, "Forbidden", "Operation get is not allowed on a disabled secret.").inner("SecretDisabled"));
    }
    Ok(Json(bundle(inner, asked, held, shown, true)).into_response())
}

fn throttled() -> Fail {
    let message = "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached";
    fail(429, "Throttled", message)
}

/// Why a name cannot be written now.
fn taken(held: &Held, verb: &str) -> Result<(), Fail> {
    let (inner, text) = match held.phase {
        Phase::Active => return Ok(()),
        Phase::BeingDeleted { .. } => ("ObjectIsBeingDeleted", "is currently being deleted"),
        Phase::Deleted => (
            "ObjectIsDeletedButRecoverable",
            "is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged",
        ),
        Phase::BeingRecovered { .. } => ("ObjectIsBeingRecovered", "is currently being recovered"),
        Phase::BeingPurged { .. } => ("ObjectIsBeingDeleted", "is currently being purged"),
    };
    Err(fail(409, "Conflict", format!("Secret {} {text} and cannot be {verb}; retry later.", held.name)).inner(inner))
}

fn put(inner: &mut Inner, asked: &Asked<'_>, name: &str) -> Result<Response, Fail> {
    inner.permit(Operation::Set, name)?;
    let body = object(asked.body)?;
    let Some(value) = body.get("value").and_then(Value::as_str) else {
        return Err(bad("Required member 'value' not found in body."));
    };
    if value.len() > VALUE_LIMIT || (value.is_empty() && inner.nature.refuse_empty) {
        return Err(bad(if value.is_empty() {
            "Property value is empty.".to_string()
        } else {
            "The secret value exceeds the maximum length of 25600.".to_string()
        }));
    }
    let described = described(&body)?;
    if let Some(held) = inner.vault.get(name) {
        taken(held, "re-created")?;
        if held.managed {
            return Err(fail(403, "Forbidden", "Operation set is not allowed on a secret managed by a certificate."));
        }
    }
    if !inner.may_create() {
        return Err(throttled());
    }
    let now = inner.now();
    let version = Version {
        id: uuid::Uuid::new_v4().simple().to_string(),
        value: value.to_string(),
        content_type: described.content_type,
        tags: described.tags,
        enabled: described.enabled.unwrap_or(true),
        nbf: described.nbf,
        exp: described.exp,
        created: now,
        updated: now,
    };
    inner.vault.put(name, version);
    let held = inner.vault.get(name).ok_or_else(|| not_found(name))?;
    Ok(Json(bundle(inner, asked, held, held.current(), true)).into_response())
}

fn patch(inner: &mut Inner, asked: &Asked<'_>, name: &str, version: Option<&str>) -> Result<Response, Fail> {
    inner.permit(Operation::Set, name)?;
    let described = described(&object(asked.body)?)?;
    let now = inner.now();
    let held = inner.vault.get_mut(name).filter(|h| h.readable()).ok_or_else(|| not_found(name))?;
    let at = match version {
        None => held.versions.len() - 1,
        Some(id) => held.versions.iter().position(|v| v.id == id).ok_or_else(|| not_found(name))?,
    };
    let one = &mut held.versions[at];
    one.content_type = described.content_type.or(one.content_type.take());
    one.tags = described.tags.or(one.tags.take());
    one.enabled = described.enabled.unwrap_or(one.enabled);
    one.nbf = described.nbf.or(one.nbf);
    one.exp = described.exp.or(one.exp);
    one.updated = now;
    let held = inner.vault.get(name).ok_or_else(|| not_found(name))?;
    Ok(Json(bundle(inner, asked, held, &held.versions[at], false)).into_response())
}

fn delete(inner: &mut Inner, asked: &Asked<'_>, name: &str) -> Result<Response, Fail> {
    inner.permit(Operation::Delete, name)?;
    let (now, nature) = (inner.now(), inner.nature.clone());
    let held = inner.vault.get_mut(name).ok_or_else(|| not_found(name))?;
    match held.phase {
        Phase::Active => {}
        Phase::Deleted | Phase::BeingPurged { .. } => return Err(not_found(name)),
        _ => return Err(taken(held, "deleted").err().unwrap_or_else(|| not_found(name))),
    }
    if held.managed {
        return Err(fail(403, "Forbidden", "Operation delete is not allowed on a secret managed by a certificate."));
    }
    held.deleted = now;
    held.purge = now + 90 * 86_400;
    held.phase = Phase::BeingDeleted { until: Instant::now() + nature.delete_takes };
    let shown = held.clone();
    if !nature.soft_delete {
        inner.vault.secrets.remove(&name.to_ascii_lowercase());
    }
    inner.vault.settle();
    Ok(Json(deleted(inner, asked, &shown, Some(shown.current()))).into_response())
}

fn get_deleted(inner: &mut Inner, asked: &Asked<'_>, name: &str) -> Result<Response, Fail> {
    inner.permit(Operation::Get, name)?;
    let held = inner.vault.get(name).filter(|h| h.phase == Phase::Deleted).ok_or_else(|| not_found(name))?;
    Ok(Json(deleted(inner, asked, held, Some(held.current()))).into_response())
}

fn recover(inner: &mut Inner, asked: &Asked<'_>, name: &str) -> Result<Response, Fail> {
    inner.permit(Operation::Recover, name)?;
    let nature = inner.nature.clone();
    let held = inner.vault.get_mut(name).ok_or_else(|| not_found(name))?;
    match held.phase {
        Phase::Deleted => {}
        Phase::BeingPurged { .. } => return Err(not_found(name)),
        Phase::Active => return Err(fail(409, "Conflict", format!("Secret {name} is not in a deleted state."))),
        _ => return Err(taken(held, "recovered").err().unwrap_or_else(|| not_found(name))),
    }
    let readable = Instant::now() + nature.recover_takes;
    held.phase = Phase::BeingRecovered { readable, writable: readable + nature.recover_lags };
    let held = inner.vault.get(name).ok_or_else(|| not_found(name))?;
    Ok(Json(bundle(inner, asked, held, held.current(), false)).into_response())
}

fn purge(inner: &mut Inner, name: &str) -> Result<Response, Fail> {
    inner.permit(Operation::Purge, name)?;
    let takes = inner.nature.purge_takes;
    inner.purges += 1;
    let held = inner.vault.get_mut(name).filter(|h| h.phase == Phase::Deleted).ok_or_else(|| not_found(name))?;
    held.phase = Phase::BeingPurged { until: Instant::now() + takes };
    Ok(StatusCode::NO_CONTENT.into_response())
}
