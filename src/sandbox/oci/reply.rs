//! Errors, pages and headers as Oracle's services send them.

use std::collections::HashMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// A query string as it arrived, decoded.
pub(super) type Query = axum::extract::Query<HashMap<String, String>>;

/// An error answer: `{"code","message"}`.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

pub(super) type Answer = Result<Response, Refusal>;

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameter", message)
    }

    pub fn missing(name: &str) -> Self {
        Self::new(400, "MissingParameter", format!("Missing required parameter {name}"))
    }

    /// Gone, or not yours to see: one answer for both.
    pub fn not_found() -> Self {
        Self::new(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")
    }

    pub fn incorrect_state(id: &str, state: &str) -> Self {
        Self::new(409, "IncorrectState", format!("The secret {id} is in state {state}; the operation is not allowed."))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(serde_json::json!({ "code": self.code, "message": self.message }))).into_response()
    }
}

/// A 200 with an etag.
pub(super) fn tagged(body: Value, etag: &str) -> Response {
    let mut response = Json(body).into_response();
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert("etag", value);
    }
    response
}

/// A 2xx without a body, with an etag.
pub(super) fn empty(etag: &str) -> Response {
    let mut response = StatusCode::OK.into_response();
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert("etag", value);
    }
    response
}

/// Cuts one page out of a list. The token is bound to the query it was made for, and holds
/// `+`, `/` and `=`. A `+` that was not encoded, and so arrives as a space, is taken for what it
/// was: Oracle's TypeScript SDK encodes no query at all, and pages through the real services.
pub(super) fn page(items: Vec<Value>, query: &HashMap<String, String>, largest: usize) -> Answer {
    let limit = match query.get("limit") {
        None => largest,
        Some(text) => match text.parse::<usize>() {
            Ok(n) if (1..=1000).contains(&n) => n.min(largest),
            _ => return Err(Refusal::invalid("limit must be a number from 1 to 1000")),
        },
    };
    let mut bound: Vec<String> = query.iter().filter(|(k, _)| !matches!(k.as_str(), "page" | "limit")).map(|(k, v)| format!("{k}={v}")).collect();
    bound.sort();
    let check = blake3::hash(bound.join("&").as_bytes()).to_hex()[..8].to_string();
    let from = match query.get("page") {
        None => 0,
        Some(token) => token
            .replace(' ', "+")
            .strip_prefix("v+")
            .and_then(|t| t.strip_suffix("=="))
            .and_then(|t| t.split_once('/'))
            .filter(|(_, sum)| *sum == check)
            .and_then(|(offset, _)| offset.parse::<usize>().ok())
            .ok_or_else(|| Refusal::invalid("the page token is not valid"))?,
    };
    let more = items.len() > from + limit;
    let part: Vec<Value> = items.into_iter().skip(from).take(limit).collect();
    let mut response = Json(Value::Array(part)).into_response();
    if more && let Ok(value) = HeaderValue::from_str(&format!("v+{}/{check}==", from + limit)) {
        response.headers_mut().insert("opc-next-page", value);
    }
    Ok(response)
}
