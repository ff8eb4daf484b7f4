//! Verifies request signatures as Oracle's "Request Signatures" page describes them, with the
//! freedoms that its SDKs take: any order and case of the header list, `x-date` beside `date`.

use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature;

use super::State;
use super::reply::Refusal;

/// Seconds by which a request's date may be off.
const SKEW: i64 = 300;

/// The PKCS#1 public half of a PKCS#8 PEM key.
pub(super) fn public_half(pem_text: &str) -> Vec<u8> {
    pem::parse(pem_text)
        .ok()
        .and_then(|block| ring::rsa::KeyPair::from_pkcs8(block.contents()).ok())
        .map(|pair| pair.public().as_ref().to_vec())
        .unwrap_or_default()
}

/// Verifies, limits, answers, and adds the headers every answer has.
pub(super) async fn around(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let request_id = request.headers().get("opc-request-id").and_then(|v| v.to_str().ok()).unwrap_or("SANDBOX").to_string();
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let target = parts
        .extensions
        .get::<OriginalUri>()
        .map_or(&parts.uri, |o| &o.0)
        .path_and_query()
        .map_or_else(|| "/".to_string(), |p| p.as_str().to_string());
    let verdict = verify(&state, &parts.method, &target, &parts.headers, &body).and_then(|user| limit(&state, &user));
    let mut response = match verdict {
        Ok(()) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(refusal) => refusal.into_response(),
    };
    let now = state.with(|i| i.now());
    let headers = response.headers_mut();
    for (name, text) in [("opc-request-id", format!("{request_id}/SANDBOX/0001")), ("date", crate::http::http_date(now))] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
    response
}

fn limit(state: &State, user: &str) -> Result<(), Refusal> {
    let fits = state.with(|i| i.take_turn(user));
    fits.then_some(()).ok_or_else(|| Refusal::new(429, "TooManyRequests", "User-rate limit exceeded."))
}

fn refuse(message: impl Into<String>) -> Refusal {
    Refusal::new(401, "NotAuthenticated", message)
}

/// The parameters of `Signature a="…",b="…"`.
fn parameters(header: &str) -> Option<std::collections::HashMap<String, String>> {
    let rest = header.trim().strip_prefix("Signature ")?;
    rest.split("\",").map(|p| p.trim().trim_end_matches('"').split_once("=\"")).map(|p| p.map(|(k, v)| (k.to_string(), v.to_string()))).collect()
}

/// Who signed the request, or why nobody did.
fn verify(state: &State, method: &Method, target: &str, headers: &HeaderMap, body: &Bytes) -> Result<String, Refusal> {
    const INCOMPLETE: &str = "The required information to complete authentication was not provided or was incorrect.";
    const BROKEN: &str = "Failed to verify the HTTP(S) Signature";
    let get = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let given = get("authorization").and_then(parameters).ok_or_else(|| refuse(INCOMPLETE))?;
    let field = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
    if field("version") != "1" || field("algorithm") != "rsa-sha256" {
        return Err(refuse(INCOMPLETE));
    }
    let signed: Vec<String> = field("headers").split_whitespace().map(str::to_ascii_lowercase).collect();
    let has = |name: &str| signed.iter().any(|s| s == name);
    let with_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    // Where both dates are sent, the one that is signed is the one that counts.
    let date_name = if has("x-date") { "x-date" } else { "date" };
    let mut needed = vec![date_name, "(request-target)", "host"];
    if with_body {
        needed.extend(["content-length", "content-type", "x-content-sha256"]);
    }
    if needed.iter().any(|n| !has(n)) {
        return Err(refuse(INCOMPLETE));
    }
    let date_text = get(date_name).ok_or_else(|| refuse(INCOMPLETE))?;
    let date = crate::http::parse_http_date(date_text).ok_or_else(|| refuse(INCOMPLETE))?;
    let now = state.with(|i| i.now());
    if (date.as_second() - now.as_second()).abs() > SKEW {
        let at = |offset: i64| crate::http::http_date(now + jiff::SignedDuration::from_secs(offset));
        return Err(refuse(format!(
            "Date '{date_text}' is not within allowed clock skew. Current '{}', valid datetime range: ['{}', '{}']",
            at(0),
            at(-SKEW),
            at(SKEW)
        )));
    }
    if with_body {
        let length_fits = get("content-length").and_then(|l| l.parse::<usize>().ok()) == Some(body.len());
        let hash = STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, body));
        let json = get("content-type").is_some_and(|t| t.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("application/json")));
        if !length_fits || !json || get("x-content-sha256") != Some(hash.as_str()) {
            return Err(refuse(BROKEN));
        }
    }
    let line = |name: &String| match name.as_str() {
        "(request-target)" => Some(format!("{name}: {} {target}", method.as_str().to_ascii_lowercase())),
        _ => get(name).map(|value| format!("{name}: {value}")),
    };
    let text = signed.iter().map(line).collect::<Option<Vec<_>>>().ok_or_else(|| refuse(INCOMPLETE))?.join("\n");
    let mut id = field("keyId").split('/');
    let (tenancy, user, fingerprint) = (id.next().unwrap_or_default(), id.next().unwrap_or_default(), id.next().unwrap_or_default());
    let public = state.with(|i| i.public_key(tenancy, user, fingerprint)).ok_or_else(|| refuse(INCOMPLETE))?;
    let bytes = STANDARD.decode(field("signature")).map_err(|_| refuse(BROKEN))?;
    signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, public).verify(text.as_bytes(), &bytes).map_err(|_| refuse(BROKEN))?;
    Ok(user.to_string())
}
