//! The account: one call with its token, the single repeat after a new login, and the
//! [`Source`] face that delegates to the modules beside this one.

use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;

use super::auth::Auth;
use super::errors::Refusal;
use super::events::{Change, Events};
use super::facts::Facts;
use super::wire::{Call, Wire};
use super::write::Pending;
use super::{Polled, Project, ServerSync, Source, SourceMap, SourceRef, SourceWrite, WriteOutcome};
use crate::http::{Answer, ApiError, Cx, ErrorKind};
use crate::model::connection::ResolvedConnection;
use crate::model::{Choice, TestReport};

/// Which secrets API the server answers; learned from what it answers, kept for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Unknown,
    V4,
    V3,
}

/// One KMS account.
pub(super) struct Kms {
    pub wire: Wire,
    pub auth: Auth,
    pub facts: Facts,
    pub events: Events,
    pub pending: Pending,
    /// Makes change tags for servers that send none; never leaves the process.
    pub tag_key: [u8; 32],
    api: AtomicU8,
}

impl Kms {
    pub fn new(connection: &ResolvedConnection) -> Result<Self, ApiError> {
        Ok(Self {
            wire: Wire::new(connection)?,
            auth: Auth::new(connection)?,
            facts: Facts::default(),
            events: Events::default(),
            pending: Pending::default(),
            tag_key: rand::random(),
            api: AtomicU8::new(0),
        })
    }

    pub fn api(&self) -> Api {
        match self.api.load(Ordering::Relaxed) {
            4 => Api::V4,
            3 => Api::V3,
            _ => Api::Unknown,
        }
    }

    pub fn learn_api(&self, api: Api) {
        let number = match api {
            Api::Unknown => 0,
            Api::V4 => 4,
            Api::V3 => 3,
        };
        self.api.store(number, Ordering::Relaxed);
    }

    /// Sends a call with the account's token. A token that the server calls dead is replaced
    /// once and the call repeated once; a missing right is never answered by a login.
    pub async fn call(&self, cx: &Cx, call: &Call<'_>) -> Result<Answer, Refusal> {
        let mut repeated = false;
        loop {
            let ticket = self.auth.ticket(cx, &self.wire).await?;
            let answer = self.wire.send(cx, call, Some(&ticket.bearer)).await?;
            if answer.ok() || (answer.status == 304 && call.etag.is_some()) {
                self.auth.proven(ticket.number).await;
                return Ok(answer);
            }
            let mut refusal = Refusal::read(cx, &answer);
            if refusal.dead_token() {
                if !repeated && self.auth.dead(ticket.number).await {
                    repeated = true;
                    continue;
                }
                if refusal.not_allowed() {
                    refusal.error.kind = ErrorKind::Permission;
                }
            } else {
                // The server knew who asked, whatever it thinks of the question.
                self.auth.proven(ticket.number).await;
            }
            return Err(refusal);
        }
    }
}

#[async_trait]
impl Source for Kms {
    async fn test(&self, cx: &Cx) -> Result<TestReport, ApiError> {
        self.auth.forgive().await;
        self.whoami(cx).await
    }

    async fn projects(&self, cx: &Cx) -> Result<Vec<Project>, ApiError> {
        self.list_projects(cx).await
    }

    async fn folders(&self, cx: &Cx, at: &SourceRef) -> Result<Vec<Choice>, ApiError> {
        self.list_folders(cx, at).await
    }

    async fn read(&self, cx: &Cx, at: &SourceRef) -> Result<SourceMap, ApiError> {
        self.read_whole(cx, at).await
    }

    async fn poll(&self, cx: &Cx, at: &SourceRef, etag: Option<&str>) -> Result<Polled, ApiError> {
        self.poll_once(cx, at, etag).await
    }

    async fn write(&self, cx: &Cx, at: &SourceRef, writes: &[SourceWrite]) -> Result<Vec<(String, WriteOutcome)>, ApiError> {
        self.write_all(cx, at, writes).await
    }

    fn host(&self) -> String {
        self.wire.host()
    }

    async fn hint(&self, cx: &Cx, places: &[SourceRef]) -> Result<Option<Vec<Change>>, ApiError> {
        self.wait_for_hint(cx, places).await
    }

    async fn at_hand(&self) -> bool {
        self.auth.at_hand().await
    }

    async fn server_syncs(&self, cx: &Cx, project: &str) -> Result<Vec<ServerSync>, ApiError> {
        self.list_server_syncs(cx, project).await
    }

    async fn switch_off(&self, cx: &Cx, sync: &ServerSync) -> Result<(), ApiError> {
        self.switch_server_sync_off(cx, sync).await
    }

    fn budget(&self) -> Option<String> {
        self.wire.pace.budget()
    }

    async fn close(&self, cx: &Cx) {
        self.auth.revoke(cx, &self.wire).await;
    }
}
