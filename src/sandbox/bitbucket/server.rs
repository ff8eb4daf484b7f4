//! The router: from a path to an answer.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::access::{self, Caller};
use super::pages::{self, Cut, Query};
use super::world::{At, Next, Pipelines, Role, Slash, World};
use super::{State, answers, variables};

/// The service's router. May be nested under a path; say so to [`State::set_public_url`].
pub fn router(state: State) -> Router {
    Router::new().fallback(answer).with_state(state)
}

async fn answer(Shared(state): Shared<State>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    state.world(|world| {
        let asked = Asked::new(world, &method, &uri, &headers, &body);
        route(world, &asked)
    })
}

/// One request, taken apart.
pub struct Asked<'r> {
    pub method: &'r Method,
    /// Decoded segments.
    pub path: Vec<String>,
    /// The path ends in a slash.
    pub slash: bool,
    pub query: Query,
    headers: &'r HeaderMap,
    body: &'r Bytes,
    /// Braces that were not percent-encoded.
    raw_braces: bool,
    /// `scheme://host[/prefix]`.
    root: String,
    raw_path: String,
}

impl<'r> Asked<'r> {
    fn new(world: &World, method: &'r Method, uri: &Uri, headers: &'r HeaderMap, body: &'r Bytes) -> Self {
        let raw = uri.path();
        let host = headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("127.0.0.1");
        Self {
            method,
            path: raw.split('/').filter(|s| !s.is_empty()).map(|s| percent_decode_str(s).decode_utf8_lossy().into_owned()).collect(),
            slash: raw.len() > 1 && raw.ends_with('/'),
            query: Query::parse(uri.query()),
            headers,
            body,
            raw_braces: raw.contains(['{', '}']),
            root: world.public_url.clone().unwrap_or_else(|| format!("http://{host}")),
            raw_path: raw.trim_end_matches('/').to_string(),
        }
    }

    /// The address that was asked.
    pub fn href(&self) -> String {
        format!("{}{}", self.root, self.raw_path)
    }

    fn base(&self) -> String {
        format!("{}/2.0", self.root)
    }

    /// The body as a JSON object.
    pub fn object(&self) -> Result<Map<String, Value>, Box<Response>> {
        let typed = self.headers.get("content-type").and_then(|h| h.to_str().ok()).is_some_and(|t| t.starts_with("application/json"));
        match serde_json::from_slice(self.body) {
            Ok(Value::Object(map)) if typed => Ok(map),
            _ => Err(Box::new(answers::error(400, "Bad request"))),
        }
    }

    fn cut<'a>(&'a self) -> Cut<'a> {
        Cut { query: &self.query, href: self.href(), next: &Next::Honest, ignores_pagelen: false, no_size: false, counts_rows: false }
    }
}

fn route(world: &mut World, asked: &Asked<'_>) -> Response {
    let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
    if world.quirks.data_center {
        return data_center(&path);
    }
    if path == ["site", "oauth2", "access_token"] && *asked.method == Method::POST {
        return access::grant(world, asked.headers, asked.body);
    }
    let caller = match Caller::of(world, asked.headers) {
        Ok(caller) => caller,
        Err(response) => return *response,
    };
    let Some(("2.0", rest)) = path.split_first().map(|(first, rest)| (*first, rest)) else {
        return answers::error(403, "Forbidden");
    };
    if asked.raw_braces {
        return answers::malformed();
    }
    if rest.first() == Some(&"repositories")
        && let Err(response) = caller.spend(world)
    {
        return *response;
    }
    let result = match rest {
        ["user"] => user(world, &caller),
        ["user", "workspaces"] => workspaces(world, asked, &caller, false),
        ["workspaces"] => workspaces(world, asked, &caller, true),
        ["workspaces", slug] => workspace(world, asked, &caller, slug),
        ["repositories"] => Ok(answers::removed()),
        ["repositories", workspace] => repositories(world, asked, &caller, workspace),
        ["repositories", workspace, repository, below @ ..] => within(world, asked, &caller, workspace, repository, below),
        _ => Ok(answers::detailed(404, "Resource not found", "There is no API hosted at this URL.")),
    };
    let mut response = result.unwrap_or_else(|response| *response);
    dress(world, &caller, &mut response);
    response
}

/// Headers that depend on the caller.
fn dress(world: &World, caller: &Caller, response: &mut Response) {
    answers::set(response, "x-credential-type", caller.kind);
    if caller.account.is_some() {
        return;
    }
    answers::set(response, "x-oauth-scopes", &caller.scopes.join(", "));
    if let Some(limit) = world.limit.as_ref().filter(|l| l.headers && caller.kind == "access_token") {
        answers::set(response, "x-ratelimit-limit", &limit.calls.to_string());
        answers::set(response, "x-ratelimit-resource", "api");
        answers::set(response, "x-ratelimit-nearlimit", if world.quirks.near_limit { "true" } else { "false" });
    }
}

