//! Gathers what a run does, for its record and for the board.

use std::sync::{Arc, Mutex, PoisonError};

use super::hub::Hub;
use crate::http::{Cx, Redactor};
use crate::model::board::{Event, Phase, Waiting};
use crate::model::run::{Counts, Outcome, SecretOutcome};

/// One run's progress. Events are published as they happen; request counters at most four
/// times a second.
pub struct Progress {
    hub: Option<Arc<Hub>>,
    sync: String,
    run: String,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    counts: Counts,
    secrets: Vec<SecretOutcome>,
    failed_writes: usize,
    may_pass: bool,
    metered: Option<std::time::Instant>,
}

impl Progress {
    /// Progress of a run that is published on a hub.
    pub fn new(hub: Arc<Hub>, sync: &str, run: &str) -> Self {
        Self { hub: Some(hub), sync: sync.to_string(), run: run.to_string(), gathered: Mutex::default() }
    }

    /// Progress that nobody watches, of no run.
    pub fn silent() -> Self {
        Self { hub: None, sync: String::new(), run: String::new(), gathered: Mutex::default() }
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        &self.run
    }

    fn with<R>(&self, f: impl FnOnce(&mut Gathered) -> R) -> R {
        f(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, event: impl FnOnce(String) -> Event) {
        if let Some(hub) = &self.hub {
            hub.publish(event(self.sync.clone()));
        }
    }

    /// The run moved on.
    pub fn phase(&self, phase: Phase) {
        self.publish(|sync| Event::Phase { sync, phase });
    }

    /// The plan is known.
    pub fn total(&self, total: usize, unchanged: usize) {
        self.with(|g| g.counts.unchanged = unchanged as u64);
        self.publish(|sync| Event::Total { sync, total: total as u64, unchanged: unchanged as u64 });
    }

    /// Work on a key began.
    pub fn started(&self, key: &str, doing: &str) {
        self.publish(|sync| Event::Started { sync, key: key.to_string(), doing: doing.to_string() });
    }

    /// Work on a key ended, or it was decided not to work on it.
    pub fn done(&self, outcome: SecretOutcome) {
        self.with(|g| {
            g.counts.add(outcome.outcome);
            g.failed_writes += usize::from(outcome.outcome == Outcome::Failed);
            g.secrets.push(outcome.clone());
        });
        self.publish(|sync| Event::Done { sync, outcome });
    }

    /// Something more to say about a key whose work has ended.
    pub fn remark(&self, key: &str, remark: &str) {
        self.with(|g| {
            if let Some(secret) = g.secrets.iter_mut().rfind(|s| s.key == key) {
                secret.reason = Some(secret.reason.take().map_or_else(|| remark.to_string(), |reason| format!("{reason}; {remark}")));
            }
        });
        if let Some(hub) = &self.hub {
            hub.notice("warn", format!("{key}: {remark}"), Some(&self.sync));
        }
    }

    /// A planned write turned out to be needless.
    pub fn unchanged(&self, key: &str) {
        self.with(|g| g.counts.unchanged += 1);
        self.publish(|sync| Event::Kept { sync, key: key.to_string() });
    }

    /// A key failed in a way that may pass by itself.
    pub fn may_pass_later(&self) {
        self.with(|g| g.may_pass = true);
    }

    /// True when trying the same run again may help.
    pub fn may_pass(&self) -> bool {
        self.with(|g| g.may_pass || !g.secrets.iter().any(|s| matches!(s.outcome, Outcome::Failed | Outcome::Conflict)))
    }

    /// Keys found as they should be, outside a plan.
    pub fn kept(&self, n: usize) {
        self.with(|g| g.counts.unchanged += n as u64);
    }

    /// Keys that failed so far, with the reason.
    pub fn failures(&self) -> Vec<(String, String)> {
        self.with(|g| {
            let failed = |s: &&SecretOutcome| matches!(s.outcome, Outcome::Failed | Outcome::Conflict);
            g.secrets.iter().filter(failed).map(|s| (s.key.clone(), s.reason.clone().unwrap_or_default())).collect()
        })
    }

    /// Something the run waits for.
    pub fn waiting(&self, waiting: Option<Waiting>) {
        self.publish(|sync| Event::Waiting { sync, waiting });
    }

    /// Publishes the request counters, unless they were published a moment ago.
    pub fn meter(&self, cx: &Cx, force: bool) {
        let due = self.with(|g| {
            let due = force || g.metered.is_none_or(|t| t.elapsed() > std::time::Duration::from_millis(250));
            if due {
                g.metered = Some(std::time::Instant::now());
            }
            due
        });
        if due {
            let r = cx.meter().snapshot();
            self.publish(|sync| Event::Meter { sync, requests: r.total, retries: r.retries, waited_ms: r.waited_ms });
        }
    }

    /// Writes that failed so far.
    pub fn failed_writes(&self) -> usize {
        self.with(|g| g.failed_writes)
    }

    /// What is known so far, as [`Self::take`] would tell it.
    pub fn so_far(&self, redactor: &Redactor) -> (Counts, Vec<SecretOutcome>) {
        let (counts, secrets) = self.with(|g| (g.counts, g.secrets.clone()));
        (counts, told(secrets, redactor))
    }

    /// Counts, and outcomes sorted by what needs the operator most; texts pass the redactor.
    pub fn take(&self, redactor: &Redactor) -> (Counts, Vec<SecretOutcome>) {
        let (counts, secrets) = self.with(|g| (g.counts, std::mem::take(&mut g.secrets)));
        (counts, told(secrets, redactor))
    }
}

fn told(mut secrets: Vec<SecretOutcome>, redactor: &Redactor) -> Vec<SecretOutcome> {
    for secret in &mut secrets {
        // To whoever reads the record a conflict is a failure with a reason.
        if secret.outcome == Outcome::Conflict {
            secret.outcome = Outcome::Failed;
        }
        if let Some(reason) = secret.reason.as_ref().filter(|_| !secret.outcome.written()) {
            secret.reason = Some(redactor.redact_told(reason));
        }
    }
    secrets.sort_by(|a, b| (a.outcome.rank(), &a.key).cmp(&(b.outcome.rank(), &b.key)));
    secrets
}
