//! Carries out a plan: writes first, deletions last, the ledger in step.
//!
//! One executor serves both shapes of destination. For itemised ones it gives concurrency,
//! order, cancellation and the ledger; pacing and retries of single calls belong to the
//! provider's session.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use futures::stream::{FuturesUnordered, StreamExt};

use super::commit::Committer;
use super::confirm::{Confirmer, Looks};
use super::progress::Progress;
use crate::destination::{Batch, BatchWritten, Desired, Destination, Document, Entry, Freshness, Inventory, Itemised, Op, Shape, Written};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::ledger::{Hasher, Intent, Ledger, LedgerRow};
use crate::model::plan::Action;
use crate::model::run::{Outcome, SecretOutcome};
use crate::plan::{Change, Plan, count};
use crate::store::{Noted, Store};

/// What the history of a run that was cut off says of a key whose write was announced.
const UNCONFIRMED: &str = "announced, and not confirmed before the run was cut off: the next run finds out whether it was written";
/// The same refusal on this many keys ends that kind of operation for the run.
const SAME_REFUSAL: usize = 3;

/// Everything an execution needs besides the plan.
pub struct Execution<'a> {
    pub cx: &'a Cx,
    pub store: &'a Store,
    pub sync_id: &'a str,
    /// The destination's identity.
    pub target: &'a str,
    pub destination: &'a dyn Destination,
    pub inventory: &'a Inventory,
    pub ledger: &'a Ledger,
    pub hasher: &'a Hasher,
    pub progress: &'a Progress,
    /// The operator agreed to take over what this sync did not write.
    pub approved: bool,
}

/// A planned operation with its token.
struct Task<'p> {
    change: &'p Change,
    token: String,
    approved: bool,
}

