//! The service over the engine of this process.
//!
//! Here is what is asked of it; [`board`] fills the live picture, [`lookup`] finds syncs and
//! makes the documented answer, [`checks`] judges documents, [`accounts`] knows connections,
//! [`broken`] tells of files that cannot be used, [`takeover`] of the server's own syncs.

mod accounts;
mod board;
mod broken;
mod checks;
mod lookup;
mod questions;
mod takeover;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::destination::registry;
use crate::engine::Engine;
use crate::engine::auto::{Clocks, waits};
use crate::engine::hooks::Hooks;
use crate::engine::hub::Hub;
use crate::engine::readings::Moment;
use crate::engine::runner::RunSpec;
use crate::http::Cx;
use crate::model::board::{Card, LastRun};
use crate::model::connection::{Connection, ConnectionView};
use crate::model::run::RunStatus;
use crate::model::sync::{ConnectionRef, JobStatus, SyncConfig, SyncState, SyncWait};
use crate::model::{Finding, Map, Memory, Problems};
use crate::plan::count;
use crate::source::{self, SourceRef};
use crate::store::{EngineLock, Store, StoreError, run_blocking};

use accounts::clock_finding;
use checks::{laid_over, taken};
use lookup::Known;
use questions::within;

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
    hooks: Mutex<Option<Hooks>>,
    /// What was told to be unusable, by what it is.
    told: Mutex<broken::Told>,
    /// Cancelled when another process wants to be the engine; there only where this one makes room.
    leaving: OnceLock<CancellationToken>,
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        use crate::store::StoreErrorKind as K;
        let kind = match error.kind {
            K::NotFound => ServiceErrorKind::NotFound,
            K::Invalid | K::Refused => ServiceErrorKind::Invalid,
            _ => ServiceErrorKind::Storage,
        };
        let message = match &error.path {
            // Whole, and in the words of each rule.
            None if !error.problems.is_empty() => error.problems.to_string(),
            _ => error.to_string(),
        };
        Self { fields: error.problems, ..Self::new(kind, message) }
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
        Arc::new(Self { engine, store, clocks, hooks: Mutex::default(), told: Mutex::default(), leaving: OnceLock::new() })
    }

    /// The engine itself, for the process that holds it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Starts the auto-sync clocks and the hooks. The caller holds the engine lock.
    pub fn start_auto(&self) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| Hooks::start(self.engine.clone()));
        self.clocks.start();
    }

    /// Makes room for an engine that stays when one asks; the token tells that it was asked.
    pub fn makes_room(&self) -> CancellationToken {
        self.leaving.get_or_init(CancellationToken::new).clone()
    }

    /// Gives the hooks of ended runs their time. What takes longer is ended.
    pub async fn finish_hooks(&self) {
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(hooks) = hooks {
            hooks.finish().await;
        }
    }

    /// The auto-sync clocks.
    pub fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// Stores an edit; with the new configuration when it changed anything.
    fn updated(&self, name: &str, input: SyncInput) -> Result<(SyncDoc, Option<SyncConfig>)> {
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
            return Ok((self.doc(&old)?, None));
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
        if config.asks_anew(&old) {
            self.store.unsettle(&state.id)?;
        }
        self.publish_card(&config);
        self.clocks.wake();
        Ok((self.whole_doc(&config)?, Some(config)))
    }
}

impl Local {
    /// Switches auto-sync; with whether that was a change.
    fn switched(&self, name: &str, enabled: bool) -> Result<(SyncConfig, bool)> {
        let _guard = self.store.config_guard()?;
        let mut config = self.config(name)?;
        if config.is_enabled == enabled {
            return Ok((config, false));
        }
        config.is_enabled = enabled;
        self.store.save_sync(&config)?;
        let mut state = self.store.sync_state(&config.name)?;
        state.version += 1;
        state.updated_at = crate::model::now();
        self.store.save_sync_state(&config.name, &state)?;
        self.publish_card(&config);
        self.clocks.wake();
        Ok((config, true))
    }

    /// The context of a question about a sync, or about one that is not stored yet: what it waits
    /// for is told to whoever watches, unless a run of that sync has its own waits to tell.
    fn asking(&self, sync: &str) -> Cx {
        let (engine, sync) = (self.engine.clone(), sync.to_string());
        let told = move |waiting| {
            if !engine.is_busy(&sync) {
                engine.hub().publish(Event::Waiting { sync: sync.clone(), waiting });
            }
        };
        Cx::new(CancellationToken::new(), Arc::new(told))
    }

    /// What to say where a sync was stored: who else writes there.
    async fn warnings(&self, config: &SyncConfig) -> Vec<String> {
        [self.rivals(config), self.server_warnings(config).await].concat()
    }

