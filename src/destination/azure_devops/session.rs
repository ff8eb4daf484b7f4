//! A connection in use: its test, the pickers, and opening a target.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::Method;
use serde_json::Value;

use super::api::Resource;
use super::client::{Call, Client, Scope};
use super::errors::{Doing, is_guid};
use super::group::{Tally, continuation};
use super::target::DevOpsTarget;
use super::trace::Trace;
use super::{SERVICE, text};
use crate::destination::{Choice, Destination, Session, Target, TestReport};
use crate::http::{ApiError, Cx, ErrorKind, Pages};
use crate::model::connection::ResolvedConnection;
use crate::model::text::brief;
use crate::model::{Map, Memory};

pub(super) struct DevOpsSession {
    client: Arc<Client>,
    organisation: String,
    memory: Arc<dyn Memory>,
    /// Projects that the configuration names by name, with their ids.
    resolved: Mutex<HashMap<String, String>>,
}

impl DevOpsSession {
    pub fn new(connection: &ResolvedConnection, memory: Arc<dyn Memory>) -> Result<Self, ApiError> {
        Ok(Self {
            client: Arc::new(Client::new(connection)?),
            organisation: connection.text("orgName").unwrap_or_default().to_string(),
            memory,
            resolved: Mutex::new(HashMap::new()),
        })
    }

    /// Calls `GET /_apis/projects` page by page. Microsoft: "Projects - List".
    async fn projects(&self, cx: &Cx) -> Result<Vec<Value>, ApiError> {
        let mut all: Vec<Value> = Vec::new();
        let mut token: Option<String> = None;
        let mut pages = Pages::of(SERVICE, "the list of projects");
        let mut tally = Tally::default();
        loop {
            let mut query = vec![("$top", "100".to_string())];
            query.extend(token.clone().map(|t| ("continuationToken", t)));
            let answer = self.client.send(cx, &list_projects(query)).await?;
            let projects = tally.page(&answer, "a list of projects")?;
            let next = continuation(&answer);
            if let Some(next) = &next {
                pages.turn(next, projects.iter().map(Value::to_string))?;
            }
            all.extend(projects);
            if next.is_none() {
                return tally.complete("projects").map(|()| all);
            }
            token = next;
        }
    }

    async fn project(&self, cx: &Cx, id_or_name: &str) -> Result<(String, String), ApiError> {
        let call = Call {
            method: Method::GET,
            label: "GET /_apis/projects/{project}",
            doing: Doing::ListProjects,
            resource: Resource::Projects,
            scope: Scope::Organisation,
            tail: &[id_or_name],
            query: Vec::new(),
            body: None,
        };
        let answer = self.client.send(cx, &call).await?;
        let project: Value = answer.json(SERVICE)?;
        let part = |name: &str| project.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let id = part("id");
        if !is_guid(&id) {
            return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "the answer is not a project as the API documents it"));
        }
        Ok((id, part("name")))
    }

    async fn target(&self, cx: &Cx, target: &Target) -> Result<DevOpsTarget, ApiError> {
        let project = self.project_id(cx, &target.config).await?;
        let trace = Trace::new(self.memory.clone(), self.client.base(), &project);
        Ok(DevOpsTarget::new(self.client.clone(), trace, project, target))
    }

    /// What is true of a project that a sync is to use. A credential that may not list
    /// projects is no worse for a sync that knows its project's id.
    async fn test_target(&self, cx: &Cx, given: &str, unlisted: Option<&ApiError>) -> Result<String, ApiError> {
        let (id, name) = match unlisted {
            None => self.project(cx, given).await?,
            Some(error) if is_guid(given) && matches!(error.kind, ErrorKind::Auth | ErrorKind::Permission) => (given.to_string(), String::new()),
            Some(error) => return Err(error.clone()),
        };
        DevOpsTarget::probe(&self.client, cx, &id).await?;
        let shown = if name.is_empty() { "The project".to_string() } else { format!("Project {}", brief(&name, 80)) };
        Ok(format!("{shown} is there, and its variable groups can be listed; whether they may be written shows at the first write."))
    }

    /// The GUID that request bodies need. A name in its place is looked up once.
    async fn project_id(&self, cx: &Cx, config: &Map) -> Result<String, ApiError> {
        let given = text(config, "devopsProjectId").ok_or_else(|| {
            ApiError::new(ErrorKind::Invalid, SERVICE, "destinationConfig.devopsProjectId is empty").advice("Pick the project again.")
        })?;
        if is_guid(given) {
            return Ok(given.to_string());
        }
        let known = self.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(given).cloned();
        if let Some(id) = known {
            return Ok(id);
        }
        let (id, _) = self.project(cx, given).await?;
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).insert(given.to_string(), id.clone());
        Ok(id)
    }
}

