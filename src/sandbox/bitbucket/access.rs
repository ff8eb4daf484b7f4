//! Credentials, scopes, roles and the hourly limit.

use std::time::Instant;

use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;

use super::answers;
use super::world::{Role, World};

/// Who calls, as the service sees it.
pub struct Caller {
    /// The account, for API tokens.
    pub account: Option<usize>,
    /// The workspace (and repository) an access token or consumer is bound to, or that an API token is limited to.
    pub workspace: Option<String>,
    pub repository: Option<String>,
    pub scopes: Vec<String>,
    /// Whose calls are counted together.
    pub payer: String,
    /// What `X-Credential-Type` says.
    pub kind: &'static str,
}

/// A scope in the words of API tokens, and in those of access tokens and OAuth.
pub type Scope = (&'static str, &'static str);
pub const USER: Scope = ("read:user:bitbucket", "account");
pub const WORKSPACE: Scope = ("read:workspace:bitbucket", "account");
pub const REPOSITORY: Scope = ("read:repository:bitbucket", "repository");
pub const PIPELINE: Scope = ("read:pipeline:bitbucket", "pipeline");
pub const VARIABLE: Scope = ("admin:pipeline:bitbucket", "pipeline:variable");

impl Caller {
    /// Finds the caller of a request.
    pub fn of(world: &World, headers: &HeaderMap) -> Result<Self, Box<Response>> {
        let header = headers.get("authorization").and_then(|h| h.to_str().ok()).unwrap_or_default();
        let found = match header.split_once(' ') {
            Some((scheme, text)) if scheme.eq_ignore_ascii_case("basic") => {
                basic(text).and_then(|(user, password)| by_api_token(world, &user, &password))
            }
            Some((scheme, text)) if scheme.eq_ignore_ascii_case("bearer") => by_bearer(world, text.trim()),
            _ => None,
        };
        found.ok_or_else(|| Box::new(answers::unauthorised()))
    }

    /// Checks a scope. API-token scopes imply nothing.
    pub fn needs(&self, world: &World, scope: Scope) -> Result<(), Box<Response>> {
        let wanted = if self.account.is_some() { scope.0 } else { scope.1 };
        if self.scopes.iter().any(|s| s == wanted) {
            return Ok(());
        }
        let status = if world.quirks.scope_errors_as_400 { 400 } else { 403 };
        Err(Box::new(answers::scopes(status, &self.scopes, wanted)))
    }

    /// The role at a repository; workspace and repository in the service's own spelling.
    pub fn role(&self, world: &World, workspace: &str, repository: &str) -> Role {
        if self.workspace.as_deref().is_some_and(|w| w != workspace) || self.repository.as_deref().is_some_and(|r| r != repository) {
            return Role::None;
        }
        let Some(account) = self.account.and_then(|at| world.accounts.get(at)) else { return Role::Admin };
        account.roles.iter().rev().find(|(w, r, _)| w == workspace && r == repository).map_or(Role::Admin, |(_, _, role)| *role)
    }

    /// Counts a call; `Err` when the limit is reached. A refused call counts, too.
    pub fn spend(&self, world: &mut World) -> Result<(), Box<Response>> {
        let Some(limit) = &mut world.limit else { return Ok(()) };
        let spent = limit.spent.entry(self.payer.clone()).or_default();
        let now = Instant::now();
        while spent.front().is_some_and(|at| now.duration_since(*at) >= limit.window) {
            spent.pop_front();
        }
        let full = spent.len() >= limit.calls;
        spent.push_back(now);
        if full { Err(Box::new(answers::rate_limited())) } else { Ok(()) }
    }
}

fn basic(text: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_string(), password.to_string()))
}

fn by_api_token(world: &World, email: &str, token: &str) -> Option<Caller> {
    let token = world.api_tokens.iter().find(|t| t.token == token && t.email == email && !t.scopes.is_empty())?;
    let account = world.accounts.iter().position(|a| a.email == token.email)?;
    Some(Caller {
        account: Some(account),
        workspace: token.only.clone(),
        repository: None,
        scopes: token.scopes.iter().cloned().collect(),
        payer: token.email.clone(),
        kind: "apitoken",
    })
}

fn by_bearer(world: &World, token: &str) -> Option<Caller> {
    if let Some(found) = world.access_tokens.iter().find(|t| t.token == token) {
        return Some(Caller {
            account: None,
            workspace: Some(found.workspace.clone()),
            repository: found.repository.clone(),
            scopes: found.scopes.iter().cloned().collect(),
            payer: found.token.clone(),
            kind: "access_token",
        });
    }
    let consumer = world.consumers.iter().find(|c| c.issued.iter().any(|t| t == token))?;
    Some(Caller {
        account: None,
        workspace: Some(consumer.workspace.clone()),
        repository: None,
        scopes: consumer.scopes.iter().cloned().collect(),
        payer: consumer.id.clone(),
        kind: "oauth2",
    })
}

/// The OAuth token call.
pub fn grant(world: &mut World, headers: &HeaderMap, body: &[u8]) -> Response {
    let header = headers.get("authorization").and_then(|h| h.to_str().ok()).unwrap_or_default();
    let form: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
    let grant_type = form.iter().find(|(name, _)| name == "grant_type").map(|(_, value)| value.as_str());
    let pair = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")).and_then(|(_, text)| basic(text));
    let consumer = pair.and_then(|(id, secret)| world.consumers.iter_mut().find(|c| c.id == id && c.secret == secret));
    let Some(consumer) = consumer else {
        return answers::oauth(400, "unauthorized_client", "Invalid OAuth client credentials");
    };
    match grant_type {
        Some("client_credentials") if !consumer.private => answers::oauth(
            400,
            "invalid_grant",
            "Cannot use client_credentials with a consumer marked as \"public\". Calls for auto generated consumers should use urn:bitbucket:oauth2:jwt instead.",
        ),
        Some("client_credentials") => {
            let token = super::world::token("");
            consumer.issued.push(token.clone());
            let scopes: Vec<&str> = consumer.scopes.iter().map(String::as_str).collect();
            answers::json(
                200,
                serde_json::json!({"access_token": token, "token_type": "bearer", "expires_in": 7200, "scopes": scopes.join(" "),
                    "refresh_token": super::world::token("")[..18], "state": "client_credentials"}),
            )
        }
        _ => answers::oauth(400, "unsupported_grant_type", "Unsupported grant type"),
    }
}
