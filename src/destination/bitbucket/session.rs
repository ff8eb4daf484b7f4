//! One connection: its test, what can be picked, and the opening of a target.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::budget::Patience;
use super::client::{Api, Call};
use super::errors::{self, Told};
use super::memory::{Graves, known_as, repository_memory};
use super::overrides::Overrides;
use super::paging::{self, Listed};
use super::place::{self, Place};
use super::spec::{ACCESS_TOKEN, API_TOKEN, SERVICE};
use super::target::{Environment, Variables};
use crate::destination::{Choice, Destination, Session, Target, TestReport};
use crate::http::{Answer, ApiError, Cx, ErrorKind};
use crate::model::Map;
use crate::model::text::brief;

/// The part of a workspace's or repository's row that a picker needs.
const REPOSITORY_FIELDS: &str = "next,size,page,pagelen,values.uuid,values.slug,values.name,values.full_name";

/// A connection to Bitbucket.
pub struct Connected {
    api: Arc<Api>,
    graves: Graves,
    /// Repositories seen by pickers: `workspace/repository` → uuid.
    repositories: Mutex<HashMap<String, String>>,
}

impl Connected {
    pub fn new(api: Api) -> Self {
        Self { api: Arc::new(api), graves: Graves::default(), repositories: Mutex::default() }
    }

    async fn ask(&self, cx: &Cx, call: Call<'_>) -> Result<Answer, ApiError> {
        self.api.send(cx, &call.patience(Patience::Question)).await
    }

    fn failed(&self, cx: &Cx, answer: &Answer, what: &str, place: Option<&str>) -> ApiError {
        errors::of(cx, &self.api.auth, answer, what, place, None)
    }

