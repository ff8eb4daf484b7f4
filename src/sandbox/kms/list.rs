//! Secret lists: the folder's rows, the blocks of its imports, and the change tag.

use axum::http::HeaderValue;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::db::{Db, Folder, Secret};
use super::route::{Call, Refused, Why, bytes_answer, json_answer};
use super::{Generation, Right, State};

/// What stands in place of a value that is hidden.
const MASK: &str = "<hidden-by-hanzo-kms>";
/// How deep imports of imports are followed, and folders below folders.
const IMPORTS_DEEP: usize = 10;
const FOLDERS_DEEP: usize = 20;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    #[serde(rename = "_id")]
    old_id: &'a str,
    workspace: &'a str,
    environment: &'a str,
    secret_path: &'a str,
    version: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    secret_key: &'a str,
    secret_value: String,
    secret_comment: &'a str,
    #[serde(flatten)]
    newer: Option<Newer<'a>>,
}

/// Members that old servers do not send.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Newer<'a> {
    secret_reminder_note: Option<()>,
    secret_reminder_repeat_days: Option<()>,
    skip_multiline_encoding: bool,
    secret_value_hidden: bool,
    secret_metadata: Vec<Value>,
    tags: Vec<Value>,
    actor: Value,
    is_rotated_secret: bool,
    rotation_id: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Block<'a> {
    secret_path: &'a str,
    environment: &'a str,
    folder_id: Option<&'a str>,
    secrets: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Listing<'a> {
    secrets: Vec<Row<'a>>,
    imports: Vec<Block<'a>>,
}

struct Asked {
    project: String,
    environment: String,
    path: String,
    v4: bool,
    expand: bool,
    imports: bool,
    recursive: bool,
    view: bool,
    overrides: bool,
}

impl State {
    pub(super) fn list_secrets(&self, call: &Call, v4: bool) -> Result<Response, Refused> {
        let actor = self.actor(call)?;
        let generation = self.db().switches.generation;
        let generous = v4 && generation == Generation::Now;
        let project = if v4 { call.query("projectId") } else { call.query("workspaceId") };
        let by_slug = call.query("workspaceSlug").filter(|_| !v4);
        let project = match (project, by_slug) {
            (Some(id), _) => Some(id.to_string()),
            (None, Some(slug)) => self.db().projects.iter().find(|p| p.slug == slug).map(|p| p.id.clone()),
            (None, None) => None,
        };
        // Builds differ in the parameter's name; unknown ones are ignored.
        let imports = if generous { call.flag("includeImports", true)? } else { call.flag("include_imports", false)? };
        let (project, environment, path) =
            self.place(&actor, project.as_deref(), call.query("environment"), call.query("secretPath").unwrap_or("/"))?;
        let asked = Asked {
            project,
            environment,
            path,
            v4,
            expand: call.flag("expandSecretReferences", generous)?,
            imports,
            recursive: call.flag("recursive", false)?,
            view: generation == Generation::Y2024 || call.flag("viewSecretValue", true)?,
            overrides: v4 && call.flag("includePersonalOverrides", false)?,
        };
        self.allow(Right::ReadSecrets, "read", "secrets")?;
        let mut db = self.db();
        if db.project(&asked.project).is_none() {
            return Err(Refused::new(Why::NotFound, format!("Project with ID '{}' not found", asked.project)));
        }
        // The tag belongs to the exact address and the caller.
        let name = format!("{} {}?{} {:?}", actor.name(), call.path, call.raw_query, generation);
        let version = db.version;
        let (etag, body) = match db.rendered.get(&name).filter(|(v, _, _)| *v == version) {
            Some((_, etag, body)) => (etag.clone(), body.clone()),
            None => {
                let body = bytes::Bytes::from(db.listing(&asked));
                let etag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..27]);
                if db.rendered.len() > 256 {
                    db.rendered.clear();
                }
                db.rendered.insert(name, (version, etag.clone(), body.clone()));
                (etag, body)
            }
        };
        let tagged = db.switches.etags;
        drop(db);
        let same =
            tagged && call.headers.get("if-none-match").and_then(|h| h.to_str().ok()).is_some_and(|tags| tags.split(',').any(|t| t.trim() == etag));
        let mut response = if same { bytes_answer(304, bytes::Bytes::new()) } else { bytes_answer(200, body) };
        if same {
            response.headers_mut().remove("content-type");
        }
        if let (true, Ok(value)) = (tagged, HeaderValue::from_str(&etag)) {
            response.headers_mut().insert("etag", value);
        }
        Ok(response)
    }

    pub(super) fn one_secret(&self, call: &Call, name: &str, v4: bool) -> Result<Response, Refused> {
        let actor = self.actor(call)?;
        let project = call.query(if v4 { "projectId" } else { "workspaceId" });
        let (project, environment, path) = self.place(&actor, project, call.query("environment"), call.query("secretPath").unwrap_or("/"))?;
        self.allow(Right::ReadSecrets, "read", "secrets")?;
        let db = self.db();
        let expand = call.flag("expandSecretReferences", v4)?;
        let asked = Asked { project, environment, path, v4, expand, imports: false, recursive: false, view: true, overrides: false };
        let missing = || Refused::new(Why::NotFound, format!("Secret with name '{name}' not found"));
        let folder = db.folder(&asked.project, &asked.environment, &asked.path).ok_or_else(missing)?;
        let (key, secret) = folder.secrets.get_key_value(name).ok_or_else(missing)?;
        let (created, updated) = (secret.created.to_string(), secret.updated.to_string());
        let row = db.row(&asked, &asked.environment, &asked.path, key, secret, asked.expand, Some((&created, &updated)));
        Ok(json_answer(200, &json!({ "secret": row })))
    }
}

