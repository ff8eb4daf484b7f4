//! The variables of a repository or of a deployment environment: one service, two habits.

use std::time::Instant;

use axum::http::Method;
use axum::response::Response;
use serde_json::Value;

use super::answers;
use super::pages::{self, Cut};
use super::server::Asked;
use super::world::{At, Pipelines, Slash, Variable, World, uuid};

/// Everything below `…/variables`. `item` is the variable's uuid.
pub fn serve(world: &mut World, asked: &Asked<'_>, at: At<'_>, item: Option<&str>) -> Response {
    let on = world.repository(at.workspace, at.repository).is_some_and(|r| r.pipelines == Pipelines::On);
    if !on {
        return answers::error(404, "Resource not found");
    }
    if world.variables_mut(at).is_none() {
        return answers::json(
            404,
            serde_json::json!({"key": "deployment-service.environment.not-found", "message": "Environment not found", "arguments": {}}),
        );
    }
    let deployment = at.environment.is_some();
    match (asked.method.clone(), item) {
        (Method::GET, None) => list(world, asked, at),
        (Method::POST, None) if !asked.slash => create(world, asked, at),
        (Method::POST, None) => answers::error(404, "Resource not found"),
        (_, None) => answers::error(405, "Method not allowed"),
        (Method::GET, Some(_)) if deployment => answers::error(405, "Method not allowed"),
        (Method::GET, Some(item)) => match find(world, at, item) {
            Some(index) => row(world, at, index, 200, true),
            None => missing(),
        },
        (Method::PUT, Some(item)) => update(world, asked, at, item),
        (Method::DELETE, Some(item)) => delete(world, at, item),
        _ => answers::error(405, "Method not allowed"),
    }
}

fn list(world: &mut World, asked: &Asked<'_>, at: At<'_>) -> Response {
    let deployment = at.environment.is_some();
    match world.quirks.slash {
        Slash::Required if !asked.slash => return answers::html(404),
        Slash::Forbidden if asked.slash => return answers::html(404),
        _ => {}
    }
    if deployment && world.quirks.refuses_query && !asked.query.0.is_empty() {
        return answers::error(404, "Resource not found");
    }
    let quirks = world.quirks.clone();
    let lag = if deployment { quirks.lag } else { std::time::Duration::ZERO };
    let Some(list) = world.variables_mut(at) else { return missing() };
    let now = Instant::now();
    list.retain(|v| v.gone.is_none_or(|at| now.duration_since(at) < lag));
    let shown = |v: &&Variable| v.gone.is_some() || now.duration_since(v.made) >= lag;
    let rows: Vec<Value> = list.iter().filter(shown).map(|v| answers::variable(v, &quirks, true)).collect();
    let cut = Cut {
        query: &asked.query,
        href: asked.href(),
        next: &quirks.next,
        ignores_pagelen: quirks.ignores_pagelen,
        no_size: quirks.no_size,
        counts_rows: true,
    };
    match pages::page(&rows, &cut) {
        Ok((body, first_of_several)) => {
            if first_of_several && let Some(change) = world.between.pop() {
                change(world);
            }
            answers::json(200, body)
        }
        Err(response) => *response,
    }
}

