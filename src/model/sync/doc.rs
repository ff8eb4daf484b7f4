//! What a sync is beside its configuration: its state, and the documented answer.

use serde::{Deserialize, Serialize};

use super::{SyncConfig, SyncOptions};
use crate::model::{Map, Time};

/// `pending`, `running`, `succeeded`, `failed`: the documented words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum JobStatus {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// What the machine knows of a sync beside its configuration: kept in the state database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncState {
    pub id: String,
    pub version: u64,
    pub created_at: Time,
    pub updated_at: Time,
    pub sync: Job,
    pub import: Job,
    pub remove: Job,
    /// The folder's id at the source, once it was seen.
    pub folder_id: Option<String>,
    pub environment_id: Option<String>,
    pub environment_name: Option<String>,
    /// True while the last run waits for the operator's approval.
    #[serde(default)]
    pub needs_approval: bool,
}

impl SyncState {
    /// The state of a sync that has just been made: a new id, version 1, nothing run yet.
    pub fn fresh() -> Self {
        let now = crate::model::now();
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            version: 1,
            created_at: now,
            updated_at: now,
            sync: Job::default(),
            import: Job::default(),
            remove: Job::default(),
            folder_id: None,
            environment_id: None,
            environment_name: None,
            needs_approval: false,
        }
    }
}

/// The last job of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub status: Option<JobStatus>,
    pub job_id: Option<String>,
    /// At most 1,024 characters.
    pub message: Option<String>,
    /// Moves on success only.
    pub at: Option<Time>,
}

/// The documented answer, members in the documented order, plus `sourceConnection` and `waiting`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncDoc {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub is_enabled: bool,
    pub version: u64,
    pub folder_id: Option<String>,
    pub connection_id: String,
    pub created_at: Time,
    pub updated_at: Time,
    pub sync_status: Option<JobStatus>,
    pub last_sync_job_id: Option<String>,
    pub last_sync_message: Option<String>,
    pub last_synced_at: Option<Time>,
    pub import_status: Option<JobStatus>,
    pub last_import_job_id: Option<String>,
    pub last_import_message: Option<String>,
    pub last_imported_at: Option<Time>,
    pub remove_status: Option<JobStatus>,
    pub last_remove_job_id: Option<String>,
    pub last_remove_message: Option<String>,
    pub last_removed_at: Option<Time>,
    pub sync_options: SyncOptions,
    pub project_id: String,
    pub connection: Option<ConnectionRef>,
    pub environment: EnvironmentRef,
    pub folder: FolderRef,
    pub destination: String,
    pub destination_config: Map,
    pub source_connection: Option<String>,
    /// Why the running engine does not go on with it, if it does not.
    pub waiting: Option<SyncWait>,
    /// After an edit: keys this sync wrote that its settings no longer reach. Absent when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_behind: Option<usize>,
    /// In the answer to a creation or an edit: what speaks against it (another sync that writes
    /// the same keys). Absent when nothing does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What keeps a sync from going on: its run is queued or stands in a wait, its source cannot be
/// read, or its automatic runs fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncWait {
    pub reason: String,
    /// When the wait or the trouble began.
    pub since: Time,
    /// When it goes on; `None`: not known, or not before something changes or somebody asks.
    pub next_at: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionRef {
    pub app: String,
    pub name: String,
    pub id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentRef {
    pub slug: String,
    pub name: Option<String>,
    pub id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FolderRef {
    pub id: Option<String>,
    pub path: String,
}

impl SyncDoc {
    /// The removals that take everything away that the sync wrote, in order, by their
    /// `leftBehind`: with the sync goes the knowledge of what it wrote before its settings were
    /// changed, so that goes first where there is such.
    pub fn removals(&self) -> impl Iterator<Item = bool> + use<> {
        self.left_behind.map(|_| true).into_iter().chain([false])
    }

    /// Joins configuration, state and the connection into the documented answer.
    pub fn new(config: &SyncConfig, state: &SyncState, connection: Option<ConnectionRef>) -> Self {
        let (s, i, r) = (state.sync.clone(), state.import.clone(), state.remove.clone());
        Self {
            id: state.id.clone(),
            name: config.name.clone(),
            description: config.description.clone(),
            is_enabled: config.is_enabled,
            version: state.version,
            folder_id: state.folder_id.clone(),
            connection_id: connection.as_ref().map_or_else(|| config.connection_id.clone(), |c| c.id.clone()),
            created_at: state.created_at,
            updated_at: state.updated_at,
            sync_status: s.status,
            last_sync_job_id: s.job_id,
            last_sync_message: s.message,
            last_synced_at: s.at,
            import_status: i.status,
            last_import_job_id: i.job_id,
            last_import_message: i.message,
            last_imported_at: i.at,
            remove_status: r.status,
            last_remove_job_id: r.job_id,
            last_remove_message: r.message,
            last_removed_at: r.at,
            sync_options: config.sync_options.clone(),
            project_id: config.project_id.clone(),
            connection,
            environment: EnvironmentRef { slug: config.environment.clone(), name: state.environment_name.clone(), id: state.environment_id.clone() },
            folder: FolderRef { id: state.folder_id.clone(), path: config.secret_path.clone() },
            destination: config.destination.clone(),
            destination_config: config.destination_config.clone(),
            source_connection: config.source_connection.clone(),
            waiting: None,
            left_behind: None,
            warnings: Vec::new(),
        }
    }
}
