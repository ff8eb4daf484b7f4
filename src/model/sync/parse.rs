//! Reading a create request, and checking every rule of it.

use serde_json::Value;

use super::{InitialSyncBehavior, KindRules, Reader, SyncConfig, SyncOptions, check_path, check_slug, unknown};
use crate::model::{Map, Problems, filter, schema, text};

/// The members of a create request, in the documented order; `isAutoSyncEnabled` is later servers'
/// word for `isEnabled`.
pub const MEMBERS: &[&str] = &[
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
            return Err(Problems::one("", "object", "The document must be one JSON object."));
        };
        for key in object.keys() {
            if !MEMBERS.contains(&key.as_str()) && !ANSWER_FIELDS.contains(&key.as_str()) {
                unknown(key, key, MEMBERS.iter().copied(), &mut problems);
            }
        }
        let mut reader = Reader { object, prefix: "", problems: &mut problems };
        let name = reader.text("name", true, usize::MAX).unwrap_or_default().to_lowercase();
        let project_id = reader.text("projectId", true, 256).unwrap_or_default();
        if !project_id.is_empty() && !text::is_segment(&project_id) {
            reader.problems.add("projectId", "id", "projectId must be a project's id: a path such as a/b or .. is none.");
        }
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
        if let Some(refusal) = rules.and_then(|r| r.import_refusal()) {
            problems.add("syncOptions.initialSyncBehavior", "import-unsupported", refusal);
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
