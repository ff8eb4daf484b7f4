//! Which places are one, whatever a sync calls them: two runs must not write one place at once.
//!
//! A deployment environment is told by its uuid alone. A repository is known by its slugs; where
//! a sync spells workspace or repository by uuid, the slugs are asked for once and remembered.

use serde_json::{Value, json};

use super::memory::repository_memory;
use super::paging;
use super::target::Variables;
use crate::http::{ApiError, Cx, ErrorKind};

impl Variables {
    fn spelled_by_uuid(&self) -> bool {
        [&self.place.workspace, &self.place.repository].iter().any(|part| part.starts_with('{'))
    }

    fn called(&self) -> String {
        format!("{}/called", repository_memory(&self.api, &self.place))
    }

    /// Learns the slugs of a place that is spelled by uuids. Fails only when cancelled: without
    /// them the spelling stands for the place.
    pub(super) async fn learn_slugs(&self, cx: &Cx) -> Result<(), ApiError> {
        if self.environment.is_some() || !self.spelled_by_uuid() || self.api.memory.get(&self.called()).is_some() {
            return Ok(());
        }
        match self.ask_repository(cx, &self.place.repository, super::budget::Patience::Run).await {
            Ok(answer) if answer.ok() => {
                let name = paging::object(&answer).ok().and_then(|o| o.get("full_name").and_then(Value::as_str).map(str::to_lowercase));
                if let Some(name) = name {
                    self.api.memory.put(&self.called(), json!(name));
                }
                Ok(())
            }
            Err(error) if error.kind == ErrorKind::Cancelled => Err(error),
            // What is wrong is told by the calls that follow.
            _ => Ok(()),
        }
    }

    /// Equal for every spelling of this place.
    pub(super) fn one_place(&self) -> String {
        let endpoint = self.api.endpoint.identity();
        if let Some(environment) = &self.environment {
            return format!("bitbucket|{endpoint}|{}", environment.uuid.to_lowercase());
        }
        let (workspace, repository) = self.place.folded();
        let called = if self.spelled_by_uuid() { self.api.memory.get(&self.called()) } else { None };
        let called = called.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_else(|| format!("{workspace}/{repository}"));
        format!("bitbucket|{endpoint}|{called}")
    }
}
