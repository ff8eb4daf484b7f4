//! What becomes of runs when their engine ends.
//!
//! Runs at work get the time their engine gives them; those that only wait are parked at once,
//! for waiting longer would not end them, and so is what is queued. Each parked run is recorded
//! as interrupted, and what somebody asked for is kept for the next engine that stays (`run`, or
//! the app; a command that is the engine for a moment leaves it alone). Auto-sync needs no
//! keeping: what a run did not carry over is found again by the next poll.
//!
//! The next engine goes on only with what nobody could be surprised by: not after an hour, not
//! where the sync was edited since, never with a removal, and without the agreement to delete,
//! which was given to a list that may be another one now.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::queue::{Queued, Running};
use super::records::job;
use super::runner::Ended;
use super::{Engine, blocking};
use crate::model::run::{RunKind, RunRecord, RunRequest, RunStatus};
use crate::model::sync::{JobStatus, SyncConfig};
use crate::model::{Memory, Time};
use crate::store::Store;

/// The fact that holds what is kept.
const FACT: &str = "parked";
/// What was asked for longer ago is asked for again by hand, in seconds.
const FRESH: i64 = 3600;
/// Calls in flight end by themselves; a minute covers the longest one.
const LAST_CALLS: Duration = Duration::from_secs(65);

#[derive(Serialize, Deserialize)]
struct Parked {
    request: RunRequest,
    at: Time,
    /// The sync's settings then.
    settings: String,
}

fn settings_of(config: &SyncConfig) -> String {
    let document = serde_json::to_string(config).unwrap_or_default();
    blake3::hash(document.as_bytes()).to_hex()[..16].to_string()
}

fn kept(store: &Store) -> Vec<Parked> {
    // What another version has written is as good as nothing.
    store.get(FACT).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default()
}

fn keep(store: &Store, parked: &[Parked]) {
    store.put(FACT, if parked.is_empty() { serde_json::Value::Null } else { serde_json::to_value(parked).unwrap_or_default() });
}

/// A run of this kind is asked for anew: what was kept of the same is not needed any more.
pub(super) fn forget(store: &Store, sync: &str, kind: RunKind) {
    let mut parked = kept(store);
    let before = parked.len();
    parked.retain(|p| p.request.sync != sync || p.request.kind != kind);
    if parked.len() != before {
        keep(store, &parked);
    }
}

/// True for runs that the next engine goes on with by itself.
fn goes_on(request: &RunRequest) -> bool {
    !request.trigger.unattended() && request.kind != RunKind::Remove
}

/// What the record of a parked run says.
fn message(request: &RunRequest, began: bool, waited: Option<&str>) -> String {
    let what = match (began, waited) {
        (false, _) => "the engine ended before this run's turn came; nothing was written".to_string(),
        (true, Some(reason)) => format!("the engine ended while this run waited ({reason}); what was written stays"),
        (true, None) => "the engine ended before this run did; what was written stays".to_string(),
    };
    let next = if request.kind == RunKind::Remove {
        "start the removal again to go on"
    } else if goes_on(request) {
        "the next engine goes on from there"
    } else {
        "auto-sync goes on from there"
    };
    format!("{what}, {next}")
}

impl Engine {
    /// Ends the engine: nothing new starts, what waits is parked, and runs at work get `grace`
    /// to finish before they are parked where they stand.
    pub async fn close(&self, grace: Duration) {
        self.inner.closing.cancel();
        self.inner.parking.cancel();
        self.queue().running.values_mut().filter(|r| !r.seated()).for_each(cut_short);
        self.park_the_queue().await;
        self.inner.tasks.close();
        if tokio::time::timeout(grace, self.inner.tasks.wait()).await.is_err() {
            self.queue().running.values_mut().for_each(cut_short);
            let _ = tokio::time::timeout(LAST_CALLS, self.inner.tasks.wait()).await;
        }
        // What was just being queued when the end began.
        self.park_the_queue().await;
        self.inner.pool.close().await;
    }

    async fn park_the_queue(&self) {
        let queued: Vec<Queued> = self.queue().waiting.drain(..).collect();
        for job in queued {
            self.park_queued(job).await;
        }
    }

    /// The engine ends and this run only waits: it stops where it stands.
    pub(super) fn park_waiting(&self, sync: &str) {
        if let Some(running) = self.queue().running.get_mut(sync) {
            cut_short(running);
        }
    }

