//! A reading, whole or conditional: fetch the list, mend what the server encodes or leaves
//! unexpanded, prove that nothing is missing, merge.

use std::collections::HashMap;

use super::client::{Api, Kms};
use super::errors::SERVICE;
use super::list::{Ask, Fetched};
use super::merge::{maybe_wrapped, merge, unexpanded, unwrap_multiline};
use super::shapes::{Hidden, Listed, Row, tidy};
use super::{Polled, SourceMap, SourceRef};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::SecretValue;

impl Kms {
    /// Reads everything and proves it whole.
    pub async fn read_whole(&self, cx: &Cx, at: &SourceRef) -> Result<SourceMap, ApiError> {
        match self.poll_with(cx, at, None).await? {
            Polled::Changed { map, .. } => Ok(*map),
            Polled::Unchanged => Err(ApiError::new(ErrorKind::NotTheService, SERVICE, "304 without a condition")),
        }
    }

    /// One conditional request while nothing changed. Leaves half of the rate limit to others.
    pub async fn poll_once(&self, cx: &Cx, at: &SourceRef, etag: Option<&str>) -> Result<Polled, ApiError> {
        self.wire.pace.yield_to_others(cx, super::pace::Bucket::Secrets).await?;
        self.poll_with(cx, at, etag).await
    }

    async fn poll_with(&self, cx: &Cx, at: &SourceRef, etag: Option<&str>) -> Result<Polled, ApiError> {
        if self.auth.is_service_token() {
            self.check_scope(cx, at).await?;
        }
        let (mut listed, etag) = match self.fetch(cx, Ask { etag, ..Ask::resolved(at) }).await {
            Ok(Fetched::Unchanged) => return Ok(Polled::Unchanged),
            Ok(Fetched::List { listed, etag }) => (listed, etag),
            Err(refusal) => {
                let error = ApiError::from(refusal);
                if error.kind == ErrorKind::NotFound {
                    // The proof knows which part of the address is missing.
                    self.facts.forget(&at.project_id);
                    self.prove(cx, at, true).await?;
                }
                return Err(self.placed(error, at));
            }
        };
        self.check_place(at, &listed)?;
        if listed.secrets.iter().any(|r| r.shared() && maybe_wrapped(r)) {
            let stored = self.list(cx, Ask::stored(at)).await.map_err(|r| self.placed(r.into(), at))?;
            unwrap_multiline(&mut listed, &stored);
        }
        if self.api() == Api::V3 {
            self.expand_blocks(cx, at, &mut listed).await;
        }
        let empty = !listed.secrets.iter().any(Row::shared) && listed.imports.as_ref().is_none_or(Vec::is_empty);
        let proof = self.prove(cx, at, empty).await?;
        let map = merge(at, listed, proof);
        map.secrets.iter().for_each(|s| cx.redactor().learn(&s.value));
        Ok(Polled::Changed { map: Box::new(map), etag })
    }

    /// Says which place a refusal is about.
    fn placed(&self, mut error: ApiError, at: &SourceRef) -> ApiError {
        if matches!(error.kind, ErrorKind::Permission | ErrorKind::NotFound | ErrorKind::Invalid) {
            error.message = format!("{} (project {}, environment {}, path {})", error.message, at.project_id, at.environment, at.path);
        }
        error
    }

    /// A service token with one plain scope answers for that scope, whatever is asked.
    async fn check_scope(&self, cx: &Cx, at: &SourceRef) -> Result<(), ApiError> {
        let token = match self.service_token(cx).await {
            Ok(token) => token,
            // The rows themselves are compared as well; an empty answer is then proved by the imports.
            Err(error) if matches!(error.kind, ErrorKind::Permission | ErrorKind::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        let project = token.project_id.or(token.workspace);
        let [scope] = token.scopes.as_slice() else { return Ok(()) };
        let globbed = scope.secret_path.contains(['*', '?', '[', '{']);
        let same_project = project.as_deref().is_none_or(|p| p == at.project_id);
        if !globbed && (!same_project || scope.environment != at.environment || tidy(&scope.secret_path) != tidy(&at.path)) {
            return Err(other_scope(at, &scope.environment, &scope.secret_path));
        }
        Ok(())
    }

    /// Rows of another place than the one that was asked for.
    fn check_place(&self, at: &SourceRef, listed: &Listed) -> Result<(), ApiError> {
        for row in listed.secrets.iter().filter(|r| r.shared()) {
            let environment = row.environment.as_deref().unwrap_or(&at.environment);
            let path = row.secret_path.as_deref().map(tidy);
            let wrong_path = !at.recursive && path.is_some_and(|p| p != tidy(&at.path));
            if environment != at.environment || wrong_path {
                return Err(other_scope(at, environment, path.unwrap_or("/")));
            }
        }
        Ok(())
    }

    /// Old servers leave references in imported rows as they are: ask the imported folder itself.
    /// What cannot be had stays, and is warned of by the merge.
    async fn expand_blocks(&self, cx: &Cx, at: &SourceRef, listed: &mut Listed) {
        let open = |row: &Row| row.secret_value.as_ref().is_some_and(|v| unexpanded(v.0.expose()).is_some());
        for block in listed.imports.iter_mut().flatten().filter(|b| b.secrets.iter().any(open)) {
            let environment = block.environment.clone().unwrap_or_else(|| at.environment.clone());
            let path = block.secret_path.clone().unwrap_or_else(|| "/".to_string());
            let ask = Ask { environment: &environment, path: tidy(&path), recursive: false, ..Ask::resolved(at) };
            let Ok(expanded) = self.list(cx, ask).await else { continue };
            let values: HashMap<&str, SecretValue> = expanded
                .secrets
                .iter()
                .filter(|r| r.shared())
                .filter_map(|r| Some((r.secret_key.as_str(), r.secret_value.as_ref()?.0.clone())))
                .collect();
            for row in block.secrets.iter_mut().filter(|r| open(r)) {
                if let Some(value) = values.get(row.secret_key.as_str()) {
                    row.secret_value = Some(Hidden(value.clone()));
                }
            }
        }
    }
}

fn other_scope(at: &SourceRef, environment: &str, path: &str) -> ApiError {
    let (environment, path) = (crate::model::text::brief(environment, 80), crate::model::text::brief(path, 200));
    ApiError::new(ErrorKind::Permission, SERVICE, format!("asked for {}:{}, this token answers for {environment}:{path}", at.environment, at.path))
        .advice("A service token reads only the place it was made for: use a machine identity, or a token for this place.")
}
