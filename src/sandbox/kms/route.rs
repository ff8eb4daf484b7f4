//! The way in: parsing, rate limits, the route table, and errors in the server's shapes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::db::Db;
use super::{Generation, State, syncs};

/// The service on any path below its base.
pub fn router(state: State) -> axum::Router {
    axum::Router::new().fallback(serve).with_state(state)
}

/// A parsed request.
pub(super) struct Call {
    pub method: Method,
    pub path: String,
    pub segments: Vec<String>,
    pub query: HashMap<String, String>,
    pub raw_query: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Call {
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// A boolean as the server takes it: the texts `true` and `false`.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Refused> {
        match self.query(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(Refused::invalid(&[(name, "Invalid enum value. Expected 'true' | 'false'")])),
        }
    }

    /// A required text of the query.
    pub fn needed(&self, name: &str) -> Result<&str, Refused> {
        self.query(name).ok_or_else(|| Refused::invalid(&[(name, "Required")]))
    }

    /// A required text of the body, trimmed.
    pub fn text(&self, name: &str) -> Result<&str, Refused> {
        self.body.get(name).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty()).ok_or_else(|| Refused::invalid(&[(name, "Required")]))
    }
}

/// A refusal before the generation decides its status.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub why: Why,
    pub message: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Bad credentials, revoked or unknown token.
    Unauthorized,
    /// Expired or malformed JWT.
    Token,
    Permission,
    /// Another kind of actor is wanted.
    Forbidden,
    Validation,
    BadRequest,
    NotFound,
    NoRoute,
    RateLimit(u64),
}

impl Refused {
    pub fn new(why: Why, message: impl Into<String>) -> Self {
        Self { why, message: Value::String(message.into()) }
    }

    pub fn invalid(fields: &[(&str, &str)]) -> Self {
        let message = fields.iter().map(|(path, message)| {
            let path: Vec<Value> = path.split('.').map(|p| p.parse::<u64>().map_or_else(|_| json!(p), |n| json!(n))).collect();
            json!({ "code": "invalid_type", "path": path, "message": message })
        });
        Self { why: Why::Validation, message: Value::Array(message.collect()) }
    }

    pub fn denied(action: &str, subject: &str) -> Self {
        Self::new(Why::Permission, format!("You are not allowed to {action} on {subject}"))
    }

    fn answer(self, generation: Generation, retry_after: bool) -> Response {
        let old = generation == Generation::Y2024;
        let (status, error) = match self.why {
            Why::Unauthorized => (if old { 403 } else { 401 }, "UnauthorizedError"),
            Why::Token if old => (500, "InternalServerError"),
            Why::Token => (403, "TokenError"),
            Why::Permission => (if old { 401 } else { 403 }, "PermissionDenied"),
            Why::Forbidden => (403, if old { "UnauthorizedError" } else { "ForbiddenError" }),
            Why::Validation => (if old { 403 } else { 422 }, "ValidationFailure"),
            Why::BadRequest => (400, "BadRequest"),
            Why::NotFound => (404, "NotFound"),
            Why::NoRoute => (404, "Not Found"),
            Why::RateLimit(_) => (429, "RateLimitExceeded"),
        };
        let mut body = json!({ "statusCode": status, "message": self.message, "error": error });
        if self.why == Why::Permission && !old {
            body["details"] = json!([]);
        }
        if self.why != Why::NoRoute {
            body["reqId"] = format!("req-{}", super::db::random_text(14)).into();
        }
        let mut response = json_answer(status, &body);
        if let (Why::RateLimit(wait), true) = (self.why, retry_after) {
            response.headers_mut().insert("retry-after", HeaderValue::from(wait));
        }
        response
    }
}

/// A JSON answer.
pub(super) fn json_answer(status: u16, body: &Value) -> Response {
    bytes_answer(status, body.to_string().into())
}

pub(super) fn bytes_answer(status: u16, body: bytes::Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

async fn serve(Extract(state): Extract<State>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_end_matches('/').to_string();
    let raw_query = parts.uri.query().unwrap_or_default().to_string();
    let decode = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8_lossy().into_owned();
    let segments = path.split('/').filter(|s| !s.is_empty()).map(decode).collect();
    let query = url::form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect();
    let bytes = axum::body::to_bytes(body, 16 * 1024 * 1024).await.unwrap_or_default();
    let generation = state.db().switches.generation;
    let parsed = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
    let typed = parts.headers.get("content-type").and_then(|t| t.to_str().ok()).is_some_and(|t| t.contains("json"));
    let Ok(body) = parsed.map_err(|_| ()).and_then(|b| if bytes.is_empty() || typed { Ok(b) } else { Err(()) }) else {
        return json_answer(
            400,
            &json!({"statusCode": 400, "message": "Body is not valid JSON but content-type is set to 'application/json'", "error": "Bad Request"}),
        );
    };
    let call = Call { method: parts.method, path, segments, query, raw_query, headers: parts.headers, body };
    let bucket = bucket(&call);
    let limited = bucket.map(|b| state.db().count(b));
    let (over, retry_after, rate_headers) = {
        let db = state.db();
        (limited.as_ref().filter(|l| l.over).map(|l| l.reset), db.switches.retry_after, db.switches.rate_headers)
    };
    let outcome = match over {
        Some(wait) => Err(Refused::new(Why::RateLimit(wait), format!("Rate limit exceeded. Please try again in {wait} seconds"))),
        None => dispatch(&state, &call),
    };
    let mut response = outcome.unwrap_or_else(|refused| refused.answer(generation, retry_after));
    if let (Some(limited), true) = (limited, rate_headers) {
        let headers = response.headers_mut();
        headers.insert("x-ratelimit-limit", HeaderValue::from(limited.limit));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(limited.remaining));
        headers.insert("x-ratelimit-reset", HeaderValue::from(limited.reset));
    }
    let date = crate::http::http_date(jiff::Timestamp::now());
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().insert("date", date);
    }
    response
}

