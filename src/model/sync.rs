//! The sync configuration: the documented create request, its rules and its answer.
//!
//! Input is forgiving where two generations of the API differ (`isEnabled` and
//! `isAutoSyncEnabled`, an answer given back as a request) and strict elsewhere: an unknown
//! member is refused with a suggestion, because a mistyped safety option must not be dropped.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::filter::KeyFilter;
use super::{Map, Problems, Time, filter, schema, text};

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
    /// The name people know it by.
    fn title(&self) -> &'static str;
    /// True when the destination's secrets can be imported into the source.
    fn can_import(&self) -> bool;
    /// Members of `destinationConfig`.
    fn config_fields(&self) -> Vec<&'static str>;
    /// Members of `syncOptions` beyond those every sync has.
    fn option_fields(&self) -> Vec<&'static str>;
    /// Checks the members named above. Types, lengths, patterns, and rules between fields.
    fn check(&self, config: &Map, options: &SyncOptions, problems: &mut Problems);
}

const FIELDS: &[&str] = &[
    "name",
    "projectId",
    "description",
    "connectionId",
    "sourceConnection",
    "environment",
    "secretPath",
    "isEnabled",
    "isAutoSyncEnabled",
    "syncOptions",
    "destination",
    "destinationConfig",
];
/// Members that only answers carry: ignored, so that an answer can be given back.
const ANSWER_FIELDS: &[&str] = &[
    "id",
    "version",
    "folderId",
    "createdAt",
    "updatedAt",
    "syncStatus",
    "lastSyncJobId",
    "lastSyncMessage",
    "lastSyncedAt",
    "importStatus",
    "lastImportJobId",
    "lastImportMessage",
    "lastImportedAt",
    "removeStatus",
    "lastRemoveJobId",
    "lastRemoveMessage",
    "lastRemovedAt",
    "connection",
    "folder",
    "waiting",
    "leftBehind",
    "warnings",
];
const OPTION_FIELDS: &[&str] = &["initialSyncBehavior", "keySchema", "disableSecretDeletion", "includeAllSubFolders", "includeKeys", "excludeKeys"];

impl SyncConfig {
    /// Reads a create request (or an answer given back, with or without its `secretSync`
    /// envelope) and checks every rule. `kind` overrides the document's own `destination`;
    /// `rules` finds a kind's rules, `kinds` lists the known words for suggestions.
    pub fn parse<'r>(
        document: &Value,
        kind: Option<&str>,
        rules: impl Fn(&str) -> Option<&'r dyn KindRules>,
        kinds: &[&str],
    ) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let document = document.get("secretSync").unwrap_or(document);
        let Some(object) = document.as_object() else {
            problems.add("", "object", "The document must be one JSON object.");
            return Err(problems);
        };
        for key in object.keys() {
            if !FIELDS.contains(&key.as_str()) && !ANSWER_FIELDS.contains(&key.as_str()) {
                unknown(key, key, FIELDS.iter().copied(), &mut problems);
            }
        }
        let mut reader = Reader { object, prefix: "", problems: &mut problems };
        let name = reader.text("name", true, usize::MAX).unwrap_or_default().to_lowercase();
        let project_id = reader.text("projectId", true, 256).unwrap_or_default();
        let description = reader.text("description", false, 256).filter(|d| !d.is_empty());
        let connection_id = reader.text("connectionId", true, 256).unwrap_or_default();
        let source_connection = reader.text("sourceConnection", false, 256).filter(|d| !d.is_empty());
        let environment = match object.get("environment").and_then(|e| e.get("slug")).and_then(Value::as_str) {
            Some(slug) => slug.trim().to_string(),
            None => reader.text("environment", true, usize::MAX).unwrap_or_default(),
        };
        let path_of_answer = object.get("folder").and_then(|f| f.get("path")).and_then(Value::as_str);
        let secret_path = match (object.get("secretPath"), path_of_answer) {
            (None, Some(path)) => path.trim().to_string(),
            _ => reader.text("secretPath", true, 1024).unwrap_or_default(),
        };
        let (old, new) = (reader.flag("isEnabled"), reader.flag("isAutoSyncEnabled"));
        if let (Some(a), Some(b)) = (old, new)
            && a != b
        {
            problems.add("isEnabled", "contradiction", "isEnabled and isAutoSyncEnabled name one setting and differ here: give one of them.");
        }
        let is_enabled = old.or(new).unwrap_or(true);

        check_slug("name", &name, 256, &mut problems);
        check_slug("environment", &environment, 64, &mut problems);
        let secret_path = check_path("secretPath", &secret_path, &mut problems);

        let own_kind = match object.get("destination") {
            None => None,
            Some(Value::String(s)) => Some(s.trim()),
            Some(_) => {
                problems.add("destination", "type", "destination must be a text.");
                None
            }
        };
        if let (Some(a), Some(b)) = (kind, own_kind)
            && a != b
        {
            problems.add("destination", "contradiction", format!("The document is for {b}, the command says {a}."));
        }
        let kind = kind.or(own_kind).unwrap_or_default();
        let rules = rules(kind);
        if rules.is_none() {
            if kind.is_empty() {
                problems.add("destination", "required", format!("Name the destination (--destination): one of {}.", kinds.join(", ")));
            } else {
                let hint = text::closest(kind, kinds.iter().copied()).map(|k| format!(" Did you mean {k}?")).unwrap_or_default();
                problems.add(
                    "destination",
                    "choice",
                    format!("{:?} is not a destination; known are {}.{hint}", text::brief(kind, 60), kinds.join(", ")),
                );
            }
        }
        let config = sub_object(object, "destinationConfig", &mut problems).cloned().unwrap_or_default();
        let options = read_options(object, rules, &mut problems);
        if let Some(rules) = rules {
            let known = rules.config_fields();
            for key in config.keys().filter(|k| !known.contains(&k.as_str())) {
                unknown(&format!("destinationConfig.{key}"), key, known.iter().copied(), &mut problems);
            }
            rules.check(&config, &options, &mut problems);
        }
        problems.into_result(Self {
            name,
            project_id,
            description,
            connection_id,
            source_connection,
            environment,
            secret_path,
            is_enabled,
            sync_options: options,
            destination: kind.to_string(),
            destination_config: config,
        })
    }
}

