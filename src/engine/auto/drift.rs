//! The drift clock: when a destination is read again though nothing changed at the source.
//!
//! The last check of each sync is kept in the state database, so that a restart neither
//! forgets the time that has passed nor begins every check at once: what is overdue when an
//! engine starts is spread.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::attempts::Pending;
use super::{Ask, Clocks, Heard, Hearing, State};
use crate::engine::readings::{Claim, Moment};
use crate::engine::runner::RunSpec;
use crate::http::{Cx, ErrorKind};
use crate::model::run::Trigger;
use crate::model::sync::SyncConfig;
use crate::model::{Memory, Time};
use crate::store::{DriftAction, Settings, Store};

/// Checks that are overdue begin within this part of the period.
const SPREAD: u32 = 36;

/// When a sync is checked next, by the period that was in force then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub at: Instant,
    pub period: Duration,
}

/// The pause between two checks; `None` when they are switched off.
pub(super) fn period(settings: &Settings) -> Option<Duration> {
    settings.drift_hours.filter(|h| *h > 0).map(|h| Duration::from_secs(h * 3600))
}

fn key(sync_id: &str) -> String {
    format!("drift:{sync_id}")
}

/// Remembers that a sync was checked, or that its clock begins.
fn remember(store: &Store, sync_id: &str, at: Time) {
    store.put(&key(sync_id), at.to_string().into());
}

/// What a check found that only reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Drifted {
    pub reason: String,
    pub since: Time,
}

fn drifted_key(sync_id: &str) -> String {
    format!("drifted:{sync_id}")
}

/// What the last check found, of this engine or an earlier one, unless a run has mended it.
pub(super) fn drifted(store: &Store, sync: &str) -> Option<Drifted> {
    let state = store.sync_state(sync).ok()?;
    serde_json::from_value(store.get(&drifted_key(&state.id))?).ok()
}

fn note_drifted(store: &Store, sync: &str, drifted: Option<&Drifted>) {
    if let Ok(state) = store.sync_state(sync) {
        store.put(&drifted_key(&state.id), serde_json::to_value(drifted).unwrap_or_default());
    }
}

/// A check of this sync is over.
pub(super) fn done(store: &Store, sync: &str) {
    if let Ok(state) = store.sync_state(sync) {
        remember(store, &state.id, crate::model::now());
    }
}

/// When this sync is checked next. `dice` is from 0 to 1.
pub(super) fn due(store: &Store, sync: &str, period: Duration, dice: f64) -> Due {
    let now = crate::model::now();
    let last = store.sync_state(sync).ok().and_then(|state| {
        let known = store.get(&key(&state.id)).and_then(|v| v.as_str()?.parse::<Time>().ok());
        // A moment in the future is a clock that was set back since.
        known.filter(|t| *t <= now).or_else(|| {
            remember(store, &state.id, now);
            None
        })
    });
    let passed = last.map_or(Duration::ZERO, |t| Duration::from_secs((now.as_second() - t.as_second()).unsigned_abs()));
    Due { at: Instant::now() + left(period, passed, dice), period }
}

/// How long until the next check: the period, give or take a tenth, less what has passed.
fn left(period: Duration, passed: Duration, dice: f64) -> Duration {
    let left = period.mul_f64(0.9 + dice * 0.2).saturating_sub(passed);
    left.max((period / SPREAD).mul_f64(dice))
}

impl Clocks {
    /// Checks a sync: a run that repairs, or a look that reports.
    pub(super) fn check(&self, config: &SyncConfig, settings: &Settings, asked: Moment, heard: &Hearing) {
        if settings.drift_action == DriftAction::Repair {
            self.submit(&config.name, Trigger::Drift, Ask::Together(asked));
            return;
        }
        let claim = self.inner.engine.claim(config, asked);
        tokio::spawn(report(self.clone(), config.clone(), claim, heard.clone()));
    }

    /// A check that only reports has ended, with what it found. It began at `begun`: what a run
    /// has mended since is no longer so.
    pub(super) fn checked(&self, state: &mut State, sync: &str, begun: Instant, found: Option<String>) {
        let Some(pending) = state.pending.get_mut(sync).filter(|p| p.mended.is_none_or(|at| at < begun)) else { return };
        let since = pending.drifted.as_ref().map_or_else(crate::model::now, |d| d.since);
        let drifted = found.map(|found| Drifted {
            reason: format!("{found} at the destination (driftAction is report): waits for a run by hand, or for a change"),
            since,
        });
        if drifted != pending.drifted {
            note_drifted(self.inner.engine.store(), sync, drifted.as_ref());
            pending.drifted = drifted;
        }
    }

