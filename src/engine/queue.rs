//! The queue: what was asked for, and which runs go. When the next one may start is said by
//! [`super::slots`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::readings::{Claim, Moment};
use super::records::job;
use super::runner::RunSpec;
use super::slots::Blocked;
use super::{Engine, NotQueued, parked, pool, rates, targets};
use crate::http::Cx;
use crate::model::Time;
use crate::model::board::{Event, LiveRun, Phase};
use crate::model::run::{RunRecord, RunRequest, Trigger};
use crate::model::sync::{Job, JobStatus, SyncConfig};
use crate::source::SourceMap;

#[derive(Default)]
pub(super) struct Queue {
    /// In order of arrival.
    pub(super) waiting: VecDeque<Queued>,
    /// By sync name: those that work, and those that gave their seat up while they wait.
    pub(super) running: HashMap<String, Running>,
    /// By run id: those that have not ended, and the last that did. Older ones are in the database.
    pub(super) results: HashMap<String, watch::Receiver<Option<RunRecord>>>,
    pub(super) ended: VecDeque<String>,
    /// Requests of ended runs and questions, by provider.
    pub(super) sent: rates::Totals,
    /// Questions under way that are no runs: polls, checks that only look, plans.
    pub(super) asking: HashMap<u64, Cx>,
    /// The rates are being told.
    pub(super) telling: bool,
    tickets: u64,
}

impl Queue {
    /// The run that this request need not repeat: one that auto-sync, or an engine that goes on
    /// with what another left, has queued before somebody asked for it. It takes over what the
    /// request agrees to.
    fn joined(&mut self, name: &str, request: &RunRequest, claim: Option<&Arc<Claim>>) -> Option<String> {
        if request.trigger.unattended() {
            return None;
        }
        let fits = |q: &&mut Queued| q.spec.config.name == name && q.spec.kind == request.kind && q.spec.left_behind == request.left_behind;
        if let Some(queued) = self.waiting.iter_mut().find(fits) {
            let spec = &mut queued.spec;
            let made = spec.trigger.unattended() || queued.resumed || request.trigger == Trigger::Created;
            if !made || (request.prioritize.is_some() && request.prioritize != spec.prioritize) {
                return None;
            }
            spec.trigger = request.trigger;
            spec.allow_delete |= request.allow_delete;
            spec.withhold |= request.withhold;
            spec.verify |= request.verify;
            spec.rewrite |= request.rewrite;
            // What a poll has read may be older than the question.
            spec.source = None;
            spec.claim = claim.cloned();
            queued.resumed = false;
            return Some(queued.id.clone());
        }
        // One that has begun cannot be told what the creator agreed to.
        let bare =
            !request.allow_delete && !request.withhold && !request.verify && !request.rewrite && request.prioritize.is_none() && !request.left_behind;
        let same = |r: &&Running| r.request.kind == request.kind && bare && (r.resumed || request.trigger == Trigger::Created);
        self.running.get(name).filter(same).map(|r| r.id.clone())
    }

    /// Requests so far, by provider.
    pub(super) fn sent_so_far(&self) -> rates::Totals {
        let mut totals = self.sent.clone();
        for cx in self.running.values().filter_map(|r| r.cx.as_ref()).chain(self.asking.values()) {
            rates::add(&mut totals, &cx.meter().snapshot());
        }
        totals
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }
}

pub(super) struct Queued {
    pub(super) id: String,
    pub(super) spec: RunSpec,
    pub(super) result: watch::Sender<Option<RunRecord>>,
    /// Everything about it is recorded: it may start.
    pub(super) ready: bool,
    /// What was last told: its position, and what keeps it besides.
    pub(super) told: Option<(usize, Option<Blocked>)>,
    /// Why it was queued: somebody may have taken it over since.
    pub(super) began: Trigger,
    /// Its turn among equals.
    pub(super) ticket: u64,
    pub(super) since: Time,
    /// Its connection's id; what the sync calls it where there is none.
    pub(super) connection: String,
    /// What its sync calls its target, see [`targets::name`].
    pub(super) target: String,
    /// An engine that ended had it in hand.
    pub(super) resumed: bool,
}

pub(super) struct Running {
    pub(super) id: String,
    pub(super) connection: String,
    pub(super) ticket: u64,
    pub(super) target: String,
    /// What it does and why, and what is asked for again when the engine ends before the run does.
    pub(super) request: RunRequest,
    pub(super) resumed: bool,
    /// The destination's kind.
    pub(super) destination: String,
    pub(super) cancel: CancellationToken,
    /// Somebody cancelled it; otherwise a cancellation is the engine's own end.
    pub(super) by_hand: bool,
    /// What it waited for when the engine's end cut it short.
    pub(super) parked_in: Option<String>,
    /// Set when it begins to work.
    pub(super) cx: Option<Cx>,
}

