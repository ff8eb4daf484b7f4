//! The steps a run is made of; [`super::runner`] puts them in order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::executor::{Execution, blocking};
use super::pool;
use super::progress::Progress;
use super::runner::{Learned, RunSpec, Runner, Stopped};
use crate::destination::{Destination, Entry, Inventory, KeySpace, Listing, Target};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::Memory;
use crate::model::board::Phase;
use crate::model::ledger::{Ledger, PlaceSettings};
use crate::model::plan::Action;
use crate::model::run::{Outcome, RunKind, SecretOutcome, Trigger};
use crate::model::sync::{SyncConfig, SyncState};
use crate::model::text::mentions;
use crate::plan::{self, Inputs, Matcher, Plan, Policy, count};
use crate::source::{Source, SourceMap};
use crate::store::StoreError;

/// A sync whose two sides are open and read.
pub(super) struct Opened {
    pub account: Arc<dyn Source>,
    pub source: SourceMap,
    pub destination: Arc<dyn Destination>,
    pub ledger: Ledger,
    pub inventory: Inventory,
    /// What the source asks for, from the listing to the plan.
    wanted: Option<plan::Wanted>,
}

impl Opened {
    /// What a run starts with that has listed nothing yet.
    pub fn new(account: Arc<dyn Source>, source: SourceMap, destination: Arc<dyn Destination>, ledger: Ledger) -> Self {
        Self { account, source, destination, ledger, inventory: Inventory::default(), wanted: None }
    }

    /// Goes on with another content of the source.
    pub fn set_source(&mut self, source: SourceMap) {
        self.source = source;
        self.wanted = None;
    }
}

impl Runner {
    /// True when this run begins with the sync's initial import.
    pub(super) fn imports_first(&self, spec: &RunSpec, opened: &Opened) -> bool {
        spec.config.sync_options.initial_sync_behavior.imports()
            && !opened.ledger.settled
            && self.store.get(&imported_key(&spec.state.id, &opened.destination.identity())).is_none()
    }

    /// True when every readable value is read.
    pub(super) fn full(&self, spec: &RunSpec, first: bool) -> bool {
        spec.verify || spec.trigger == Trigger::Drift || first
    }

    /// Opens both sides and reads the source. With `fallback`, a source that cannot be read
    /// does not end the run.
    pub(super) async fn open(
        &self,
        spec: &RunSpec,
        cx: &Cx,
        progress: &Progress,
        learned: &mut Option<Learned>,
        fallback: Option<SourceMap>,
    ) -> Result<Opened, Stopped> {
        progress.phase(Phase::ReadingSource);
        let session = self.pool.session(&spec.config.connection_id).await?;
        let (id, account) = self.pool.source(spec.config.source_connection.as_deref()).await?;
        self.pool.teach(cx.redactor());
        let read = match &spec.source {
            Some(map) => Ok((**map).clone()),
            None => self.reading(spec, id, &account, cx).await,
        };
        let source = match (read, fallback) {
            (Ok(map), _) => map,
            (Err(error), Some(fallback)) if error.kind != ErrorKind::Cancelled => fallback,
            (Err(error), _) => return Err(error.into()),
        };
        for secret in &source.secrets {
            cx.redactor().learn(&secret.value);
        }
        *learned = Some(Learned {
            environment_name: source.environment_name.clone(),
            environment_id: source.environment_id.clone(),
            folder_id: source.folder_id.clone(),
            content: Some(content(&source, &self.store.hasher().map_err(|e| e.to_string())?)),
        });
        let source = source.selected(&spec.config.sync_options.filter());
        progress.meter(cx, true);
        progress.phase(Phase::ReadingDestination);
        let name = source.environment_name.clone().or_else(|| spec.state.environment_name.clone());
        let target = target(&spec.config, &spec.state, name);
        let destination = match spec.kind {
            RunKind::Remove => session.open_for_removal(cx, &target).await?,
            RunKind::Sync | RunKind::Import => session.open(cx, &target).await?,
        };
        let ledger = self.ledger(spec, &*destination).await?;
        Ok(Opened::new(account, source, destination, ledger))
    }

    /// The source, read by this run or by one that was asked for with it.
    async fn reading(&self, spec: &RunSpec, id: String, account: &Arc<dyn Source>, cx: &Cx) -> Result<SourceMap, ApiError> {
        let place = pool::place(&spec.config);
        let own = || Arc::new(self.readings.claim(self.readings.now(), id, place.clone()));
        let claim = spec.claim.clone().unwrap_or_else(own);
        self.readings.read(&claim, account, cx, &place).await.map(Arc::unwrap_or_clone)
    }

