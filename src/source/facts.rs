//! What projects, environments and folders exist: the pickers' questions, the names a run
//! needs, and a short memory of them so that a run costs few requests.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Api, Kms};
use super::errors::{Refusal, SERVICE};
use super::shapes::{Folders, OneProject, ProjectRow, Projects, ServiceToken};
use super::wire::Call;
use super::{Project, SourceRef};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::{Choice, TestReport};

/// How long names are believed; whether a folder still exists is asked at every reading.
const FRESH: Duration = Duration::from_secs(300);
/// A clock further off than this is worth a word, in seconds.
const SKEW: i64 = 60;

/// Place of a folder: project, environment, path.
pub(super) type Place = (String, String, String);

/// The short memory.
#[derive(Default)]
pub(super) struct Facts {
    projects: Mutex<HashMap<String, (Instant, Project)>>,
    folder_ids: Mutex<HashMap<Place, (Instant, Option<String>)>>,
    service_token: tokio::sync::Mutex<Option<ServiceToken>>,
}

impl Facts {
    fn project(&self, id: &str) -> Option<Project> {
        let projects = self.projects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        projects.get(id).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, p)| p.clone())
    }

    fn keep_project(&self, project: &Project) {
        let mut projects = self.projects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        projects.insert(project.id.clone(), (Instant::now(), project.clone()));
    }

    /// `Some(None)`: it was asked and cannot be told.
    pub fn folder_id(&self, place: &Place) -> Option<Option<String>> {
        let ids = self.folder_ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ids.get(place).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, id)| id.clone())
    }

    pub fn keep_folder_id(&self, place: Place, id: Option<String>) {
        self.folder_ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(place, (Instant::now(), id));
    }

    /// Something is not where it was: ask again.
    pub fn forget(&self, project: &str) {
        self.projects.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(project);
        self.folder_ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner).retain(|place, _| place.0 != project);
    }
}

