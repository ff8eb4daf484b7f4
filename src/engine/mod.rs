//! The engine: queues runs, carries them out in background tasks, and publishes what happens.
//!
//! [`Engine`] owns the queue; [`runner`] knows what a run does, [`executor`] how a plan is
//! carried out, [`auto`] when runs start by themselves, [`hub`] who sees it.

pub mod auto;
mod carried;
mod commit;
mod confirm;
mod executor;
pub mod hooks;
pub mod hub;
pub mod pool;
mod progress;
mod rates;
pub mod runner;
mod steps;
pub mod targets;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::Cx;
use crate::model::board::{Event, LiveRun, Phase};
use crate::model::run::{Counts, RunKind, RunRecord, RunRequest, RunStatus, Trigger};
use crate::model::sync::{Job, JobStatus, SyncState};
use crate::model::text::brief;
use crate::source::SourceMap;
use crate::store::{Settings, Store};

pub use executor::blocking;

use hub::Hub;
use pool::Pool;
use progress::Progress;
use runner::{Ended, RunSpec, Runner};

/// Longest message that the documented answer carries, in characters.
const MESSAGE: usize = 1024;
/// Ended runs whose records are kept in memory for whoever asks next.
const KEPT_RESULTS: usize = 64;

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    pool: Arc<Pool>,
    hub: Arc<Hub>,
    targets: Arc<targets::Targets>,
    queue: Mutex<Queue>,
    settings: Mutex<Settings>,
    tasks: TaskTracker,
    /// Set when the engine is closing: nothing new starts.
    closing: CancellationToken,
    /// Told of every finished run.
    ended: tokio::sync::broadcast::Sender<Arc<Finished>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    /// By sync name.
    running: HashMap<String, Running>,
    /// By run id: those that have not ended, and the last that did. Older ones are in the database.
    results: HashMap<String, watch::Receiver<Option<RunRecord>>>,
    ended: VecDeque<String>,
    /// Requests of ended runs, by provider.
    sent: rates::Totals,
    /// The rates are being told.
    telling: bool,
}

impl Queue {
    /// The run that auto-sync has started for a sync before its creator did: there is one first
    /// run, whoever starts it.
    fn first_run(&mut self, name: &str, request: &RunRequest) -> Option<String> {
        if let Some(queued) = self.waiting.iter_mut().find(|q| q.spec.config.name == name && q.spec.kind == request.kind) {
            let spec = &mut queued.spec;
            spec.trigger = request.trigger;
            spec.allow_delete |= request.allow_delete;
            spec.withhold |= request.withhold;
            return Some(queued.id.clone());
        }
        // One that has begun cannot be told what the creator agreed to.
        let same = |r: &&Running| r.kind == request.kind && !request.allow_delete && !request.withhold;
        self.running.get(name).filter(same).map(|r| r.id.clone())
    }
}

struct Queued {
    id: String,
    spec: RunSpec,
    result: watch::Sender<Option<RunRecord>>,
    /// Everything about it is recorded: it may start.
    ready: bool,
    /// The position that was last told.
    told: Option<usize>,
}

struct Running {
    id: String,
    kind: RunKind,
    connection: String,
    cancel: CancellationToken,
    /// Set when it begins to work.
    cx: Option<Cx>,
}

/// Why a run was not queued.
#[derive(Debug, thiserror::Error)]
pub enum NotQueued {
    #[error("kms-sync is closing: no new runs start")]
    Closing,
    /// A sync runs once at a time.
    #[error("a run of {0} is going already")]
    Going(String),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// A finished run, as the auto-sync clocks need to know it.
pub struct Finished {
    pub record: RunRecord,
    pub retryable: bool,
    /// Fingerprint of what it took from its source, when it came so far.
    pub content: Option<String>,
}

impl Engine {
    /// An idle engine over a store.
    pub fn new(store: Store, hub: Arc<Hub>) -> Self {
        let pool = Arc::new(Pool::new(store.clone()));
        // A settings file that cannot be used must not loosen a limit in silence: nothing runs
        // by itself, and whoever becomes the engine is refused (see `service::attach`).
        let settings = store.settings().unwrap_or_else(|_| Settings { paused: true, ..Settings::default() });
        Self {
            inner: Arc::new(Inner {
                store,
                pool,
                hub,
                targets: Arc::default(),
                queue: Mutex::default(),
                settings: Mutex::new(settings),
                tasks: TaskTracker::new(),
                closing: CancellationToken::new(),
                ended: tokio::sync::broadcast::Sender::new(1024),
            }),
        }
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.inner.pool
    }