/// The route table.
fn dispatch(state: &State, call: &Call) -> Result<Response, Refused> {
    let generation = state.db().switches.generation;
    let now = generation != Generation::Y2024;
    let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    match (call.method.as_str(), segments.as_slice()) {
        ("GET", ["api", "status"]) => Ok(json_answer(
            200,
            &json!({"date": jiff::Timestamp::now().to_string(), "message": "Ok", "emailConfigured": false, "redisConfigured": true, "secretScanningConfigured": false}),
        )),
        ("POST", ["api", "v1", "auth", "universal-auth", "login"]) => state.login(call),
        ("POST", ["api", "v1", "auth", "token", "renew"]) => state.renew(call),
        ("POST", ["api", "v1", "auth", "token", "revoke"]) => state.revoke(call),
        ("GET", ["api", "v2", "service-token"]) => state.describe_service_token(call),
        ("GET", ["api", "v1", "identities", "details"]) if now => state.identity_details(call),
        ("GET", ["api", "v1", "projects"]) if now => state.list_projects(call, "projects"),
        ("GET", ["api", "v1", "workspace"]) => state.list_workspaces(call),
        ("GET", ["api", "v2", "organizations", organization, "workspaces"]) => state.list_organization(call, organization),
        ("GET", ["api", "v1", "projects", id]) if now => state.one_project(call, id, Some("project")),
        ("GET", ["api", "v1", "projects", "slug", slug]) if now => state.project_by_slug(call, slug),
        ("GET", ["api", "v1", "projects", id, "environments", "slug", slug]) if now => state.one_environment(call, id, slug),
        ("GET", ["api", "v1", "workspace", id]) => state.one_project(call, id, Some("workspace")),
        ("GET", ["api", "v2", "workspace", slug]) => state.project_by_slug(call, slug),
        ("GET", ["api", "v2", "folders"]) if now => state.list_folders(call, "projectId"),
        ("GET", ["api", "v1", "folders"]) => state.list_folders(call, "workspaceId"),
        ("GET", ["api", "v1", "secret-imports"]) => state.list_imports(call, "workspaceId"),
        ("GET", ["api", "v2", "secret-imports"]) if now => state.list_imports(call, "projectId"),
        ("GET", ["api", "v4", "secrets"]) if now => state.list_secrets(call, true),
        ("GET", ["api", "v3", "secrets", "raw"]) => state.list_secrets(call, false),
        (_, ["api", "v4", "secrets", "batch"]) if now && call.method != Method::GET => state.batch(call, true),
        (_, ["api", "v3", "secrets", "batch", "raw"]) if call.method != Method::GET => state.batch(call, false),
        ("GET", ["api", "v4", "secrets", name]) if now => state.one_secret(call, name, true),
        ("GET", ["api", "v3", "secrets", "raw", name]) => state.one_secret(call, name, false),
        ("POST" | "PATCH" | "DELETE", ["api", "v4", "secrets", name]) if now => state.single(call, name, true),
        ("POST" | "PATCH" | "DELETE", ["api", "v3", "secrets", "raw", name]) => state.single(call, name, false),
        ("GET", ["api", "v1", "secret-approval-requests", id]) => state.change_request(call, id),
        ("GET", ["api", "v1", "secret-syncs"]) if now => state.list_syncs(call, None),
        ("GET", ["api", "v1", "secret-syncs", kind]) if now && syncs::known(kind) => state.list_syncs(call, Some(kind)),
        ("GET" | "PATCH", ["api", "v1", "secret-syncs", kind, id]) if now && syncs::known(kind) => state.one_sync(call, kind, id),
        ("POST", ["api", "v1", "events", "subscribe", "project-events"]) if now => state.subscribe(call),
        _ => {
            let query = if call.raw_query.is_empty() { String::new() } else { format!("?{}", call.raw_query) };
            Err(Refused::new(Why::NoRoute, format!("Route {}:{}{query} not found", call.method, call.path)))
        }
    }
}

/// Which window a call counts in; `None` is exempt.
fn bucket(call: &Call) -> Option<usize> {
    let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["api", "status"] => None,
        ["api", "v1", "auth", ..] => Some(3),
        ["api", _, "secrets", ..] => Some(2),
        _ if call.method == Method::GET => Some(0),
        _ => Some(1),
    }
}

/// The state of a window after counting one request.
struct Counted {
    over: bool,
    limit: u64,
    remaining: u64,
    reset: u64,
}

impl Db {
    fn count(&mut self, bucket: usize) -> Counted {
        const WINDOW: Duration = Duration::from_secs(60);
        let limits = self.switches.limits;
        let limit = [limits.read, limits.write, limits.secrets, limits.auth][bucket];
        let (start, count) = &mut self.windows[bucket];
        let begun = match start {
            Some(at) if at.elapsed() < WINDOW => *at,
            _ => {
                *count = 0;
                *start.insert(Instant::now())
            }
        };
        *count += 1;
        let reset = WINDOW.saturating_sub(begun.elapsed()).as_secs_f64().ceil() as u64;
        Counted { over: *count > limit, limit, remaining: limit.saturating_sub(*count), reset: reset.max(1) }
    }
}
