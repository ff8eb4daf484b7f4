//! The sync configuration: the documented create request, its rules and its answer.
//!
//! Input is forgiving where two generations of the API differ (`isEnabled` and
//! `isAutoSyncEnabled`, an answer given back as a request) and strict elsewhere: an unknown
//! member is refused with a suggestion, because a mistyped safety option must not be dropped.

mod doc;
mod parse;
mod reader;

use serde::{Deserialize, Serialize};

pub use doc::{ConnectionRef, EnvironmentRef, FolderRef, Job, JobStatus, SyncDoc, SyncState, SyncWait};
pub use parse::MEMBERS;
pub use reader::{Reader, check_path, check_slug, unknown};

use super::filter::KeyFilter;
use super::{Map, Problems};

/// Which side wins at the first sync, and what is done with keys only the destination has.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum InitialSyncBehavior {
    #[default]
    OverwriteDestination,
    ImportPrioritizeSource,
    ImportPrioritizeDestination,
}

impl InitialSyncBehavior {
    /// True when the first run reads the destination's secrets into the source.
    pub fn imports(self) -> bool {
        self != Self::OverwriteDestination
    }
}

/// How a sync is done. Members that only one destination knows stay in `extra`, checked by
/// that destination's rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncOptions {
    pub initial_sync_behavior: InitialSyncBehavior,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_schema: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_secret_deletion: Option<bool>,
    /// The folder and everything below it as one flat list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_all_sub_folders: Option<bool>,
    /// Patterns of the source keys to carry; empty means all. Ours: the KMS server knows none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_keys: Vec<String>,
    /// Patterns of source keys to leave out. Ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_keys: Vec<String>,
    #[serde(flatten)]
    pub extra: Map,
}

impl SyncOptions {
    /// Which source keys this sync carries.
    pub fn filter(&self) -> KeyFilter {
        KeyFilter::new(&self.include_keys, &self.exclude_keys)
    }

    /// True when this sync may remove keys from the destination.
    pub fn deletes(&self) -> bool {
        !self.disable_secret_deletion.unwrap_or(false)
    }
}

/// A stored sync: what the operator wrote, nothing the machine learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncConfig {
    pub name: String,
    pub project_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Id or name of a stored connection.
    pub connection_id: String,
    /// Id or name of the KMS account; not needed when there is exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_connection: Option<String>,
    pub environment: String,
    pub secret_path: String,
    /// Auto-sync.
    pub is_enabled: bool,
    pub sync_options: SyncOptions,
    /// The destination's kind.
    pub destination: String,
    pub destination_config: Map,
}

impl SyncConfig {
    /// True when, compared with `before`, it is decided anew what is written and deleted, and
    /// where: the next run asks like a first run.
    pub fn asks_anew(&self, before: &Self) -> bool {
        let place = |c: &Self| (c.connection_id.clone(), c.destination.clone(), c.destination_config.clone());
        let source = |c: &Self| (c.source_connection.clone(), c.project_id.clone(), c.environment.clone(), c.secret_path.clone());
        place(self) != place(before)
            || source(self) != source(before)
            || self.sync_options.key_schema != before.sync_options.key_schema
            || self.sync_options.include_all_sub_folders != before.sync_options.include_all_sub_folders
            || self.sync_options.filter() != before.sync_options.filter()
            || (self.sync_options.deletes() && !before.sync_options.deletes())
    }
}

/// What a destination kind allows; implemented once per provider.
pub trait KindRules {
    /// The kind's word, e.g. the last part of the create endpoint's path.
    fn kind(&self) -> &'static str;
    /// The sentence that refuses an import; `None` when the destination's secrets can be
    /// imported into the source.
    fn import_refusal(&self) -> Option<&'static str>;
    /// Members of `destinationConfig`.
    fn config_fields(&self) -> Vec<&'static str>;
    /// Members of `syncOptions` beyond those every sync has.
    fn option_fields(&self) -> Vec<&'static str>;
    /// Checks the members named above. Types, lengths, patterns, and rules between fields.
    fn check(&self, config: &Map, options: &SyncOptions, problems: &mut Problems);
}
