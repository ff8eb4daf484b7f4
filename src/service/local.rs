//! The service over the engine of this process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::*;
use crate::destination::registry;
use crate::engine::Engine;
use crate::engine::auto::Clocks;
use crate::engine::hub::Hub;
use crate::engine::runner::RunSpec;
use crate::http::Cx;
use crate::model::board::{Card, LastRun};
use crate::model::connection::{Connection, ConnectionView};
use crate::model::run::RunStatus;
use crate::model::sync::{ConnectionRef, JobStatus, SyncConfig, SyncState};
use crate::model::{Finding, Map, Memory, Problems};
use crate::plan::count;
use crate::source::{self, SourceRef};
use crate::store::{Store, StoreError, run_blocking};

/// How long a closing engine lets runs finish by themselves.
const GRACE: Duration = Duration::from_secs(10);
/// A clock that is further off than this, in seconds, is reported.
const CLOCK_SKEW: i64 = 60;
/// The fact that holds the unfinished sync.
const DRAFT: &str = "draft";

/// The application service of this process.
pub struct Local {
    engine: Engine,
    store: Store,
    clocks: Clocks,
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        use crate::store::StoreErrorKind as K;
        let kind = match error.kind {
            K::NotFound => ServiceErrorKind::NotFound,
            K::Invalid | K::Refused => ServiceErrorKind::Invalid,
            _ => ServiceErrorKind::Storage,
        };
        Self { fields: error.problems.clone(), ..Self::new(kind, error.to_string()) }
    }
}

impl From<crate::engine::NotQueued> for ServiceError {
    fn from(error: crate::engine::NotQueued) -> Self {
        match error {
            crate::engine::NotQueued::Store(error) => error.into(),
            // To whoever asks it is gone already: the next engine takes the run.
            closing @ crate::engine::NotQueued::Closing => Self::new(ServiceErrorKind::Unreachable, closing.to_string()),
            busy => Self::new(ServiceErrorKind::Busy, busy.to_string()),
        }
    }
}

impl Local {
    /// A service over a store. Nothing runs before [`Self::start_auto`] or a started run, and
    /// nobody sees anything on the board before [`Self::reload`].
    pub fn new(store: Store) -> Arc<Self> {
        let hub = Arc::new(Hub::default());
        let engine = Engine::new(store.clone(), hub);
        let clocks = Clocks::new(engine.clone());
        Arc::new(Self { engine, store, clocks })
    }

    /// The engine itself, for the process that holds it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Starts the auto-sync clocks. The caller holds the engine lock.
    pub fn start_auto(&self) {
        self.clocks.start();
    }

    /// The auto-sync clocks.
    pub fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// Reads configuration files again after they changed behind our back.
    pub fn reload(&self) {
        match self.store.settings() {
            Ok(settings) => self.engine.set_settings(settings),
            Err(error) => self.engine.hub().notice("error", format!("{error} Until then the settings in force stay."), None),
        }
        self.fill_board();
        self.clocks.wake();
    }

    /// Brings the board in line with the files and the state database.
    fn fill_board(&self) {
        let mut names = Vec::new();
        let known = Known::read(&self.store);
        for loaded in self.store.syncs() {
            names.push(loaded.name.clone());
            let card = match &loaded.result {
                Ok(config) => self.card(config, &known),
                Err(broken) => broken_card(&loaded.name, &broken.to_string()),
            };
            self.engine.hub().publish(Event::Card { card: Box::new(card) });
        }
        let gone: Vec<String> = self.engine.hub().read(|b| b.cards.keys().filter(|k| !names.contains(k)).cloned().collect());
        for name in gone {
            self.engine.hub().publish(Event::Gone { name });
        }
        let account = known.account(None).cloned();
        let paused = self.engine.settings().paused;
        self.engine.hub().facts(|f| {
            f.account = account.map(|a| {
                let host = url::Url::parse(a.setting("baseUrl").unwrap_or(source::DEFAULT_BASE_URL)).ok();
                format!("{} on {}", a.name, host.as_ref().and_then(|u| u.host_str()).unwrap_or("?"))
            });
            f.paused = paused;
        });
    }

