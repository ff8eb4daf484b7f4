//! Bodies: errors in the shape of the service that makes them, and objects.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::world::{Environment, Hidden, Quirks, Repository, Variable, Workspace};

/// An answer with a JSON body.
pub fn json(status: u16, body: Value) -> Response {
    typed(status, "application/json; charset=utf-8", body.to_string())
}

/// An answer of any type.
pub fn typed(status: u16, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    set(&mut response, "x-request-id", &uuid::Uuid::new_v4().simple().to_string());
    response
}

pub fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

pub fn empty(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// The core's error shape.
pub fn error(status: u16, message: &str) -> Response {
    json(status, json!({"type": "error", "error": {"message": message}}))
}

/// The core's error shape with a detail.
pub fn detailed(status: u16, message: &str, detail: &str) -> Response {
    json(status, json!({"type": "error", "error": {"message": message, "detail": detail}}))
}

/// The Pipelines service's shape: no `type`.
pub fn pipelines(status: u16, message: &str, detail: &str, key: &str) -> Response {
    json(status, json!({"error": {"message": message, "detail": detail, "data": {"key": key, "arguments": {}}}}))
}

pub fn unauthorised() -> Response {
    let mut response = error(401, "Token is invalid, expired, or not supported for this endpoint.");
    set(&mut response, "www-authenticate", "BitbucketCustom realm=\"Bitbucket.org HTTP\"");
    response
}

pub fn scopes(status: u16, granted: &[String], required: &str) -> Response {
    json(
        status,
        json!({"type": "error", "error": {"message": "Your credentials lack one or more required privilege scopes.",
            "detail": {"granted": granted, "required": [required]}}}),
    )
}

pub fn mechanism(status: u16) -> Response {
    error(status, "This API is not accessible by this authentication mechanism")
}

pub fn removed() -> Response {
    let announcement = json!({"announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog/#CHANGE-2770"});
    json(
        410,
        json!({"type": "error", "error": {"message": "CHANGE-2770 - Functionality has been deprecated",
            "detail": "Please read the changelog entry for more details.", "data": announcement}, "data": announcement}),
    )
}

pub fn rate_limited() -> Response {
    typed(429, "text/plain", "Rate limit for this resource has been exceeded".into())
}

pub fn oauth(status: u16, code: &str, description: &str) -> Response {
    json(status, json!({"error": code, "error_description": description}))
}

pub fn malformed() -> Response {
    pipelines(400, "Bad request", "Unexpected response body", "unexpected.response.body")
}

pub fn html(status: u16) -> Response {
    typed(
        status,
        "text/html; charset=utf-8",
        "<!DOCTYPE html><html><head><title>Bitbucket</title></head><body><h1>Not here</h1></body></html>".into(),
    )
}

/// A variable row. A created deployment variable has no `type`.
pub fn variable(variable: &Variable, quirks: &Quirks, with_type: bool) -> Value {
    let mut row = json!({"uuid": variable.uuid, "key": variable.key, "secured": variable.secured, "system": false});
    if with_type {
        row["type"] = "pipeline_variable".into();
    }
    if !variable.secured {
        row["value"] = variable.value.clone().into();
    } else if quirks.hidden != Hidden::Absent {
        row["value"] = if quirks.hidden == Hidden::Null { Value::Null } else { "".into() };
    }
    row
}

pub fn environment(environment: &Environment, rank: usize, quirks: &Quirks) -> Value {
    let kind = match environment.kind.as_str() {
        "Production" => 2,
        "Staging" => 1,
        _ => 0,
    };
    let mut row = json!({
        "type": "deployment_environment", "uuid": environment.uuid, "name": environment.name, "rank": rank,
        "category": {"name": environment.kind},
        "environment_type": {"type": "deployment_environment_type", "name": environment.kind, "rank": kind},
        "lock": {"type": "deployment_environment_lock_open", "name": "OPEN"},
        "restrictions": {"type": "deployment_restrictions_configuration", "admin_only": false},
        "environment_lock_enabled": true, "deployment_gate_enabled": false, "hidden": false
    });
    if !quirks.no_environment_slug {
        row["slug"] = environment.slug.clone().into();
    }
    row
}

pub fn workspace(workspace: &Workspace, base: &str, kind: &str) -> Value {
    let mut row = json!({"type": kind, "uuid": workspace.uuid, "slug": workspace.slug,
        "links": {"self": {"href": format!("{base}/workspaces/{}", workspace.slug)}}});
    if let Some(name) = &workspace.name {
        row["name"] = name.clone().into();
    }
    row
}

pub fn repository(owner: &Workspace, repository: &Repository, base: &str) -> Value {
    let href = format!("{base}/repositories/{}/{}", owner.slug, repository.slug);
    json!({
        "type": "repository", "uuid": repository.uuid, "slug": repository.slug, "name": repository.name,
        "full_name": format!("{}/{}", owner.slug, repository.slug), "is_private": true, "scm": "git", "description": "",
        "workspace": workspace(owner, base, "workspace"),
        "mainbranch": {"type": "branch", "name": "main"},
        "links": {"self": {"href": href}, "pipelines": {"href": format!("{href}/pipelines")}}
    })
}
