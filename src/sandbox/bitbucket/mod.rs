//! Bitbucket Cloud's REST API 2.0, as far as Pipelines variables reach: users, workspaces,
//! repositories, deployment environments, and the variables of both kinds.
//!
//! Written from Atlassian's documentation and from what users report of the live service
//! (page sizes, error bodies, the two services' different habits), not from our client. Each
//! oddity that only some servers or days show is a switch in [`Quirks`].
//!
//! | file | what lives there |
//! | --- | --- |
//! | this one | [`State`]: seeding, inspection, switches |
//! | `world` | what the service holds |
//! | `access` | credentials, scopes, roles, the hourly limit |
//! | `server` | the router: from path to answer |
//! | `variables` | the variables of a repository or an environment |
//! | `pages` | page envelopes, partial responses |
//! | `answers` | bodies of errors and objects |

mod access;
mod answers;
mod pages;
mod server;
mod variables;
mod world;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sandbox::host::lock;

pub use server::router;
use world::{AccessToken, Account, ApiToken, Consumer, Environment, Limit, Repository, Workspace, World};
pub use world::{At, Hidden, Next, Pipelines, Quirks, Role, Slash, Variable};

/// Every scope that syncing needs, as API tokens name them.
pub const API_SCOPES: &[&str] =
    &["read:user:bitbucket", "read:workspace:bitbucket", "read:repository:bitbucket", "read:pipeline:bitbucket", "admin:pipeline:bitbucket"];
/// The same for access tokens and OAuth consumers.
pub const OAUTH_SCOPES: &[&str] = &["account", "repository", "pipeline", "pipeline:variable"];

/// A handle on one service; clones share it.
#[derive(Clone, Default)]
pub struct State(Arc<Mutex<World>>);