    /// `GET /user`: proves an API token or a consumer, and an access token by the way it is refused.
    async fn who(&self, cx: &Cx, report: &mut TestReport) -> Result<(), ApiError> {
        let answer = self.ask(cx, Call::get("/user", vec!["user"])).await?;
        let told = Told::read(&answer.body);
        let method = self.api.auth.method();
        if answer.ok() {
            let user = paging::object(&answer)?;
            let name =
                ["display_name", "nickname", "username"].iter().find_map(|f| user.get(*f).and_then(Value::as_str)).unwrap_or("unnamed account");
            report.identity = cx.redact(&brief(name, 80));
        } else if told.wrong_mechanism() || (method != API_TOKEN && answer.status == 403) {
            // Access tokens belong to no user: this answer shows that the token itself is good.
            report.identity = if method == ACCESS_TOKEN { "access token".into() } else { "OAuth consumer".into() };
            report.notes.push("The credential is accepted; it belongs to no user, so workspaces cannot be listed with it.".into());
        } else if told.lacks_scope() {
            report.identity = "API token without read:user".into();
            report.notes.push("The token is accepted; without read:user:bitbucket its owner cannot be shown.".into());
        } else {
            let html = !answer.is_json() || answer.status == 404;
            if (html || told.data_center) && answer.status != 401 && self.api.is_data_center(cx).await {
                return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "the endpoint is not Bitbucket Cloud").advice(errors::DATA_CENTER));
            }
            let mut error = self.failed(cx, &answer, "cannot ask who this credential belongs to", None);
            if answer.status == 404 {
                error.kind = ErrorKind::NotTheService;
                error.advice = Some("This address is not Bitbucket's API: check the endpoint.".into());
            }
            return Err(error);
        }
        scope_notes(&answer, report);
        Ok(())
    }

    /// Proves that the target can be reached and its variables can be listed.
    async fn reach(&self, cx: &Cx, config: &Map, report: &mut TestReport) -> Result<(), ApiError> {
        let place = Place::of(config);
        if place.workspace.is_empty() || place.repository.is_empty() {
            return Ok(());
        }
        let full = place.full_name();
        let call = Call::get("/repositories/{workspace}/{repository}", vec!["repositories", &place.workspace, &place.repository])
            .query("fields", "uuid,slug,full_name");
        let answer = self.ask(cx, call).await?;
        let told = Told::read(&answer.body);
        if answer.ok() {
            let found = paging::object(&answer)?;
            if let Some(uuid) = found.get("uuid").and_then(Value::as_str) {
                self.learn_repository(&place, uuid);
            }
        } else if told.lacks_scope() {
            report.notes.push(format!("Without the scope to read repositories, {full} itself cannot be looked at; its variables are tried."));
        } else {
            return Err(self.failed(cx, &answer, &format!("cannot read the repository {full}"), Some(&full)));
        }
        let variables = self.variables(cx, &place, Patience::Question).await?;
        let answer = variables.peek(cx).await?;
        // First: a form has room for one, and this is about the target that was filled in.
        report.notes.insert(
            0,
            match &variables.environment_label() {
                Some(environment) => format!("The variables of the deployment environment {} of {full} can be listed.", brief(environment, 60)),
                None => format!("The variables of {full} can be listed."),
            },
        );
        scope_notes(&answer, report);
        report.notes.push("Whether variables can be written shows at the first write: that one goes alone.".into());
        Ok(())
    }

    async fn workspaces(&self, cx: &Cx) -> Result<Vec<Choice>, ApiError> {
        const WHAT: &str = "cannot list workspaces";
        let by_hand = "Enter the workspace by hand: the first part of the repository's address, bitbucket.org/WORKSPACE/REPOSITORY.";
        let mut rows = self.rows(cx, Call::get("/user/workspaces", vec!["user", "workspaces"]), WHAT).await?;
        if let Listed::Refused(answer) = &rows
            && answer.status == 404
        {
            // A server from before 2026, or one that mimics it.
            rows = self.rows(cx, Call::get("/workspaces", vec!["workspaces"]), WHAT).await?;
        }
        let rows = match rows {
            Listed::Rows(rows) => rows,
            Listed::Refused(answer) => {
                let told = Told::read(&answer.body);
                let error = self.failed(cx, &answer, WHAT, None);
                let own = !told.wrong_mechanism() && answer.status != 410 && answer.status != 404 && error.kind != ErrorKind::Permission;
                if own {
                    return Err(error);
                }
                let missing = told.missing();
                return Err(error.advice(if missing.is_empty() {
                    by_hand.to_string()
                } else {
                    format!("Missing: {}. {by_hand}", missing.join(", "))
                }));
            }
        };
        let mut out: Vec<Choice> = Vec::new();
        for row in &rows {
            let workspace = row.get("workspace").filter(|w| w.is_object()).unwrap_or(row);
            let Some(slug) = field(workspace, "slug").or_else(|| field(workspace, "uuid")) else { continue };
            let name = field(workspace, "name").unwrap_or_else(|| slug.clone());
            // Names need not differ: the slug tells two apart.
            out.push(Choice { detail: (name != slug).then(|| brief(&slug, 80)), label: brief(&name, 120), value: slug });
        }
        out.sort_by_key(|c| c.label.to_lowercase());
        Ok(out)
    }

    async fn repositories(&self, cx: &Cx, filled: &Map) -> Result<Vec<Choice>, ApiError> {
        let place = Place::of(filled);
        if place.workspace.is_empty() {
            return Err(ApiError::new(ErrorKind::Invalid, SERVICE, "choose the workspace first"));
        }
        let what = format!("cannot list the repositories of {}", place.workspace);
        let call = |role: Option<&str>| {
            let mut call = Call::get("/repositories/{workspace}", vec!["repositories", &place.workspace]);
            if let Some(role) = role {
                call = call.query("role", role);
            }
            call.query("sort", "slug").query("fields", REPOSITORY_FIELDS)
        };
        // Only repositories that the account administers can be written; access tokens have no role.
        let roles: &[Option<&str>] = if self.api.auth.method() == ACCESS_TOKEN { &[None] } else { &[Some("admin"), Some("member"), None] };
        let mut found = Vec::new();
        let mut admin = false;
        for role in roles {
            match self.rows(cx, call(*role), &what).await? {
                Listed::Rows(rows) if !rows.is_empty() => {
                    admin = *role == Some("admin");
                    found = rows;
                    break;
                }
                Listed::Rows(_) => {}
                // A server that does not know the role: asked without it.
                Listed::Refused(answer) if role.is_some() && answer.status == 400 => {}
                Listed::Refused(answer) => return Err(self.failed(cx, &answer, &what, Some(&format!("the workspace {}", place.workspace)))),
            }
        }
        let mut out = Vec::new();
        for row in &found {
            let Some(slug) = field(row, "slug") else { continue };
            if let Some(uuid) = field(row, "uuid") {
                let seen = Place { repository: slug.clone(), ..place.clone() };
                self.learn_repository(&seen, &uuid);
            }
            let name = field(row, "name").unwrap_or_else(|| slug.clone());
            let role = (!admin && self.api.auth.method() != ACCESS_TOKEN).then_some("you are not its administrator");
            out.push(Choice { label: brief(&name, 120), detail: role.map(str::to_owned).or_else(|| field(row, "full_name")), value: slug });
        }
        Ok(out)
    }

    async fn environments(&self, cx: &Cx, place: &Place, patience: Patience) -> Result<Vec<Value>, ApiError> {
        let full = place.full_name();
        let what = format!("cannot list the deployment environments of {full}");
        let call = Call::get(
            "/repositories/{workspace}/{repository}/environments",
            vec!["repositories", &place.workspace, &place.repository, "environments"],
        )
        .patience(patience);
        let plain = self.api.slashed();
        let mut refused = None;
        for slash in [plain, !plain] {
            match paging::list(&self.api, cx, &Call { slash, ..call.clone() }, uuid_of, false, &what).await? {
                Listed::Rows(rows) => {
                    if slash != plain {
                        self.api.set_slashed(slash);
                    }
                    let named = rows.iter().filter_map(|row| Some((field(row, "uuid")?, field(row, "name"))));
                    Overrides::new(self.api.memory.clone(), &repository_memory(&self.api, place)).environments(named);
                    return Ok(rows);
                }
                Listed::Refused(answer) => {
                    let lost = answer.status == 404;
                    refused.get_or_insert(answer);
                    if !lost {
                        break;
                    }
                }
            }
        }
        match refused {
            Some(answer) => Err(self.failed(cx, &answer, &what, Some(&full))),
            None => Err(ApiError::new(ErrorKind::Transient, SERVICE, what)),
        }
    }

    async fn rows(&self, cx: &Cx, call: Call<'_>, what: &str) -> Result<Listed, ApiError> {
        paging::list(&self.api, cx, &call.patience(Patience::Question), row_id, false, what).await
    }

    /// The variables of a place; an environment's name is resolved and remembered.
    async fn variables(&self, cx: &Cx, place: &Place, patience: Patience) -> Result<Variables, ApiError> {
        let environment = match &place.environment {
            None => None,
            Some(given) => Some(match place::uuid(given) {
                Some(uuid) => Environment { uuid, name: None, remembered_as: None },
                None => self.resolve(cx, place, given, patience).await?,
            }),
        };
        if let Some(uuid) = self.repositories.lock().unwrap_or_else(PoisonError::into_inner).get(&known_as(place)) {
            self.api.memory.put(&repository_memory(&self.api, place), json!(uuid));
        }
        Ok(Variables::new(self.api.clone(), place.clone(), environment, self.graves.clone()))
    }

    async fn resolve(&self, cx: &Cx, place: &Place, given: &str, patience: Patience) -> Result<Environment, ApiError> {
        let key = format!("{}/environment/{}", repository_memory(&self.api, place), given.to_lowercase());
        if let Some(uuid) = self.api.memory.get(&key).and_then(|v| v.as_str().map(str::to_owned)) {
            return Ok(Environment { uuid, name: Some(given.to_string()), remembered_as: Some(key) });
        }
        let rows = self.environments(cx, place, patience).await?;
        let by = |name: &str| -> Vec<&Value> {
            rows.iter().filter(|row| field(row, name).is_some_and(|v| v.to_lowercase() == given.to_lowercase())).collect()
        };
        let hits = ["uuid", "name", "slug"].iter().map(|name| by(name)).find(|hits| !hits.is_empty()).unwrap_or_default();
        let names = || rows.iter().filter_map(|r| field(r, "name")).map(|n| brief(&n, 60)).collect::<Vec<_>>().join(", ");
        match hits.as_slice() {
            [one] => {
                let uuid = field(one, "uuid").ok_or_else(|| ApiError::new(ErrorKind::NotTheService, SERVICE, "an environment without uuid"))?;
                self.api.memory.put(&key, json!(uuid));
                Ok(Environment { uuid, name: field(one, "name"), remembered_as: Some(key) })
            }
            [] => Err(ApiError::new(
                ErrorKind::NotFound,
                SERVICE,
                format!("{} has no deployment environment {:?}", place.full_name(), brief(given, 80)),
            )
            .advice(format!("There are: {}. Nothing was created.", names()))),
            _ => Err(ApiError::new(
                ErrorKind::Conflict,
                SERVICE,
                format!("{} deployment environments of {} answer to {:?}", hits.len(), place.full_name(), brief(given, 80)),
            )
            .advice("Give the environment's uuid, in braces.")),
        }
    }

    fn learn_repository(&self, place: &Place, uuid: &str) {
        if let Some(uuid) = place::uuid(uuid) {
            self.repositories.lock().unwrap_or_else(PoisonError::into_inner).insert(known_as(place), uuid);
        }
    }
}

