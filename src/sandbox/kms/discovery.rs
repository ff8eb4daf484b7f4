//! Projects, environments, folders and import links.

use axum::response::Response;
use serde_json::{Value, json};

use super::auth::Actor;
use super::db::{Db, Project, tidy};
use super::route::{Call, Refused, Why, json_answer};
use super::{Generation, Right, State};

impl Db {
    fn describe(&self, project: &Project) -> Value {
        let environments: Vec<Value> = project.environments.iter().map(|e| json!({"id": e.id, "slug": e.slug, "name": e.name})).collect();
        let mut out = json!({"id": project.id, "_id": project.id, "name": project.name, "slug": project.slug, "orgId": self.organization,
            "version": 3, "autoCapitalization": self.switches.capitalise, "environments": environments});
        if self.switches.generation != Generation::Y2024 {
            out["type"] = project.kind.clone().into();
            out["description"] = Value::Null;
        }
        out
    }
}

impl State {
    pub(super) fn list_projects(&self, call: &Call, envelope: &str) -> Result<Response, Refused> {
        self.identity(call)?;
        self.allow(Right::ListProjects, "read", "project")?;
        let db = self.db();
        let projects: Vec<Value> = db.projects.iter().map(|p| db.describe(p)).collect();
        Ok(json_answer(200, &json!({ envelope: projects })))
    }

    /// Old servers answer users only.
    pub(super) fn list_workspaces(&self, call: &Call) -> Result<Response, Refused> {
        if self.db().switches.generation == Generation::Y2024 {
            self.actor(call)?;
            return Err(Refused::new(Why::Forbidden, "You are not allowed to access this resource"));
        }
        self.list_projects(call, "workspaces")
    }

    pub(super) fn list_organization(&self, call: &Call, organization: &str) -> Result<Response, Refused> {
        self.identity(call)?;
        if organization != self.organization_id() {
            return Err(Refused::new(Why::Permission, "You are not a member of this organization"));
        }
        self.list_projects(call, "workspaces")
    }

    pub(super) fn one_project(&self, call: &Call, id: &str, envelope: Option<&str>) -> Result<Response, Refused> {
        let actor = self.actor(call)?;
        self.allow(Right::ReadProject, "read", "project")?;
        let db = self.db();
        let foreign = matches!(&actor, Actor::Service(token) if token.project != id);
        let project = db.project(id).filter(|_| !foreign).ok_or_else(|| Refused::new(Why::NotFound, format!("Project with ID '{id}' not found")))?;
        let described = db.describe(project);
        Ok(json_answer(200, &envelope.map_or_else(|| described.clone(), |e| json!({ e: described }))))
    }

    pub(super) fn project_by_slug(&self, call: &Call, slug: &str) -> Result<Response, Refused> {
        let id = self.db().projects.iter().find(|p| p.slug == slug).map(|p| p.id.clone());
        let id = id.ok_or_else(|| Refused::new(Why::NotFound, format!("Project with slug '{slug}' not found")))?;
        self.one_project(call, &id, None)
    }

    pub(super) fn one_environment(&self, call: &Call, id: &str, slug: &str) -> Result<Response, Refused> {
        self.actor(call)?;
        self.allow(Right::ReadProject, "read", "environments")?;
        let db = self.db();
        let e = db.environment(id, slug).ok_or_else(|| Refused::new(Why::NotFound, "Environment not found"))?;
        Ok(json_answer(200, &json!({"environment": {"id": e.id, "slug": e.slug, "name": e.name, "position": 1}})))
    }

    /// `path` defaults to the root before `directory` is looked at; an unknown path is empty.
    pub(super) fn list_folders(&self, call: &Call, project: &str) -> Result<Response, Refused> {
        self.actor(call)?;
        let (project, environment) = (call.needed(project)?, call.needed("environment")?);
        self.allow(Right::ReadFolders, "read", "secret-folders")?;
        let path = tidy(call.query("path").unwrap_or("/"));
        let db = self.db();
        if db.environment(project, environment).is_none() {
            return Err(Refused::new(Why::BadRequest, "Environment not found"));
        }
        let environment_id = db.environment(project, environment).map(|e| e.id.clone());
        let parent = db.folder(project, environment, &path).map(|f| f.id.clone());
        let below = if path == "/" { "/".to_string() } else { format!("{path}/") };
        let folders: Vec<Value> = db
            .folders
            .iter()
            .filter(|((p, e, path), _)| p == project && e == environment && path != "/")
            .filter_map(|((_, _, path), folder)| {
                let name = path.strip_prefix(&below).filter(|n| !n.is_empty() && !n.contains('/'))?;
                let mut row = json!({"id": folder.id, "name": name, "envId": environment_id, "parentId": parent, "version": 1,
                    "isReserved": false, "createdAt": folder.created.to_string(), "updatedAt": folder.updated.to_string()});
                if db.switches.generation != Generation::Y2024 {
                    row["lastSecretModified"] = folder.updated.to_string().into();
                }
                Some(row)
            })
            .collect();
        Ok(json_answer(200, &json!({ "folders": folders })))
    }

    pub(super) fn list_imports(&self, call: &Call, project: &str) -> Result<Response, Refused> {
        self.actor(call)?;
        let (project, environment) = (call.needed(project)?, call.needed("environment")?);
        let path = tidy(call.query("path").unwrap_or("/"));
        self.allow(Right::ReadImports, "read", "secret-imports")?;
        let db = self.db();
        let old = db.switches.generation == Generation::Y2024;
        let Some(folder) = db.folder(project, environment, &path) else {
            let why = if old { Why::BadRequest } else { Why::NotFound };
            return Err(Refused::new(why, if old { "Folder not found".to_string() } else { format!("Folder with path '{path}' not found") }));
        };
        let imports: Vec<Value> = folder
            .imports
            .iter()
            .enumerate()
            .map(|(i, import)| {
                let env = db.environment(project, &import.environment);
                json!({"id": import.id, "version": 1, "importPath": import.path, "position": i + 1, "isReplication": import.replication,
                    "isReserved": false, "folderId": folder.id, "createdAt": folder.created.to_string(), "updatedAt": folder.updated.to_string(),
                    "importEnv": {"id": env.map(|e| &e.id), "slug": import.environment, "name": env.map(|e| &e.name)}})
            })
            .collect();
        Ok(json_answer(200, &json!({"message": "Successfully fetched secret imports", "secretImports": imports})))
    }
}