impl Execution<'_> {
    /// Applies what the plan allows. Outcomes go to the progress; the error is the database's.
    pub async fn apply(&self, plan: &Plan) -> Result<(), String> {
        let run = self.progress.run().to_string();
        let committer = Committer::start(self.store.clone(), run, self.sync_id.to_string(), self.target.to_string());
        for row in &plan.adopt {
            committer.adopt(row.clone());
        }
        if !plan.forget.is_empty() {
            let (store, sync_id, target, folds) = (self.store.clone(), self.sync_id.to_string(), self.target.to_string(), plan.forget.clone());
            blocking(move || store.forget_rows(&sync_id, &target, &folds)).await?;
        }
        let result = match self.destination.shape() {
            Shape::Itemised(target) => {
                let (looks, due) = Looks::new();
                let record = |row| committer.adopt(row);
                let confirmer = Confirmer { cx: self.cx, target, record: &record, progress: self.progress };
                let writes = async { self.itemised(target, plan, &committer, looks).await };
                tokio::join!(writes, confirmer.run(due)).0
            }
            Shape::Document(target) => self.document(target, plan, &committer).await,
        };
        let saved = committer.finish().await;
        result.and(saved.map_err(|e| format!("the ledger could not be saved: {e}")))
    }

    /// All waves. `looks` ends with them.
    async fn itemised(&self, target: &dyn Itemised, plan: &Plan, committer: &Committer, looks: Looks) -> Result<(), String> {
        let (deletes, writes): (Vec<_>, Vec<_>) = plan.allowed().partition(|c| c.action == Action::Delete);
        self.wave(target, &writes, &plan.desired, committer, &looks).await?;
        if deletes.is_empty() {
            return Ok(());
        }
        let failed = self.progress.failed_writes();
        if failed > 0 {
            let reason = format!("nothing is deleted, because {} failed", count(failed, "write"));
            self.not_reached(&deletes, &reason);
            return Ok(());
        }
        if self.cx.cancelled() {
            self.not_reached(&deletes, "cancelled before its turn");
            return Ok(());
        }
        self.wave(target, &deletes, &plan.desired, committer, &looks).await
    }

    /// Runs operations concurrently, in their order, until done, cancelled or hopeless.
    async fn wave(
        &self,
        target: &dyn Itemised,
        changes: &[&Change],
        desired: &[Desired],
        committer: &Committer,
        looks: &Looks,
    ) -> Result<(), String> {
        let tasks: Vec<Task<'_>> = changes.iter().map(|change| self.task(change)).collect();
        self.announce(&tasks, desired).await?;
        let stop = Stop::default();
        let mut unsent = Vec::new();
        let mut going = FuturesUnordered::new();
        let limit = target.concurrency().max(1);
        let mut queue = tasks.iter();
        loop {
            while going.len() < limit {
                let Some(task) = queue.next() else { break };
                let halted = if self.cx.cancelled() { Some("cancelled before its turn".to_string()) } else { stop.reason(task.change.action) };
                if let Some(reason) = halted {
                    self.progress.done(outcome(task.change, Outcome::NotReached, Some(reason)));
                    unsent.push(task);
                    continue;
                }
                going.push(self.one(target, task, desired, &stop, committer, looks));
            }
            if going.next().await.is_none() {
                break;
            }
        }
        drop(going);
        self.retract(&unsent).await
    }

    async fn one(&self, target: &dyn Itemised, task: &Task<'_>, desired: &[Desired], stop: &Stop, committer: &Committer, looks: &Looks) {
        let change = task.change;
        self.progress.started(&change.key, doing(change.action));
        let wish = change.desired.map(|i| &desired[i]);
        let cx = self.cx.sending(wish.map(|w| &w.value));
        let result = target.apply(&cx, &self.op(task, desired)).await;
        match result {
            Ok(written) => {
                let done = self::done(change, &written);
                let row = self.row(change, wish, &written);
                looks.add(&row, written.confirm_in);
                committer.confirm(row, done.clone());
                self.succeeded(change, done);
            }
            Err(error) => {
                stop.learn(change.action, &error);
                if error.kind.whole_connection() {
                    looks.give_up();
                }
                // A create cut short while it waited for its turn has left nothing behind; other
                // operations may have done their first half.
                let unsent = error.kind != ErrorKind::Cancelled || change.action == Action::Create;
                if !error.ambiguous && unsent {
                    self.retract(&[task]).await.unwrap_or_else(|e| tracing::warn!("{e}"));
                }
                self.failed(change, &error, committer);
            }
        }
    }

    fn succeeded(&self, change: &Change, done: Option<SecretOutcome>) {
        match done {
            Some(done) => self.progress.done(done),
            None => self.progress.unchanged(&change.key),
        }
    }

    fn failed(&self, change: &Change, error: &ApiError, committer: &Committer) {
        if error.kind.passing() || error.ambiguous {
            self.progress.may_pass_later();
        }
        let (what, text) = match error.kind {
            // Sent, and cut off before its answer came.
            ErrorKind::Cancelled if error.ambiguous => (Outcome::NotReached, UNCONFIRMED.to_string()),
            ErrorKind::Cancelled => (Outcome::NotReached, self.cx.redact_told(&error.text())),
            _ if error.unsent => (Outcome::NotReached, self.cx.redact_told(&error.text())),
            _ => (Outcome::Failed, self.cx.redact_told(&error.text())),
        };
        let told = outcome(change, what, Some(text));
        committer.note(told.clone());
        self.progress.done(told);
    }

    fn not_reached(&self, changes: &[&Change], reason: &str) {
        for change in changes {
            self.progress.done(outcome(change, Outcome::NotReached, Some(reason.to_string())));
        }
    }

    async fn document(&self, target: &dyn Document, plan: &Plan, committer: &Committer) -> Result<(), String> {
        let changes: Vec<&Change> = plan.allowed().collect();
        if changes.is_empty() {
            return Ok(());
        }
        if self.cx.cancelled() {
            self.not_reached(&changes, "cancelled before its turn");
            return Ok(());
        }
        let tasks: Vec<Task<'_>> = changes.iter().map(|change| self.task(change)).collect();
        self.announce(&tasks, &plan.desired).await?;
        for change in &changes {
            self.progress.started(&change.key, doing(change.action));
        }
        // What waits for the operator is wanted, and not to be written with the others.
        let frozen: Vec<String> = plan.frozen.iter().cloned().chain(plan.asks().map(|c| c.fold.clone())).collect();
        let batch = Batch {
            changes: tasks.iter().map(|t| self.op(t, &plan.desired)).collect(),
            desired: &plan.desired,
            frozen: &frozen,
            ledger: self.ledger,
            inventory: self.inventory,
        };
        let cx = self.cx.sending(plan.desired.iter().map(|d| &d.value));
        match target.apply(&cx, &batch).await {
            Ok(done) => self.document_done(plan, &tasks, done, committer).await,
            Err(error) => {
                if !error.ambiguous && error.kind != ErrorKind::Cancelled {
                    let all: Vec<&Task<'_>> = tasks.iter().collect();
                    self.retract(&all).await?;
                }
                for change in &changes {
                    self.failed(change, &error, committer);
                }
                Ok(())
            }
        }
    }

    async fn document_done(&self, plan: &Plan, tasks: &[Task<'_>], done: BatchWritten, committer: &Committer) -> Result<(), String> {
        let mut outcomes: HashMap<String, Result<Written, ApiError>> = done.outcomes.into_iter().collect();
        let mut touched = HashSet::new();
        let mut back = Vec::new();
        for task in tasks {
            let change = task.change;
            touched.insert(change.fold.as_str());
            match outcomes.remove(&change.key) {
                Some(Ok(mut written)) => {
                    written.stamp = written.stamp.or_else(|| done.stamp.clone());
                    written.id = written.id.or_else(|| done.id.clone());
                    let wish = change.desired.map(|i| &plan.desired[i]);
                    let done = self::done(change, &written);
                    committer.confirm(self.row(change, wish, &written), done.clone());
                    self.succeeded(change, done);
                }
                Some(Err(error)) => {
                    back.push(task);
                    self.failed(change, &error, committer);
                }
                None => {
                    back.push(task);
                    self.progress.done(outcome(change, Outcome::Failed, Some("the destination did not say what became of it".into())));
                }
            }
        }
        // The object's stamp moved with this write: the rows that were not touched move along.
        if done.stamp.is_some() {
            for kept in &plan.unchanged {
                if touched.contains(kept.fold.as_str()) {
                    continue;
                }
                let adopted = plan.adopt.iter().find(|r| r.fold == kept.fold);
                if let Some(row) = adopted.or_else(|| self.ledger.rows.get(&kept.fold)) {
                    committer.adopt(LedgerRow {
                        previous_stamp: row.stamp.clone(),
                        stamp: done.stamp.clone(),
                        remote_id: done.id.clone().or_else(|| row.remote_id.clone()),
                        ..row.clone()
                    });
                }
            }
        }
        self.retract(&back).await
    }

    fn task<'p>(&self, change: &'p Change) -> Task<'p> {
        let approved = self.approved || self.ledger.approved.contains(&change.fold);
        Task { change, token: uuid::Uuid::new_v4().to_string(), approved }
    }

    fn op<'o>(&'o self, task: &'o Task<'_>, desired: &'o [Desired]) -> Op<'o> {
        let change = task.change;
        Op {
            action: change.action,
            key: &change.key,
            entry: change.entry.map(|i| &self.inventory.entries[i]),
            row: self.ledger.rows.get(&change.fold),
            desired: change.desired.map(|i| &desired[i]),
            value_differs: change.value_differs,
            token: &task.token,
            approved: task.approved,
        }
    }

    /// Records what is about to be written, before the first request.
    async fn announce(&self, tasks: &[Task<'_>], desired: &[Desired]) -> Result<(), String> {
        let now = crate::model::now();
        let rows: Vec<LedgerRow> = tasks
            .iter()
            .map(|task| {
                let wish = task.change.desired.map(|i| &desired[i]);
                let mut row = self.before(task.change);
                // What the row told of is gone: only the announcement speaks for what is made now.
                if task.change.action == Action::Create {
                    (row.remote_id, row.value_hash) = (None, None);
                }
                row.intent = Some(Intent {
                    action: task.change.action.to_string(),
                    token: task.token.clone(),
                    value_hash: wish.map(|w| self.hasher.hash(&w.value)),
                    at: now,
                });
                row
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let unsure = |task: &Task<'_>| {
            let outcome = outcome(task.change, Outcome::NotReached, Some(UNCONFIRMED.to_string()));
            Noted { run: self.progress.run().to_string(), key: task.change.key.clone(), outcome: Some(outcome) }
        };
        let noted: Vec<Noted> = tasks.iter().map(unsure).collect();
        let (store, sync_id, target) = (self.store.clone(), self.sync_id.to_string(), self.target.to_string());
        blocking(move || store.put_rows(&sync_id, &target, &rows, &noted)).await
    }

    /// Takes announcements back: nothing was written for them.
    async fn retract(&self, tasks: &[&Task<'_>]) -> Result<(), String> {
        let (mut back, mut gone) = (Vec::new(), Vec::new());
        for task in tasks {
            match self.ledger.rows.get(&task.change.fold) {
                Some(row) => back.push(row.clone()),
                None => gone.push(task.change.fold.clone()),
            }
        }
        if back.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let (store, sync_id, target) = (self.store.clone(), self.sync_id.to_string(), self.target.to_string());
        blocking(move || {
            store.confirm(&sync_id, &target, &back)?;
            store.forget_rows(&sync_id, &target, &gone)
        })
        .await
    }

    /// The row as it stands before a write.
    fn before(&self, change: &Change) -> LedgerRow {
        self.ledger.rows.get(&change.fold).cloned().unwrap_or_else(|| LedgerRow {
            fold: change.fold.clone(),
            key: change.key.clone(),
            source_key: change.source_key.clone().unwrap_or_default(),
            remote_id: None,
            stamp: None,
            previous_stamp: None,
            value_hash: None,
            written_at: crate::model::now(),
            intent: None,
            detail: serde_json::Value::Null,
        })
    }

    /// The row after a confirmed write. A deleted key keeps its row without a hash: it proves
    /// ownership when the key comes back while its deletion is pending.
    fn row(&self, change: &Change, wish: Option<&Desired>, written: &Written) -> LedgerRow {
        let before = self.before(change);
        let entry = change.entry.map(|i| &self.inventory.entries[i]);
        let deleted = (change.action == Action::Delete).then(|| self.deleted_hash(&before, entry));
        let previous_stamp = entry.and_then(|e| e.stamp.clone()).or(before.stamp.clone());
        let mut row = LedgerRow {
            fold: change.fold.clone(),
            key: change.key.clone(),
            source_key: change.source_key.clone().unwrap_or(before.source_key),
            remote_id: written.id.clone().or_else(|| entry.and_then(|e| e.id.clone())).or(before.remote_id),
            stamp: written.stamp.clone(),
            previous_stamp,
            value_hash: wish.map(|w| self.hasher.hash(&w.value)),
            written_at: crate::model::now(),
            intent: None,
            detail: if written.detail.is_null() { before.detail } else { written.detail.clone() },
        };
        if let Some(hash) = deleted {
            row.stamp = row.stamp.or_else(|| row.previous_stamp.clone());
            row.value_hash = hash;
            row.bury();
        } else {
            row.revive();
        }
        row
    }

    /// The hash of the value that is deleted, which comes back with the key: the one that was
    /// read, or ours where nothing says that another hand has changed it.
    fn deleted_hash(&self, before: &LedgerRow, entry: Option<&Entry>) -> Option<String> {
        let entry = entry?;
        match &entry.value {
            Some(value) => Some(self.hasher.hash(value)),
            None if matches!(self.destination.freshness(entry, before), Freshness::Same | Freshness::Unseen) => before.value_hash.clone(),
            None => None,
        }
    }
}

/// Runs a database call off the async threads.
pub(super) async fn blocking<T, E, F>(work: F) -> Result<T, String>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("a database call ended unexpectedly".into()),
    }
}