#[async_trait]
impl Session for Connected {
    async fn test(&self, cx: &Cx, config: Option<&Map>) -> Result<TestReport, ApiError> {
        self.api.auth.learn(cx);
        let mut report = TestReport::default();
        report.notes.extend(self.api.endpoint.note.clone());
        self.who(cx, &mut report).await?;
        if let Some(config) = config {
            self.reach(cx, config, &mut report).await?;
        }
        Ok(report)
    }

    async fn choices(&self, cx: &Cx, field_name: &str, filled: &Map) -> Result<Vec<Choice>, ApiError> {
        self.api.auth.learn(cx);
        match field_name {
            "workspaceSlug" => self.workspaces(cx).await,
            "repositorySlug" => self.repositories(cx, filled).await,
            "environmentId" => {
                let place = Place::of(filled);
                if place.workspace.is_empty() || place.repository.is_empty() {
                    return Err(ApiError::new(ErrorKind::Invalid, SERVICE, "choose the workspace and the repository first"));
                }
                let rows = self.environments(cx, &place, Patience::Question).await?;
                let choice = |row: &Value| {
                    let value = field(row, "uuid")?;
                    let kind =
                        row.get("environment_type").and_then(|t| field(t, "name")).or_else(|| row.get("category").and_then(|t| field(t, "name")));
                    let name = brief(&field(row, "name").unwrap_or_else(|| value.clone()), 120);
                    Some(Choice { label: name, detail: kind.map(|k| format!("type {}", brief(&k, 40))), value })
                };
                Ok(rows.iter().filter_map(choice).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn open(&self, cx: &Cx, target: &Target) -> Result<Arc<dyn Destination>, ApiError> {
        self.api.auth.learn(cx);
        let place = Place::of(&target.config);
        if place.workspace.is_empty() || place.repository.is_empty() {
            return Err(ApiError::new(ErrorKind::Invalid, SERVICE, "workspaceSlug and repositorySlug are required"));
        }
        let variables = self.variables(cx, &place, Patience::Run).await?;
        variables.learn_slugs(cx).await?;
        Ok(Arc::new(variables))
    }

    fn budget(&self) -> Option<String> {
        Some(self.api.budget.text())
    }

    fn refused(&self) -> bool {
        self.api.refused()
    }
}

/// Compares the granted scopes, where the server names them, with what writing needs.
fn scope_notes(answer: &Answer, report: &mut TestReport) {
    let Some(granted) = answer.header("x-oauth-scopes") else { return };
    let granted: Vec<&str> = granted.split([',', ' ']).map(str::trim).filter(|s| !s.is_empty()).collect();
    if granted.is_empty() || granted.iter().any(|s| matches!(*s, "admin:pipeline:bitbucket" | "pipeline:variable")) {
        return;
    }
    let note = "The granted scopes do not include the one that writes variables (admin:pipeline:bitbucket, or Pipelines: Edit variables): writes will be refused.";
    report.notes.retain(|n| n != note);
    report.notes.insert(0, note.into());
}

fn field(row: &Value, name: &str) -> Option<String> {
    row.get(name).and_then(Value::as_str).map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned)
}

fn uuid_of(row: &Value) -> Option<String> {
    field(row, "uuid")
}

/// The identity of a workspace row, wrapped or bare, or of a repository.
fn row_id(row: &Value) -> Option<String> {
    let inner = row.get("workspace").filter(|w| w.is_object()).unwrap_or(row);
    field(inner, "uuid").or_else(|| field(inner, "slug"))
}
