//! Why a list is refused: asked only when something is wrong, never in a good run.

use std::sync::PoisonError;

use serde_json::{Value, json};

use super::budget::Patience;
use super::client::Call;
use super::errors::Told;
use super::memory::repository_memory;
use super::paging::{self, Listed};
use super::place;
use super::target::{Environment, Variables};
use crate::http::{Answer, ApiError, Cx, ErrorKind};
use crate::model::text::brief;

impl Variables {
    /// Finds out why a list is refused, and lists in the one way this server accepts. At most
    /// four calls, and only when something is wrong: never in a good run.
    pub(super) async fn diagnose(&self, cx: &Cx, refused: Answer, patience: Patience) -> Result<Vec<Value>, ApiError> {
        let full = self.place.full_name();
        let repository = self.ask_repository(cx, &self.address(), patience).await?;
        if repository.ok() {
            self.learn_repository(&repository);
        } else if !Told::read(&repository.body).lacks_scope() {
            if let Some(rows) = self.renamed(cx, patience).await? {
                return Ok(rows);
            }
            // A redirect or a refusal of the repository tells more than that of its variables.
            return Err(self.failed(cx, &repository, &format!("cannot find the repository {full}")));
        }
        if let Some(environment) = &self.environment {
            self.ask_environment(cx, environment, patience).await?;
            if let Listed::Rows(rows) = self.attempt(cx, self.api.slashed(), true, patience).await? {
                return Ok(rows);
            }
        }
        let other = !self.api.slashed();
        if let Listed::Rows(rows) = self.attempt(cx, other, false, patience).await? {
            self.api.set_slashed(other);
            return Ok(rows);
        }
        if refused.redirect().is_some() {
            // It says where, which is more than whether Pipelines is on.
            return Err(self.failed(cx, &refused, &self.what()));
        }
        let address = self.address();
        let call = Call::get(
            "/repositories/{workspace}/{repository}/pipelines_config",
            vec!["repositories", &self.place.workspace, &address, "pipelines_config"],
        );
        let switch = self.api.send(cx, &call.patience(patience)).await?;
        let enabled = switch.ok().then(|| paging::object(&switch).ok().and_then(|o| o.get("enabled").and_then(Value::as_bool))).flatten();
        let error = self.failed(cx, &refused, &self.what());
        if switch.status == 404 || enabled == Some(false) {
            return Err(ApiError { kind: ErrorKind::NotFound, ..error }
                .advice(format!("Pipelines is switched off for {full}: Repository settings → Pipelines → Settings → Enable Pipelines.")));
        }
        Err(error.advice(format!("The repository is there and Pipelines is on: the account must be administrator of {full} to see its variables.")))
    }

    pub(super) async fn ask_repository(&self, cx: &Cx, address: &str, patience: Patience) -> Result<Answer, ApiError> {
        let call = Call::get("/repositories/{workspace}/{repository}", vec!["repositories", &self.place.workspace, address])
            .query("fields", "uuid,slug,full_name")
            .patience(patience);
        self.api.send(cx, &call).await
    }

    fn learn_repository(&self, answer: &Answer) {
        let uuid = paging::object(answer).ok().and_then(|o| o.get("uuid").and_then(Value::as_str).and_then(place::uuid));
        if let Some(uuid) = uuid {
            self.api.memory.put(&repository_memory(&self.api, &self.place), json!(uuid));
        }
    }

    /// A repository that is gone under its slug may still be there under the uuid we know.
    async fn renamed(&self, cx: &Cx, patience: Patience) -> Result<Option<Vec<Value>>, ApiError> {
        let Some(uuid) = self.api.memory.get(&repository_memory(&self.api, &self.place)).and_then(|v| v.as_str().and_then(place::uuid)) else {
            return Ok(None);
        };
        if uuid == self.address() {
            return Ok(None);
        }
        let answer = self.ask_repository(cx, &uuid, patience).await?;
        if !answer.ok() {
            return Ok(None);
        }
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = uuid;
        match self.attempt(cx, self.api.slashed(), false, patience).await? {
            Listed::Rows(rows) => Ok(Some(rows)),
            Listed::Refused(answer) => Err(self.failed(cx, &answer, &self.what())),
        }
    }

    async fn ask_environment(&self, cx: &Cx, environment: &Environment, patience: Patience) -> Result<(), ApiError> {
        let address = self.address();
        let call = Call::get(
            "/repositories/{workspace}/{repository}/environments/{environment}",
            vec!["repositories", &self.place.workspace, &address, "environments", &environment.uuid],
        );
        let answer = self.api.send(cx, &call.patience(patience)).await?;
        if answer.status != 404 {
            // Only a 404 says that it is gone: other answers leave the question open.
            return if Told::read(&answer.body).malformed() { Err(self.failed(cx, &answer, &self.what())) } else { Ok(()) };
        }
        self.overrides.forget(&environment.uuid);
        let name = environment.name.as_deref().unwrap_or(&environment.uuid);
        let mut error = self.failed(cx, &answer, &format!("the deployment environment {} of {} is gone", brief(name, 80), self.place.full_name()));
        error.kind = ErrorKind::NotFound;
        error.advice = Some(match &environment.remembered_as {
            Some(key) => {
                self.api.memory.put(key, Value::Null);
                "If it was made anew under this name, run the sync again: it will ask as a first run does. Nothing was written.".into()
            }
            None => "Choose another environment in the sync's configuration. Nothing was written or created.".into(),
        });
        Err(error)
    }
}
