//! An embedded Azure DevOps: one organisation with projects and variable groups, as far as
//! Microsoft's REST reference ("Projects", "Variablegroups") and measured behaviour describe
//! it. Strict on purpose: routes by API version, secrets hidden in every answer, empty values
//! ignored, references required, no empty group, sign-in pages instead of clean refusals.
//!
//! [`State`] seeds, looks inside (real values included, for tests) and plays foreign hands.
//!
//! | file | subject |
//! | --- | --- |
//! | [`world`] | the data: identities, projects, groups, the clock |
//! | [`route`] | paths, credentials, API versions |
//! | [`groups`] | the variable group calls |
//! | [`discovery`] | projects, and the locations that clients ask for |
//! | [`answer`] | bodies and headers of answers |

mod answer;
mod discovery;
mod groups;
mod route;
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;

use super::host::lock;
use world::{Group, World};
pub use world::{Identity, Role, Scopes, Server, SignIn, Variable};

/// Handle on the embedded service; clones share it.
#[derive(Clone)]
pub struct State(Arc<Mutex<World>>);

/// The service as a router.
pub fn router(state: State) -> axum::Router {
    axum::Router::new().fallback(route::dispatch).with_state(state)
}

impl State {
    /// An organisation without projects, on the current cloud service.
    pub fn new(organisation: &str) -> Self {
        Self(Arc::new(Mutex::new(World::new(organisation))))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.0)
    }

    /// Which product and version answers.
    pub fn server(&self, server: Server) {
        self.world().server = server;
    }

    /// Path before the organisation, as on a classic server (`tfs`).
    pub fn prefix(&self, prefix: &str) {
        self.world().prefix = prefix.split('/').filter(|s| !s.is_empty()).map(str::to_lowercase).collect();
    }

    /// A personal access token with all rights.
    pub fn token(&self, token: &str) {
        self.identity(token, Identity::administrator("operator"));
    }

    /// A personal access token of an identity; replaces what the token was before.
    pub fn identity(&self, token: &str, identity: Identity) {
        self.world().tokens.insert(token.to_string(), identity);
    }

    /// Which Entra tokens are accepted; they get all rights.
    pub fn bearers(&self, accepts: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.world().bearers = Arc::new(accepts);
    }

    /// How bad credentials are answered, and the tenant of the organisation.
    pub fn sign_in(&self, how: SignIn, tenant: &str) {
        let mut world = self.world();
        world.sign_in = how;
        world.tenant = tenant.to_string();
    }

    /// Adds a project and returns its id.
    pub fn project(&self, name: &str) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        self.project_with(&id, name);
        id
    }

    /// Adds a project with a given id.
    pub fn project_with(&self, id: &str, name: &str) {
        self.world().projects.push(world::Project { id: id.to_lowercase(), name: name.to_string() });
    }

    /// Removes a project with its groups.
    pub fn remove_project(&self, id: &str) {
        let mut world = self.world();
        world.projects.retain(|p| p.id != id);
        world.groups.retain(|_, g| !g.projects.iter().any(|p| p == id));
    }

    /// Adds a group as a foreign hand would and returns its id.
    pub fn group(&self, project: &str, name: &str, variables: &[(&str, Variable)]) -> i64 {
        self.world().insert(project, name, variables.iter().map(|(n, v)| ((*n).to_string(), v.clone())).collect())
    }

    /// Sets or adds a variable, as a foreign hand would: the stamp moves.
    pub fn set(&self, group: i64, name: &str, variable: Variable) {
        self.touch(group, |g| {
            g.variables.insert(name.to_string(), variable);
        });
    }

    /// Takes a variable away.
    pub fn unset(&self, group: i64, name: &str) {
        self.touch(group, |g| {
            g.variables.remove(name);
        });
    }

    /// Renames a group.
    pub fn rename(&self, group: i64, name: &str) {
        self.touch(group, |g| g.name = name.to_string());
    }

    /// Changes a group's description.
    pub fn describe(&self, group: i64, description: Option<&str>) {
        self.touch(group, |g| g.description = description.map(str::to_owned));
    }

    /// Gives a group another type, as linking a Key Vault does.
    pub fn retype(&self, group: i64, kind: &str, provider_data: Option<Value>) {
        self.touch(group, |g| {
            g.kind = kind.to_string();
            g.provider_data = provider_data;
        });
    }

    /// Shares a group with a further project, as Azure DevOps Server may have done.
    pub fn share(&self, group: i64, project: &str) {
        self.touch(group, |g| g.projects.push(project.to_string()));
    }

    /// Hides a group from everybody but its own administrators.
    pub fn hide(&self, group: i64, hidden: bool) {
        if let Some(g) = self.world().groups.get_mut(&group) {
            g.hidden = hidden;
        }
    }

    /// Deletes a group.
    pub fn delete(&self, group: i64) {
        self.world().groups.remove(&group);
    }

    /// Forces the stamp, to try odd forms of it.
    pub fn stamp(&self, group: i64, modified_on: &str) {
        if let Some(g) = self.world().groups.get_mut(&group) {
            g.modified_on = modified_on.to_string();
        }
    }

    fn touch(&self, group: i64, change: impl FnOnce(&mut Group)) {
        let mut world = self.world();
        let now = world.tick();
        if let Some(g) = world.groups.get_mut(&group) {
            change(g);
            g.modified_on = now;
            g.modified_by = "somebody else".into();
        }
    }

    /// The id of a project's group, by exact name.
    pub fn find(&self, project: &str, name: &str) -> Option<i64> {
        self.world().groups.values().find(|g| g.name == name && g.projects.iter().any(|p| p == project)).map(|g| g.id)
    }

    /// Ids of all groups.
    pub fn groups(&self) -> Vec<i64> {
        self.world().groups.keys().copied().collect()
    }

    /// Ids of the groups that a project has or shares.
    pub fn groups_of(&self, project: &str) -> Vec<i64> {
        let world = self.world();
        world.groups.iter().filter(|(_, g)| g.projects.iter().any(|p| p == project)).map(|(id, _)| *id).collect()
    }

    /// The real content of a group.
    pub fn variables(&self, group: i64) -> BTreeMap<String, Variable> {
        self.world().groups.get(&group).map(|g| g.variables.clone()).unwrap_or_default()
    }

    /// The group's description and stamp.
    pub fn facts(&self, group: i64) -> Option<(Option<String>, String)> {
        self.world().groups.get(&group).map(|g| (g.description.clone(), g.modified_on.clone()))
    }

    /// The body of the last POST or PUT that was understood.
    pub fn last_body(&self) -> Option<Value> {
        self.world().last_body.clone()
    }

    /// Groups of a page when the client asks for none, and the most it may ask for.
    pub fn page(&self, size: usize) {
        self.world().page = size.max(1);
    }

    /// A new group stays unseen for so many reads.
    pub fn create_lag(&self, reads: u32) {
        self.world().create_lag = reads;
    }

    /// The next `times` good answers carry `Retry-After`.
    pub fn ask_to_wait(&self, times: u32, seconds: u64) {
        self.world().wait_hint = (times, seconds);
    }

    /// All answers carry a rate budget: limit, remaining, seconds until it is full again.
    pub fn budget(&self, budget: Option<(u32, u32, i64)>) {
        self.world().budget = budget;
    }

    /// Writes that give a variable of this name a value are refused, with a message that names it.
    pub fn refuse_name(&self, name: &str) {
        self.world().refused.insert(name.to_lowercase());
    }

    /// Runs once, right before the next write is carried out: a foreign edit that falls
    /// between a reading and a write.
    pub fn before_next_write(&self, act: impl FnOnce(&State) + Send + 'static) {
        self.world().before_write.push(Box::new(act));
    }

    /// Runs once, right after the next read was answered.
    pub fn after_next_read(&self, act: impl FnOnce(&State) + Send + 'static) {
        self.world().after_read.push(Box::new(act));
    }
}
