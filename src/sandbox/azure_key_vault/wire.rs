//! The data plane's JSON: errors, items, bundles, pages, and the members of a request.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::Inner;
use super::store::{Held, Version};

const PAGE: usize = 25;

/// An error answer.
pub(super) struct Fail {
    pub status: u16,
    pub code: &'static str,
    inner: Option<String>,
    pub message: String,
}

pub(super) fn fail(status: u16, code: &'static str, message: impl Into<String>) -> Fail {
    Fail { status, code, inner: None, message: message.into() }
}

impl Fail {
    pub(super) fn inner(mut self, code: &str) -> Self {
        self.inner = Some(code.to_string());
        self
    }

    pub(super) fn body(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(inner) = &self.inner {
            error["innererror"] = json!({"code": inner});
        }
        json!({"error": error})
    }
}

pub(super) fn bad(message: impl Into<String>) -> Fail {
    fail(400, "BadParameter", message)
}

pub(super) fn not_found(name: &str) -> Fail {
    fail(
        404,
        "SecretNotFound",
        format!(
            "A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command."
        ),
    )
}

/// Everything about one request.
pub(super) struct Asked<'a> {
    /// `https://host:port/path`, what ids and links begin with.
    pub base: String,
    pub query: Vec<(String, String)>,
    pub body: &'a [u8],
    pub api_version: String,
}

impl Asked<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub(super) fn id(&self, kind: &str, name: &str, version: Option<&str>) -> String {
        let version = version.map(|v| format!("/{v}")).unwrap_or_default();
        format!("{}/{kind}/{name}{version}", self.base)
    }
}

pub(super) fn item(inner: &Inner, asked: &Asked<'_>, held: &Held, version: Option<&Version>) -> Value {
    let shown = version.unwrap_or_else(|| held.current());
    let mut out = json!({
        "id": asked.id("secrets", &held.name, version.map(|v| v.id.as_str())),
        "attributes": shown.attributes(&inner.nature),
    });
    if let Some(content_type) = &shown.content_type {
        out["contentType"] = content_type.as_str().into();
    }
    if let Some(tags) = &shown.tags {
        out["tags"] = Value::Object(tags.clone());
    }
    if held.managed {
        out["managed"] = true.into();
    }
    out
}

pub(super) fn bundle(inner: &Inner, asked: &Asked<'_>, held: &Held, version: &Version, with_value: bool) -> Value {
    let mut out = item(inner, asked, held, Some(version));
    if with_value {
        out["value"] = version.value.as_str().into();
    }
    if held.managed {
        out["kid"] = asked.id("keys", &held.name, Some(&version.id)).into();
    }
    out
}

pub(super) fn deleted(inner: &Inner, asked: &Asked<'_>, held: &Held, version: Option<&Version>) -> Value {
    let mut out = item(inner, asked, held, version);
    if inner.nature.soft_delete {
        out["recoveryId"] = asked.id("deletedsecrets", &held.name, None).into();
        out["deletedDate"] = held.deleted.into();
        out["scheduledPurgeDate"] = held.purge.into();
    }
    out
}

/// One page of `items` (marker, JSON). The token in the link is opaque, and links are absolute.
pub(super) fn paged(inner: &Inner, asked: &Asked<'_>, path: &str, items: Vec<(String, Value)>) -> Result<Response, Fail> {
    let size = match asked.get("maxresults") {
        None => PAGE,
        Some(text) => text.parse().ok().filter(|n| (1..=PAGE).contains(n)).ok_or_else(|| bad("maxresults must be between 1 and 25"))?,
    };
    let b64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let from: Option<(bool, String)> = match asked.get("$skiptoken") {
        None => None,
        Some(token) => {
            let read = b64.decode(token).ok().and_then(|b| serde_json::from_slice(&b).ok());
            Some(read.ok_or_else(|| bad("Invalid $skiptoken"))?)
        }
    };
    let start = from.as_ref().map_or(0, |(_, after)| items.iter().position(|(m, _)| m > after).unwrap_or(items.len()));
    let empty = inner.nature.empty_pages && from.as_ref().is_some_and(|(gap, _)| *gap);
    let (shown, next) = if empty {
        (Vec::new(), from.map(|(_, after)| (false, after)))
    } else {
        let page: Vec<_> = items.iter().skip(start).take(size).cloned().collect();
        let more = start + page.len() < items.len();
        let last = page.last().map(|(m, _)| m.clone()).unwrap_or_default();
        (page, more.then_some((true, last)))
    };
    let link = next.map(|next| {
        let token = b64.encode(serde_json::to_vec(&next).unwrap_or_default());
        format!("{}/{path}?api-version={}&$skiptoken={token}&maxresults={size}", asked.base, asked.api_version)
    });
    Ok(Json(json!({"value": shown.into_iter().map(|(_, v)| v).collect::<Vec<_>>(), "nextLink": link})).into_response())
}

pub(super) struct Described {
    pub content_type: Option<String>,
    pub tags: Option<Map<String, Value>>,
    pub enabled: Option<bool>,
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
}

pub(super) fn described(body: &Map<String, Value>) -> Result<Described, Fail> {
    let attributes = body.get("attributes").and_then(Value::as_object).cloned().unwrap_or_default();
    let content_type = match body.get("contentType") {
        None | Some(Value::Null) => None,
        Some(Value::String(s)) if s.chars().count() <= 255 => Some(s.clone()),
        Some(_) => return Err(bad("Property contentType is invalid.")),
    };
    let tags = match body.get("tags") {
        None | Some(Value::Null) => None,
        Some(Value::Object(tags)) => {
            let fits = tags.len() <= 15 && tags.iter().all(|(k, v)| k.chars().count() <= 256 && v.as_str().is_some_and(|v| v.chars().count() <= 256));
            if !fits {
                return Err(bad("Property tags is invalid: at most 15 tags of 256 characters."));
            }
            Some(tags.clone())
        }
        Some(_) => return Err(bad("Property tags is invalid.")),
    };
    let number = |name: &str| match attributes.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(v) => v.as_i64().map(Some).ok_or_else(|| bad(format!("Property {name} is invalid."))),
    };
    Ok(Described { content_type, tags, enabled: attributes.get("enabled").and_then(Value::as_bool), nbf: number("nbf")?, exp: number("exp")? })
}

pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Fail> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(bad("The request body is not valid JSON.")),
    }
}