    fn card(&self, config: &SyncConfig, known: &Known) -> Card {
        let last = self.store.last_run(&config.name).ok().flatten().as_ref().map(LastRun::of);
        let state = self.store.sync_state(&config.name).ok();
        let connection = known.find(&config.connection_id).map_or_else(|| config.connection_id.clone(), |c| c.name.clone());
        let next = self.engine.hub().read(|b| b.cards.get(&config.name).and_then(|c| c.next.clone())).filter(|_| config.is_enabled);
        Card {
            name: config.name.clone(),
            destination: config.destination.clone(),
            destination_label: crate::engine::pool::label(&config.destination, &config.destination_config),
            source_label: format!("{}:{}", config.environment, config.secret_path),
            connection,
            enabled: config.is_enabled,
            key_schema: config.sync_options.key_schema.clone(),
            last,
            last_synced: state.and_then(|s| s.sync.at),
            run: None,
            next,
            broken: None,
        }
    }

    fn publish_card(&self, config: &SyncConfig) {
        self.engine.hub().publish(Event::Card { card: Box::new(self.card(config, &Known::read(&self.store))) });
    }

    fn config(&self, name: &str) -> Result<SyncConfig> {
        if let Ok(config) = self.store.sync(name) {
            return Ok(config);
        }
        // By id; and a broken file of that name must say why it is broken.
        for loaded in self.store.syncs() {
            match loaded.result {
                Err(broken) if loaded.name == name => return Err(ServiceError::new(ServiceErrorKind::Storage, broken.to_string())),
                Ok(config) if self.store.sync_state(&config.name).is_ok_and(|s| s.id == name) => return Ok(config),
                _ => {}
            }
        }
        let names: Vec<String> = self.store.syncs().into_iter().map(|l| l.name).collect();
        let hint = crate::model::text::closest(name, names.iter().map(String::as_str)).map(|n| format!(" Did you mean {n}?")).unwrap_or_default();
        let name = crate::model::text::brief(name, 80);
        Err(ServiceError::new(ServiceErrorKind::NotFound, format!("There is no sync {name:?}.{hint}")))
    }

    fn doc(&self, config: &SyncConfig) -> Result<SyncDoc> {
        self.doc_with(config, &Known::read(&self.store))
    }

    fn doc_with(&self, config: &SyncConfig, known: &Known) -> Result<SyncDoc> {
        let mut state = self.store.sync_state(&config.name)?;
        for job in [&mut state.sync, &mut state.import, &mut state.remove] {
            if job.status == Some(JobStatus::Running)
                && let Some(id) = &job.job_id
                && let Some(run) = self.store.run(id)?.filter(|r| r.status == RunStatus::Interrupted && r.finished_at.is_some())
            {
                // Its process is dead; the next engine writes that down.
                (job.status, job.message) = (Some(JobStatus::Failed), run.message);
            }
        }
        let connection = known.find(&config.connection_id).map(|c| ConnectionRef { app: c.app.clone(), name: c.name.clone(), id: c.id.clone() });
        let account = known.account(config.source_connection.as_deref()).map(|a| a.name.clone());
        let mut doc = SyncDoc::new(config, &state, connection);
        doc.source_connection = config.source_connection.clone().or(account);
        Ok(doc)
    }

    /// Parses and checks a document against the stored connections and syncs.
    fn checked(&self, input: &SyncInput, replaces: Option<&SyncConfig>) -> Result<SyncConfig> {
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

    fn spec(&self, config: SyncConfig, state: SyncState, verify: bool) -> RunSpec {
        RunSpec {
            config,
            state,
            kind: RunKind::Sync,
            trigger: Trigger::Manual,
            verify,
            allow_delete: false,
            withhold: false,
            prioritize: None,
            source: None,
        }
    }

    /// Warnings about other syncs that write the same place.
    fn overlaps(&self, config: &SyncConfig, replaces: Option<&str>) -> Vec<String> {
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
            if !same_account || !provider.overlaps(&config.destination_config, &other.destination_config) {
                continue;
            }
            let theirs = schema(&other);
            let disjoint = (!ours.prefix.starts_with(&theirs.prefix) && !theirs.prefix.starts_with(&ours.prefix))
                || (!ours.suffix.ends_with(&theirs.suffix) && !theirs.suffix.ends_with(&ours.suffix));
            let managed = match &other.sync_options.key_schema {
                Some(schema) => format!("keys that match {schema}"),
                None => "every key, for it has no Key Schema".to_string(),
            };
            if disjoint {
                out.push(format!("{} also writes there, {managed}: the two do not overlap.", other.name));
            } else {
                out.push(format!("{} also writes there, {managed}: the two overlap. Each leaves alone what the other wrote.", other.name));
            }
        }
        out
    }

