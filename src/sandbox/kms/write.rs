//! Writing secrets: batches and single ones, change policies, and what is refused.

use axum::http::Method;
use axum::response::Response;
use serde_json::{Value, json};

use super::db::{ChangeRequest, Db, NewSecret, new_id};
use super::events::{Happening, Kind};
use super::route::{Call, Refused, Why, json_answer};
use super::{Generation, Right, State};

/// One item of a write, checked.
struct Item {
    key: String,
    value: Option<String>,
    comment: Option<String>,
    metadata: Vec<(String, String)>,
    skip_multiline_encoding: bool,
    rename: Option<String>,
}

/// Outer white space goes, as JavaScript knows it; a value that ends with a line break keeps one.
fn trimmed(value: &str) -> String {
    let inner = value.trim_matches(|c: char| c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}'));
    if value.ends_with('\n') { format!("{inner}\n") } else { inner.to_string() }
}

impl Item {
    fn read(item: &Value, name: Option<&str>, at: &str, old: bool, create: bool, capitals: bool) -> Result<Self, Refused> {
        let text = |field: &str| item.get(field).and_then(Value::as_str);
        let key = name.or_else(|| text("secretKey")).unwrap_or_default().trim().to_string();
        let path = |field: &str| if at.is_empty() { field.to_string() } else { format!("{at}.{field}") };
        if key.is_empty() {
            return Err(Refused::invalid(&[(&path("secretKey"), "Required")]));
        }
        if !old && key.contains([':', '/']) {
            return Err(Refused::invalid(&[(&path("secretKey"), "Secret name cannot contain colon or forward slash.")]));
        }
        let value = text("secretValue").map(trimmed);
        if create && value.is_none() {
            return Err(Refused::invalid(&[(&path("secretValue"), "Required")]));
        }
        let metadata = item.get("secretMetadata").and_then(Value::as_array).into_iter().flatten();
        let metadata = metadata.filter_map(|m| Some((m.get("key")?.as_str()?.to_string(), m.get("value")?.as_str()?.to_string()))).collect();
        Ok(Self {
            key: if capitals { key.to_uppercase() } else { key },
            value,
            comment: text("secretComment").map(|c| c.trim().to_string()),
            metadata,
            skip_multiline_encoding: item.get("skipMultilineEncoding").and_then(Value::as_bool).unwrap_or(false),
            rename: text("newSecretName").map(|n| n.trim().to_string()),
        })
    }

    fn secret(&self) -> NewSecret {
        NewSecret {
            value: self.value.clone().unwrap_or_default(),
            comment: self.comment.clone().unwrap_or_default(),
            metadata: self.metadata.clone(),
            tags: Vec::new(),
            skip_multiline_encoding: self.skip_multiline_encoding,
        }
    }
}

impl State {
    pub(super) fn batch(&self, call: &Call, v4: bool) -> Result<Response, Refused> {
        let (project, environment, path) = self.write_place(call, v4, true)?;
        let (old, capitals) = self.manners();
        let items = call.body.get("secrets").and_then(Value::as_array).filter(|s| !s.is_empty());
        let items = items.ok_or_else(|| Refused::invalid(&[("secrets", "Array must contain at least 1 element(s)")]))?;
        let create = call.method == Method::POST;
        let items = items.iter().enumerate().map(|(i, item)| Item::read(item, None, &format!("secrets.{i}"), old, create, capitals));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        let mode = call.body.get("mode").and_then(Value::as_str).unwrap_or("failOnNotFound");
        self.carry_out(&call.method, (project, environment, path), &items, mode, "secrets")
    }

    pub(super) fn single(&self, call: &Call, name: &str, v4: bool) -> Result<Response, Refused> {
        let place = self.write_place(call, v4, false)?;
        let (old, capitals) = self.manners();
        let item = Item::read(&call.body, Some(name), "", old, call.method == Method::POST, capitals)?;
        self.carry_out(&call.method, place, &[item], "failOnNotFound", "secret")
    }

    fn manners(&self) -> (bool, bool) {
        let db = self.db();
        (db.switches.generation == Generation::Y2024, db.switches.capitalise)
    }

    /// Project, environment and path of a write. Old batches know the project by its slug only.
    fn write_place(&self, call: &Call, v4: bool, batch: bool) -> Result<(String, String, String), Refused> {
        let actor = self.actor(call)?;
        let field = |name: &str| call.body.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        let old = self.db().switches.generation == Generation::Y2024;
        let by_slug = |slug: &str| self.db().projects.iter().find(|p| p.slug == slug).map(|p| p.id.clone());
        let project = match (v4, batch && old) {
            (true, _) => Some(field("projectId").ok_or_else(|| Refused::invalid(&[("projectId", "Required")]))?.to_string()),
            (false, true) => Some(
                field("projectSlug")
                    .ok_or_else(|| Refused::invalid(&[("projectSlug", "Required")]))
                    .map(by_slug)?
                    .ok_or_else(|| Refused::new(Why::NotFound, "Project not found"))?,
            ),
            (false, false) => field("workspaceId").map(str::to_owned).or_else(|| field("projectSlug").and_then(by_slug)),
        };
        let environment = field("environment").ok_or_else(|| Refused::invalid(&[("environment", "Required")]))?;
        let place = self.place(&actor, project.as_deref(), Some(environment), field("secretPath").unwrap_or("/"))?;
        self.allow(Right::WriteSecrets, "create", "secrets")?;
        let db = self.db();
        if db.project(&place.0).is_none() {
            return Err(Refused::new(Why::NotFound, format!("Project with ID '{}' not found", place.0)));
        }
        if db.folder(&place.0, &place.1, &place.2).is_none() {
            let why = if old { Why::BadRequest } else { Why::NotFound };
            return Err(Refused::new(why, format!("Folder with path '{}' in environment with slug '{}' not found", place.2, place.1)));
        }
        Ok(place)
    }

