//! What earlier settings of a sync left at destinations: keys of an earlier Key Schema, and all
//! keys at targets that it wrote to before an edit. Plans name them, and a removal asked for
//! them takes them away, where they still are as this sync left them.

use std::collections::HashSet;

use super::executor::blocking;
use super::pool;
use super::progress::Progress;
use super::runner::{Learned, RunSpec, Runner, Stopped, held_back, unread};
use super::steps::{Opened, failures, target};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::board::Phase;
use crate::model::ledger::{Ledger, WrittenPlace};
use crate::model::run::{Outcome, SecretOutcome};
use crate::plan::{Matcher, Plan, Skipped, left_behind_text};
use crate::store::StoreError;

impl Runner {
    /// Places besides the present target that hold keys of this sync.
    async fn earlier(&self, spec: &RunSpec, present: &str) -> Result<Vec<WrittenPlace>, Stopped> {
        let (store, id) = (self.store.clone(), spec.state.id.clone());
        let places = blocking(move || store.places(&id)).await?;
        Ok(places.into_iter().filter(|p| p.target != present).collect())
    }

    async fn ledger_at(&self, spec: &RunSpec, place: &WrittenPlace) -> Result<Ledger, Stopped> {
        let (store, id, target) = (self.store.clone(), spec.state.id.clone(), place.target.clone());
        Ok(blocking(move || store.ledger(&id, &target)).await?)
    }

    /// Warnings about keys that this sync wrote at targets that it no longer has.
    pub(super) async fn elsewhere(&self, spec: &RunSpec, opened: &Opened) -> Result<Vec<String>, Stopped> {
        let mut out = Vec::new();
        for place in self.earlier(spec, &opened.destination.identity()).await? {
            let at = match &place.settings {
                Some(settings) => {
                    format!("at an earlier target, {},", pool::label(&settings.config.destination, &settings.config.destination_config))
                }
                None => format!("at an earlier target, {},", place.target),
            };
            out.push(left_behind_text(&spec.config.name, place.keys.iter().map(String::as_str).collect(), &at));
        }
        Ok(out)
    }

    /// Takes away what the present settings no longer reach: here, and at earlier targets.
    pub(super) async fn remove_left_behind(
        &self,
        spec: &RunSpec,
        cx: &Cx,
        progress: &Progress,
        learned: &mut Option<Learned>,
    ) -> Result<(), Stopped> {
        let mut held = 0;
        let mut opened = self.open(spec, cx, progress, learned, Some(unread())).await?;
        let present = opened.destination.identity();
        {
            let _turn = self.targets.turn(&opened.destination.writers(), cx).await?;
            self.list(spec, cx, progress, &mut opened, false).await?;
            progress.phase(Phase::Planning);
            let mut plan = self.removal(spec, cx, &mut opened).await?;
            let matcher = Matcher::new(&spec.config, opened.destination.keys());
            plan.changes.retain(|c| !matcher.matches(&c.key));
            plan.skipped.retain(|s| s.key.as_deref().is_some_and(|k| !matcher.matches(k)));
            plan.forget.retain(|f| opened.ledger.rows.get(f).is_some_and(|r| !matcher.matches(&r.key)));
            held += self.take_away(spec, cx, progress, &opened, &plan).await?;
        }
        for place in self.earlier(spec, &present).await? {
            if cx.cancelled() {
                return Err(Stopped::Cancelled);
            }
            match self.clear(spec, cx, progress, &opened, &place).await {
                Ok(n) => held += n,
                Err(Stopped::Call(error)) => {
                    // One place that cannot be reached does not keep the others.
                    let ledger = self.ledger_at(spec, &place).await?;
                    for row in ledger.rows.into_values().filter(|r| r.stands()) {
                        let reason = Some(cx.redact_told(&error.text()));
                        progress.done(SecretOutcome { key: row.key, source_key: Some(row.source_key), outcome: Outcome::Failed, reason });
                    }
                }
                Err(stopped) => return Err(stopped),
            }
        }
        failures(progress)?;
        held_back(held)
    }

    /// Takes this sync's keys away from an earlier target. Answers how many wait for the operator.
    async fn clear(&self, spec: &RunSpec, cx: &Cx, progress: &Progress, present: &Opened, place: &WrittenPlace) -> Result<usize, Stopped> {
        let lost = |text: String| ApiError::new(ErrorKind::Invalid, "kms-sync", text);
        let Some(settings) = &place.settings else {
            return Err(lost(format!("how {} was reached is not recorded: remove the key there by hand", place.target)).into());
        };
        progress.phase(Phase::ReadingDestination);
        let config = crate::model::sync::SyncConfig { name: spec.config.name.clone(), ..settings.config.clone() };
        let there = RunSpec { config, source: None, claim: None, ..spec.clone() };
        let session = self.pool.session(&there.config.connection_id).await?;
        let destination = session.open(cx, &target(&there.config, &there.state, settings.environment_name.clone())).await?;
        if destination.identity() != place.target {
            let connection = &there.config.connection_id;
            return Err(lost(format!("the connection {connection} no longer leads to {}, where the key was written", place.target)).into());
        }
        let _turn = self.targets.turn(&destination.writers(), cx).await?;
        let (source, ledger) = (unread(), Ledger::default());
        let mut opened = Opened::new(present.account.clone(), source, destination, ledger);
        self.list(&there, cx, progress, &mut opened, false).await?;
        progress.phase(Phase::Planning);
        let mut plan = self.removal(&there, cx, &mut opened).await?;
        self.spare(present, &opened, &mut plan);
        let held = self.take_away(&there, cx, progress, &opened, &plan).await?;
        let (store, id, target) = (self.store.clone(), spec.state.id.clone(), place.target.clone());
        blocking(move || {
            if store.places(&id)?.iter().all(|p| p.target != target) {
                store.forget_target(&id, &target)?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
        Ok(held)
    }

    /// Leaves alone what is this sync's own at its present target as well: two targets may be two
    /// names of one place.
    fn spare(&self, present: &Opened, there: &Opened, plan: &mut Plan) {
        let own: HashSet<&str> = present.ledger.rows.values().filter(|r| r.stands()).filter_map(|r| r.remote_id.as_deref()).collect();
        let entry = |at: Option<usize>| at.and_then(|at| there.inventory.entries[at].id.as_deref());
        let (spared, go): (Vec<_>, Vec<_>) =
            std::mem::take(&mut plan.changes).into_iter().partition(|c| entry(c.entry).is_some_and(|id| own.contains(id)));
        plan.changes = go;
        for change in spared {
            let reason = "is what this sync writes at its present target".to_string();
            plan.skipped.push(Skipped { key: Some(change.key), source_key: change.source_key, reason });
            plan.forget.push(change.fold);
        }
    }

    /// Takes away what a removal planned. Answers how many keys wait for the operator.
    pub(super) async fn take_away(&self, spec: &RunSpec, cx: &Cx, progress: &Progress, opened: &Opened, plan: &Plan) -> Result<usize, Stopped> {
        self.report(plan, progress);
        progress.phase(Phase::Applying);
        self.apply(spec, cx, progress, opened, plan).await?;
        self.withhold(plan, progress);
        if cx.cancelled() {
            return Err(Stopped::Cancelled);
        }
        Ok(plan.asks().count())
    }
}