fn data_center(path: &[&str]) -> Response {
    match path {
        ["rest", "api", "1.0" | "latest", "application-properties"] => {
            answers::json(200, json!({"version": "8.19.1", "buildNumber": "8019001", "buildDate": "1713312000000", "displayName": "Bitbucket"}))
        }
        ["rest", ..] => answers::json(
            401,
            json!({"errors": [{"context": null, "message": "Authentication failed. Please check your credentials and try again.",
                "exceptionName": "com.atlassian.bitbucket.auth.IncorrectPasswordAuthenticationException"}]}),
        ),
        _ => answers::html(404),
    }
}

type Answered = Result<Response, Box<Response>>;

fn mechanism(world: &World) -> Response {
    answers::mechanism(if world.quirks.mechanism_as_401 { 401 } else { 403 })
}

fn user(world: &World, caller: &Caller) -> Answered {
    let Some(account) = caller.account.and_then(|at| world.accounts.get(at)) else { return Ok(mechanism(world)) };
    caller.needs(world, access::USER)?;
    Ok(answers::json(
        200,
        json!({"type": "user", "uuid": account.uuid, "account_id": format!("712020:{}", account.uuid.trim_matches(['{', '}'])),
            "display_name": account.display_name, "nickname": account.username, "username": account.username}),
    ))
}

fn workspaces(world: &World, asked: &Asked<'_>, caller: &Caller, old: bool) -> Answered {
    if caller.account.is_none() {
        return Ok(mechanism(world));
    }
    match (old, world.quirks.old_workspaces) {
        (true, false) => return Ok(answers::removed()),
        (false, true) => return Ok(answers::detailed(404, "Resource not found", "There is no API hosted at this URL.")),
        _ => {}
    }
    caller.needs(world, access::WORKSPACE)?;
    let base = asked.base();
    let seen = world.workspaces.iter().filter(|w| caller.workspace.as_deref().is_none_or(|only| only == w.slug));
    let rows: Vec<Value> = seen
        .map(|w| {
            if old || world.quirks.bare_workspaces {
                answers::workspace(w, &base, "workspace")
            } else {
                json!({"type": "workspace_access", "administrator": true, "workspace": answers::workspace(w, &base, "workspace_base")})
            }
        })
        .collect();
    let (body, _) = pages::page(&rows, &asked.cut())?;
    Ok(answers::json(200, pages::partial(body, &asked.query)))
}

fn workspace(world: &World, asked: &Asked<'_>, caller: &Caller, slug: &str) -> Answered {
    match world.workspace(slug).filter(|w| caller.workspace.as_deref().is_none_or(|only| only == w.slug)) {
        Some(found) => Ok(answers::json(200, answers::workspace(found, &asked.base(), "workspace"))),
        None => Ok(answers::error(404, &format!("No workspace with identifier '{slug}'."))),
    }
}

fn repositories(world: &World, asked: &Asked<'_>, caller: &Caller, slug: &str) -> Answered {
    caller.needs(world, access::REPOSITORY)?;
    let Some(owner) = world.workspace(slug).filter(|w| caller.workspace.as_deref().is_none_or(|only| only == w.slug)) else {
        return Ok(answers::error(404, &format!("No workspace with identifier '{slug}'.")));
    };
    let least = match asked.query.get("role") {
        None => Role::Read,
        Some("admin" | "owner") => Role::Admin,
        Some("contributor") => Role::Write,
        Some("member") => Role::Read,
        Some(_) => return Ok(answers::detailed(400, "Bad request", "role must be one of admin, contributor, member, owner")),
    };
    let wanted = asked.query.get("q").and_then(|q| q.split_once('~')).map(|(_, text)| text.trim().trim_matches('"').to_lowercase());
    let base = asked.base();
    let mut found: Vec<_> = owner
        .repositories
        .iter()
        .filter(|r| caller.role(world, &owner.slug, &r.slug) >= least)
        .filter(|r| wanted.as_deref().is_none_or(|text| r.name.to_lowercase().contains(text)))
        .collect();
    if asked.query.get("sort") == Some("slug") {
        found.sort_by(|a, b| a.slug.cmp(&b.slug));
    }
    let rows: Vec<Value> = found.into_iter().map(|r| answers::repository(owner, r, &base)).collect();
    let (body, _) = pages::page(&rows, &asked.cut())?;
    Ok(answers::json(200, pages::partial(body, &asked.query)))
}

