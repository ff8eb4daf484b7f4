//! What the service holds.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Everything, behind one lock.
#[derive(Default)]
pub struct World {
    pub public_url: Option<String>,
    pub accounts: Vec<Account>,
    pub api_tokens: Vec<ApiToken>,
    pub access_tokens: Vec<AccessToken>,
    pub consumers: Vec<Consumer>,
    pub workspaces: Vec<Workspace>,
    pub quirks: Quirks,
    pub limit: Option<Limit>,
    pub between: Vec<Between>,
}

/// A change that happens between two pages.
pub type Between = Box<dyn FnOnce(&mut World) + Send>;

impl World {
    /// A workspace by slug (whatever its case) or uuid.
    pub fn workspace(&self, name: &str) -> Option<&Workspace> {
        self.workspaces.iter().find(|w| w.slug.eq_ignore_ascii_case(name) || w.uuid == name)
    }

    pub fn repository(&self, workspace: &str, name: &str) -> Option<&Repository> {
        self.workspace(workspace)?.repositories.iter().find(|r| r.slug.eq_ignore_ascii_case(name) || r.uuid == name)
    }

    pub fn repository_mut(&mut self, workspace: &str, name: &str) -> Option<&mut Repository> {
        let workspace = self.workspaces.iter_mut().find(|w| w.slug.eq_ignore_ascii_case(workspace) || w.uuid == workspace)?;
        workspace.repositories.iter_mut().find(|r| r.slug.eq_ignore_ascii_case(name) || r.uuid == name)
    }

    pub fn variables_mut(&mut self, at: At<'_>) -> Option<&mut Vec<Variable>> {
        let repository = self.repository_mut(at.workspace, at.repository)?;
        match at.environment {
            None => Some(&mut repository.variables),
            Some(uuid) => repository.environments.iter_mut().find(|e| e.uuid == uuid).map(|e| &mut e.variables),
        }
    }
}

/// The variables of a repository, or of one of its environments.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    pub workspace: &'a str,
    pub repository: &'a str,
    /// The environment's uuid, in braces.
    pub environment: Option<&'a str>,
}

impl<'a> At<'a> {
    /// A repository's own variables.
    pub fn repository(workspace: &'a str, repository: &'a str) -> Self {
        Self { workspace, repository, environment: None }
    }

    /// Those of one of its environments.
    pub fn environment(self, uuid: &'a str) -> Self {
        Self { environment: Some(uuid), ..self }
    }
}

/// [`At`] that owns its texts.
pub struct Owned {
    workspace: String,
    repository: String,
    environment: Option<String>,
}

impl Owned {
    pub fn of(at: At<'_>) -> Self {
        Self { workspace: at.workspace.into(), repository: at.repository.into(), environment: at.environment.map(str::to_owned) }
    }

    pub fn at(&self) -> At<'_> {
        At { workspace: &self.workspace, repository: &self.repository, environment: self.environment.as_deref() }
    }
}

pub struct Account {
    pub email: String,
    pub username: String,
    pub display_name: String,
    pub uuid: String,
    /// Roles other than administrator, by workspace and repository; the last one counts.
    pub roles: Vec<(String, String, Role)>,
}

/// What an account may do at a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The repository is hidden.
    None,
    Read,
    Write,
    Admin,
}

pub struct ApiToken {
    pub email: String,
    pub token: String,
    pub scopes: BTreeSet<String>,
    /// The one workspace it is limited to.
    pub only: Option<String>,
}

pub struct AccessToken {
    pub token: String,
    pub workspace: String,
    pub repository: Option<String>,
    pub scopes: BTreeSet<String>,
}

pub struct Consumer {
    pub id: String,
    pub secret: String,
    pub workspace: String,
    pub scopes: BTreeSet<String>,
    pub private: bool,
    /// Tokens it was given.
    pub issued: Vec<String>,
}

pub struct Workspace {
    pub slug: String,
    /// May be absent in rows.
    pub name: Option<String>,
    pub uuid: String,
    pub repositories: Vec<Repository>,
}

