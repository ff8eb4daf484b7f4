//! The application service: everything a face (terminal or command line) can ask for.
//!
//! [`Service`] does not assume that the engine lives in this process: [`local`] is the engine
//! here, [`remote`] speaks to the one that `kms-sync run` holds. All types cross a socket as JSON.

mod asked;
pub mod attach;
mod changes;
mod documented;
pub mod local;
pub mod remote;
mod routes;
pub mod socket;
mod wire;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::model::board::{Board, Event};
use crate::model::connection::ConnectionView;
use crate::model::plan::PlanDoc;
pub use crate::model::run::{Priority, RunRequest};
use crate::model::run::{RunKind, RunRecord};
use crate::model::sync::SyncDoc;
use crate::model::{Choice, TestReport};
use crate::model::{Finding, Map, Problems, Time};
use crate::source::{Project, ServerSync};

/// Why the service did not do what was asked.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    pub kind: ServiceErrorKind,
    pub message: String,
    /// The broken rules, when the input was bad.
    #[serde(default, skip_serializing_if = "Problems::is_empty")]
    pub fields: Problems,
}

/// The class of a service error; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ServiceErrorKind {
    /// Bad input: exit 2.
    Invalid,
    /// No sync, connection or run of that name: exit 2.
    NotFound,
    /// The name is taken, a run is going, another process holds the engine: exit 1.
    Busy,
    /// Credentials were refused.
    Auth,
    /// The credentials are good and a right is missing. Told outside as [`Self::Remote`] is.
    #[strum(to_string = "remote")]
    Forbidden,
    /// The other side refused or failed.
    Remote,
    /// The other side cannot be reached.
    Unreachable,
    /// Files or database on this machine.
    Storage,
    Cancelled,
}

impl ServiceError {
    pub fn new(kind: ServiceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), fields: Problems::default() }
    }

    /// None of the server's syncs that stand in a sync's way has this id.
    pub fn no_rival(id: &str, sync: &str) -> Self {
        let id = crate::model::text::brief(id, 80);
        Self::new(ServiceErrorKind::NotFound, format!("The KMS server has no sync {id:?} on auto-sync that writes where {sync} does."))
    }

    /// 2 for bad input, 1 for failed work, 130 for a cancelled one.
    pub fn exit_code(&self) -> i32 {
        match self.kind {
            ServiceErrorKind::Invalid | ServiceErrorKind::NotFound => 2,
            ServiceErrorKind::Cancelled => 130,
            _ => 1,
        }
    }
}

impl From<Problems> for ServiceError {
    fn from(fields: Problems) -> Self {
        Self { kind: ServiceErrorKind::Invalid, message: fields.to_string(), fields }
    }
}

impl From<crate::http::ApiError> for ServiceError {
    fn from(error: crate::http::ApiError) -> Self {
        use crate::http::ErrorKind as K;
        let kind = match error.kind {
            K::Auth => ServiceErrorKind::Auth,
            K::Permission => ServiceErrorKind::Forbidden,
            K::Unreachable => ServiceErrorKind::Unreachable,
            K::Cancelled => ServiceErrorKind::Cancelled,
            _ => ServiceErrorKind::Remote,
        };
        Self::new(kind, error.text())
    }
}

/// A sync that is stored, or one that a wizard is still writing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "of")]
pub enum PlanTarget {
    Stored {
        name: String,
    },
    /// `replaces`: the stored sync that this draft would replace, when editing.
    Draft {
        document: Value,
        replaces: Option<String>,
    },
}

/// What the operator decided about keys that need approval.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    pub sync: String,
    /// Destination keys that may be deleted or overwritten by the next runs.
    #[serde(default)]
    pub approve: Vec<String>,
    /// Foreign destination keys to keep, always.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// A new or changed sync.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncInput {
    /// The documented request (or an answer given back).
    pub document: Value,
    /// The kind, when the document does not say it.
    pub destination: Option<String>,
}

/// A sync that is being written: what is filled in so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The documented request, as far as it goes.
    pub document: Value,
    /// The step it was left at, an index.
    pub step: usize,
    pub at: Time,
}

/// Where a source picker looks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FolderAsk {
    /// Name of the KMS account.
    pub account: String,
    pub project_id: String,
    pub environment: String,
    pub path: String,
}

/// What a destination picker asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChoicesAsk {
    pub kind: String,
    /// Name or id of the connection.
    pub connection: String,
    pub field: String,
    /// The step's fields so far.
    pub filled: Map,
}

/// A sync on auto-sync of the KMS server's own engine that writes where one here does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerRival {
    pub sync: ServerSync,
    /// False when only the account behind its connection decides whether it is the same place.
    pub certain: bool,
    /// A sentence for the operator: which it is and what it does.
    pub text: String,
}