impl Db {
    fn listing(&self, asked: &Asked) -> Vec<u8> {
        let folders: Vec<(&str, &Folder)> = if asked.recursive {
            let below = if asked.path == "/" { "/".to_string() } else { format!("{}/", asked.path) };
            let depth = |path: &str| path.matches('/').count();
            self.folders
                .iter()
                .filter(|((p, e, path), _)| *p == asked.project && *e == asked.environment && (*path == asked.path || path.starts_with(&below)))
                .filter(|((_, _, path), _)| depth(path) <= depth(&asked.path) + FOLDERS_DEEP)
                .map(|((_, _, path), folder)| (path.as_str(), folder))
                .collect()
        } else {
            self.folders
                .get_key_value(&(asked.project.clone(), asked.environment.clone(), asked.path.clone()))
                .map(|(p, f)| (p.2.as_str(), f))
                .into_iter()
                .collect()
        };
        let times: Vec<Vec<(String, String)>> =
            folders.iter().map(|(_, f)| f.secrets.values().map(|s| (s.created.to_string(), s.updated.to_string())).collect()).collect();
        let mut secrets = Vec::new();
        let mut imports = Vec::new();
        for ((path, folder), times) in folders.iter().zip(&times) {
            for ((key, secret), (created, updated)) in folder.secrets.iter().zip(times) {
                let mut row = self.row(asked, &asked.environment, path, key, secret, asked.expand, Some((created, updated)));
                match folder.personal.get(key) {
                    // v3 returns rows of both types, v4 only when asked.
                    Some(own) if asked.overrides => (row.kind, row.secret_value) = ("personal", own.clone()),
                    Some(own) if !asked.v4 => {
                        let mut personal = self.row(asked, &asked.environment, path, key, secret, false, Some((created, updated)));
                        (personal.kind, personal.secret_value) = ("personal", own.clone());
                        secrets.push(personal);
                    }
                    _ => {}
                }
                secrets.push(row);
            }
            if asked.imports {
                imports.extend(self.blocks(asked, folder));
            }
        }
        serde_json::to_vec(&Listing { secrets, imports }).unwrap_or_default()
    }

