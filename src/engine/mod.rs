//! The engine: queues runs, carries them out in background tasks, and publishes what happens.
//!
//! [`Engine`] is the handle. [`queue`] holds what was asked for, [`slots`] says when it may go,
//! [`parked`] what becomes of it when the engine ends and [`records`] what stays of it;
//! [`runner`] knows what a run does, [`executor`] how a plan is carried out, [`auto`] when runs
//! start by themselves, [`readings`] what they share. [`hub`] shows it all, [`waits`] and [`lines`] tell it elsewhere.

pub mod auto;
mod carried;
mod commit;
mod confirm;
mod executor;
pub mod hooks;
pub mod hub;
mod importing;
mod left_behind;
pub mod lines;
mod parked;
pub mod pool;
mod progress;
mod queue;
mod rates;
pub mod readings;
mod records;
pub mod runner;
mod slots;
mod steps;
pub mod targets;
mod waits;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::Cx;
use crate::model::board::{Event, LiveRun, Phase};
use crate::model::run::{RunRecord, RunStatus, Trigger};
use crate::store::{Settings, Store};

use executor::blocking;
pub use records::{log_ended, note_interrupted, note_unbegun, summary};
pub use waits::of_runs as run_waits;

use hub::Hub;
use pool::Pool;
use progress::Progress;
use queue::{Queue, Queued};
use runner::{Ended, Runner};

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
    readings: Arc<readings::Readings>,
    queue: Mutex<Queue>,
    settings: Mutex<Settings>,
    tasks: TaskTracker,
    /// Set when the engine is closing: nothing new is taken on.
    closing: CancellationToken,
    /// Set when what waits is parked: nothing starts any more.
    parking: CancellationToken,
    /// Held while the list of parked runs is changed.
    parked: Arc<Mutex<()>>,
    /// Told of every finished run.
    ended: tokio::sync::broadcast::Sender<Arc<Finished>>,
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
    /// Why it was queued. An automatic run that somebody took over is still auto-sync's.
    pub began: Trigger,
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
                readings: Arc::default(),
                queue: Mutex::default(),
                settings: Mutex::new(settings),
                tasks: TaskTracker::new(),
                closing: CancellationToken::new(),
                parking: CancellationToken::new(),
                parked: Arc::default(),
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

    pub fn readings(&self) -> &readings::Readings {
        &self.inner.readings
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
            readings: self.inner.readings.clone(),
            mass_delete_percent: self.settings().mass_delete_percent,
        }
    }

    async fn execute(&self, job: Queued, cancel: CancellationToken) {
        let Queued { id, spec, result, began, .. } = job;
        let name = spec.config.name.clone();
        let progress = Arc::new(Progress::new(self.inner.hub.clone(), &name, &id));
        let shown = progress.clone();
        let cx = Cx::new(cancel, Arc::new(move |waiting| shown.waiting(waiting)));
        let inner = Arc::downgrade(&self.inner);
        cx.seat().on_wanted(Arc::new(move || {
            if let Some(inner) = inner.upgrade() {
                Self { inner }.pump();
            }
        }));
        if let Some(running) = self.queue().running.get_mut(&name) {
            running.cx = Some(cx.clone());
        }
        let mut record = RunRecord::begun(id, &spec.request(), crate::model::now());
        tracing::debug!(event = "run-started", sync = name, run = record.id, kind = %spec.kind, trigger = %spec.trigger, "{name}: {} started", spec.kind);
        if !cx.cancelled() {
            let live = LiveRun::new(&record, Phase::ReadingSource);
            self.inner.hub.publish(Event::Run { sync: name.clone(), run: Box::new(live) });
        }
        self.note_started(&spec, &record).await;
        let mut ended = {
            let ticking = self.look_after(&name, &progress, &cx);
            let runner = self.runner();
            // A defect must not leave the sync busy for ever. What it says may hold anything.
            let ended = AssertUnwindSafe(runner.run(&spec, &cx, &progress)).catch_unwind().await;
            ticking.cancel();
            ended.unwrap_or_else(|_| Ended::defect())
        };
        self.as_parked(&mut ended, self.queue().running.get(&name));
        let (counts, secrets) = progress.take(cx.redactor());
        record.status = ended.status;
        record.message = ended.message.clone();
        record.finished_at = Some(crate::model::now());
        record.counts = counts;
        record.secrets = secrets;
        record.requests = cx.meter().snapshot();
        self.note_ended(&spec, &record, &ended).await;
        if record.status == RunStatus::Interrupted {
            self.keep_parked(spec.request(), &spec.config).await;
        }
        {
            let mut queue = self.queue();
            queue.running.remove(&name);
            self.tell_counts(&queue);
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
        let finished = Finished { retryable: ended.retryable, record: record.clone(), began, content };
        self.inner.hub.publish(Event::Finished { sync: name.clone(), record: Box::new(record.clone()) });
        let _ = self.inner.ended.send(Arc::new(finished));
        // Nobody may be waiting for this run.
        let _ = result.send(Some(record));
        self.pump();
    }

    /// Watches over a run until the answer is cancelled: publishes its request counters, and
    /// takes its seat while it only waits.
    fn look_after(&self, name: &str, progress: &Arc<Progress>, cx: &Cx) -> CancellationToken {
        let stop = CancellationToken::new();
        let (engine, name) = (self.clone(), name.to_string());
        let (stopped, progress, cx) = (stop.clone(), progress.clone(), cx.clone());
        self.inner.tasks.spawn(async move {
            let (mut last, mut still) = (0, slots::Stillness::default());
            loop {
                let pause = if cx.seat().taken() { slots::LOOK } else { slots::LOOK_AT_STANDING };
                tokio::select! {
                    () = stopped.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                if cx.meter().total() != last {
                    last = cx.meter().total();
                    progress.meter(&cx, true);
                }
                let waits = still.look(&cx);
                if engine.inner.parking.is_cancelled() {
                    if waits.is_some() || !cx.seat().taken() {
                        engine.park_waiting(&name);
                    }
                } else if engine.inner.closing.is_cancelled() && waits.is_some() && slots::outlasts_the_engine(&cx) {
                    // Whoever asked for it goes on with the next engine.
                    engine.park_waiting(&name);
                } else if waits.is_some_and(|moves| cx.seat().stand_up(moves)) {
                    engine.pump();
                }
            }
        });
        stop
    }

    /// Waits for a run's end; `None` when there is no such run.
    pub async fn finished(&self, id: &str) -> Option<RunRecord> {
        let receiver = self.queue().results.get(id).cloned();
        if let Some(mut receiver) = receiver {
            return receiver.wait_for(Option::is_some).await.ok()?.clone();
        }
        let (store, id) = (self.inner.store.clone(), id.to_string());
        blocking(move || store.run(&id)).await.ok().flatten().filter(|r| r.finished_at.is_some())
    }

    /// Ends the engine when what was asked of it is done: nothing new is taken on, and a run in a
    /// long wait is left to the next engine.
    pub async fn finish(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.pool.close().await;
    }
}