fn read_options(object: &Map, rules: Option<&dyn KindRules>, problems: &mut Problems) -> SyncOptions {
    let Some(given) = sub_object(object, "syncOptions", problems) else {
        return SyncOptions::default();
    };
    let extra_fields = rules.map(|r| r.option_fields()).unwrap_or_default();
    let mut options = SyncOptions::default();
    for (key, value) in given {
        if OPTION_FIELDS.contains(&key.as_str()) {
            continue;
        }
        if rules.is_some() && !extra_fields.contains(&key.as_str()) {
            unknown(&format!("syncOptions.{key}"), key, OPTION_FIELDS.iter().copied().chain(extra_fields.iter().copied()), problems);
        } else if !value.is_null() {
            options.extra.insert(key.clone(), value.clone());
        }
    }
    let mut reader = Reader { object: given, prefix: "syncOptions.", problems };
    options.key_schema = reader.text("keySchema", false, usize::MAX).filter(|s| !s.is_empty());
    options.disable_secret_deletion = reader.flag("disableSecretDeletion");
    options.include_all_sub_folders = reader.flag("includeAllSubFolders");
    let behavior = reader.text("initialSyncBehavior", true, 64);
    options.include_keys = filter::read(given, "includeKeys", problems);
    options.exclude_keys = filter::read(given, "excludeKeys", problems);
    if let Some(template) = &options.key_schema {
        schema::check(template, "syncOptions.keySchema", problems);
    }
    if let Some(behavior) = behavior.filter(|b| !b.is_empty()) {
        use strum::VariantNames;
        match behavior.parse() {
            Ok(parsed) => options.initial_sync_behavior = parsed,
            Err(_) => problems.add(
                "syncOptions.initialSyncBehavior",
                "choice",
                format!("{:?} is not an initial sync behavior; known are {}.", text::brief(&behavior, 60), InitialSyncBehavior::VARIANTS.join(", ")),
            ),
        }
    }
    if options.initial_sync_behavior.imports() {
        if let Some(rules) = rules.filter(|r| !r.can_import()) {
            problems.add("syncOptions.initialSyncBehavior", "import-unsupported", format!("{} does not support importing secrets.", rules.title()));
        }
        if options.include_all_sub_folders == Some(true) {
            problems.add("syncOptions.includeAllSubFolders", "import-unsupported", "includeAllSubFolders goes with overwrite-destination only.");
        }
    }
    options
}