fn create(world: &mut World, asked: &Asked<'_>, at: At<'_>) -> Response {
    let body = match asked.object() {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let quirks = world.quirks.clone();
    let (Some(key), Some(value)) = (body.get("key").and_then(Value::as_str), body.get("value").and_then(Value::as_str)) else {
        return invalid("key and value are required texts");
    };
    if let Some(response) = check(key, Some(value), &quirks) {
        return response;
    }
    let secured = body.get("secured").and_then(Value::as_bool).unwrap_or(false);
    let Some(list) = world.variables_mut(at) else { return missing() };
    if list.iter().any(|v| v.key == key && v.gone.is_none()) {
        return duplicate(at);
    }
    let variable = Variable { uuid: uuid(), key: key.into(), value: value.into(), secured, made: Instant::now(), gone: None };
    let location = format!("{}/{}", asked.href(), variable.uuid.replace('{', "%7B").replace('}', "%7D"));
    let mut response = answers::json(201, answers::variable(&variable, &quirks, at.environment.is_none()));
    answers::set(&mut response, "location", &location);
    list.push(variable);
    response
}

fn update(world: &mut World, asked: &Asked<'_>, at: At<'_>, item: &str) -> Response {
    let body = match asked.object() {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let quirks = world.quirks.clone();
    let Some(index) = find(world, at, item) else { return missing() };
    let Some(list) = world.variables_mut(at) else { return missing() };
    let text = |name: &str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid("key and value must be texts")),
    };
    let (key, value) = match (text("key"), text("value")) {
        (Ok(key), Ok(value)) => (key, value),
        (Err(response), _) | (_, Err(response)) => return response,
    };
    let new_key = key.unwrap_or_else(|| list[index].key.clone());
    if let Some(response) = check(&new_key, value.as_deref(), &quirks) {
        return response;
    }
    if list.iter().enumerate().any(|(i, v)| i != index && v.key == new_key && v.gone.is_none()) {
        return duplicate(at);
    }
    let secured = body.get("secured").and_then(Value::as_bool).unwrap_or(list[index].secured);
    if list[index].secured && !secured && value.is_none() {
        return invalid("A secured variable cannot be made readable without a new value");
    }
    let variable = &mut list[index];
    variable.key = new_key;
    variable.secured = secured;
    if let Some(value) = value {
        variable.value = value;
    }
    row(world, at, index, 200, true)
}

fn delete(world: &mut World, at: At<'_>, item: &str) -> Response {
    let lags = at.environment.is_some() && !world.quirks.lag.is_zero();
    let Some(index) = find(world, at, item) else { return missing() };
    let Some(list) = world.variables_mut(at) else { return missing() };
    if lags {
        list[index].gone = Some(Instant::now());
    } else {
        list.remove(index);
    }
    answers::empty(204)
}

fn find(world: &mut World, at: At<'_>, item: &str) -> Option<usize> {
    world.variables_mut(at)?.iter().position(|v| v.uuid == item && v.gone.is_none())
}

fn row(world: &mut World, at: At<'_>, index: usize, status: u16, with_type: bool) -> Response {
    let quirks = world.quirks.clone();
    match world.variables_mut(at).and_then(|list| list.get(index)) {
        Some(variable) => answers::json(status, answers::variable(variable, &quirks, with_type)),
        None => missing(),
    }
}

fn check(key: &str, value: Option<&str>, quirks: &super::world::Quirks) -> Option<Response> {
    let fits = key.chars().enumerate().all(|(i, c)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()));
    if key.is_empty() || !fits {
        let problem = "Variable names can only contain letters, digits and underscores, and cannot start with a digit";
        return Some(answers::json(400, serde_json::json!({"type": "error", "error": {"message": "Bad request", "fields": {"key": [problem]}}})));
    }
    if quirks.refuses_reserved && (key == "CI" || key.starts_with("BITBUCKET_")) {
        return Some(invalid("The variable name is reserved"));
    }
    match value {
        Some("") if quirks.refuses_empty => Some(invalid("A value is required")),
        Some(value) if value.contains(['\n', '\r']) => Some(invalid(&format!("Line breaks are not supported in values: {value}"))),
        _ => None,
    }
}

fn invalid(detail: &str) -> Response {
    answers::pipelines(400, "Bad request", detail, "variable-service.variable.invalid")
}

fn missing() -> Response {
    answers::pipelines(404, "Not found", "The variable was not found", "variable-service.variable.not-found")
}

fn duplicate(at: At<'_>) -> Response {
    let detail =
        format!("A variable with the key provided already exists for account {}, environment {}.", at.workspace, at.environment.unwrap_or("none"));
    answers::pipelines(409, "Conflict", &detail, "variable-service.variable.duplicate")
}