pub struct Repository {
    pub slug: String,
    pub name: String,
    pub uuid: String,
    /// Its slug before it was renamed.
    pub former: Option<String>,
    pub pipelines: Pipelines,
    pub variables: Vec<Variable>,
    pub environments: Vec<Environment>,
}

/// The state of the Pipelines switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipelines {
    /// Never switched on: the configuration does not exist.
    Never,
    /// Switched off again.
    Off,
    On,
}

pub struct Environment {
    pub uuid: String,
    pub name: String,
    pub slug: String,
    /// `Test`, `Staging`, `Production`.
    pub kind: String,
    pub variables: Vec<Variable>,
}

impl Environment {
    pub fn new(name: &str, kind: &str) -> Self {
        let slug = name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Self { uuid: uuid(), name: name.into(), slug, kind: kind.into(), variables: Vec::new() }
    }
}

/// A variable with its value.
#[derive(Debug, Clone)]
pub struct Variable {
    pub uuid: String,
    pub key: String,
    pub value: String,
    pub secured: bool,
    pub made: Instant,
    /// Deleted, and still shown by a lagging list.
    pub gone: Option<Instant>,
}

/// Behaviour that only some servers, services or days show.
#[derive(Debug, Clone, Default)]
pub struct Quirks {
    /// Every page has 10 rows, whatever `pagelen` asks.
    pub ignores_pagelen: bool,
    /// What the `next` of variable lists is like.
    pub next: Next,
    /// Variable lists without `size`.
    pub no_size: bool,
    /// How a secured value is left out.
    pub hidden: Hidden,
    /// What list paths of variables and environments must look like.
    pub slash: Slash,
    /// Deployment variables: a list with any query is 404.
    pub refuses_query: bool,
    /// Deployment variables appear in (and vanish from) lists only this late.
    pub lag: Duration,
    /// An empty value is 400.
    pub refuses_empty: bool,
    /// Names the service defines itself are 400.
    pub refuses_reserved: bool,
    /// A server from before 2026: `/user/workspaces` is 404, `/workspaces` works.
    pub old_workspaces: bool,
    /// `/user/workspaces` answers workspaces themselves.
    pub bare_workspaces: bool,
    /// Scope errors are 400.
    pub scope_errors_as_400: bool,
    /// Refusals of a whole kind of credential are 401.
    pub mechanism_as_401: bool,
    /// A renamed repository answers with a redirect under its former slug.
    pub redirects_renamed: bool,
    /// Environments do not carry a slug.
    pub no_environment_slug: bool,
    /// This is a Data Center: no `/2.0`.
    pub data_center: bool,
    /// `X-RateLimit-NearLimit: true` on answers to access tokens.
    pub near_limit: bool,
}

/// What `next` links are like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Next {
    #[default]
    Honest,
    /// Never there (BCLOUD-20639).
    Absent,
    /// Names the same page again (BCLOUD-20796).
    Stuck,
    /// Names another host.
    Foreign(String),
    /// Carries a token instead of a number; numbers are not understood.
    Opaque,
}

/// How a secured value is left out of answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hidden {
    #[default]
    Absent,
    Null,
    Empty,
}

/// What list paths must look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Slash {
    #[default]
    Either,
    Required,
    Forbidden,
}

/// The rolling limit.
pub struct Limit {
    pub calls: usize,
    pub window: Duration,
    pub headers: bool,
    pub spent: HashMap<String, VecDeque<Instant>>,
}

/// A fresh uuid in braces.
pub fn uuid() -> String {
    format!("{{{}}}", uuid::Uuid::new_v4())
}

/// A text that looks like a token: about 190 characters after `prefix`.
pub fn token(prefix: &str) -> String {
    let mut out = prefix.to_string();
    while out.len() < 190 {
        out.push_str(&uuid::Uuid::new_v4().simple().to_string());
    }
    out.truncate(190);
    out
}