fn sub_object<'m>(object: &'m Map, field: &str, problems: &mut Problems) -> Option<&'m Map> {
    match object.get(field) {
        Some(Value::Object(map)) => Some(map),
        None | Some(Value::Null) => {
            problems.add(field, "required", format!("{field} is required."));
            None
        }
        Some(_) => {
            problems.add(field, "type", format!("{field} must be an object."));
            None
        }
    }
}

/// Reports an unknown member with a suggestion. `field` is its full path, `word` its last part.
pub fn unknown<'k>(field: &str, word: &str, known: impl Iterator<Item = &'k str>, problems: &mut Problems) {
    let hint = text::closest(word, known).map(|k| format!(" Did you mean {k}?")).unwrap_or_default();
    problems.add(text::brief(field, 120), "unknown-field", format!("{:?} is not a known member.{hint}", text::brief(word, 60)));
}

/// The server's slug rule: lower-case letters and digits in groups joined by single hyphens.
pub fn check_slug(field: &str, value: &str, max: usize, problems: &mut Problems) {
    if value.is_empty() {
        return;
    }
    let fits = value.split('-').all(|group| !group.is_empty() && group.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    if !fits {
        problems.add(field, "slug", format!("{field} must be slug-friendly: lower-case letters and digits, in groups joined by single hyphens."));
    }
    if value.chars().count() > max {
        problems.add(field, "max-length", format!("{field} may have at most {max} characters."));
    }
}

/// Checks a secret path and returns it without its trailing slash.
pub fn check_path(field: &str, path: &str, problems: &mut Problems) -> String {
    let trimmed = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    if trimmed.is_empty() {
        return trimmed.to_string();
    }
    if !trimmed.starts_with('/') {
        problems.add(field, "absolute-path", format!("{field} must start with / (the root folder is /)."));
    } else if trimmed.len() > 1 && trimmed[1..].split('/').any(|s| s.is_empty() || s == "." || s == ".." || s.chars().any(char::is_control)) {
        problems.add(field, "path", format!("{field} must be folder names joined by single slashes."));
    }
    trimmed.to_string()
}

/// Reads typed members of an object and reports what does not fit.
pub struct Reader<'a> {
    pub object: &'a Map,
    /// Put before the member's name in reports, e.g. `destinationConfig.`.
    pub prefix: &'a str,
    pub problems: &'a mut Problems,
}

impl Reader<'_> {
    /// A trimmed text of at most `max` characters. Control characters are refused.
    pub fn text(&mut self, field: &str, required: bool, max: usize) -> Option<String> {
        let path = format!("{}{field}", self.prefix);
        match self.object.get(field) {
            None | Some(Value::Null) if required => {
                self.problems.add(&path, "required", format!("{path} is required."));
                None
            }
            None | Some(Value::Null) => None,
            Some(Value::String(s)) => {
                let s = s.trim();
                if s.is_empty() && required {
                    self.problems.add(&path, "required", format!("{path} must not be empty."));
                }
                if s.chars().count() > max {
                    self.problems.add(&path, "max-length", format!("{path} may have at most {max} characters."));
                }
                if s.chars().any(|c| c.is_control() && c != '\n') {
                    self.problems.add(&path, "control-characters", format!("{path} must not hold control characters."));
                }
                Some(s.to_string())
            }
            Some(_) => {
                self.problems.add(&path, "type", format!("{path} must be a text."));
                None
            }
        }
    }

    /// A boolean.
    pub fn flag(&mut self, field: &str) -> Option<bool> {
        match self.object.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::Bool(b)) => Some(*b),
            Some(_) => {
                let path = format!("{}{field}", self.prefix);
                self.problems.add(&path, "type", format!("{path} must be true or false."));
                None
            }
        }
    }

    /// A whole number within bounds.
    pub fn number(&mut self, field: &str, min: i64, max: i64) -> Option<i64> {
        let path = format!("{}{field}", self.prefix);
        match self.object.get(field) {
            None | Some(Value::Null) => None,
            Some(v) => match v.as_i64() {
                Some(n) if (min..=max).contains(&n) => Some(n),
                _ => {
                    self.problems.add(&path, "range", format!("{path} must be a whole number from {min} to {max}."));
                    None
                }
            },
        }
    }
}

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