impl Kms {
    /// Proves the credentials and says what this identity sees.
    pub async fn whoami(&self, cx: &Cx) -> Result<TestReport, ApiError> {
        let mut report = TestReport { identity: self.auth.identity(), notes: Vec::new() };
        // A login proves the identity; a ready token is proved by the first call that it opens.
        let mut proved = self.auth.logs_in();
        if self.auth.is_service_token() {
            let token = self.service_token(cx).await?;
            let scopes: Vec<_> = token.scopes.iter().map(|s| format!("{}:{}", s.environment, s.secret_path)).collect();
            report.identity = format!("service token {}", token.name.as_deref().unwrap_or_default());
            report.notes.push(format!("it reads {}", scopes.join(", ")));
        } else {
            match self.call(cx, &Call::get("GET /api/v1/identities/details", "api/v1/identities/details")).await {
                Ok(answer) => {
                    proved = true;
                    if let Some(skew) = answer.clock_skew().filter(|s| s.abs() > SKEW) {
                        report.notes.push(format!("this machine's clock differs by {} s from the server's: set it right", skew.abs()));
                    }
                    let details: serde_json::Value = answer.json(SERVICE)?;
                    if let Some(name) = details.pointer("/identityDetails/organization/name").and_then(serde_json::Value::as_str) {
                        report.identity = format!("{} of {}", report.identity, crate::model::text::brief(name, 80));
                    }
                }
                // Older servers lack the route, and user tokens are no identities: the projects tell.
                Err(refusal)
                    if refusal.route_missing || matches!(refusal.kind(), ErrorKind::Permission | ErrorKind::NotFound | ErrorKind::Invalid) => {}
                Err(refusal) => return Err(self.wire.explain(cx, refusal).await.into()),
            }
        }
        match self.list_projects(cx).await {
            Ok(projects) if projects.is_empty() => report.notes.push("it sees no project yet: add the identity to one".to_string()),
            Ok(projects) => {
                let names: Vec<_> = projects.iter().take(5).map(|p| crate::model::text::brief(&p.name, 40)).collect();
                let more = if projects.len() > names.len() { ", …" } else { "" };
                report.notes.push(format!("{} project(s) visible: {}{more}", projects.len(), names.join(", ")));
            }
            Err(error) if error.kind == ErrorKind::Permission && proved => {
                report.notes.push("projects cannot be listed with these credentials: type the project's id".to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(report)
    }

    /// All projects of the secret kind that this identity may see, by name.
    pub async fn list_projects(&self, cx: &Cx) -> Result<Vec<Project>, ApiError> {
        let rows = if self.auth.is_service_token() {
            let token = self.service_token(cx).await?;
            let id = token.project_id.or(token.workspace).unwrap_or_default();
            vec![self.fetch_project(cx, &id).await?]
        } else {
            self.project_rows(cx).await?
        };
        let mut projects: Vec<Project> = rows.into_iter().filter(ProjectRow::holds_secrets).map(Project::from).collect();
        projects.sort_by(|a, b| a.name.to_lowercase().cmp(&b.name.to_lowercase()).then_with(|| a.id.cmp(&b.id)));
        projects.iter().filter(|p| !p.environments.is_empty()).for_each(|p| self.facts.keep_project(p));
        Ok(projects)
    }

    /// The newest route first; an old server answers identities only by organisation.
    async fn project_rows(&self, cx: &Cx) -> Result<Vec<ProjectRow>, ApiError> {
        let elsewhere = |r: &Refusal| r.route_missing || matches!(r.kind(), ErrorKind::Permission | ErrorKind::NotFound);
        let first = match self.call(cx, &Call::get("GET /api/v1/projects", "api/v1/projects")).await {
            Ok(answer) => match answer.json::<Projects>(SERVICE) {
                Ok(list) => return Ok(list.projects),
                Err(error) => return Err(self.wire.explain(cx, error.into()).await.into()),
            },
            Err(refusal) if elsewhere(&refusal) => refusal,
            Err(refusal) => return Err(self.wire.explain(cx, refusal).await.into()),
        };
        let second = match self.call(cx, &Call::get("GET /api/v1/workspace", "api/v1/workspace")).await {
            Ok(answer) => return Ok(answer.json::<Projects>(SERVICE)?.projects),
            Err(refusal) if elsewhere(&refusal) => refusal,
            Err(refusal) => return Err(refusal.into()),
        };
        if let Some(organization) = self.auth.organization_id().await {
            let call = Call::get("GET /api/v2/organizations/{orgId}/workspaces", "api/v2/organizations").segment(&organization).segment("workspaces");
            match self.call(cx, &call).await {
                Ok(answer) => return Ok(answer.json::<Projects>(SERVICE)?.projects),
                Err(refusal) if elsewhere(&refusal) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        if first.route_missing && second.route_missing {
            let refusal = self.wire.explain(cx, second).await;
            if refusal.kind() == ErrorKind::NotTheService {
                return Err(refusal.into());
            }
        }
        Err(ApiError::new(ErrorKind::Permission, SERVICE, "this server does not let a machine identity list its projects")
            .advice("Type the project's id: the dashboard shows it in the project's settings."))
    }

    /// One project, from memory when it is fresh. `None` when this identity may not look at it.
    pub async fn project(&self, cx: &Cx, id: &str) -> Result<Option<Project>, ApiError> {
        if let Some(project) = self.facts.project(id) {
            return Ok(Some(project));
        }
        match self.fetch_project(cx, id).await {
            Ok(row) => {
                let project = Project::from(row);
                self.facts.keep_project(&project);
                Ok(Some(project))
            }
            Err(error) if error.kind == ErrorKind::Permission => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn fetch_project(&self, cx: &Cx, id: &str) -> Result<ProjectRow, ApiError> {
        let new = || Call::get("GET /api/v1/projects/{id}", "api/v1/projects").segment(id);
        let old = || Call::get("GET /api/v1/workspace/{id}", "api/v1/workspace").segment(id);
        let [first, second] = if self.api() == Api::V3 { [old(), new()] } else { [new(), old()] };
        let answer = match self.call(cx, &first).await {
            Err(refusal) if refusal.route_missing => self.call(cx, &second).await,
            other => other,
        };
        match answer {
            Ok(answer) => Ok(answer.json::<OneProject>(SERVICE)?.into()),
            // A server without either route cannot tell, which is no proof of absence.
            Err(refusal) if refusal.route_missing => {
                Err(ApiError::new(ErrorKind::Permission, SERVICE, "this server does not show single projects to this identity"))
            }
            Err(refusal) if refusal.kind() == ErrorKind::NotFound => {
                let mut error = refusal.error;
                error.message = format!("project {} was not found: {}", crate::model::text::brief(id, 80), error.message);
                Err(error.advice("Check the project's id, and that the machine identity is a member of the project."))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The service token's own description, asked once per session.
    pub async fn service_token(&self, cx: &Cx) -> Result<ServiceToken, ApiError> {
        let mut known = self.facts.service_token.lock().await;
        if let Some(token) = &*known {
            return Ok(token.clone());
        }
        let answer = self.call(cx, &Call::get("GET /api/v2/service-token", "api/v2/service-token")).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) => return Err(self.wire.explain(cx, refusal).await.into()),
        };
        let token: ServiceToken = answer.json(SERVICE)?;
        *known = Some(token.clone());
        Ok(token)
    }

    /// Folders directly below a path, for the picker.
    pub async fn list_folders(&self, cx: &Cx, at: &SourceRef) -> Result<Vec<Choice>, ApiError> {
        let folders = self.folder_rows(cx, &at.project_id, &at.environment, &at.path).await?;
        let mut choices: Vec<Choice> = folders.folders.into_iter().map(|f| Choice { value: f.name.clone(), label: f.name, detail: None }).collect();
        choices.sort_by(|a, b| a.label.cmp(&b.label));
        Ok(choices)
    }

    /// The folder list of one path. Its `path` parameter is always sent: a lone `directory`
    /// would list the root.
    pub async fn folder_rows(&self, cx: &Cx, project: &str, environment: &str, path: &str) -> Result<Folders, Refusal> {
        let rest = [("environment", environment), ("path", path)];
        let new = || Call::get("GET /api/v2/folders", "api/v2/folders").query(&[("projectId", project)]).query(&rest);
        let old = || Call::get("GET /api/v1/folders", "api/v1/folders").query(&[("workspaceId", project)]).query(&rest);
        let [first, second] = if self.api() == Api::V3 { [old(), new()] } else { [new(), old()] };
        let answer = match self.call(cx, &first).await {
            Err(refusal) if refusal.route_missing => self.call(cx, &second).await?,
            other => other?,
        };
        Ok(answer.json(SERVICE)?)
    }
}
