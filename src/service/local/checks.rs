//! Judges documents of syncs: against the rules, the stored connections, and each other.

use super::*;
use crate::destination::Provider;
use crate::model::Map;
use crate::model::schema::KeySchema;

impl Local {
    /// Parses and checks a document against the stored connections and syncs.
    pub(super) fn checked(&self, input: &SyncInput, replaces: Option<&SyncConfig>) -> Result<SyncConfig> {
        let kinds = registry::kinds();
        let config = SyncConfig::parse(&input.document, input.destination.as_deref(), registry::rules, &kinds)?;
        let mut problems = Problems::default();
        match self.store.connection(&config.connection_id) {
            Ok(connection) => {
                let app = registry::find(&config.destination).map(|p| p.spec().app);
                if let Some(app) = app.filter(|a| a.app != connection.app) {
                    problems.add(
                        "connectionId",
                        "app",
                        format!("The connection {} is for {}; {} needs one of app {}.", connection.name, connection.app, config.destination, app.app),
                    );
                }
            }
            Err(error) => problems.add("connectionId", "unknown-connection", format!("{error} (kms-sync connection list shows them)")),
        }
        if let Err(error) = self.engine.pool().account(config.source_connection.as_deref()) {
            problems.add("sourceConnection", "unknown-connection", error.message);
        }
        if replaces.is_none_or(|old| old.name != config.name) && self.store.syncs().iter().any(|l| l.name == config.name) {
            problems.0.extend(taken(&config.name).0);
        }
        problems.into_result(config).map_err(ServiceError::from)
    }

    /// Warnings about other syncs that write the same keys.
    pub(super) fn rivals(&self, config: &SyncConfig) -> Vec<String> {
        self.overlaps(config, None).into_iter().filter(|o| o.keys).map(|o| o.text).collect()
    }

    /// Other syncs that write the same place.
    pub(super) fn overlaps(&self, config: &SyncConfig, replaces: Option<&str>) -> Vec<Overlap> {
        let Some(provider) = registry::find(&config.destination) else { return Vec::new() };
        let Ok(mine) = self.store.connection(&config.connection_id) else { return Vec::new() };
        let keys = provider.keys(&config.destination_config);
        let schema = |c: &SyncConfig| crate::plan::schema_of(c, &*keys).map(|p| keys.fold(&keys.convert_part(p)));
        let ours = schema(config);
        let mut out = Vec::new();
        for other in self.store.syncs().into_iter().filter_map(|l| l.result.ok()) {
            if other.name == config.name || replaces == Some(other.name.as_str()) || other.destination != config.destination {
                continue;
            }
            let same_account =
                self.store.connection(&other.connection_id).is_ok_and(|c| c.id == mine.id || public_identity(&c) == public_identity(&mine));
            let from = (other.project_id == config.project_id).then_some(other.environment.as_str());
            if !(same_account || provider.names_place()) || !one_place(provider, config, &other.destination_config, from) {
                continue;
            }
            let theirs = schema(&other);
            let disjoint = apart(&ours, &theirs);
            let managed = match &other.sync_options.key_schema {
                Some(schema) => format!("keys that match {schema}"),
                None => "every key, for it has no Key Schema".to_string(),
            };
            let meet = if disjoint {
                "the two do not overlap."
            } else {
                "the two overlap. Neither deletes what the other carries, and two values for one key are a question."
            };
            out.push(Overlap { keys: !disjoint, text: format!("{} also writes there, {managed}: {meet}", other.name) });
        }
        out
    }
}

/// True when `theirs` writes the place of `ours`. `environment`: the slug it reads from, when that
/// is known and of the same project. Of another project nothing is known: other slugs may have
/// equal names.
pub(super) fn one_place(provider: &dyn Provider, ours: &SyncConfig, theirs: &Map, environment: Option<&str>) -> bool {
    let follows = |config: &Map| provider.follows_environment(config);
    let elsewhere = follows(&ours.destination_config) && follows(theirs) && environment.is_some_and(|e| e != ours.environment);
    provider.overlaps(&ours.destination_config, theirs) && !elsewhere
}

/// True when no key can match both schemas.
pub(super) fn apart(a: &KeySchema, b: &KeySchema) -> bool {
    (!a.prefix.starts_with(&b.prefix) && !b.prefix.starts_with(&a.prefix)) || (!a.suffix.ends_with(&b.suffix) && !b.suffix.ends_with(&a.suffix))
}

/// Another sync at the same place.
pub(super) struct Overlap {
    /// True when some key may be both's.
    pub keys: bool,
    pub text: String,
}

pub(super) fn taken(name: &str) -> Problems {
    Problems::one("name", "unique", format!("A sync named {name} exists already."))
}

/// Lays an update over a stored document: members left out keep their value, and
/// `destinationConfig` and `syncOptions` are replaced whole, as the server does.
pub(super) fn laid_over(old: &SyncConfig, change: &Value) -> Result<Value> {
    let mut base = serde_json::to_value(old).map_err(|e| ServiceError::new(ServiceErrorKind::Invalid, e.to_string()))?;
    let change = change.get("secretSync").unwrap_or(change);
    let (Some(target), Some(given)) = (base.as_object_mut(), change.as_object()) else {
        return Err(ServiceError::new(ServiceErrorKind::Invalid, "The document must be one JSON object."));
    };
    if given.contains_key("isAutoSyncEnabled") && !given.contains_key("isEnabled") {
        target.remove("isEnabled");
    }
    if given.contains_key("folder") && !given.contains_key("secretPath") {
        target.remove("secretPath");
    }
    for (key, value) in given {
        target.insert(key.clone(), value.clone());
    }
    Ok(base)
}

/// The readable part of a connection: equal texts reach the same account.
fn public_identity(connection: &Connection) -> String {
    let mut value = registry::app(&connection.app).map(|spec| connection.public(spec)).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("name");
        map.remove("id");
        map.remove("description");
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_named_after_environments_are_one_unless_these_are_known_to_differ() {
        let sync = |place: Value| {
            let document = json!({"name": "mine", "projectId": "p", "connectionId": "c", "environment": "dev", "secretPath": "/",
                "destination": "azure-devops", "syncOptions": {"initialSyncBehavior": "overwrite-destination"}, "destinationConfig": place});
            SyncConfig::parse(&document, None, registry::rules, &registry::kinds()).expect("a configuration")
        };
        let open = sync(json!({"devopsProjectId": "d"}));
        let named = sync(json!({"devopsProjectId": "d", "variableGroupName": "shared"}));
        let provider = registry::find("azure-devops").expect("a provider");
        for (sync, environment, one) in [
            (&open, Some("dev"), true),
            (&open, Some("staging"), false),
            // Of another project: its environment may have the same name.
            (&open, None, true),
            (&named, Some("staging"), true),
        ] {
            assert_eq!(one_place(provider, sync, &sync.destination_config, environment), one, "{environment:?}");
        }
        assert!(!one_place(provider, &open, &named.destination_config, Some("dev")));
    }
}