    /// A run that the engine's end has cancelled ends as interrupted.
    pub(super) fn as_parked(&self, ended: &mut Ended, running: Option<&Running>) {
        let Some(running) = running.filter(|r| !r.by_hand) else { return };
        if ended.status == RunStatus::Cancelled && self.inner.closing.is_cancelled() {
            ended.status = RunStatus::Interrupted;
            ended.message = Some(message(&running.request, true, running.parked_in.as_deref()));
        }
    }

    /// Keeps what the next engine is to go on with.
    pub(super) async fn keep_parked(&self, request: RunRequest, config: &SyncConfig) {
        if !goes_on(&request) {
            return;
        }
        let (store, settings) = (self.inner.store.clone(), settings_of(config));
        let one = std::sync::Arc::clone(&self.inner.parked);
        let kept = blocking(move || {
            let _one = one.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut parked = kept(&store);
            parked.retain(|p| p.request.sync != request.sync || p.request.kind != request.kind);
            parked.push(Parked { request, at: crate::model::now(), settings });
            keep(&store, &parked);
            Ok::<_, crate::store::StoreError>(())
        });
        if let Err(error) = kept.await {
            tracing::warn!("what was asked for could not be kept for the next engine: {error}");
        }
    }

    async fn park_queued(&self, job: Queued) {
        let Queued { id, spec, result, since, .. } = job;
        let request = spec.request();
        let ended = Ended { status: RunStatus::Interrupted, message: Some(message(&request, false, None)), ..Ended::defect() };
        let record = RunRecord {
            status: ended.status,
            message: ended.message.clone(),
            finished_at: Some(crate::model::now()),
            ..RunRecord::begun(id, &request, since)
        };
        if request.trigger.unattended() {
            self.note_dropped(&request).await;
        } else {
            self.note_ended(&spec, &record, &ended).await;
            self.keep_parked(request, &spec.config).await;
            self.inner.hub.publish(crate::model::board::Event::Finished { sync: record.sync.clone(), record: Box::new(record.clone()) });
        }
        // Nobody may be waiting for this run.
        let _ = result.send(Some(record));
    }

    /// An automatic run that never began leaves its sync as the last run has left it.
    async fn note_dropped(&self, request: &RunRequest) {
        let (store, name, kind) = (self.inner.store.clone(), request.sync.clone(), request.kind);
        let noted = blocking(move || {
            let last = store.last_run(&name)?.filter(|r| r.kind == kind);
            let mut state = store.sync_state(&name)?;
            let slot = job(&mut state, kind);
            slot.status = last.as_ref().map(|r| if r.status == RunStatus::Succeeded { JobStatus::Succeeded } else { JobStatus::Failed });
            slot.job_id = last.map(|r| r.id);
            store.save_sync_state(&name, &state)
        });
        if let Err(error) = noted.await {
            tracing::warn!(sync = request.sync, "the queued run's end could not be recorded: {error}");
        }
    }

    /// Goes on with what an engine that was stopped had in hand.
    pub(super) fn resume(&self) {
        let store = &self.inner.store;
        let parked = kept(store);
        keep(store, &[]);
        let asked = self.readings().now();
        for Parked { request, at, settings } in parked {
            let sync = request.sync.clone();
            let Ok(config) = store.sync(&sync) else { continue };
            let age = crate::model::now().as_second() - at.as_second();
            let instead = if settings_of(&config) != settings {
                Some("the sync was edited since")
            } else if !(0..=FRESH).contains(&age) {
                Some("that is more than an hour ago")
            } else {
                None
            };
            let what = format!("a {} of {sync} was parked when the engine was stopped", request.kind);
            let (level, text) = match instead {
                Some(why) => ("warn", format!("{what}, and is not begun again by itself: {why}")),
                None => match self.enqueue(&RunRequest { allow_delete: false, ..request }, None, true, asked) {
                    Ok(_) => ("info", format!("{what}; going on with it")),
                    Err(error) => ("warn", format!("{what}, and is not begun again: {error}")),
                },
            };
            self.inner.hub.notice(level, text, Some(&sync));
        }
    }
}

/// Cancels a run because its engine ends, and remembers what it waited for.
fn cut_short(running: &mut Running) {
    if !running.cancel.is_cancelled() {
        running.parked_in = running.cx.as_ref().and_then(|cx| Some(cx.redact(&cx.longest_wait()?.reason)));
        running.cancel.cancel();
    }
}