    /// A run has brought both sides in step.
    pub(super) fn mended(&self, pending: &mut Pending, sync: &str) {
        pending.mended = Some(Instant::now());
        if pending.drifted.take().is_some() {
            note_drifted(self.inner.engine.store(), sync, None);
        }
    }
}

async fn report(clocks: Clocks, config: SyncConfig, claim: Option<Arc<Claim>>, heard: Hearing) {
    let (engine, begun) = (&clocks.inner.engine, Instant::now());
    let cx = Cx::new(clocks.inner.stop.child_token(), Arc::new(|_| {}));
    let Ok(_turn) = clocks.inner.looks.turn(&config.connection_id, &cx).await else { return };
    let Ok(state) = engine.store().sync_state(&config.name) else { return };
    let name = config.name.clone();
    let spec = RunSpec { trigger: Trigger::Drift, claim, ..RunSpec::look(config, state, true) };
    let _counted = engine.counted(&cx);
    let told = match engine.runner().plan(&spec, &cx).await {
        Err(error) if error.kind == ErrorKind::Cancelled => return,
        Ok(plan) => {
            let found = (!plan.is_noop()).then(|| format!("has drifted: {} would change", crate::plan::count(plan.changes.len(), "key")));
            // The loop may have ended.
            let _ = heard.send(Heard::Checked(name.clone(), begun, found.clone()));
            found.map(|found| format!("{name} {found}"))
        }
        Err(error) => Some(format!("{name} could not be checked for drift: {}", error.text())),
    };
    done(engine.store(), &name);
    if let Some(text) = told {
        engine.hub().notice("warn", text, Some(&name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Dirs;

    const HOUR: Duration = Duration::from_secs(3600);

    fn hours(due: Due) -> f64 {
        due.at.duration_since(Instant::now()).as_secs_f64() / 3600.0
    }

    #[test]
    fn what_has_passed_counts_and_what_is_overdue_is_spread() {
        assert_eq!(left(6 * HOUR, Duration::ZERO, 0.5), 6 * HOUR);
        assert_eq!(left(6 * HOUR, 4 * HOUR, 0.5), 2 * HOUR);
        // Overdue by a little or by a week: within ten minutes of six hours.
        for passed in [7 * HOUR, 200 * HOUR] {
            assert_eq!(left(6 * HOUR, passed, 0.0), Duration::ZERO);
            assert_eq!(left(6 * HOUR, passed, 1.0), HOUR / 6);
            assert_eq!(left(6 * HOUR, passed, 0.5), HOUR / 12);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_neither_forgets_nor_repeats() {
        let home = tempfile::tempdir().unwrap();
        let dirs = || Dirs::resolve(Some(home.path().join("config")), Some(home.path().join("state"))).unwrap();
        let store = Store::open(dirs()).unwrap();
        let id = store.sync_state("web").unwrap().id;
        // Never checked: the clock begins now, and goes on over a restart.
        assert!((hours(due(&store, "web", 6 * HOUR, 0.5)) - 6.0).abs() < 0.01);
        assert!(store.get(&key(&id)).is_some());
        let ago = |hours: i64| Time::from_second(crate::model::now().as_second() - hours * 3600).unwrap();
        remember(&store, &id, ago(4));
        let again = Store::open(dirs()).unwrap();
        assert!((hours(due(&again, "web", 6 * HOUR, 0.5)) - 2.0).abs() < 0.01);
        // Overdue: soon, not at once with all the others.
        remember(&again, &id, ago(50));
        assert!((hours(due(&again, "web", 6 * HOUR, 0.5)) - 1.0 / 12.0).abs() < 0.01);
        // Just done: a whole period, for the next process too.
        done(&again, "web");
        assert!((hours(due(&Store::open(dirs()).unwrap(), "web", 6 * HOUR, 0.5)) - 6.0).abs() < 0.01);
        // The machine's clock was set back: the check does not wait for the old time to return.
        remember(&again, &id, ago(-100));
        assert!((hours(due(&again, "web", 6 * HOUR, 0.5)) - 6.0).abs() < 0.01);
    }
}