    async fn ledger(&self, spec: &RunSpec, destination: &dyn Destination) -> Result<Ledger, Stopped> {
        let (store, id, identity) = (self.store.clone(), spec.state.id.clone(), destination.identity());
        let config = spec.config.clone();
        Ok(blocking(move || {
            let mut ledger = store.ledger(&id, &identity)?;
            // The sync's file may have been edited by hand: that asks, too.
            if ledger.settled && store.place_settings(&id, &identity)?.is_some_and(|s| config.asks_anew(&s.config)) {
                ledger.settled = false;
            }
            Ok::<_, StoreError>(ledger)
        })
        .await?)
    }

    pub(super) async fn list(&self, spec: &RunSpec, cx: &Cx, progress: &Progress, opened: &mut Opened, full: bool) -> Result<(), Stopped> {
        // Another run may have written here while this one waited for its turn.
        opened.ledger = self.ledger(spec, &*opened.destination).await?;
        // Where values cannot be read, being thorough costs nothing: an attended run repairs what
        // may have drifted, rather than believe the ledger.
        let attended = spec.kind == RunKind::Sync && !spec.trigger.unattended();
        let full = full || (attended && !opened.destination.readable());
        let mut prefix = Matcher::prefix(&spec.config, opened.destination.keys());
        if spec.kind == RunKind::Remove {
            // What an earlier schema wrote is taken away, too.
            let matcher = Matcher::new(&spec.config, opened.destination.keys());
            if opened.ledger.rows.values().any(|r| r.stands() && !matcher.matches(&r.key)) {
                prefix.clear();
            }
        }
        let ask = Listing { prefix: &prefix, ledger: &opened.ledger, wanted: opened.source.secrets.len(), full };
        opened.inventory = opened.destination.list(cx, &ask).await?;
        if spec.kind == RunKind::Sync {
            let keys = opened.destination.keys();
            let listed: HashSet<String> = opened.inventory.entries.iter().map(|e| keys.fold(&e.key)).collect();
            let wanted = plan::want(&spec.config, &opened.source, keys);
            let missing: Vec<&str> = wanted.desired.iter().map(|d| d.fold.as_str()).filter(|f| !listed.contains(*f)).collect();
            if !missing.is_empty() {
                let found = opened.destination.hidden(cx, &missing).await?;
                opened.inventory.entries.extend(found.entries);
                opened.inventory.warnings.extend(found.warnings);
            }
            opened.wanted = Some(wanted);
        }
        for value in opened.inventory.entries.iter().filter_map(|e| e.value.as_ref()) {
            cx.redactor().learn(value);
        }
        progress.meter(cx, true);
        Ok(())
    }

    /// Reads the values of these entries into the inventory. The answer names, by key, those
    /// whose value could not be had, and why.
    pub(super) async fn read(&self, cx: &Cx, opened: &mut Opened, indexes: &[usize]) -> Result<HashMap<String, String>, Stopped> {
        let mut failed = HashMap::new();
        if indexes.is_empty() {
            return Ok(failed);
        }
        let entries: Vec<&Entry> = indexes.iter().map(|i| &opened.inventory.entries[*i]).collect();
        let results = opened.destination.read(cx, &entries).await;
        let at: HashMap<String, usize> = indexes.iter().map(|i| (opened.inventory.entries[*i].key.clone(), *i)).collect();
        let mut answered = HashSet::new();
        for (key, result) in results {
            answered.insert(key.clone());
            let Some(&index) = at.get(&key) else { continue };
            match result {
                Ok(read) => {
                    if let Some(value) = &read.value {
                        cx.redactor().learn(value);
                    }
                    if let Some(problem) = read.problem {
                        failed.insert(key, problem);
                        continue;
                    }
                    let entry = &mut opened.inventory.entries[index];
                    entry.value = read.value;
                    entry.stamp = read.stamp.or(entry.stamp.take());
                }
                Err(error) if error.kind.whole_connection() => return Err(error.into()),
                Err(error) => {
                    failed.insert(key, cx.redact_told(&error.text()));
                }
            }
        }
        for key in at.into_keys().filter(|k| !answered.contains(k)) {
            failed.insert(key, "the destination did not answer for this key".to_string());
        }
        Ok(failed)
    }

    /// Keeps what the run has to tell so far, for the case that its process dies.
    pub(super) async fn record(&self, cx: &Cx, progress: &Progress) {
        let (counts, outcomes) = progress.so_far(cx.redactor());
        let (store, run) = (self.store.clone(), progress.run().to_string());
        if let Err(error) = blocking(move || store.note_run(&run, counts.unchanged, &outcomes)).await {
            tracing::warn!("the run's progress could not be recorded: {error}");
        }
    }

