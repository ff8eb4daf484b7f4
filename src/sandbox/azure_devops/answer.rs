//! Answers: JSON with the version in its type, refusals in the service's shape, and the pages
//! that come where a client hoped for JSON.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::world::SignIn;

pub(super) const PAGE: &str =
    "<!DOCTYPE html>\r\n<html lang=\"en-US\"><head><title>Azure DevOps Services | Sign In</title></head><body>Sign in to your account</body></html>";

/// JSON as the service sends it; the version is echoed in the type.
pub(super) fn json(status: u16, version: (u16, u16), value: &Value) -> Response {
    let kind = format!("application/json; charset=utf-8; api-version={}.{}", version.0, version.1);
    with_type(status, &kind, value.to_string())
}

/// A wrapped list.
pub(super) fn list(version: (u16, u16), values: &[Value]) -> Response {
    json(200, version, &json!({"count": values.len(), "value": values}))
}

pub(super) fn empty(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn with_type(status: u16, kind: &str, body: String) -> Response {
    let mut response = empty(status);
    *response.body_mut() = Body::from(body);
    header(&mut response, "content-type", kind);
    response
}

pub(super) fn header(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A refusal with its type.
pub(super) fn refusal(status: u16, type_key: &str, message: &str) -> Response {
    let body = json!({
        "$id": "1",
        "innerException": null,
        "message": message,
        "typeName": format!("Microsoft.TeamFoundation.{type_key}, Microsoft.TeamFoundation"),
        "typeKey": type_key,
        "errorCode": 0,
        "eventId": 3000,
    });
    with_type(status, "application/json; charset=utf-8", body.to_string())
}

/// What a body that cannot be parsed is answered with.
pub(super) fn unparsable(message: &str) -> Response {
    with_type(400, "application/json; charset=utf-8", json!({"count": 1, "value": {"Message": message}}).to_string())
}

pub(super) fn not_found_page() -> Response {
    with_type(
        404,
        "text/html; charset=utf-8",
        "<!DOCTYPE html><html><head><title>404 - Page not found</title></head><body>The resource cannot be found.</body></html>".into(),
    )
}

pub(super) fn sign_in(how: SignIn, tenant: &str, why: Option<&str>) -> Response {
    let mut response = match how {
        SignIn::Unauthorized => {
            let mut response = with_type(401, "text/html; charset=utf-8", String::new());
            header(&mut response, "www-authenticate", "Basic realm=\"https://tfsprod.visualstudio.com/\"");
            response
        }
        SignIn::Redirect => {
            let mut response = empty(302);
            header(&mut response, "location", "https://spsprodeus1.vssps.visualstudio.com/_signin?realm=dev.azure.com");
            response
        }
        SignIn::Page203 => with_type(203, "text/html; charset=utf-8", PAGE.into()),
        SignIn::Page200 => with_type(200, "text/html; charset=utf-8", PAGE.into()),
    };
    header(&mut response, "x-vss-resourcetenant", tenant);
    if let Some(why) = why {
        let text = percent_encoding::utf8_percent_encode(why, percent_encoding::NON_ALPHANUMERIC).to_string();
        header(&mut response, "x-tfs-serviceerror", &text);
    }
    response
}

pub(super) fn denied(what: &str) -> Response {
    refusal(403, "AccessDeniedException", &format!("Access denied. You do not have permissions to {what}."))
}
