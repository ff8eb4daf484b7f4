//! The server's own secret syncs, as far as a client meets them that takes over: listed, shown,
//! and their auto-sync switched. Nothing here runs one.

use axum::http::Method;
use axum::response::Response;
use serde_json::{Value, json};

use super::db::{Db, new_id};
use super::route::{Call, Refused, Why, json_answer};
use super::{Right, State};

/// The destinations of this server.
const KINDS: &[&str] = &["aws-secrets-manager", "azure-key-vault", "azure-devops", "bitbucket", "oci-vault"];

/// True when the server has routes for such a destination.
pub(super) fn known(kind: &str) -> bool {
    KINDS.contains(&kind)
}

/// A secret sync as it is seeded.
#[derive(Debug, Clone, Default)]
pub struct NewSync {
    pub name: String,
    pub destination: String,
    pub environment: String,
    pub path: String,
    pub auto: bool,
    /// `syncOptions`; an object.
    pub options: Value,
    /// `destinationConfig`; an object.
    pub config: Value,
    /// Name of the server's connection.
    pub connection: String,
}

pub(super) struct Sync {
    id: String,
    project: String,
    sync: NewSync,
    description: Value,
    version: u64,
    status: Option<&'static str>,
    connection_id: String,
    created: jiff::Timestamp,
    updated: jiff::Timestamp,
}

impl State {
    /// Adds a secret sync of the server's own and returns its id.
    pub fn add_sync(&self, project: &str, sync: NewSync) -> String {
        let now = jiff::Timestamp::now();
        let id = new_id();
        self.db().syncs.push(Sync {
            id: id.clone(),
            project: project.into(),
            sync,
            description: Value::Null,
            version: 1,
            status: Some("succeeded"),
            connection_id: new_id(),
            created: now,
            updated: now,
        });
        id
    }

    /// Whether auto-sync of a secret sync is on; `None` when there is no such sync.
    pub fn sync_is_auto(&self, id: &str) -> Option<bool> {
        self.db().syncs.iter().find(|s| s.id == id).map(|s| s.sync.auto)
    }

    pub(super) fn list_syncs(&self, call: &Call, kind: Option<&str>) -> Result<Response, Refused> {
        self.identity(call)?;
        let project = call.needed("projectId")?;
        self.allow(Right::ReadSyncs, "read", "secret-syncs")?;
        let db = self.db();
        if db.project(project).is_none() {
            return Err(Refused::new(Why::NotFound, format!("Project with ID '{project}' not found")));
        }
        let fits = |s: &&Sync| s.project == project && kind.is_none_or(|k| s.sync.destination == k);
        let syncs: Vec<Value> = db.syncs.iter().filter(fits).map(|s| db.describe_sync(s)).collect();
        Ok(json_answer(200, &json!({ "secretSyncs": syncs })))
    }

    /// Shows one, or changes it. Members that the server does not know are dropped in silence.
    pub(super) fn one_sync(&self, call: &Call, kind: &str, id: &str) -> Result<Response, Refused> {
        self.identity(call)?;
        if uuid::Uuid::parse_str(id).is_err() {
            return Err(Refused::invalid(&[("syncId", "Invalid uuid")]));
        }
        self.allow(Right::ReadSyncs, "read", "secret-syncs")?;
        let mut db = self.db();
        let switch = db.switch();
        let at = db.syncs.iter().position(|s| s.id == id);
        let at = at.ok_or_else(|| Refused::new(Why::NotFound, format!("Could not find secret sync with ID \"{id}\"")))?;
        if db.syncs[at].sync.destination != kind {
            return Err(Refused::new(Why::BadRequest, format!("Secret sync with ID \"{id}\" is not configured for {kind}")));
        }
        if call.method == Method::PATCH {
            if db.switches.denied.contains(&Right::EditSyncs) {
                return Err(Refused::denied("edit", "secret-syncs"));
            }
            let Some(body) = call.body.as_object() else { return Err(Refused::invalid(&[("", "Expected object, received null")])) };
            let auto = match body.get(switch) {
                None => None,
                Some(Value::Bool(on)) => Some(*on),
                Some(_) => return Err(Refused::invalid(&[(switch, "Expected boolean")])),
            };
            let description = body.get("description").map(|d| match d {
                Value::Null => Ok(Value::Null),
                Value::String(text) if text.trim().chars().count() <= 256 => Ok(Value::String(text.trim().into())),
                _ => Err(Refused::invalid(&[("description", "Expected string of at most 256 characters")])),
            });
            let description = description.transpose()?;
            let unserved = ["name", "connectionId", "environment", "secretPath", "syncOptions", "destinationConfig"];
            if let Some(member) = unserved.iter().find(|m| body.contains_key(**m)) {
                return Err(Refused::new(Why::BadRequest, format!("This embedded server does not change {member}")));
            }
            let sync = &mut db.syncs[at];
            sync.sync.auto = auto.unwrap_or(sync.sync.auto);
            sync.description = description.unwrap_or_else(|| sync.description.clone());
            sync.version += 1;
            sync.updated = jiff::Timestamp::now();
            // Every change of a sync on auto-sync queues a run.
            if sync.sync.auto {
                sync.status = Some("pending");
            }
        }
        Ok(json_answer(200, &json!({ "secretSync": db.describe_sync(&db.syncs[at]) })))
    }
}

impl Db {
    /// The name of auto-sync in this server's documents.
    fn switch(&self) -> &'static str {
        if self.switches.first_syncs { "isEnabled" } else { "isAutoSyncEnabled" }
    }

    fn describe_sync(&self, s: &Sync) -> Value {
        let app = match s.sync.destination.as_str() {
            "aws-secrets-manager" => "aws",
            "oci-vault" => "oci",
            other => other,
        };
        let environment = self.environment(&s.project, &s.sync.environment);
        let folder = self.folder(&s.project, &s.sync.environment, &s.sync.path);
        let mut out = json!({"id": s.id, "name": s.sync.name, "description": s.description, "version": s.version, "folderId": folder.map(|f| &f.id),
            "connectionId": s.connection_id, "createdAt": s.created.to_string(), "updatedAt": s.updated.to_string(), "syncStatus": s.status,
            "lastSyncJobId": null, "lastSyncMessage": null, "lastSyncedAt": s.created.to_string(), "importStatus": null,
            "lastImportJobId": null, "lastImportMessage": null, "lastImportedAt": null, "removeStatus": null, "lastRemoveJobId": null,
            "lastRemoveMessage": null, "lastRemovedAt": null, "syncOptions": s.sync.options, "projectId": s.project,
            "connection": {"app": app, "name": s.sync.connection, "id": s.connection_id},
            "environment": environment.filter(|_| folder.is_some()).map(|e| json!({"slug": e.slug, "name": e.name, "id": e.id})),
            "folder": folder.map(|f| json!({"id": f.id, "path": s.sync.path})),
            "destination": s.sync.destination, "destinationConfig": s.sync.config});
        out[self.switch()] = s.sync.auto.into();
        out
    }
}