/// What the snapshot and the stream of changes are.
pub struct Watch {
    pub board: Board,
    /// Events after the snapshot. On `Lagged` take a new snapshot.
    pub events: broadcast::Receiver<Event>,
}

type Result<T> = std::result::Result<T, ServiceError>;

/// The application service. Object-safe; faces hold an `Arc<dyn Service>`.
#[async_trait]
pub trait Service: Send + Sync {
    /// The live picture and its changes.
    async fn watch(&self) -> Result<Watch>;

    async fn syncs(&self) -> Result<Vec<SyncDoc>>;
    /// By name or id.
    async fn sync(&self, name: &str) -> Result<SyncDoc>;
    /// Checks a document offline; the problems are the error.
    async fn check_sync(&self, input: SyncInput, replaces: Option<String>) -> Result<()>;
    /// Stores a sync. Nothing is run: callers start the first run.
    async fn create_sync(&self, input: SyncInput) -> Result<SyncDoc>;
    /// Replaces a sync's configuration; members left out keep their value.
    async fn update_sync(&self, name: &str, input: SyncInput) -> Result<SyncDoc>;
    /// Forgets a sync. The destination is untouched (run a removal before, if wanted).
    async fn delete_sync(&self, name: &str) -> Result<()>;
    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<SyncDoc>;
    /// The stored request document of a sync, to edit or to copy.
    async fn document(&self, name: &str) -> Result<Value>;

    /// Computes a plan and writes nothing.
    async fn plan(&self, target: PlanTarget, verify: bool) -> Result<PlanDoc>;
    /// The server's own syncs on auto-sync that write where a sync here does, as far as the KMS
    /// account may see them.
    async fn server_rivals(&self, target: PlanTarget) -> Result<Vec<ServerRival>>;
    /// Switches the auto-sync of one of them off at the server; by its id.
    async fn switch_off_rival(&self, target: PlanTarget, id: &str) -> Result<ServerRival>;
    /// Queues a run and returns its id at once; its end arrives as an event, or by [`Self::finished`].
    async fn start(&self, request: RunRequest) -> Result<String>;
    /// Queues runs that are asked for together, in this order: what they read alike is read once.
    /// One answer per request, as [`Self::start`] gives it.
    async fn start_together(&self, requests: Vec<RunRequest>) -> Result<Vec<Result<String>>>;
    /// Waits for a run's end.
    async fn finished(&self, run: &str) -> Result<RunRecord>;
    async fn cancel(&self, run: &str) -> Result<()>;
    async fn approve(&self, approval: Approval) -> Result<()>;
    /// Newest first.
    async fn history(&self, name: &str, limit: usize) -> Result<Vec<RunRecord>>;

    async fn connections(&self) -> Result<Vec<ConnectionView>>;
    /// Checks, seals and stores a connection; replaces one of the same name when `replace`.
    async fn save_connection(&self, document: Value, replace: bool) -> Result<ConnectionView>;
    async fn remove_connection(&self, name: &str) -> Result<()>;
    /// Tests a stored connection.
    async fn test_connection(&self, name: &str) -> Result<TestReport>;
    /// Tests a stored connection together with a target: the fields of a `destinationConfig`.
    async fn test_destination(&self, name: &str, config: Map) -> Result<TestReport>;
    /// Tests a connection document without storing it.
    async fn try_connection(&self, document: Value) -> Result<TestReport>;

    async fn projects(&self, account: &str) -> Result<Vec<Project>>;
    async fn folders(&self, ask: FolderAsk) -> Result<Vec<Choice>>;
    async fn choices(&self, ask: ChoicesAsk) -> Result<Vec<Choice>>;

    /// The sync that a terminal began to write and did not finish, if any.
    async fn draft(&self) -> Result<Option<Draft>>;
    /// Keeps an unfinished sync, or forgets it. A draft holds no credential and no secret value.
    async fn keep_draft(&self, draft: Option<Draft>) -> Result<()>;

    /// Pauses or resumes all auto-syncs.
    async fn pause(&self, paused: bool) -> Result<()>;
    async fn doctor(&self) -> Result<Vec<Finding>>;
    /// Asks the engine to make room for one that stays: an open terminal app lets its runs end or
    /// parks them, frees the state directory and attaches to whoever takes it. Answers before
    /// that is done; it is `Busy` where the engine stays.
    async fn hand_over(&self) -> Result<()> {
        Err(ServiceError::new(ServiceErrorKind::Busy, "That engine stays until it is stopped."))
    }
    /// Ends this face's use of the service: runs of an engine in this process are cancelled and parked.
    async fn close(&self);
}

/// The id of the run of a sync that is queued or going.
pub async fn going(service: &dyn Service, sync: &str) -> Result<Option<String>> {
    let board = service.watch().await?.board;
    Ok(board.cards.get(sync).and_then(|c| c.run.as_ref()).map(|r| r.id.clone()))
}
