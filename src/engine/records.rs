//! What stays of a run: its record, the sync's documented status, and a line for people.

use super::runner::{Ended, RunSpec};
use super::{Engine, blocking, carried};
use crate::model::run::{RunKind, RunRecord, RunStatus};
use crate::model::sync::{Job, JobStatus, SyncState};
use crate::model::text::brief;
use crate::store::Store;

/// Longest message that the documented answer carries, in characters.
const MESSAGE: usize = 1024;

impl Engine {
    pub(super) async fn note_started(&self, spec: &RunSpec, record: &RunRecord) {
        let (store, record) = (self.inner.store.clone(), record.clone());
        let (name, kind) = (spec.config.name.clone(), spec.kind);
        let saved = blocking(move || {
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

    pub(super) async fn note_ended(&self, spec: &RunSpec, record: &RunRecord, ended: &Ended) {
        let succeeded = record.status == RunStatus::Succeeded;
        let (store, name, row, kind, learned) =
            (self.inner.store.clone(), spec.config.name.clone(), record.clone(), spec.kind, ended.learned.clone());
        let config = spec.config.clone();
        let saved = blocking(move || {
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
            slot.message = row.message.as_deref().filter(|_| !succeeded).map(|m| brief(m, MESSAGE));
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
}

pub(super) fn job(state: &mut SyncState, kind: RunKind) -> &mut Job {
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
        (c.withheld, "held back"),
        (c.not_reached, "not reached"),
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