fn within(world: &mut World, asked: &Asked<'_>, caller: &Caller, workspace: &str, repository: &str, below: &[&str]) -> Answered {
    let hidden = || answers::error(404, &format!("Repository {workspace}/{repository} not found"));
    let Some(owner) = world.workspace(workspace) else {
        return Ok(answers::error(404, &format!("No workspace with identifier '{workspace}'.")));
    };
    let owner_slug = owner.slug.clone();
    if world.quirks.redirects_renamed
        && let Some(moved) = owner.repositories.iter().find(|r| r.former.as_deref() == Some(repository))
    {
        let mut response = answers::empty(301);
        answers::set(&mut response, "location", &format!("{}/repositories/{owner_slug}/{}", asked.base(), moved.slug));
        return Ok(response);
    }
    let Some(slug) = world.repository(workspace, repository).map(|r| r.slug.clone()) else { return Ok(hidden()) };
    let role = caller.role(world, &owner_slug, &slug);
    if role == Role::None {
        return Ok(hidden());
    }
    let read = *asked.method == Method::GET;
    match below {
        [] => {
            caller.needs(world, access::REPOSITORY)?;
            let base = asked.base();
            let body = world.workspace(workspace).zip(world.repository(workspace, repository)).map(|(w, r)| answers::repository(w, r, &base));
            Ok(body.map_or_else(hidden, |body| answers::json(200, pages::partial(body, &asked.query))))
        }
        ["environments", rest @ ..] => {
            caller.needs(world, access::PIPELINE)?;
            environments(world, asked, workspace, repository, rest)
        }
        ["pipelines_config"] => {
            caller.needs(world, if read { access::PIPELINE } else { access::VARIABLE })?;
            pipelines_config(world, asked, workspace, repository)
        }
        ["pipelines_config", "variables", rest @ ..] if rest.len() < 2 => {
            caller.needs(world, if read { access::PIPELINE } else { access::VARIABLE })?;
            if role < Role::Admin {
                return Ok(answers::error(403, "Forbidden"));
            }
            let at = At { workspace: &owner_slug, repository: &slug, environment: None };
            Ok(variables::serve(world, asked, at, rest.first().copied()))
        }
        ["deployments_config", "environments", environment, "variables", rest @ ..] if rest.len() < 2 => {
            caller.needs(world, if read { access::PIPELINE } else { access::VARIABLE })?;
            if role < Role::Admin {
                return Ok(answers::error(403, "Forbidden"));
            }
            if !well_formed(environment) {
                return Ok(answers::malformed());
            }
            let at = At { workspace: &owner_slug, repository: &slug, environment: Some(environment) };
            Ok(variables::serve(world, asked, at, rest.first().copied()))
        }
        _ => Ok(answers::detailed(404, "Resource not found", "There is no API hosted at this URL.")),
    }
}

fn environments(world: &World, asked: &Asked<'_>, workspace: &str, repository: &str, rest: &[&str]) -> Answered {
    let Some(found) = world.repository(workspace, repository) else { return Ok(answers::error(404, "Resource not found")) };
    match rest {
        [] => {
            match world.quirks.slash {
                Slash::Required if !asked.slash => return Ok(answers::html(404)),
                Slash::Forbidden if asked.slash => return Ok(answers::html(404)),
                _ => {}
            }
            let rows: Vec<Value> = found.environments.iter().enumerate().map(|(rank, e)| answers::environment(e, rank, &world.quirks)).collect();
            let (body, _) = pages::page(&rows, &Cut { counts_rows: true, ..asked.cut() })?;
            Ok(answers::json(200, body))
        }
        [uuid] if !well_formed(uuid) => Ok(answers::malformed()),
        [uuid] => match found.environments.iter().enumerate().find(|(_, e)| e.uuid == *uuid) {
            Some((rank, environment)) => Ok(answers::json(200, answers::environment(environment, rank, &world.quirks))),
            None => Ok(answers::json(
                404,
                json!({"key": "deployment-service.environment.not-found", "message": "Environment not found", "arguments": {}}),
            )),
        },
        _ => Ok(answers::error(404, "Resource not found")),
    }
}

fn pipelines_config(world: &mut World, asked: &Asked<'_>, workspace: &str, repository: &str) -> Answered {
    let Some(found) = world.repository_mut(workspace, repository) else { return Ok(answers::error(404, "Resource not found")) };
    if *asked.method == Method::PUT {
        let enabled = asked.object()?.get("enabled").and_then(Value::as_bool).unwrap_or(false);
        found.pipelines = if enabled { Pipelines::On } else { Pipelines::Off };
    }
    match found.pipelines {
        Pipelines::Never => Ok(answers::error(404, "Resource not found")),
        state => Ok(answers::json(200, json!({"type": "repository_pipelines_configuration", "enabled": state == Pipelines::On}))),
    }
}

/// A uuid in braces.
fn well_formed(text: &str) -> bool {
    text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).is_some_and(|t| uuid::Uuid::try_parse(t).is_ok())
}