    /// Reads what must be read and computes the plan.
    pub(super) async fn compute(&self, spec: &RunSpec, cx: &Cx, opened: &mut Opened, full: bool, overwrite_agreed: bool) -> Result<Plan, Stopped> {
        let hasher = self.store.hasher().map_err(|e| e.to_string())?;
        let policy =
            Policy { allow_all: spec.allow_delete, full, rewrite: spec.rewrite, mass_delete_percent: self.mass_delete_percent, overwrite_agreed };
        let want = || plan::want(&spec.config, &opened.source, opened.destination.keys());
        let wanted = opened.wanted.take().unwrap_or_else(want);
        let indexes = plan::reads(&inputs(spec, opened, &hasher, policy), &wanted);
        let failed = self.read(cx, opened, &indexes).await?;
        Ok(plan::compute(&inputs(spec, opened, &hasher, policy), wanted, &failed))
    }

    /// Plans a removal, reading what must be read to know that it is still this sync's.
    pub(super) async fn removal(&self, spec: &RunSpec, cx: &Cx, opened: &mut Opened) -> Result<Plan, Stopped> {
        let hasher = self.store.hasher().map_err(|e| e.to_string())?;
        let policy = Policy { allow_all: spec.allow_delete, ..Policy::default() };
        let wanted = plan::want(&spec.config, &opened.source, opened.destination.keys());
        let indexes = plan::removal::reads(&inputs(spec, opened, &hasher, policy));
        let failed = self.read(cx, opened, &indexes).await?;
        Ok(plan::removal::plan(&inputs(spec, opened, &hasher, policy), &wanted, &failed))
    }

    /// Tells the progress what the plan leaves alone and what it will do.
    pub(super) fn report(&self, plan: &Plan, progress: &Progress) {
        progress.total(plan.allowed().count(), plan.unchanged.len());
        for skipped in &plan.skipped {
            let key = skipped.key.clone().or_else(|| skipped.source_key.clone()).unwrap_or_default();
            progress.done(SecretOutcome {
                key,
                source_key: skipped.source_key.clone(),
                outcome: Outcome::Skipped,
                reason: Some(skipped.reason.clone()),
            });
        }
        for conflict in &plan.conflicts {
            for key in &conflict.keys {
                let reason = Some(conflict.reason.clone());
                progress.done(SecretOutcome { key: key.clone(), source_key: Some(key.clone()), outcome: Outcome::Conflict, reason });
            }
        }
    }

    /// Tells the progress what waits for the operator.
    pub(super) fn withhold(&self, plan: &Plan, progress: &Progress) {
        for change in plan.asks() {
            let reason = change.ask.as_ref().map(|a| a.reason.clone());
            progress.done(SecretOutcome { key: change.key.clone(), source_key: change.source_key.clone(), outcome: Outcome::Withheld, reason });
        }
    }

    pub(super) async fn apply(&self, spec: &RunSpec, cx: &Cx, progress: &Progress, opened: &Opened, plan: &Plan) -> Result<(), Stopped> {
        let hasher = self.store.hasher().map_err(|e| e.to_string())?;
        let target = opened.destination.identity();
        if spec.kind == RunKind::Sync {
            let settings = PlaceSettings { config: spec.config.clone(), environment_name: opened.source.environment_name.clone() };
            let (store, id, target) = (self.store.clone(), spec.state.id.clone(), target.clone());
            blocking(move || store.note_place(&id, &target, &settings)).await?;
        }
        // A run that writes nothing has nothing that could be cut off.
        if plan.allowed().next().is_some() {
            self.record(cx, progress).await;
        }
        let execution = Execution {
            cx,
            store: &self.store,
            sync_id: &spec.state.id,
            target: &target,
            destination: &*opened.destination,
            inventory: &opened.inventory,
            ledger: &opened.ledger,
            hasher: &hasher,
            progress,
            approved: spec.allow_delete,
        };
        execution.apply(plan).await.map_err(Stopped::from)
    }