impl State {
    /// A service without any account.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn world<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        f(&mut lock(&self.0))
    }

    /// Under which address answers name this service (`http://127.0.0.1:7400/bitbucket`).
    /// Without it, the request's Host header is used.
    pub fn set_public_url(&self, url: &str) {
        self.world(|w| w.public_url = Some(url.trim_end_matches('/').to_string()));
    }

    /// An account; administrator of everything unless [`Self::set_role`] says otherwise.
    pub fn add_account(&self, email: &str, username: &str, display_name: &str) {
        self.world(|w| {
            w.accounts.push(Account {
                email: email.into(),
                username: username.into(),
                display_name: display_name.into(),
                uuid: world::uuid(),
                roles: Vec::new(),
            });
        });
    }

    /// A new API token of an account, with the shape of a real one.
    pub fn add_api_token(&self, email: &str, scopes: &[&str]) -> String {
        let token = world::token("ATATT3xFfGF0");
        self.give_api_token(email, &token, scopes);
        token
    }

    /// An API token with a text of the caller's choice.
    pub fn give_api_token(&self, email: &str, token: &str, scopes: &[&str]) {
        let token = ApiToken { email: email.into(), token: token.into(), scopes: set(scopes), only: None };
        self.world(|w| w.api_tokens.push(token));
    }

    /// Narrows an account's API tokens to one workspace.
    pub fn narrow(&self, email: &str, workspace: &str) {
        self.world(|w| w.api_tokens.iter_mut().filter(|t| t.email == email).for_each(|t| t.only = Some(workspace.into())));
    }

    /// An access token of a workspace, or of one repository.
    pub fn add_access_token(&self, workspace: &str, repository: Option<&str>, scopes: &[&str]) -> String {
        let token = world::token("ATCTT3xFfGN0");
        self.world(|w| {
            w.access_tokens.push(AccessToken {
                token: token.clone(),
                workspace: workspace.into(),
                repository: repository.map(str::to_owned),
                scopes: set(scopes),
            });
        });
        token
    }

    /// An OAuth consumer; returns its key and secret.
    pub fn add_consumer(&self, workspace: &str, scopes: &[&str], private: bool) -> (String, String) {
        let (id, secret) = (world::token("")[..18].to_string(), world::token("")[..32].to_string());
        self.world(|w| {
            w.consumers.push(Consumer {
                id: id.clone(),
                secret: secret.clone(),
                workspace: workspace.into(),
                scopes: set(scopes),
                private,
                issued: Vec::new(),
            });
        });
        (id, secret)
    }

    /// Makes every token that consumers were given so far worthless.
    pub fn revoke_consumer_tokens(&self) {
        self.world(|w| w.consumers.iter_mut().for_each(|c| c.issued.clear()));
    }

    /// A workspace without repositories.
    pub fn add_workspace(&self, slug: &str, name: Option<&str>) {
        self.world(|w| {
            w.workspaces.push(Workspace { slug: slug.into(), name: name.map(str::to_owned), uuid: world::uuid(), repositories: Vec::new() });
        });
    }

    /// A repository with Pipelines switched on and the three environments every one gets.
    pub fn add_repository(&self, workspace: &str, slug: &str) {
        self.world(|w| {
            let environments = ["Test", "Staging", "Production"].iter().map(|name| Environment::new(name, name)).collect();
            let Some(workspace) = w.workspaces.iter_mut().find(|w| w.slug == workspace) else { return };
            workspace.repositories.push(Repository {
                slug: slug.into(),
                name: slug.into(),
                uuid: world::uuid(),
                former: None,
                pipelines: Pipelines::On,
                variables: Vec::new(),
                environments,
            });
        });
    }

    /// Removes a repository and everything in it.
    pub fn remove_repository(&self, workspace: &str, slug: &str) {
        self.world(|w| w.workspaces.iter_mut().filter(|w| w.slug == workspace).for_each(|w| w.repositories.retain(|r| r.slug != slug)));
    }

    /// Gives a repository another slug; its uuid stays.
    pub fn rename_repository(&self, workspace: &str, slug: &str, to: &str) {
        self.world(|w| {
            if let Some(repository) = w.repository_mut(workspace, slug) {
                repository.former = Some(std::mem::replace(&mut repository.slug, to.into()));
            }
        });
    }

    /// Whether Pipelines is on for a repository.
    pub fn set_pipelines(&self, workspace: &str, repository: &str, pipelines: Pipelines) {
        self.world(|w| {
            if let Some(repository) = w.repository_mut(workspace, repository) {
                repository.pipelines = pipelines;
            }
        });
    }

    /// Another deployment environment; returns its uuid, or that of the one which has this name
    /// already. `kind` is `Test`, `Staging` or `Production`.
    pub fn add_environment(&self, workspace: &str, repository: &str, name: &str, kind: &str) -> String {
        self.world(|w| {
            let environment = Environment::new(name, kind);
            let Some(repository) = w.repository_mut(workspace, repository) else { return environment.uuid };
            if let Some(same) = repository.environments.iter().find(|e| e.name == name) {
                return same.uuid.clone();
            }
            let uuid = environment.uuid.clone();
            repository.environments.push(environment);
            uuid
        })
    }

    /// The uuid of an environment by its name.
    pub fn environment(&self, workspace: &str, repository: &str, name: &str) -> Option<String> {
        self.world(|w| w.repository_mut(workspace, repository)?.environments.iter().find(|e| e.name == name).map(|e| e.uuid.clone()))
    }

    /// Removes an environment and its variables.
    pub fn remove_environment(&self, workspace: &str, repository: &str, uuid: &str) {
        self.world(|w| {
            if let Some(repository) = w.repository_mut(workspace, repository) {
                repository.environments.retain(|e| e.uuid != uuid);
            }
        });
    }

    /// An account's role at a repository.
    pub fn set_role(&self, email: &str, workspace: &str, repository: &str, role: Role) {
        self.world(|w| {
            w.accounts.iter_mut().filter(|a| a.email == email).for_each(|a| a.roles.push((workspace.into(), repository.into(), role)));
        });
    }

    /// Puts a variable as a foreign hand would, whatever the rules (a second one of the same
    /// key too); returns its uuid.
    pub fn put(&self, at: At<'_>, key: &str, value: &str, secured: bool) -> String {
        let variable = Variable { uuid: world::uuid(), key: key.into(), value: value.into(), secured, made: Instant::now(), gone: None };
        let uuid = variable.uuid.clone();
        self.world(|w| {
            if let Some(list) = w.variables_mut(at) {
                list.push(variable);
            }
        });
        uuid
    }

    /// Changes a variable in place, uuid and all.
    pub fn edit(&self, at: At<'_>, key: &str, change: impl FnOnce(&mut Variable)) {
        self.world(|w| {
            if let Some(variable) = w.variables_mut(at).and_then(|list| list.iter_mut().find(|v| v.key == key && v.gone.is_none())) {
                change(variable);
            }
        });
    }

    /// Removes a variable at once.
    pub fn remove(&self, at: At<'_>, key: &str) {
        self.world(|w| {
            if let Some(list) = w.variables_mut(at) {
                list.retain(|v| v.key != key);
            }
        });
    }

    /// The variables of a place, values visible, sorted by key.
    pub fn variables(&self, at: At<'_>) -> Vec<Variable> {
        let mut out: Vec<Variable> =
            self.world(|w| w.variables_mut(at).map(|list| list.iter().filter(|v| v.gone.is_none()).cloned().collect()).unwrap_or_default());
        out.sort_by(|a, b| a.key.cmp(&b.key));
        out
    }

    /// The value of a variable.
    pub fn value(&self, at: At<'_>, key: &str) -> Option<String> {
        self.variables(at).into_iter().find(|v| v.key == key).map(|v| v.value)
    }

    /// Switches odd behaviour on or off.
    pub fn quirks(&self, change: impl FnOnce(&mut Quirks)) {
        self.world(|w| change(&mut w.quirks));
    }

    /// Enforces a limit of calls per rolling `window` and payer; `headers` tells access tokens of it.
    pub fn limit_calls(&self, calls: usize, window: Duration, headers: bool) {
        self.world(|w| w.limit = Some(Limit { calls, window, headers, spent: Default::default() }));
    }

    /// Lifts the limit.
    pub fn unlimited(&self) {
        self.world(|w| w.limit = None);
    }

    /// Runs once, right after the first page of a variable list of several pages was answered.
    pub fn after_first_page(&self, at: At<'_>, change: impl FnOnce(&mut Vec<Variable>) + Send + 'static) {
        let at = world::Owned::of(at);
        self.world(|w| {
            w.between.push(Box::new(move |world| {
                if let Some(list) = world.variables_mut(at.at()) {
                    change(list);
                }
            }));
        });
    }
}

fn set(scopes: &[&str]) -> BTreeSet<String> {
    scopes.iter().map(|s| (*s).to_string()).collect()
}
