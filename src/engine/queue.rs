//! The queue: which runs wait, which go, and when the next one may start.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::records::job;
use super::runner::RunSpec;
use super::{Engine, NotQueued, rates};
use crate::http::Cx;
use crate::model::board::{Event, LiveRun, Phase};
use crate::model::run::{Counts, RunKind, RunRecord, RunRequest, Trigger};
use crate::model::sync::{Job, JobStatus};
use crate::source::SourceMap;

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Queued>,
    /// By sync name.
    pub(super) running: HashMap<String, Running>,
    /// By run id: those that have not ended, and the last that did. Older ones are in the database.
    pub(super) results: HashMap<String, watch::Receiver<Option<RunRecord>>>,
    pub(super) ended: VecDeque<String>,
    /// Requests of ended runs, by provider.
    pub(super) sent: rates::Totals,
    /// The rates are being told.
    pub(super) telling: bool,
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

pub(super) struct Queued {
    pub(super) id: String,
    pub(super) spec: RunSpec,
    pub(super) result: watch::Sender<Option<RunRecord>>,
    /// Everything about it is recorded: it may start.
    pub(super) ready: bool,
    /// The position that was last told.
    pub(super) told: Option<usize>,
}

pub(super) struct Running {
    pub(super) id: String,
    pub(super) kind: RunKind,
    pub(super) connection: String,
    pub(super) cancel: CancellationToken,
    /// Set when it begins to work.
    pub(super) cx: Option<Cx>,
}

impl Engine {
    /// Queues a run. A sync runs once at a time.
    pub fn submit(&self, request: &RunRequest, source: Option<Arc<SourceMap>>) -> Result<String, NotQueued> {
        if self.inner.closing.is_cancelled() {
            return Err(NotQueued::Closing);
        }
        let config = self.inner.store.sync(&request.sync)?;
        let mut state = self.inner.store.sync_state(&config.name)?;
        if request.trigger == Trigger::Manual {
            // The operator asks: a rejected login may be tried once more.
            let going = {
                let queue = self.queue();
                let waiting = queue.waiting.iter().map(|q| &q.spec.config.connection_id);
                queue.running.values().map(|r| &r.connection).chain(waiting).cloned().collect()
            };
            self.inner.pool.renew_refused(&going);
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
                rewrite: request.rewrite,
                allow_delete: request.allow_delete,
                withhold: request.withhold,
                prioritize: request.prioritize,
                left_behind: request.left_behind,
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
    pub(super) fn pump(&self) {
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
    pub(super) fn sent(&self) -> rates::Totals {
        let queue = self.queue();
        let mut totals = queue.sent.clone();
        for cx in queue.running.values().filter_map(|r| r.cx.as_ref()) {
            rates::add(&mut totals, &cx.meter().snapshot());
        }
        totals
    }

    /// True, and the telling is over, when nothing runs.
    pub(super) fn stop_telling_when_idle(&self) -> bool {
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

    pub(super) fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
