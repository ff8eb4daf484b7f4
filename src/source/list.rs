//! The one request that fetches secrets: v4 with every parameter said, v3 where the server
//! has no v4, conditional when a tag is given.

use super::client::{Api, Kms};
use super::errors::{Refusal, SERVICE};
use super::pace::Bucket;
use super::shapes::Listed;
use super::wire::Call;
use super::{SourceRef, shapes};
use crate::http::{Answer, Cx, ErrorKind};

/// What to fetch.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub project: &'a str,
    pub environment: &'a str,
    pub path: &'a str,
    pub recursive: bool,
    /// With imports and expanded references, or the folder's own rows as they are stored.
    pub resolved: bool,
    pub etag: Option<&'a str>,
}

impl<'a> Ask<'a> {
    /// What a source resolves to.
    pub fn resolved(at: &'a SourceRef) -> Self {
        Self {
            project: &at.project_id,
            environment: &at.environment,
            path: shapes::tidy(&at.path),
            recursive: at.recursive,
            resolved: true,
            etag: None,
        }
    }

    /// The folder's own rows, unexpanded.
    pub fn stored(at: &'a SourceRef) -> Self {
        Self { resolved: false, ..Self::resolved(at) }
    }

    fn v4(&self) -> Call<'a> {
        let flag = |on: bool| if on { "true" } else { "false" };
        // Defaults changed between builds, and early v4 builds know only `include_imports`.
        Call::get("GET /api/v4/secrets", "api/v4/secrets").bucket(Bucket::Secrets).etag(self.etag).query(&[
            ("projectId", self.project),
            ("environment", self.environment),
            ("secretPath", self.path),
            ("includeImports", flag(self.resolved)),
            ("include_imports", flag(self.resolved)),
            ("expandSecretReferences", flag(self.resolved)),
            ("recursive", flag(self.recursive)),
            ("viewSecretValue", "true"),
            ("includePersonalOverrides", "false"),
        ])
    }

    fn v3(&self) -> Call<'a> {
        let flag = |on: bool| if on { "true" } else { "false" };
        Call::get("GET /api/v3/secrets/raw", "api/v3/secrets/raw").bucket(Bucket::Secrets).etag(self.etag).query(&[
            ("workspaceId", self.project),
            ("environment", self.environment),
            ("secretPath", self.path),
            ("include_imports", flag(self.resolved)),
            ("expandSecretReferences", flag(self.resolved)),
            ("recursive", flag(self.recursive)),
            ("viewSecretValue", "true"),
        ])
    }
}

/// A list, or the news that the tag still holds.
pub(super) enum Fetched {
    Unchanged,
    List { listed: Listed, etag: Option<String> },
}

impl Kms {
    /// Fetches a list, unconditionally.
    pub async fn list(&self, cx: &Cx, ask: Ask<'_>) -> Result<Listed, Refusal> {
        match self.fetch(cx, Ask { etag: None, ..ask }).await? {
            Fetched::List { listed, .. } => Ok(listed),
            Fetched::Unchanged => Err(crate::http::ApiError::new(ErrorKind::NotTheService, SERVICE, "304 without a condition").into()),
        }
    }

    /// Fetches a list. A tag of our own making is compared here and never sent.
    pub async fn fetch(&self, cx: &Cx, ask: Ask<'_>) -> Result<Fetched, Refusal> {
        let own_tag = ask.etag.filter(|t| t.starts_with(OWN_TAG));
        let answer = self.list_answer(cx, Ask { etag: ask.etag.filter(|_| own_tag.is_none()), ..ask }).await?;
        if answer.status == 304 {
            return Ok(Fetched::Unchanged);
        }
        let etag = match answer.header("etag") {
            Some(tag) => Some(tag.to_string()),
            None if ask.resolved => Some(format!("{OWN_TAG}{}", blake3::keyed_hash(&self.tag_key, &answer.body).to_hex())),
            None => None,
        };
        // Some proxies drop the condition and the server then answers in full.
        if etag.is_some() && etag.as_deref() == ask.etag {
            return Ok(Fetched::Unchanged);
        }
        match answer.json::<Listed>(SERVICE) {
            Ok(listed) => Ok(Fetched::List { listed, etag }),
            Err(error) => Err(self.wire.explain(cx, error.into()).await),
        }
    }

    async fn list_answer(&self, cx: &Cx, ask: Ask<'_>) -> Result<Answer, Refusal> {
        let (first, other) = match self.api() {
            Api::V3 => (ask.v3(), None),
            Api::V4 => (ask.v4(), None),
            Api::Unknown => (ask.v4(), Some(ask.v3())),
        };
        match (self.call(cx, &first).await, other) {
            (Ok(answer), other) => {
                // A page with status 200 proves nothing about routes.
                if other.is_some() && (answer.status == 304 || answer.is_json()) {
                    self.learn_api(Api::V4);
                }
                Ok(answer)
            }
            (Err(refusal), Some(v3)) if refusal.route_missing => match self.call(cx, &v3).await {
                Ok(answer) => {
                    if answer.status == 304 || answer.is_json() {
                        self.learn_api(Api::V3);
                    }
                    Ok(answer)
                }
                Err(refusal) => Err(self.wire.explain(cx, refusal).await),
            },
            (Err(refusal), _) => {
                // The server was exchanged for another generation: look again next time.
                if refusal.route_missing {
                    self.learn_api(Api::Unknown);
                }
                Err(self.wire.explain(cx, refusal).await)
            }
        }
    }
}

/// Starts the tags that are made here because the server sends none.
const OWN_TAG: &str = "kms-sync-local:";
