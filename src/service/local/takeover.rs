//! Syncs that the KMS server's own engine runs to the place of one here: two engines on auto-sync
//! overwrite and delete each other's keys. Finds them, tells of them where a sync is created or
//! edited, and switches one off when asked to.

use super::checks::{apart, one_place};
use super::*;
use crate::destination::{KeySpace, Provider};
use crate::model::schema::KeySchema;
use crate::source::ServerSync;

/// How long storing a sync may be kept waiting by the question. A server that says nothing by
/// then, or refuses, is not worth a word: the sync is none the worse for it.
const PATIENCE: Duration = Duration::from_secs(4);

impl Local {
    pub(super) async fn rivals_at_server(&self, target: PlanTarget) -> Result<Vec<ServerRival>> {
        let (config, _) = self.target(target)?;
        self.rivals_of(&config).await
    }

    async fn rivals_of(&self, config: &SyncConfig) -> Result<Vec<ServerRival>> {
        let (_, source) = self.engine.pool().source(config.source_connection.as_deref()).await?;
        let syncs = source.server_syncs(&Cx::quiet(), &config.project_id).await?;
        let Some(provider) = registry::find(&config.destination) else { return Ok(Vec::new()) };
        Ok(matching(config, provider, syncs))
    }

    /// What to say where a sync with auto-sync on was stored.
    pub(super) async fn server_warnings(&self, config: &SyncConfig) -> Vec<String> {
        if !config.is_enabled || !self.may_ask(config).await {
            return Vec::new();
        }
        let asked = tokio::time::timeout(PATIENCE, self.rivals_of(config)).await;
        let rivals = match asked {
            Ok(Ok(rivals)) => rivals,
            // Three rejected logins lock an identity for everybody: that is worth a word at once.
            Ok(Err(error)) if error.kind == ServiceErrorKind::Auth => return vec![format!("The KMS account could not be used: {}", error.message)],
            Ok(Err(error)) => {
                tracing::debug!(%error, "the server's own syncs were not seen");
                return Vec::new();
            }
            Err(_) => return Vec::new(),
        };
        let advice = |r: &ServerRival| {
            let id = if r.certain { String::new() } else { format!(" --id {}", r.sync.id) };
            format!("{} `kms-sync take-over {}{id}` switches the server's off.", r.text, config.name)
        };
        rivals.iter().map(advice).collect()
    }

    /// Whether the question cannot turn into one rejected login more, three of which lock an
    /// identity: a token is at hand, the account's last run here succeeded, or this is the engine,
    /// which tries a rejected login once and no more.
    async fn may_ask(&self, config: &SyncConfig) -> bool {
        let account = |c: &SyncConfig| self.engine.pool().account(c.source_connection.as_deref()).ok().map(|a| a.id);
        let Some(ours) = account(config) else { return false };
        let engine = self.hooks.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if engine || self.at_hand(config).await {
            return true;
        }
        // Last: it reads the state of every sync.
        let succeeded = |c: &SyncConfig| self.store.sync_state(&c.name).is_ok_and(|s| s.sync.status == Some(JobStatus::Succeeded));
        self.store.syncs().into_iter().filter_map(|l| l.result.ok()).any(|c| account(&c).as_ref() == Some(&ours) && succeeded(&c))
    }

    async fn at_hand(&self, config: &SyncConfig) -> bool {
        match self.engine.pool().source(config.source_connection.as_deref()).await {
            Ok((_, source)) => source.at_hand().await,
            Err(_) => false,
        }
    }

    pub(super) async fn switch_off(&self, target: PlanTarget, id: &str) -> Result<ServerRival> {
        let (config, _) = self.target(target)?;
        // Looked up anew: what is switched off is what stands in the way now.
        let found = self.rivals_of(&config).await?.into_iter().find(|r| r.sync.id == id);
        let mut rival = found.ok_or_else(|| ServiceError::no_rival(id, &config.name))?;
        let (_, source) = self.engine.pool().source(config.source_connection.as_deref()).await?;
        source.switch_off(&Cx::quiet(), &rival.sync).await?;
        rival.sync.auto_sync = false;
        Ok(rival)
    }
}

/// The server's syncs on auto-sync that write keys of `config`'s place.
fn matching(config: &SyncConfig, provider: &dyn Provider, syncs: Vec<ServerSync>) -> Vec<ServerRival> {
    let keys = provider.keys(&config.destination_config);
    let ours = schema(config, &*keys);
    let theirs = |sync: &ServerSync| {
        let mut as_ours = config.clone();
        as_ours.sync_options.key_schema.clone_from(&sync.key_schema);
        if let Some(environment) = &sync.environment {
            as_ours.environment.clone_from(environment);
        }
        schema(&as_ours, &*keys)
    };
    let meets = |sync: &ServerSync| {
        sync.auto_sync
            && sync.destination == config.destination
            && one_place(provider, config, &sync.destination_config, sync.environment.as_deref())
            && !apart(&ours, &theirs(sync))
    };
    let found: Vec<ServerSync> = syncs.into_iter().filter(meets).collect();
    let same_source = |s: &ServerSync| s.environment.as_ref() == Some(&config.environment) && s.secret_path.as_ref() == Some(&config.secret_path);
    // Where the configuration leaves the account open, the one sync of the same folder is the one
    // to take over from; of several each may stand for an account of its own.
    let alone = found.iter().filter(|s| same_source(s)).count() == 1;
    let rival = |sync: ServerSync| {
        let certain = provider.names_place() || (alone && same_source(&sync));
        ServerRival { text: sentence(&sync, certain), certain, sync }
    };
    found.into_iter().map(rival).collect()
}