/// Learns from failures which operations have become pointless.
#[derive(Default)]
struct Stop {
    all: Mutex<Option<String>>,
    refusals: Mutex<HashMap<Action, usize>>,
    actions: Mutex<HashMap<Action, String>>,
}

impl Stop {
    fn learn(&self, action: Action, error: &ApiError) {
        if error.kind.whole_connection() {
            lock(&self.all).get_or_insert_with(|| format!("stopped after {}", error.message));
        }
        let ends_action = match error.kind {
            ErrorKind::Quota => action == Action::Create,
            ErrorKind::Permission => {
                let mut refusals = lock(&self.refusals);
                let n = refusals.entry(action).or_default();
                *n += 1;
                *n >= SAME_REFUSAL
            }
            _ => false,
        };
        if ends_action {
            lock(&self.actions).entry(action).or_insert_with(|| format!("stopped after {}", error.message));
        }
    }

    fn reason(&self, action: Action) -> Option<String> {
        lock(&self.all).clone().or_else(|| lock(&self.actions).get(&action).cloned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a write that was answered came to; `None` when it was needless.
fn done(change: &Change, written: &Written) -> Option<SecretOutcome> {
    let what = match written.instead.unwrap_or(change.action) {
        Action::Create => Outcome::Created,
        Action::Update => Outcome::Updated,
        Action::Restore => Outcome::Restored,
        Action::Delete => Outcome::Deleted,
        Action::Import => Outcome::Imported,
    };
    (!written.untouched).then(|| outcome(change, what, written.note.clone().or_else(|| change.reason.clone())))
}

fn outcome(change: &Change, outcome: Outcome, reason: Option<String>) -> SecretOutcome {
    SecretOutcome { key: change.key.clone(), source_key: change.source_key.clone(), outcome, reason }
}

fn doing(action: Action) -> &'static str {
    match action {
        Action::Create => "creating",
        Action::Update => "updating",
        Action::Restore => "restoring",
        Action::Delete => "deleting",
        Action::Import => "importing",
    }
}
