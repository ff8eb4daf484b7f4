//! What people and scripts see of the clocks: on the board when each sync is looked at next
//! and why then, and in the state database what keeps a sync from going on, so that
//! `show --json` of another process tells it too.

use tokio::time::Instant;

use super::attempts::{ATTEMPTS, Pending, Rest};
use super::{Clocks, Group, SourceKey, State, ahead};
use crate::model::board::Next;
use crate::model::sync::SyncWait;
use crate::model::{Memory, Time};
use crate::store::{Settings, Store};

fn key(sync_id: &str) -> String {
    format!("waits:{sync_id}")
}

/// What keeps a sync from going on, as the engine has last recorded it. True only while an
/// engine runs.
pub fn waits(store: &Store, sync_id: &str) -> Option<SyncWait> {
    serde_json::from_value(store.get(&key(sync_id))?).ok()
}

impl Clocks {
    /// Publishes when each sync will be looked at next, and why then.
    pub(super) fn show(&self, state: &mut State, settings: &Settings) {
        let hub = self.inner.engine.hub();
        for (key, group) in &state.groups {
            for config in &group.syncs {
                let pending = state.pending.get(&config.name).cloned().unwrap_or_default();
                let wait = if settings.paused { None } else { wait(key, group, &pending) };
                let next = if settings.paused { None } else { next(group, &pending, wait.as_ref()) };
                hub.next(&config.name, next);
                if state.waits.get(&config.name) != Some(&wait) {
                    self.record(&config.name, wait.as_ref());
                    state.waits.insert(config.name.clone(), wait);
                }
            }
        }
        let known = |name: &String| state.pending.contains_key(name);
        for name in state.waits.extract_if(|name, _| !known(name)).map(|(name, _)| name) {
            self.record(&name, None);
        }
        let budgets: std::collections::BTreeMap<String, String> = self.inner.engine.pool().budgets().into_iter().collect();
        hub.facts(|f| f.budgets = budgets);
    }

    fn record(&self, sync: &str, wait: Option<&SyncWait>) {
        let store = self.inner.engine.store();
        // A sync that is gone has nothing to tell.
        if store.sync(sync).is_ok()
            && let Ok(state) = store.sync_state(sync)
        {
            store.put(&key(&state.id), serde_json::to_value(wait).unwrap_or_default());
        }
    }
}

/// What keeps this sync from going on by itself, if anything does.
fn wait(key: &SourceKey, group: &Group, pending: &Pending) -> Option<SyncWait> {
    if let Some(trouble) = &group.trouble {
        let reason = format!("{}:{} cannot be read: {}", key.1.environment, key.1.path, trouble.text);
        return Some(SyncWait { reason, since: trouble.since, next_at: trouble.next });
    }
    if let Some((held, since, _)) = &group.held {
        let reason = format!("{}:{} is looked at later: {}", key.1.environment, key.1.path, held.reason);
        return Some(SyncWait { reason, since: *since, next_at: held.until.and_then(|t| Time::from_second(t.as_second()).ok()) });
    }
    let Some(since) = pending.since else {
        let drifted = pending.drifted.clone()?;
        return Some(SyncWait { reason: drifted.reason, since: drifted.since, next_at: None });
    };
    if let Some(retry) = &pending.retry {
        return Some(SyncWait { reason: format!("attempt {} of {ATTEMPTS}", pending.attempts + 1), since, next_at: Some(retry.time) });
    }
    let reason = match pending.rest? {
        Rest::Spent => format!("{ATTEMPTS} attempts failed: waits for a change, or for a run by hand"),
        Rest::Refused => "trying again would fail the same way: waits for a change, or for a run by hand".to_string(),
    };
    Some(SyncWait { reason, since, next_at: None })
}

fn next(group: &Group, pending: &Pending, wait: Option<&SyncWait>) -> Option<Next> {
    if let Some(trouble) = &group.trouble {
        let wait = wait?;
        let since = trouble.since.strftime("%H:%M:%SZ");
        let why = format!("since {since} {}", wait.reason);
        return Some(Next { at: trouble.next.unwrap_or_else(crate::model::now), why, unread: true, drifted: false });
    }
    if let Some(retry) = &pending.retry {
        let why = wait.map_or_else(|| "changed meanwhile".to_string(), |w| w.reason.clone());
        return Some(Next { at: retry.time, why, unread: false, drifted: false });
    }
    let at = group.due.into_iter().chain(group.hinted).min()?;
    let held = wait.filter(|_| group.held.is_some()).and_then(|w| w.next_at);
    let time = held.unwrap_or_else(|| ahead(at.saturating_duration_since(Instant::now())));
    let why = wait.map_or_else(|| "poll".to_string(), |w| w.reason.clone());
    Some(Next { at: time, why, unread: false, drifted: pending.drifted.is_some() })
}