fn schema(config: &SyncConfig, keys: &dyn KeySpace) -> KeySchema {
    crate::plan::schema_of(config, keys).map(|p| keys.fold(&keys.convert_part(p)))
}

fn sentence(sync: &ServerSync, certain: bool) -> String {
    let from = match (&sync.environment, &sync.secret_path) {
        (Some(environment), Some(path)) => format!(", from {environment}:{path}"),
        _ => String::new(),
    };
    let over = sync.connection.as_ref().map(|c| format!(" over its connection {c}")).unwrap_or_default();
    let (id, name) = (&sync.id, &sync.name);
    let does = if certain { "also writes there" } else { "also writes there if that reaches the same account" };
    format!(
        "The KMS server's own sync {name} (id {id}{from}){over} {does}, with auto-sync on: the two engines would overwrite and delete each other's keys."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(kind: &str, place: Value, schema: Option<&str>) -> SyncConfig {
        let document = json!({"name": "mine", "projectId": "p", "connectionId": "c", "environment": "dev", "secretPath": "/app",
            "destination": kind, "syncOptions": {"initialSyncBehavior": "overwrite-destination", "keySchema": schema}, "destinationConfig": place});
        SyncConfig::parse(&document, None, registry::rules, &registry::kinds()).expect("a configuration")
    }

    fn server(id: &str, config: &SyncConfig) -> ServerSync {
        ServerSync {
            id: id.into(),
            name: format!("server-{id}"),
            destination: config.destination.clone(),
            destination_config: config.destination_config.clone(),
            auto_sync: true,
            switch: "isAutoSyncEnabled".into(),
            key_schema: config.sync_options.key_schema.clone(),
            environment: Some(config.environment.clone()),
            secret_path: Some(config.secret_path.clone()),
            connection: Some("prod".into()),
            running: false,
        }
    }

    fn found(config: &SyncConfig, syncs: Vec<ServerSync>) -> Vec<(String, bool)> {
        let provider = registry::find(&config.destination).expect("a provider");
        matching(config, provider, syncs).into_iter().map(|r| (r.sync.id, r.certain)).collect()
    }

    #[test]
    fn a_place_that_is_named_whole_is_certain_from_any_folder() {
        let ours = config("azure-key-vault", json!({"vaultBaseUrl": "https://kv-a.vault.azure.net"}), None);
        let elsewhere = config("azure-key-vault", json!({"vaultBaseUrl": "https://kv-b.vault.azure.net"}), None);
        let other_folder = ServerSync { secret_path: Some("/other".into()), ..server("folder", &ours) };
        let off = ServerSync { auto_sync: false, ..server("off", &ours) };
        let kind = ServerSync { destination: "bitbucket".into(), ..server("kind", &ours) };
        let all = vec![server("same", &ours), other_folder, off, kind, server("elsewhere", &elsewhere)];
        assert_eq!(found(&ours, all), [("same".to_string(), true), ("folder".to_string(), true)]);
    }

    #[test]
    fn keys_that_cannot_meet_are_no_rivals() {
        let place = json!({"vaultBaseUrl": "https://kv-a.vault.azure.net"});
        let ours = config("azure-key-vault", place, Some("{{environment}}-A-{{secretKey}}"));
        let with = |id: &str, schema: Option<&str>| ServerSync { key_schema: schema.map(str::to_string), ..server(id, &ours) };
        let staging = ServerSync { environment: Some("staging".into()), ..server("staging", &ours) };
        let all = vec![with("all", None), with("b", Some("dev-B-{{secretKey}}")), staging, with("same", Some("dev_A_{{secretKey}}"))];
        assert_eq!(found(&ours, all), [("all".to_string(), true), ("same".to_string(), true)]);
    }

    #[test]
    fn groups_named_after_two_environments_are_two_places() {
        let ours = config("azure-devops", json!({"devopsProjectId": "p"}), None);
        let named = config("azure-devops", json!({"devopsProjectId": "p", "variableGroupName": "shared"}), None);
        let in_staging = |id: &str, config: &SyncConfig| ServerSync { environment: Some("staging".into()), ..server(id, config) };
        assert_eq!(found(&ours, vec![in_staging("staging", &ours), server("same", &ours)]), [("same".to_string(), true)]);
        assert_eq!(found(&named, vec![in_staging("staging", &named)]), [("staging".to_string(), false)], "a name of its own is one group");
    }

    #[test]
    fn an_account_left_open_is_certain_for_the_one_sync_of_the_same_folder() {
        let ours = config("aws-secrets-manager", json!({"region": "us-east-1", "mappingBehavior": "one-to-one"}), None);
        let other = ServerSync { secret_path: Some("/other".into()), ..server("other", &ours) };
        assert_eq!(found(&ours, vec![server("a", &ours), other.clone()]), [("a".to_string(), true), ("other".to_string(), false)]);
        assert_eq!(found(&ours, vec![server("a", &ours), server("b", &ours)]), [("a".to_string(), false), ("b".to_string(), false)]);
        let provider = registry::find(&ours.destination).expect("a provider");
        let doubt = &matching(&ours, provider, vec![other])[0].text;
        assert!(doubt.contains("over its connection prod also writes there if that reaches the same account"), "{doubt}");
    }
}