    /// Queues a run that was asked for at this moment.
    fn start_at(&self, request: RunRequest, asked: Moment) -> Result<String> {
        let config = self.config(&request.sync)?;
        if request.kind == RunKind::Import {
            let provider = registry::find(&config.destination);
            if let Some(refusal) = provider.and_then(|p| p.spec().import_note) {
                return Err(Problems::one("destination", "import-unsupported", refusal).into());
            }
        }
        Ok(self.engine.submit_with(&RunRequest { sync: config.name, ..request }, asked)?)
    }
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
        let config = self.config(name)?;
        self.whole_doc(&config)
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
        let warnings = self.warnings(&config).await;
        Ok(SyncDoc { warnings, ..self.doc(&config)? })
    }

    async fn update_sync(&self, name: &str, input: SyncInput) -> Result<SyncDoc> {
        let (doc, changed) = self.updated(name, input)?;
        let Some(config) = changed else { return Ok(doc) };
        let warnings = self.warnings(&config).await;
        Ok(SyncDoc { warnings, ..doc })
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
        let (config, changed) = self.switched(name, enabled)?;
        let warnings = if changed && enabled { self.warnings(&config).await } else { Vec::new() };
        Ok(SyncDoc { warnings, ..self.doc(&config)? })
    }

    async fn document(&self, name: &str) -> Result<Value> {
        serde_json::to_value(self.config(name)?).map_err(|e| ServiceError::new(ServiceErrorKind::Storage, e.to_string()))
    }

    async fn plan(&self, target: PlanTarget, verify: bool) -> Result<PlanDoc> {
        let replaces = match &target {
            PlanTarget::Stored { .. } => None,
            PlanTarget::Draft { replaces, .. } => replaces.clone(),
        };
        let (config, stored) = self.target(target)?;
        // A draft has no state of its own: nothing is owned, everything is a first run.
        let state = match stored {
            Some(name) => self.store.sync_state(&name)?,
            None => SyncState::fresh(),
        };
        let overlaps = self.overlaps(&config, replaces.as_deref()).into_iter().map(|o| o.text);
        let cx = self.asking(&config.name);
        let _counted = self.engine.counted(&cx);
        let mut plan = self.engine.runner().plan(&RunSpec::look(config, state, verify), &cx).await?;
        plan.warnings.extend(overlaps);
        Ok(plan)
    }

    async fn server_rivals(&self, target: PlanTarget) -> Result<Vec<ServerRival>> {
        self.rivals_at_server(target).await
    }

    async fn switch_off_rival(&self, target: PlanTarget, id: &str) -> Result<ServerRival> {
        self.switch_off(target, id).await
    }

    async fn start(&self, request: RunRequest) -> Result<String> {
        self.start_at(request, self.engine.readings().now())
    }

    async fn start_together(&self, requests: Vec<RunRequest>) -> Result<Vec<Result<String>>> {
        let asked = self.engine.readings().now();
        let mut answers = Vec::new();
        for request in requests {
            answers.push(self.start_at(request, asked));
            // Each one touches files: others have their turn between them.
            tokio::task::yield_now().await;
        }
        Ok(answers)
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
                return Err(Problems::one("name", "unique", format!("A connection named {} exists already.", connection.name)).into());
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
        within("a test", name, self.test(&connection, None)).await
    }

    async fn test_destination(&self, name: &str, config: Map) -> Result<TestReport> {
        let connection = self.store.connection(name)?;
        within("a test of the target", name, self.test(&connection, Some(config))).await
    }

    async fn try_connection(&self, document: Value) -> Result<TestReport> {
        let connection = self.parse_connection(document)?;
        within("a test", &connection.name, self.test(&connection, None)).await
    }

    async fn projects(&self, account: &str) -> Result<Vec<Project>> {
        let question = async {
            let (_, source) = self.engine.pool().source(Some(account).filter(|a| !a.is_empty())).await?;
            Ok(source.projects(&Cx::quiet()).await?)
        };
        within("the projects", if account.is_empty() { "the KMS account" } else { account }, question).await
    }

    async fn folders(&self, ask: FolderAsk) -> Result<Vec<Choice>> {
        let account = ask.account;
        let at = SourceRef { project_id: ask.project_id, environment: ask.environment, path: ask.path, recursive: false };
        let question = async {
            let (_, source) = self.engine.pool().source(Some(account.as_str()).filter(|a| !a.is_empty())).await?;
            Ok(source.folders(&Cx::quiet(), &at).await?)
        };
        within("the folders", if account.is_empty() { "the KMS account" } else { &account }, question).await
    }

    async fn choices(&self, ask: ChoicesAsk) -> Result<Vec<Choice>> {
        let question = async {
            let session = self.engine.pool().session(&ask.connection).await?;
            Ok(session.choices(&Cx::quiet(), &ask.field, &ask.filled).await?)
        };
        let spec = registry::find(&ask.kind).map(|p| p.spec());
        let field = spec.and_then(|s| s.config.iter().chain(s.options).find(|f| f.name == ask.field));
        within(&format!("the list for {}", field.map_or(&*ask.field, |f| f.label)), &ask.connection, question).await
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
            let mut apart = Vec::new();
            findings.push(match self.test_apart(&cx, &connection, None).await {
                Ok((report, failed)) => {
                    apart.extend(failed.map(|f| f.finding()));
                    let notes: Vec<String> = std::iter::once(report.identity).chain(report.notes).filter(|n| !n.is_empty()).collect();
                    Finding { ok: true, what, detail: notes.join("; "), fix: None }
                }
                Err(error) => {
                    Finding { ok: false, what, detail: error.message, fix: Some(format!("kms-sync connection test {} tries again", connection.name)) }
                }
            });
            findings.append(&mut apart);
            clocks.extend(cx.meter().skew());
        }
        // One server may be wrong; where several disagree with us by as much, it is this machine.
        clocks.sort_unstable();
        findings.extend(clocks.get(clocks.len() / 2).map(|skew| clock_finding(*skew)));
        Ok(findings)
    }

    async fn hand_over(&self) -> Result<()> {
        match self.leaving.get() {
            Some(leaving) => {
                leaving.cancel();
                Ok(())
            }
            None => Err(ServiceError::new(ServiceErrorKind::Busy, "This engine stays until it is stopped.")),
        }
    }

    async fn close(&self) {
        self.clocks.stop();
        self.engine.close(GRACE).await;
        self.finish_hooks().await;
    }
}