impl Running {
    /// True while it may work.
    pub(super) fn seated(&self) -> bool {
        self.cx.as_ref().is_none_or(|cx| cx.seat().taken())
    }
}

impl Engine {
    /// Queues a run. A sync runs once at a time.
    pub fn submit(&self, request: &RunRequest, source: Option<Arc<SourceMap>>) -> Result<String, NotQueued> {
        self.enqueue(request, source, false, self.inner.readings.now())
    }

    /// Queues a run that was asked for with others at this moment: what they read alike they
    /// read once.
    pub fn submit_with(&self, request: &RunRequest, asked: Moment) -> Result<String, NotQueued> {
        self.enqueue(request, None, false, asked)
    }

    pub(super) fn enqueue(&self, request: &RunRequest, source: Option<Arc<SourceMap>>, resumed: bool, asked: Moment) -> Result<String, NotQueued> {
        // Taken before the look: an end that this look does not see waits until the run is begun.
        let _entering = self.inner.tasks.token();
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
        // By name or by id, it is one connection.
        let connection = self.inner.pool.connection(&config.connection_id).map_or_else(|_| config.connection_id.clone(), |c| c.id);
        let since = crate::model::now();
        let claim = if source.is_none() { self.claim(&config, asked) } else { None };
        {
            let mut queue = self.queue();
            if let Some(first) = queue.joined(&name, request, claim.as_ref()) {
                drop(queue);
                // Its place in the line may be another one now.
                self.pump();
                return Ok(first);
            }
            if queue.running.contains_key(&name) || queue.waiting.iter().any(|q| q.spec.config.name == name) {
                return Err(NotQueued::Going(name));
            }
            let (result, receiver) = watch::channel(None);
            *job(&mut state, request.kind) =
                Job { status: Some(JobStatus::Pending), job_id: Some(id.clone()), ..job(&mut state, request.kind).clone() };
            let target = targets::name(&connection, &config);
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
                claim,
            };
            queue.results.insert(id.clone(), receiver);
            let ticket = queue.ticket();
            queue.waiting.push_back(Queued {
                id: id.clone(),
                spec,
                result,
                ready: false,
                told: None,
                began: request.trigger,
                ticket,
                since,
                connection: connection.clone(),
                target,
                resumed,
            });
        }
        tracing::debug!(event = "run-queued", sync = name, run = id, kind = %request.kind, trigger = %request.trigger, connection, "{name}: queued");
        if !resumed {
            // Whoever asks anew has no use for what an earlier engine left of the same.
            parked::forget(&self.inner.store, &name, request.kind);
        }
        let run = LiveRun::new(&RunRecord::begun(id.clone(), request, since), Phase::Queued);
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

    /// A run's claim to what is read of its source from this moment on.
    pub(super) fn claim(&self, config: &SyncConfig, asked: Moment) -> Option<Arc<Claim>> {
        // Without an account the run fails and says why.
        let account = self.inner.pool.account(config.source_connection.as_deref()).ok()?;
        Some(Arc::new(self.inner.readings.claim(asked, account.id, pool::place(config))))
    }

    pub(super) fn begin(&self, queue: &mut Queue, job: Queued, cancel: CancellationToken, by_hand: bool) {
        let config = &job.spec.config;
        let running = Running {
            id: job.id.clone(),
            connection: job.connection.clone(),
            ticket: job.ticket,
            target: job.target.clone(),
            request: job.spec.request(),
            resumed: job.resumed,
            destination: config.destination.clone(),
            cancel: cancel.clone(),
            by_hand,
            parked_in: None,
            cx: None,
        };
        queue.running.insert(config.name.clone(), running);
        let engine = self.clone();
        self.inner.tasks.spawn(async move { engine.execute(job, cancel).await });
    }

    /// Cancels a queued or going run; false when there is none of this id.
    pub fn cancel(&self, id: &str) -> bool {
        let mut queue = self.queue();
        if let Some(running) = queue.running.values_mut().find(|r| r.id == id) {
            running.by_hand = true;
            running.cancel.cancel();
            return true;
        }
        let Some(at) = queue.waiting.iter().position(|q| q.id == id) else { return false };
        let Some(job) = queue.waiting.remove(at) else { return false };
        // It goes through the runner with a cancelled token, so that its record is made like any other.
        let cancel = CancellationToken::new();
        cancel.cancel();
        self.begin(&mut queue, job, cancel, true);
        drop(queue);
        self.pump();
        true
    }

    /// True, and the telling is over, when nothing runs, waits or is asked.
    pub(super) fn stop_telling_when_idle(&self) -> bool {
        let mut queue = self.queue();
        queue.telling = !queue.running.is_empty() || !queue.waiting.is_empty() || !queue.asking.is_empty();
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