    /// The end of a sync: settled when everything the source holds is where it belongs. Answers
    /// what else waits for the operator.
    pub(super) async fn verdict(
        &self,
        spec: &RunSpec,
        cx: &Cx,
        progress: &Progress,
        opened: &Opened,
        plan: &Plan,
    ) -> Result<Option<String>, Stopped> {
        self.withhold(plan, progress);
        if cx.cancelled() {
            return Err(Stopped::Cancelled);
        }
        failures(progress)?;
        let (store, id, target) = (self.store.clone(), spec.state.id.clone(), opened.destination.identity());
        if spec.config.sync_options.initial_sync_behavior.imports() {
            self.store.put(&imported_key(&id, &target), true.into());
        }
        // Both sides hold the same now, except where the operator is asked or a key stays as it is.
        let open: HashSet<&str> = plan.asks().map(|c| c.fold.as_str()).chain(plan.frozen.iter().map(String::as_str)).collect();
        let agreed: Vec<String> = opened.ledger.unproven.iter().filter(|f| !open.contains(f.as_str())).cloned().collect();
        blocking(move || {
            store.settle(&id, &target)?;
            store.trust(&id, &target, &agreed)?;
            store.clear_approved(&id, &target)
        })
        .await?;
        // A key of the source that is held back is not in sync; foreign keys that stay are.
        let held = plan.asks().filter(|c| c.action != Action::Delete || c.owned).count();
        let foreign = plan.asks().count() - held;
        let stays = (foreign > 0).then(|| {
            let what = if foreign == 1 {
                "1 key there, not as this sync wrote it, is".to_string()
            } else {
                format!("{foreign} keys there, not as this sync wrote them, are")
            };
            format!("{what} left alone until you agree to the deletion.")
        });
        if held > 0 {
            let mut text = format!(
                "{} held back until you approve: look at the plan, then approve in the terminal app or run again with --allow-delete.",
                if held == 1 { "1 key is".to_string() } else { format!("{held} keys are") }
            );
            for more in stays.as_deref().into_iter().chain(["Everything else is in sync."]) {
                text = format!("{text} {more}");
            }
            return Err(Stopped::NeedsApproval(text));
        }
        Ok(stays)
    }
}

fn inputs<'a>(spec: &'a RunSpec, opened: &'a Opened, hasher: &'a crate::model::ledger::Hasher, policy: Policy) -> Inputs<'a> {
    Inputs {
        config: &spec.config,
        source: &opened.source,
        destination: &*opened.destination,
        inventory: &opened.inventory,
        ledger: &opened.ledger,
        hasher,
        policy,
    }
}

/// Where it is remembered that a sync has done its initial import from a target: later edits of
/// the sync make the next run ask like a first one, and must not import again.
fn imported_key(sync_id: &str, target: &str) -> String {
    format!("imported:{sync_id}:{target}")
}

/// A keyed fingerprint of everything a run takes from its source: equal fingerprints need no run.
pub fn content(source: &SourceMap, hasher: &crate::model::ledger::Hasher) -> String {
    let mut lines: Vec<String> = source
        .secrets
        .iter()
        .map(|s| {
            let metadata: Vec<String> = s.metadata.iter().map(|(k, v)| format!("{k:?}={v:?}")).collect();
            format!("{:?} {} {}", s.key, hasher.hash(&s.value), metadata.join(","))
        })
        .collect();
    lines.extend(source.unreadable.iter().map(|(key, why)| format!("!{key:?} {why}")));
    lines.extend(source.incomplete.iter().map(|why| format!("?{why}")));
    lines.sort();
    hasher.hash(&crate::model::SecretValue::new(lines.join("\n")))
}

/// What a run wants to write to.
pub(super) fn target(config: &SyncConfig, state: &SyncState, environment_name: Option<String>) -> Target {
    Target {
        sync_id: state.id.clone(),
        sync_name: config.name.clone(),
        config: config.destination_config.clone(),
        options: config.sync_options.clone(),
        environment_slug: config.environment.clone(),
        environment_name,
    }
}

/// Keys whose import failed or waits stay as they are at the destination: neither deleted, for
/// the source has them not yet, nor overwritten, for the destination's value may be the chosen
/// one. What became of them was told with the import, and is not told again.
pub(super) fn withdraw_frozen(plan: &mut Plan, frozen: &[String], keys: &dyn KeySpace) {
    if frozen.is_empty() {
        return;
    }
    let frozen: HashSet<&str> = frozen.iter().map(String::as_str).collect();
    plan.changes.retain(|c| !frozen.contains(c.fold.as_str()));
    plan.adopt.retain(|r| !frozen.contains(r.fold.as_str()));
    plan.skipped.retain(|s| s.key.as_deref().is_none_or(|k| !frozen.contains(keys.fold(k).as_str())));
    plan.frozen.extend(frozen.into_iter().map(str::to_string));
}

/// An error when keys failed, with their number and the first of them.
pub(super) fn failures(progress: &Progress) -> Result<(), Stopped> {
    let failed = progress.failures();
    let Some((key, reason)) = failed.first() else { return Ok(()) };
    let rest = if failed.len() > 1 {
        let others: Vec<&str> = failed.iter().skip(1).map(|(k, _)| k.as_str()).collect();
        format!("; also {}", crate::model::text::names(&others, 8))
    } else {
        String::new()
    };
    // A key may be a word of any sentence: only one that is told of (`set KEY: ...`) is named.
    let told = mentions(reason, key) && reason.contains(&format!("{key}:"));
    let named = if told { reason.clone() } else { format!("{key}: {reason}") };
    let named = if rest.is_empty() { named } else { format!("{}{rest}", named.trim_end_matches('.')) };
    Err(Stopped::from(format!("{} failed: {named}", count(failed.len(), "key"))))
}