    fn carry_out(&self, method: &Method, place: (String, String, String), items: &[Item], mode: &str, envelope: &str) -> Result<Response, Refused> {
        let mut db = self.db();
        let items = db.screen(method, &place, items, mode)?;
        if db.switches.approvals.contains(&(place.1.clone(), place.2.clone())) {
            let changes = items.iter().map(|i| (i.key.clone(), (*method != Method::DELETE).then(|| i.secret()))).collect();
            let slug = super::db::random_text(10).to_lowercase();
            let request = ChangeRequest { id: new_id(), slug, place, changes, merged: false, closed: false, created: jiff::Timestamp::now() };
            let answer = json!({ "approval": describe(&request) });
            db.requests.push(request);
            return Ok(json_answer(200, &answer));
        }
        let (mut rows, mut told) = (Vec::new(), Vec::new());
        for item in items {
            let (row, happened) = db.write(method, &place, item);
            rows.push(row);
            told.extend(happened);
        }
        drop(db);
        self.tell(told);
        Ok(json_answer(200, &if envelope == "secret" { json!({ "secret": rows.pop() }) } else { json!({ "secrets": rows }) }))
    }

    pub(super) fn change_request(&self, call: &Call, id: &str) -> Result<Response, Refused> {
        self.actor(call)?;
        let db = self.db();
        let request = db.requests.iter().find(|r| r.id == id).ok_or_else(|| Refused::new(Why::NotFound, "Secret approval request not found"))?;
        Ok(json_answer(200, &json!({ "approval": describe(request) })))
    }
}

impl Db {
    /// Checks a whole batch: one bad item refuses it.
    fn screen<'i>(&self, method: &Method, place: &(String, String, String), items: &'i [Item], mode: &str) -> Result<Vec<&'i Item>, Refused> {
        let folder = self.folder(&place.0, &place.1, &place.2);
        let exists = |key: &str| folder.is_some_and(|f| f.secrets.contains_key(key));
        if let Some(bad) = items.iter().find(|i| self.switches.refused_names.contains(&i.key)) {
            return Err(Refused::new(Why::BadRequest, format!("Secret name {} is not allowed by this project", bad.key)));
        }
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = items.iter().find(|i| !seen.insert(i.key.as_str())) {
            return Err(Refused::new(Why::BadRequest, format!("Duplicate secret in batch: {}", twice.key)));
        }
        let names = |wanted: bool| items.iter().filter(|i| exists(&i.key) == wanted).map(|i| i.key.as_str()).collect::<Vec<_>>().join(",");
        match *method {
            Method::POST if items.iter().any(|i| exists(&i.key)) => {
                Err(Refused::new(Why::BadRequest, format!("Secret already exist: {}", names(true))))
            }
            Method::PATCH | Method::DELETE if mode == "failOnNotFound" && items.iter().any(|i| !exists(&i.key)) => {
                Err(Refused::new(Why::NotFound, format!("Secrets not found: {}", names(false))))
            }
            Method::PATCH if mode == "ignore" => Ok(items.iter().filter(|i| exists(&i.key)).collect()),
            _ => Ok(items.iter().collect()),
        }
    }

    fn write(&mut self, method: &Method, place: &(String, String, String), item: &Item) -> (Value, Vec<Happening>) {
        let (project, environment, path) = (&place.0, &place.1, &place.2);
        if *method == Method::DELETE {
            let row = self.written(project, environment, path, &item.key);
            if let Some(folder) = self.folder_mut(project, environment, path) {
                folder.secrets.remove(&item.key);
            }
            self.touch();
            return (row, self.happened(Kind::Deleted, project, environment, path, &item.key));
        }
        let mut secret = item.secret();
        if item.value.is_none()
            && let Some(old) = self.folder(project, environment, path).and_then(|f| f.secrets.get(&item.key))
        {
            secret.value = old.value.clone();
        }
        let fresh = self.put(project, environment, path, &item.key, secret);
        let mut key = item.key.clone();
        if let Some(folder) = self.folder_mut(project, environment, path) {
            if let (false, Some(comment), Some(secret)) = (fresh, &item.comment, folder.secrets.get_mut(&key)) {
                secret.comment = comment.clone();
            }
            if let Some(name) = &item.rename
                && let Some(secret) = folder.secrets.remove(&key)
            {
                folder.secrets.insert(name.clone(), secret);
                key = name.clone();
            }
        }
        let kind = if fresh { Kind::Created } else { Kind::Updated };
        (self.written(project, environment, path, &key), self.happened(kind, project, environment, path, &key))
    }
}

fn describe(request: &ChangeRequest) -> Value {
    json!({"id": request.id, "slug": request.slug, "policyId": "sandbox-policy", "hasMerged": request.merged,
        "status": if request.open() { "open" } else { "closed" }, "conflicts": null, "folderId": null,
        "createdAt": request.created.to_string(), "updatedAt": request.created.to_string()})
}