    fn view(&self, connection: &Connection, syncs: &[SyncConfig]) -> ConnectionView {
        let is_account = connection.app == source::APP.app;
        let only_account = is_account && self.engine.pool().account(None).is_ok_and(|a| a.id == connection.id);
        let uses = |s: &&SyncConfig| {
            let named = |n: &str| n == connection.name || n == connection.id;
            named(&s.connection_id) || s.source_connection.as_deref().is_some_and(named) || (only_account && s.source_connection.is_none())
        };
        ConnectionView {
            id: connection.id.clone(),
            name: connection.name.clone(),
            app: connection.app.clone(),
            method: connection.method.clone(),
            public: registry::app(&connection.app).map(|spec| connection.public(spec)).unwrap_or_default(),
            held: registry::app(&connection.app).map(|spec| connection.held(spec)).unwrap_or_default(),
            used_by: syncs.iter().filter(uses).map(|s| s.name.clone()).collect(),
        }
    }

    fn parse_connection(&self, document: Value) -> Result<Connection> {
        let apps: Vec<&str> = registry::apps().iter().map(|a| a.app).collect();
        let document = self.store.with_stored_credentials(document)?;
        Ok(Connection::parse(&document, registry::app, &apps)?)
    }

    async fn test(&self, cx: &Cx, connection: &Connection, config: Option<Map>) -> Result<TestReport> {
        if connection.app == source::APP.app {
            return Ok(self.engine.pool().open_source(connection).await?.test(cx).await?);
        }
        let example = self.store.syncs().into_iter().filter_map(|l| l.result.ok());
        let mut known = example.filter(|s| s.connection_id == connection.name || s.connection_id == connection.id).map(|s| s.destination_config);
        let config = config.or_else(|| known.next());
        Ok(self.engine.pool().open(connection).await?.test(cx, config.as_ref()).await?)
    }
}

fn clock_finding(skew: i64) -> Finding {
    let way = if skew > 0 { "ahead of" } else { "behind" };
    let ok = skew.abs() <= CLOCK_SKEW;
    let detail = if ok { "agrees with the servers'".into() } else { format!("{} s {way} the servers'", skew.abs()) };
    // OCI refuses requests that are 5 minutes off, AWS those that are 15 off.
    let fix =
        (!ok).then(|| "set it, and keep it right by NTP (timedatectl set-ntp true): signed requests are refused when it is minutes off".to_string());
    Finding { ok, what: "clock".into(), detail, fix }
}

fn taken(name: &str) -> Problems {
    let mut problems = Problems::default();
    problems.add("name", "unique", format!("A sync named {name} exists already."));
    problems
}

/// The stored connections, read once for many syncs.
struct Known(Vec<Connection>);

impl Known {
    fn read(store: &Store) -> Self {
        Self(store.connections().into_iter().filter_map(|l| l.result.ok()).collect())
    }

    fn find(&self, name: &str) -> Option<&Connection> {
        self.0.iter().find(|c| c.name == name || c.id == name)
    }