fn list_projects<'a>(query: Vec<(&'static str, String)>) -> Call<'a> {
    Call {
        method: Method::GET,
        label: "GET /_apis/projects",
        doing: Doing::ListProjects,
        resource: Resource::Projects,
        scope: Scope::Organisation,
        tail: &[],
        query,
        body: None,
    }
}

#[async_trait]
impl Session for DevOpsSession {
    async fn test(&self, cx: &Cx, config: Option<&Map>) -> Result<TestReport, ApiError> {
        let given = config.and_then(|c| text(c, "devopsProjectId"));
        let listed = self.client.send(cx, &list_projects(vec![("$top", "1".into())])).await;
        let mut report = TestReport { identity: format!("organization {}", brief(&self.organisation, 80)), notes: Vec::new() };
        let target = match given {
            Some(given) => Some(self.test_target(cx, given, listed.as_ref().err()).await?),
            None => None,
        };
        report.notes.extend(target);
        match &listed {
            Ok(answer) => {
                let visible = Tally::default().page(answer, "a list of projects")?.len();
                // "id:mail" of the identity, on answers of Azure DevOps Services.
                if let Some((_, user)) = answer.header("x-vss-userdata").and_then(|u| u.split_once(':')).filter(|(_, u)| !u.is_empty()) {
                    report.identity.push_str(&format!(", as {}", brief(user, 80)));
                }
                report.notes.push(if visible == 0 {
                    "The credential is good, but no project is visible to it.".into()
                } else {
                    format!("Projects can be listed (API version {}).", self.client.version())
                });
            }
            Err(error) if report.notes.is_empty() => return Err(error.clone()),
            Err(_) => report.notes.push("This credential may not list projects: their ids are typed by hand.".into()),
        }
        report.notes.extend(self.client.version_warning());
        Ok(report)
    }

    async fn choices(&self, cx: &Cx, field: &str, _filled: &Map) -> Result<Vec<Choice>, ApiError> {
        if field != "devopsProjectId" {
            return Ok(Vec::new());
        }
        let mut choices: Vec<Choice> = self
            .projects(cx)
            .await?
            .iter()
            .filter_map(|p| {
                let part = |name: &str| p.get(name).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty());
                let detail = part("description").or_else(|| part("visibility"));
                Some(Choice { value: part("id")?.to_string(), label: brief(part("name")?, 120), detail: detail.map(|d| brief(d, 120)) })
            })
            .collect();
        choices.sort_by_key(|c| c.label.to_lowercase());
        choices.dedup_by(|a, b| a.value == b.value);
        Ok(choices)
    }

    async fn open(&self, cx: &Cx, target: &Target) -> Result<Arc<dyn Destination>, ApiError> {
        Ok(Arc::new(self.target(cx, target).await?))
    }

    async fn open_for_removal(&self, cx: &Cx, target: &Target) -> Result<Arc<dyn Destination>, ApiError> {
        let mut opened = self.target(cx, target).await?;
        opened.follow(cx).await?;
        Ok(Arc::new(opened))
    }

    fn budget(&self) -> Option<String> {
        self.client.budget()
    }
}
