//! An embedded Hanzo KMS: the part of the server's API that a sync client meets, written from
//! the published API and as strict as the server, in three generations.
//!
//! [`State`] is the handle to seed and inspect it, [`router`] serves it. `switches` holds the
//! odd cases that tests turn on; the modules beside it answer one area of the API each.

mod auth;
mod db;
mod discovery;
mod events;
mod expand;
mod list;
mod route;
mod switches;
mod syncs;
mod write;

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use tokio::sync::broadcast;

pub use db::{Import, NewSecret};
pub use route::router;
pub use switches::{Generation, Limits, Right, Switches};
pub use syncs::NewSync;

use db::{Db, Identity, Project, ServiceToken};

/// A running KMS's memory. Cheap to clone; all clones are one server.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    db: Mutex<Db>,
    events: broadcast::Sender<events::Happening>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// An empty server.
    pub fn new() -> Self {
        Self(Arc::new(Inner { db: Mutex::new(Db::default()), events: broadcast::channel(1024).0 }))
    }

    fn db(&self) -> MutexGuard<'_, Db> {
        super::host::lock(&self.0.db)
    }

    fn tell(&self, happenings: Vec<events::Happening>) {
        for happening in happenings {
            // Nobody listening is no failure.
            let _ = self.0.events.send(happening);
        }
    }

    /// Changes the odd cases.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        let mut db = self.db();
        change(&mut db.switches);
        db.touch();
    }

    /// Adds a project and returns its id.
    pub fn add_project(&self, name: &str, slug: &str) -> String {
        let id = db::new_id();
        self.add_project_with_id(&id, name, slug);
        id
    }

    /// Adds a project under an id of the caller's choice.
    pub fn add_project_with_id(&self, id: &str, name: &str, slug: &str) {
        let mut db = self.db();
        db.projects.push(Project { id: id.into(), name: name.into(), slug: slug.into(), kind: "secret-manager".into(), environments: Vec::new() });
        db.touch();
    }

    /// Adds an environment with its root folder.
    pub fn add_environment(&self, project: &str, slug: &str, name: &str) {
        let mut db = self.db();
        if let Some(project) = db.projects.iter_mut().find(|p| p.id == project) {
            project.environments.push(db::Environment { id: db::new_id(), slug: slug.into(), name: name.into() });
        }
        db.make_folder(project, slug, "/");
    }

    /// Removes an environment and everything in it.
    pub fn remove_environment(&self, project: &str, slug: &str) {
        let mut db = self.db();
        if let Some(project) = db.projects.iter_mut().find(|p| p.id == project) {
            project.environments.retain(|e| e.slug != slug);
        }
        db.folders.retain(|place, _| !(place.0 == project && place.1 == slug));
        db.touch();
    }

    /// Gives an environment another name; its slug and id stay.
    pub fn rename_environment(&self, project: &str, slug: &str, name: &str) {
        let mut db = self.db();
        let environments = db.projects.iter_mut().filter(|p| p.id == project).flat_map(|p| p.environments.iter_mut());
        environments.filter(|e| e.slug == slug).for_each(|e| e.name = name.into());
        db.touch();
    }

    /// Adds a folder and those above it.
    pub fn add_folder(&self, project: &str, environment: &str, path: &str) {
        self.db().make_folder(project, environment, path);
    }

    /// Removes a folder and everything below it.
    pub fn remove_folder(&self, project: &str, environment: &str, path: &str) {
        let mut db = self.db();
        let below = format!("{}/", path.trim_end_matches('/'));
        db.folders.retain(|place, _| !(place.0 == project && place.1 == environment && (place.2 == path || place.2.starts_with(&below))));
        db.touch();
    }

    /// Adds an import link at the last position of a folder.
    pub fn add_import(&self, project: &str, environment: &str, path: &str, from_environment: &str, from_path: &str) {
        self.add_import_link(project, environment, path, from_environment, from_path, false);
    }

    /// Adds an import link, replicating or not.
    pub fn add_import_link(&self, project: &str, environment: &str, path: &str, from_environment: &str, from_path: &str, replication: bool) {
        let mut db = self.db();
        let import = Import { id: db::new_id(), environment: from_environment.into(), path: db::tidy(from_path), replication };
        db.make_folder(project, environment, path).imports.push(import);
        db.touch();
        let told = db.happened(events::Kind::Imports, project, environment, path, "");
        drop(db);
        self.tell(told);
    }

    /// Sets a shared secret's value, made when it does not exist.
    pub fn set(&self, project: &str, environment: &str, path: &str, key: &str, value: &str) {
        self.put(project, environment, path, key, NewSecret { value: value.into(), ..NewSecret::default() });
    }

    /// Sets a secret with everything it can carry.
    pub fn put(&self, project: &str, environment: &str, path: &str, key: &str, secret: NewSecret) {
        let mut db = self.db();
        let fresh = db.put(project, environment, path, key, secret);
        let kind = if fresh { events::Kind::Created } else { events::Kind::Updated };
        let told = db.happened(kind, project, environment, path, key);
        drop(db);
        self.tell(told);
    }

    /// Sets a personal override beside the shared secret.
    pub fn set_personal(&self, project: &str, environment: &str, path: &str, key: &str, value: &str) {
        let mut db = self.db();
        db.make_folder(project, environment, path).personal.insert(key.into(), value.into());
        db.touch();
    }

    /// Removes a secret; false when it was not there.
    pub fn remove(&self, project: &str, environment: &str, path: &str, key: &str) -> bool {
        let mut db = self.db();
        let gone = db.folder_mut(project, environment, path).is_some_and(|f| f.secrets.remove(key).is_some());
        db.touch();
        let told = db.happened(events::Kind::Deleted, project, environment, path, key);
        drop(db);
        self.tell(told);
        gone
    }

    /// The stored (unexpanded) value of a secret.
    pub fn value(&self, project: &str, environment: &str, path: &str, key: &str) -> Option<String> {
        self.db().folder(project, environment, path)?.secrets.get(key).map(|s| s.value.clone())
    }

    /// The comment of a secret.
    pub fn comment(&self, project: &str, environment: &str, path: &str, key: &str) -> Option<String> {
        self.db().folder(project, environment, path)?.secrets.get(key).map(|s| s.comment.clone())
    }

    /// Keys a folder itself holds.
    pub fn keys(&self, project: &str, environment: &str, path: &str) -> Vec<String> {
        self.db().folder(project, environment, path).map(|f| f.secrets.keys().cloned().collect()).unwrap_or_default()
    }

    /// Adds a machine identity with one unlimited client secret and returns its client id.
    pub fn add_identity(&self, name: &str, client_secret: &str) -> String {
        let identity = Identity::new(name, client_secret);
        let id = identity.client_id.clone();
        self.db().identities.push(identity);
        id
    }

    /// Changes the settings of an identity: life of its tokens in seconds (0: never expires) and
    /// its ceiling, uses of each token, uses of the client secret.
    pub fn tune_identity(&self, client_id: &str, ttl: u64, max_ttl: u64, token_uses: Option<u64>, secret_uses: Option<u64>) {
        if let Some(identity) = self.db().identities.iter_mut().find(|i| i.client_id == client_id) {
            identity.ttl = ttl;
            identity.max_ttl = max_ttl;
            identity.token_uses = token_uses;
            identity.secret_uses = secret_uses;
        }
    }

    /// Ends a running lockout.
    pub fn unlock(&self, client_id: &str) {
        if let Some(identity) = self.db().identities.iter_mut().find(|i| i.client_id == client_id) {
            identity.locked_until = None;
            identity.failures = 0;
        }
    }

    /// Makes every issued token unknown.
    pub fn revoke_tokens(&self) {
        self.db().tokens.clear();
    }

    /// Makes every issued token expired.
    pub fn expire_tokens(&self) {
        self.db().tokens.values_mut().for_each(|t| t.dies_at = Some(std::time::Instant::now()));
    }

    /// Issues an access token without a login.
    pub fn issue_token(&self, client_id: &str) -> Option<String> {
        let mut db = self.db();
        let identity = db.identities.iter().find(|i| i.client_id == client_id)?.clone();
        Some(db.issue(&identity))
    }

    /// Adds a service token with scopes of (environment, path); the text starts with `st.`.
    pub fn add_service_token(&self, project: &str, scopes: &[(&str, &str)]) -> String {
        let token = format!("st.{}.{}.{}", db::new_id(), db::random_text(32), db::random_text(32));
        let scopes = scopes.iter().map(|(e, p)| ((*e).to_string(), (*p).to_string())).collect();
        self.db().service_tokens.insert(token.clone(), ServiceToken { id: db::new_id(), project: project.into(), scopes });
        token
    }

    /// Slugs of change requests that wait for approval.
    pub fn open_requests(&self) -> Vec<String> {
        self.db().requests.iter().filter(|r| r.open()).map(|r| r.slug.clone()).collect()
    }

    /// Approves and merges a change request; false when it is not open.
    pub fn merge_request(&self, slug: &str) -> bool {
        let mut db = self.db();
        let told = db.merge_request(slug);
        drop(db);
        told.map(|t| self.tell(t)).is_some()
    }

    /// Closes a change request without merging.
    pub fn close_request(&self, slug: &str) {
        if let Some(request) = self.db().requests.iter_mut().find(|r| r.slug == slug) {
            request.closed = true;
        }
    }

    /// Ends every open event stream.
    pub fn drop_streams(&self) {
        self.tell(vec![events::Happening::end()]);
    }

    /// The organisation's id, for routes that need it.
    pub fn organization_id(&self) -> String {
        self.db().organization.clone()
    }

    /// An environment's id.
    pub fn environment_id(&self, project: &str, slug: &str) -> Option<String> {
        Some(self.db().environment(project, slug)?.id.clone())
    }

    /// A folder's id.
    pub fn folder_id(&self, project: &str, environment: &str, path: &str) -> Option<String> {
        Some(self.db().folder(project, environment, path)?.id.clone())
    }

    /// A line for people: what it holds.
    pub fn summary(&self) -> serde_json::Value {
        let db = self.db();
        json!({
            "projects": db.projects.len(),
            "folders": db.folders.len(),
            "secrets": db.folders.values().map(|f| f.secrets.len()).sum::<usize>(),
        })
    }
}