    /// The named KMS account, or the only one there is.
    fn account(&self, named: Option<&str>) -> Option<&Connection> {
        if let Some(name) = named {
            return self.find(name);
        }
        let mut accounts = self.0.iter().filter(|c| c.app == source::APP.app);
        accounts.next().filter(|_| accounts.next().is_none())
    }
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

fn broken_card(name: &str, reason: &str) -> Card {
    Card {
        name: name.to_string(),
        destination: String::new(),
        destination_label: String::new(),
        source_label: String::new(),
        connection: String::new(),
        enabled: false,
        key_schema: None,
        last: None,
        last_synced: None,
        run: None,
        next: None,
        broken: Some(reason.to_string()),
    }
}

/// Lays an update over a stored document: members left out keep their value, and
/// `destinationConfig` and `syncOptions` are replaced whole, as the server does.
fn laid_over(old: &SyncConfig, change: &Value) -> Result<Value> {
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

#[async_trait]
impl Service for Local {
    async fn watch(&self) -> Result<Watch> {
        let (board, events) = self.engine.hub().watch();
        Ok(Watch { board, events })
    }

    async fn syncs(&self) -> Result<Vec<SyncDoc>> {
        let known = Known::read(&self.store);
        self.store.syncs().into_iter().filter_map(|l| l.result.ok()).map(|c| self.doc_with(&c, &known)).collect()
    }

    async fn sync(&self, name: &str) -> Result<SyncDoc> {
        self.doc(&self.config(name)?)
    }

    async fn check_sync(&self, input: SyncInput, replaces: Option<String>) -> Result<()> {
        let old = replaces.and_then(|n| self.config(&n).ok());
        self.checked(&input, old.as_ref()).map(|_| ())
    }

    async fn create_sync(&self, input: SyncInput) -> Result<SyncDoc> {
        let mut config = self.checked(&input, None)?;
        if config.source_connection.is_none() {
            // A second account that is added later must not make this sync ambiguous.
            config.source_connection = self.engine.pool().account(None).ok().map(|a| a.name);
        }
        if !self.store.create_sync(&config)? {
            return Err(taken(&config.name).into());
        }
        self.publish_card(&config);
        self.clocks.wake();
        self.doc(&config)
    }

    async fn update_sync(&self, name: &str, input: SyncInput) -> Result<SyncDoc> {
        // Members left out keep what they are now: nobody else may change them in between.
        let _guard = self.store.config_guard()?;
        let old = self.config(name)?;
        if self.engine.is_busy(&old.name) {
            return Err(ServiceError::new(ServiceErrorKind::Busy, format!("A run of {} is going: wait for its end, or cancel it.", old.name)));
        }
        let document = laid_over(&old, &input.document)?;
        let mut config = self.checked(&SyncInput { document, destination: input.destination }, Some(&old))?;
        // An answer names connections by id; a file keeps the name that its author gave.
        let id = |name: &str| self.store.connection(name).map(|c| c.id).ok();
        if id(&config.connection_id) == id(&old.connection_id) {
            config.connection_id.clone_from(&old.connection_id);
        }
        if let (Some(new), Some(was)) = (&config.source_connection, &old.source_connection)
            && id(new) == id(was)
        {
            config.source_connection.clone_from(&old.source_connection);
        }
        if config == old {
            return self.doc(&old);
        }
        self.store.save_sync(&config)?;
        if config.name != old.name {
            self.store.rename_sync(&old.name, &config.name)?;
            self.store.remove_sync(&old.name)?;
            self.engine.hub().publish(Event::Gone { name: old.name.clone() });
        }
        let mut state = self.store.sync_state(&config.name)?;
        state.version += 1;
        state.updated_at = crate::model::now();
        self.store.save_sync_state(&config.name, &state)?;
        // What is deleted, and where, may differ from now on: the next run asks like a first run.
        let risky = config.destination_config != old.destination_config
            || config.sync_options.key_schema != old.sync_options.key_schema
            || config.environment != old.environment
            || (config.sync_options.deletes() && !old.sync_options.deletes());
        if risky {
            self.store.unsettle(&state.id)?;
        }
        self.publish_card(&config);
        self.clocks.wake();
        self.doc(&config)
    }

    async fn delete_sync(&self, name: &str) -> Result<()> {
        let config = self.config(name)?;
        if self.engine.is_busy(&config.name) {
            return Err(ServiceError::new(ServiceErrorKind::Busy, format!("A run of {} is going: wait for its end, or cancel it.", config.name)));
        }
        self.store.remove_sync(&config.name)?;
        self.store.forget_sync(&config.name)?;
        self.engine.hub().publish(Event::Gone { name: config.name });
        self.clocks.wake();
        Ok(())
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<SyncDoc> {
        let _guard = self.store.config_guard()?;
        let mut config = self.config(name)?;
        if config.is_enabled != enabled {
            config.is_enabled = enabled;
            self.store.save_sync(&config)?;
            let mut state = self.store.sync_state(&config.name)?;
            state.version += 1;
            state.updated_at = crate::model::now();
            self.store.save_sync_state(&config.name, &state)?;
            self.publish_card(&config);
            self.clocks.wake();
        }
        self.doc(&config)
    }

    async fn document(&self, name: &str) -> Result<Value> {
        serde_json::to_value(self.config(name)?).map_err(|e| ServiceError::new(ServiceErrorKind::Storage, e.to_string()))
    }

    async fn plan(&self, target: PlanTarget, verify: bool) -> Result<PlanDoc> {
        let (config, state, replaces) = match target {
            PlanTarget::Stored { name } => {
                let config = self.config(&name)?;
                let state = self.store.sync_state(&config.name)?;
                (config, state, None)
            }
            PlanTarget::Draft { document, replaces } => {
                let old = replaces.as_deref().and_then(|n| self.config(n).ok());
                let config = self.checked(&SyncInput { document, destination: None }, old.as_ref())?;
                // A draft has no state of its own: nothing is owned, everything is a first run.
                let state = match &old {
                    Some(old) => self.store.sync_state(&old.name)?,
                    None => SyncState::fresh(),
                };
                (config, state, replaces)
            }
        };
        let overlaps = self.overlaps(&config, replaces.as_deref());
        let mut plan = self.engine.runner().plan(&self.spec(config, state, verify), &Cx::quiet()).await?;
        plan.warnings.extend(overlaps);
        Ok(plan)
    }

    async fn start(&self, request: RunRequest) -> Result<String> {
        let config = self.config(&request.sync)?;
        if request.kind == RunKind::Import {
            let provider = registry::find(&config.destination);
            if let Some(spec) = provider.map(|p| p.spec()).filter(|s| !s.can_import) {
                let mut problems = Problems::default();
                problems.add("destination", "import-unsupported", format!("{} does not support importing secrets.", spec.title));
                return Err(problems.into());
            }
        }
        Ok(self.engine.submit(&RunRequest { sync: config.name, ..request }, None)?)
    }

    async fn finished(&self, run: &str) -> Result<RunRecord> {
        match self.engine.finished(run).await {
            Some(record) => Ok(record),
            None => Err(ServiceError::new(ServiceErrorKind::NotFound, "There is no such run.")),
        }
    }

    async fn cancel(&self, run: &str) -> Result<()> {
        if self.engine.cancel(run) { Ok(()) } else { Err(ServiceError::new(ServiceErrorKind::NotFound, "That run has ended.")) }
    }

    async fn approve(&self, approval: Approval) -> Result<()> {
        let config = self.config(&approval.sync)?;
        let state = self.store.sync_state(&config.name)?;
        let destination = self.engine.runner().destination(&config, &state, &Cx::quiet()).await?;
        let folds = |keys: &[String]| keys.iter().map(|k| destination.keys().fold(k)).collect::<Vec<_>>();
        let target = destination.identity();
        self.store.approve(&state.id, &target, &folds(&approval.approve))?;
        self.store.keep(&state.id, &target, &folds(&approval.keep))?;
        Ok(())
    }

    async fn history(&self, name: &str, limit: usize) -> Result<Vec<RunRecord>> {
        let config = self.config(name)?;
        Ok(self.store.runs(&config.name, limit)?)
    }

    async fn connections(&self) -> Result<Vec<ConnectionView>> {
        let syncs: Vec<SyncConfig> = self.store.syncs().into_iter().filter_map(|l| l.result.ok()).collect();
        Ok(self.store.connections().into_iter().filter_map(|l| l.result.ok()).map(|c| self.view(&c, &syncs)).collect())
    }

    async fn save_connection(&self, document: Value, replace: bool) -> Result<ConnectionView> {
        let mut connection = self.parse_connection(document)?;
        if let Ok(old) = self.store.connection(&connection.name) {
            if !replace {
                let mut problems = Problems::default();
                problems.add("name", "unique", format!("A connection named {} exists already.", connection.name));
                return Err(problems.into());
            }
            connection.id = old.id;
        }
        let store = self.store.clone();
        let connection = run_blocking(move || store.save_connection(connection)).await?;
        self.fill_board();
        self.clocks.wake();
        Ok(self.view(&connection, &[]))
    }

    async fn remove_connection(&self, name: &str) -> Result<()> {
        let connection = self.store.connection(name)?;
        let syncs: Vec<SyncConfig> = self.store.syncs().into_iter().filter_map(|l| l.result.ok()).collect();
        let used = self.view(&connection, &syncs).used_by;
        if !used.is_empty() {
            let text = format!("{} is used by {}: {}.", connection.name, count(used.len(), "sync"), used.join(", "));
            return Err(ServiceError::new(ServiceErrorKind::Busy, text));
        }
        self.store.remove_connection(&connection.name)?;
        self.fill_board();
        Ok(())
    }

    async fn test_connection(&self, name: &str) -> Result<TestReport> {
        let connection = self.store.connection(name)?;
        self.test(&Cx::quiet(), &connection, None).await
    }

    async fn test_destination(&self, name: &str, config: Map) -> Result<TestReport> {
        let connection = self.store.connection(name)?;
        self.test(&Cx::quiet(), &connection, Some(config)).await
    }

    async fn try_connection(&self, document: Value) -> Result<TestReport> {
        let connection = self.parse_connection(document)?;
        self.test(&Cx::quiet(), &connection, None).await
    }

    async fn projects(&self, account: &str) -> Result<Vec<Project>> {
        let (_, source) = self.engine.pool().source(Some(account).filter(|a| !a.is_empty())).await?;
        Ok(source.projects(&Cx::quiet()).await?)
    }

    async fn folders(&self, ask: FolderAsk) -> Result<Vec<Choice>> {
        let (_, source) = self.engine.pool().source(Some(ask.account.as_str()).filter(|a| !a.is_empty())).await?;
        let at = SourceRef { project_id: ask.project_id, environment: ask.environment, path: ask.path, recursive: false };
        Ok(source.folders(&Cx::quiet(), &at).await?)
    }

    async fn choices(&self, ask: ChoicesAsk) -> Result<Vec<Choice>> {
        let session = self.engine.pool().session(&ask.connection).await?;
        Ok(session.choices(&Cx::quiet(), &ask.field, &ask.filled).await?)
    }

    async fn draft(&self) -> Result<Option<Draft>> {
        // One of another version is as good as none.
        Ok(self.store.get(DRAFT).and_then(|v| serde_json::from_value(v).ok()))
    }

    async fn keep_draft(&self, draft: Option<Draft>) -> Result<()> {
        let value = serde_json::to_value(draft).map_err(|e| ServiceError::new(ServiceErrorKind::Storage, e.to_string()))?;
        let store = self.store.clone();
        let kept = run_blocking(move || {
            store.put(DRAFT, value);
            Ok(())
        });
        Ok(kept.await?)
    }

    async fn pause(&self, paused: bool) -> Result<()> {
        let mut settings = self.store.settings()?;
        settings.paused = paused;
        self.store.save_settings(&settings)?;
        self.engine.set_settings(settings);
        self.engine.hub().facts(|f| f.paused = paused);
        self.clocks.wake();
        Ok(())
    }

    async fn doctor(&self) -> Result<Vec<Finding>> {
        let store = self.store.clone();
        let mut findings = run_blocking(move || Ok(crate::store::doctor(&store))).await?;
        let mut clocks: Vec<i64> = Vec::new();
        for connection in self.store.connections().into_iter().filter_map(|l| l.result.ok()) {
            let cx = Cx::quiet();
            let what = format!("connection {}", connection.name);
            findings.push(match self.test(&cx, &connection, None).await {
                Ok(report) => {
                    let notes: Vec<String> = std::iter::once(report.identity).chain(report.notes).filter(|n| !n.is_empty()).collect();
                    Finding { ok: true, what, detail: notes.join("; "), fix: None }
                }
                Err(error) => {
                    Finding { ok: false, what, detail: error.message, fix: Some(format!("kms-sync connection test {} tries again", connection.name)) }
                }
            });
            clocks.extend(cx.meter().skew());
        }
        // One server may be wrong; where several disagree with us by as much, it is this machine.
        clocks.sort_unstable();
        findings.extend(clocks.get(clocks.len() / 2).map(|skew| clock_finding(*skew)));
        Ok(findings)
    }

    async fn close(&self) {
        self.clocks.stop();
        self.engine.close(GRACE).await;
    }
}