    /// One block for each link that may be read; what it imports itself follows its own rows.
    fn blocks<'a>(&'a self, asked: &'a Asked, folder: &'a Folder) -> Vec<Block<'a>> {
        let readable = |i: &&super::Import| !i.replication && !self.switches.unreadable_imports.contains(&(i.environment.clone(), i.path.clone()));
        folder
            .imports
            .iter()
            .filter(readable)
            .map(|import| {
                let mut secrets = Vec::new();
                self.gather(asked, &import.environment, &import.path, IMPORTS_DEEP, &mut secrets, &mut Vec::new());
                let target = self.folder(&asked.project, &import.environment, &import.path);
                Block { secret_path: &import.path, environment: &import.environment, folder_id: target.map(|f| f.id.as_str()), secrets }
            })
            .collect()
    }

    fn gather<'a>(
        &'a self,
        asked: &'a Asked,
        environment: &'a str,
        path: &'a str,
        depth: usize,
        rows: &mut Vec<Row<'a>>,
        seen: &mut Vec<(&'a str, &'a str)>,
    ) {
        let Some(folder) = self.folder(&asked.project, environment, path) else { return };
        if depth == 0 || seen.contains(&(environment, path)) {
            return;
        }
        seen.push((environment, path));
        // Old servers expand only rows of the asked folder.
        let expand = asked.expand && self.switches.generation != Generation::Y2024;
        rows.extend(folder.secrets.iter().map(|(key, secret)| self.row(asked, environment, path, key, secret, expand, None)));
        for import in folder.imports.iter().rev().filter(|i| !i.replication) {
            self.gather(asked, &import.environment, &import.path, depth - 1, rows, seen);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one row's facts, used in this file only")]
    fn row<'a>(
        &'a self,
        asked: &'a Asked,
        environment: &'a str,
        path: &'a str,
        key: &'a str,
        secret: &'a Secret,
        expand: bool,
        times: Option<(&'a str, &'a str)>,
    ) -> Row<'a> {
        let hidden = self.switches.hide_values || !asked.view || self.switches.hidden_keys.contains(key);
        let mut value = if expand { self.expand(&asked.project, environment, path, key, &secret.value) } else { secret.value.clone() };
        if expand && secret.skip_multiline_encoding && value.contains('\n') {
            value = format!("\"{}\"", value.replace('\n', "\\n"));
        }
        if hidden {
            value = MASK.to_string();
        }
        let newer = (self.switches.generation != Generation::Y2024).then(|| Newer {
            secret_reminder_note: None,
            secret_reminder_repeat_days: None,
            skip_multiline_encoding: secret.skip_multiline_encoding,
            secret_value_hidden: hidden,
            secret_metadata: secret.metadata.iter().map(|(k, v)| json!({"key": k, "value": v, "isEncrypted": false})).collect(),
            tags: secret.tags.iter().map(|t| json!({"id": t, "slug": t, "name": t, "color": null})).collect(),
            actor: json!({"actorId": null, "actorType": null, "name": null, "membershipId": null, "groupId": null}),
            is_rotated_secret: false,
            rotation_id: None,
            created_at: times.map(|t| t.0),
            updated_at: times.map(|t| t.1),
        });
        Row {
            id: &secret.id,
            old_id: &secret.id,
            workspace: &asked.project,
            environment,
            secret_path: path,
            version: secret.version,
            kind: "shared",
            secret_key: key,
            secret_value: value,
            secret_comment: &secret.comment,
            newer,
        }
    }

    /// A row for answers of writes.
    pub fn written(&self, project: &str, environment: &str, path: &str, key: &str) -> Value {
        let asked = Asked {
            project: project.into(),
            environment: environment.into(),
            path: path.into(),
            v4: true,
            expand: false,
            imports: false,
            recursive: false,
            view: true,
            overrides: false,
        };
        let Some((key, secret)) = self.folder(project, environment, path).and_then(|f| f.secrets.get_key_value(key)) else { return Value::Null };
        let (created, updated) = (secret.created.to_string(), secret.updated.to_string());
        serde_json::to_value(self.row(&asked, environment, path, key, secret, false, Some((&created, &updated)))).unwrap_or_default()
    }
}