    pub fn hub(&self) -> &Arc<Hub> {
        &self.inner.hub
    }

    /// A copy of the settings in force.
    pub fn settings(&self) -> Settings {
        self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other settings in force (they are not stored here).
    pub fn set_settings(&self, settings: Settings) {
        *self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        self.pump();
    }

    /// Every finished run from now on.
    pub fn endings(&self) -> tokio::sync::broadcast::Receiver<Arc<Finished>> {
        self.inner.ended.subscribe()
    }

    /// Runs and plans, without the queue.
    pub fn runner(&self) -> Runner {
        Runner {
            store: self.inner.store.clone(),
            pool: self.inner.pool.clone(),
            targets: self.inner.targets.clone(),
            mass_delete_percent: self.settings().mass_delete_percent,
        }
    }

    /// Queues a run. A sync runs once at a time.
    pub fn submit(&self, request: &RunRequest, source: Option<Arc<SourceMap>>) -> Result<String, NotQueued> {
        if self.inner.closing.is_cancelled() {
            return Err(NotQueued::Closing);
        }
        let config = self.inner.store.sync(&request.sync)?;
        let mut state = self.inner.store.sync_state(&config.name)?;
        if request.trigger == Trigger::Manual {
            // The operator asks: a rejected login may be tried once more.
            self.inner.pool.renew_refused();
        }
        let name = config.name.clone();
        let id = uuid::Uuid::new_v4().to_string();
        let connection = config.connection_id.clone();
        {
            let mut queue = self.queue();
            if request.trigger == Trigger::Created
                && let Some(first) = queue.first_run(&name, request)
            {
                return Ok(first);
            }
            if queue.running.contains_key(&name) || queue.waiting.iter().any(|q| q.spec.config.name == name) {
                return Err(NotQueued::Going(name));
            }
            let (result, receiver) = watch::channel(None);
            *job(&mut state, request.kind) =
                Job { status: Some(JobStatus::Pending), job_id: Some(id.clone()), ..job(&mut state, request.kind).clone() };
            let spec = RunSpec {
                config,
                state: state.clone(),
                kind: request.kind,
                trigger: request.trigger,
                verify: request.verify,
                allow_delete: request.allow_delete,
                withhold: request.withhold,
                prioritize: request.prioritize,
                source,
            };
            queue.results.insert(id.clone(), receiver);
            queue.waiting.push_back(Queued { id: id.clone(), spec, result, ready: false, told: None });
        }
        tracing::debug!(sync = name, run = id, connection, "queued");
        let run = LiveRun {
            id: id.clone(),
            kind: request.kind,
            trigger: request.trigger,
            phase: Phase::Queued,
            started_at: crate::model::now(),
            queue_position: None,
            done: 0,
            total: 0,
            counts: Counts::default(),
            waiting: None,
            recent: VecDeque::new(),
            active: Vec::new(),
            requests: 0,
            retries: 0,
            waited_ms: 0,
        };
        self.inner.hub.publish(Event::Run { sync: name.clone(), run: Box::new(run) });
        if let Err(error) = self.inner.store.save_sync_state(&name, &state) {
            tracing::warn!(sync = name, "the pending state could not be saved: {error}");
        }
        if let Some(queued) = self.queue().waiting.iter_mut().find(|q| q.id == id) {
            queued.ready = true;
        }
        self.pump();
        Ok(id)
    }

    /// Starts what may start: manual runs first, then in order of arrival, within the limits.
    fn pump(&self) {
        let settings = self.settings();
        let mut positions = Vec::new();
        {
            let mut queue = self.queue();
            loop {
                if queue.running.len() >= settings.max_runs {
                    break;
                }
                let free = |q: &Queued, running: &HashMap<String, Running>| {
                    running.values().filter(|r| r.connection == q.spec.config.connection_id).count() < settings.runs_per_connection
                };
                let next = queue
                    .waiting
                    .iter()
                    .enumerate()
                    .filter(|(_, q)| q.ready && free(q, &queue.running))
                    .min_by_key(|(i, q)| (q.spec.trigger.unattended(), *i))
                    .map(|(i, _)| i);
                let Some(job) = next.and_then(|i| queue.waiting.remove(i)) else { break };
                self.begin(&mut queue, job, CancellationToken::new());
            }
            for (i, queued) in queue.waiting.iter_mut().enumerate().filter(|(_, q)| q.ready) {
                if queued.told.replace(i + 1) != Some(i + 1) {
                    positions.push((queued.spec.config.name.clone(), i + 1));
                }
            }
            let (running, queued) = (queue.running.len(), queue.waiting.len());
            drop(queue);
            self.inner.hub.facts(|f| {
                f.running = running;
                f.queued = queued;
            });
        }
        for (sync, position) in positions {
            self.inner.hub.publish(Event::Queue { sync, position: Some(position) });
        }
    }

    fn begin(&self, queue: &mut Queue, job: Queued, cancel: CancellationToken) {
        let running =
            Running { id: job.id.clone(), kind: job.spec.kind, connection: job.spec.config.connection_id.clone(), cancel: cancel.clone(), cx: None };
        queue.running.insert(job.spec.config.name.clone(), running);
        let engine = self.clone();
        self.inner.tasks.spawn(async move { engine.execute(job, cancel).await });
        if !std::mem::replace(&mut queue.telling, true) {
            tokio::spawn(rates::tell(self.clone()));
        }
    }

    async fn execute(&self, job: Queued, cancel: CancellationToken) {
        let Queued { id, spec, result, .. } = job;
        let name = spec.config.name.clone();
        let progress = Arc::new(Progress::new(self.inner.hub.clone(), &name, &id));
        let shown = progress.clone();
        let cx = Cx::new(cancel, Arc::new(move |waiting| shown.waiting(waiting)));
        if let Some(running) = self.queue().running.get_mut(&name) {
            running.cx = Some(cx.clone());
        }
        let mut record = RunRecord {
            id,
            sync: name.clone(),
            kind: spec.kind,
            trigger: spec.trigger,
            status: RunStatus::Interrupted,
            message: None,
            started_at: crate::model::now(),
            finished_at: None,
            counts: Counts::default(),
            secrets: Vec::new(),
            requests: Default::default(),
        };
        self.note_started(&spec, &record).await;
        let ended = {
            let ticking = self.tick_meter(&progress, &cx);
            let runner = self.runner();
            // A defect must not leave the sync busy for ever. What it says may hold anything.
            let ended = AssertUnwindSafe(runner.run(&spec, &cx, &progress)).catch_unwind().await;
            ticking.cancel();
            ended.unwrap_or_else(|_| Ended::defect())
        };
        let (counts, secrets) = progress.take(cx.redactor());
        record.status = ended.status;
        record.message = ended.message.clone();
        record.finished_at = Some(crate::model::now());
        record.counts = counts;
        record.secrets = secrets;
        record.requests = cx.meter().snapshot();
        self.note_ended(&spec, &record, &ended).await;
        {
            let mut queue = self.queue();
            queue.running.remove(&name);
            rates::add(&mut queue.sent, &record.requests);
            queue.ended.push_back(record.id.clone());
            if queue.ended.len() > KEPT_RESULTS
                && let Some(oldest) = queue.ended.pop_front()
            {
                queue.results.remove(&oldest);
            }
        }
        if ended.credentials_refused {
            self.inner.pool.renew_one(&spec.config.connection_id);
        }
        if ended.login_refused {
            self.inner.pool.note_refused(spec.config.source_connection.as_deref());
        }
        let content = ended.learned.and_then(|l| l.content);
        let finished = Finished { retryable: ended.retryable, record: record.clone(), content };
        self.inner.hub.publish(Event::Finished { sync: name.clone(), record: Box::new(record.clone()) });
        let _ = self.inner.ended.send(Arc::new(finished));
        // Nobody may be waiting for this run.
        let _ = result.send(Some(record));
        self.pump();
    }

    /// Publishes request counters while a run is busy between outcomes.
    fn tick_meter(&self, progress: &Arc<Progress>, cx: &Cx) -> CancellationToken {
        let stop = CancellationToken::new();
        let (stopped, progress, cx) = (stop.clone(), progress.clone(), cx.clone());
        self.inner.tasks.spawn(async move {
            let mut last = 0;
            loop {
                tokio::select! {
                    () = stopped.cancelled() => break,
                    () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
                }
                if cx.meter().total() != last {
                    last = cx.meter().total();
                    progress.meter(&cx, true);
                }
            }
        });
        stop
    }

    async fn note_started(&self, spec: &RunSpec, record: &RunRecord) {
        let (store, record) = (self.inner.store.clone(), record.clone());
        let (name, kind) = (spec.config.name.clone(), spec.kind);
        let saved = executor::blocking(move || {
            // Read again: the configuration may have been changed while the run waited.
            let mut state = store.sync_state(&name)?;
            let slot = job(&mut state, kind);
            slot.status = Some(JobStatus::Running);
            store.begin_run(&record)?;
            if kind == RunKind::Sync {
                // Until it succeeds nobody knows what the destination holds.
                carried::forget(&store, &state.id);
            }
            store.save_sync_state(&name, &state)
        })
        .await;
        if let Err(error) = saved {
            self.inner.hub.notice("error", format!("The run's beginning could not be recorded: {error}"), Some(&spec.config.name));
        }
    }

    async fn note_ended(&self, spec: &RunSpec, record: &RunRecord, ended: &Ended) {
        let succeeded = record.status == RunStatus::Succeeded;
        let (store, name, row, kind, learned) =
            (self.inner.store.clone(), spec.config.name.clone(), record.clone(), spec.kind, ended.learned.clone());
        let config = spec.config.clone();
        let saved = executor::blocking(move || {
            store.finish_run(&row)?;
            // Read again: the configuration may have been changed while the run went.
            let mut state = store.sync_state(&name)?;
            if let Some(learned) = learned {
                if let Some(content) = learned.content.filter(|_| succeeded && kind == RunKind::Sync) {
                    carried::remember(&store, &state.id, &config, &content);
                }
                state.environment_name = learned.environment_name.or(state.environment_name);
                state.environment_id = learned.environment_id.or(state.environment_id);
                state.folder_id = learned.folder_id.or(state.folder_id);
            }
            let slot = job(&mut state, kind);
            slot.status = Some(if succeeded { JobStatus::Succeeded } else { JobStatus::Failed });
            slot.job_id = Some(row.id.clone());
            slot.message = row.message.as_deref().map(|m| brief(m, MESSAGE));
            if succeeded {
                slot.at = row.finished_at;
            }
            if kind == RunKind::Sync {
                state.needs_approval = row.status == RunStatus::NeedsApproval;
            }
            store.save_sync_state(&name, &state)
        })
        .await;
        if let Err(error) = saved {
            self.inner.hub.notice("error", format!("The run's end could not be recorded: {error}"), Some(&spec.config.name));
        }
        let text = summary(record);
        self.inner.hub.notice(if succeeded { "info" } else { "error" }, text, Some(&spec.config.name));
    }

    /// Waits for a run's end; `None` when there is no such run.
    pub async fn finished(&self, id: &str) -> Option<RunRecord> {
        let receiver = self.queue().results.get(id).cloned();
        if let Some(mut receiver) = receiver {
            return receiver.wait_for(Option::is_some).await.ok()?.clone();
        }
        let (store, id) = (self.inner.store.clone(), id.to_string());
        executor::blocking(move || store.run(&id)).await.ok().flatten().filter(|r| r.finished_at.is_some())
    }

    /// Cancels a queued or going run; false when there is none of this id.
    pub fn cancel(&self, id: &str) -> bool {
        let mut queue = self.queue();
        if let Some(running) = queue.running.values().find(|r| r.id == id) {
            running.cancel.cancel();
            return true;
        }
        let Some(at) = queue.waiting.iter().position(|q| q.id == id) else { return false };
        let Some(job) = queue.waiting.remove(at) else { return false };
        // It goes through the runner with a cancelled token, so that its record is made like any other.
        let cancel = CancellationToken::new();
        cancel.cancel();
        self.begin(&mut queue, job, cancel);
        true
    }

    /// Requests so far, by provider.
    fn sent(&self) -> rates::Totals {
        let queue = self.queue();
        let mut totals = queue.sent.clone();
        for cx in queue.running.values().filter_map(|r| r.cx.as_ref()) {
            rates::add(&mut totals, &cx.meter().snapshot());
        }
        totals
    }

    /// True, and the telling is over, when nothing runs.
    fn stop_telling_when_idle(&self) -> bool {
        let mut queue = self.queue();
        queue.telling = !queue.running.is_empty();
        !queue.telling
    }

    /// True while a run of this sync is queued or going.
    pub fn is_busy(&self, sync: &str) -> bool {
        let queue = self.queue();
        queue.running.contains_key(sync) || queue.waiting.iter().any(|q| q.spec.config.name == sync)
    }

    /// Runs queued or going.
    pub fn busy(&self) -> usize {
        let queue = self.queue();
        queue.running.len() + queue.waiting.len()
    }

    /// Ends the engine: runs get `grace` to finish, then they are cancelled and park where they stand.
    pub async fn close(&self, grace: std::time::Duration) {
        self.inner.closing.cancel();
        let waiting: Vec<String> = self.queue().waiting.iter().map(|q| q.id.clone()).collect();
        for id in waiting {
            self.cancel(&id);
        }
        self.inner.tasks.close();
        if tokio::time::timeout(grace, self.inner.tasks.wait()).await.is_err() {
            for running in self.queue().running.values() {
                running.cancel.cancel();
            }
            // Calls in flight end by themselves; a minute covers the longest one.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(65), self.inner.tasks.wait()).await;
        }
        self.inner.pool.close().await;
    }

    /// Ends the engine when what was asked of it is done: nothing new starts.
    pub async fn finish(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.pool.close().await;
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn job(state: &mut SyncState, kind: RunKind) -> &mut Job {
    match kind {
        RunKind::Sync => &mut state.sync,
        RunKind::Import => &mut state.import,
        RunKind::Remove => &mut state.remove,
    }
}

/// Brings a sync's documented status in line with a run that died with its process.
pub fn note_interrupted(store: &Store, record: &RunRecord) -> Result<(), crate::store::StoreError> {
    // A sync that is gone needs no status.
    if store.sync(&record.sync).is_err() {
        return Ok(());
    }
    let mut state = store.sync_state(&record.sync)?;
    let slot = job(&mut state, record.kind);
    if matches!(slot.status, Some(JobStatus::Running | JobStatus::Pending)) {
        slot.status = Some(JobStatus::Failed);
        slot.message = record.message.as_deref().map(|m| brief(m, MESSAGE));
        store.save_sync_state(&record.sync, &state)?;
    }
    Ok(())
}

/// One line about a finished run, for toasts, logs and tables.
pub fn summary(record: &RunRecord) -> String {
    let c = &record.counts;
    let parts: Vec<String> = [
        (c.imported, "imported"),
        (c.created, "created"),
        (c.updated, "updated"),
        (c.restored, "restored"),
        (c.deleted, "deleted"),
        (c.skipped, "skipped"),
        (c.failed, "failed"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| format!("{n} {word}"))
    .collect();
    let what = match (parts.is_empty(), record.status) {
        (true, RunStatus::Succeeded) => format!("nothing to do, {} unchanged", c.unchanged),
        (true, _) => "nothing was changed".to_string(),
        (false, _) => parts.join(", "),
    };
    match (record.status, &record.message) {
        (RunStatus::Succeeded, _) => format!("{}: {what}", record.sync),
        (status, Some(message)) => format!("{} {status}: {message}", record.sync),
        (status, None) => format!("{} {status}: {what}", record.sync),
    }
}
