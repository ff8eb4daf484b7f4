//! The steps of a run that carry values from the destination to the source.

use std::collections::HashMap;

use super::executor::blocking;
use super::pool;
use super::progress::Progress;
use super::runner::{RunSpec, Runner, Stopped};
use super::steps::Opened;
use crate::destination::{Entry, Freshness, KeySpace};
use crate::http::{ApiError, Cx};
use crate::model::run::{Outcome, SecretOutcome};
use crate::model::sync::SyncConfig;
use crate::plan;
use crate::plan::import::{ImportChange, ImportPlan, Rules, plan as planned};
use crate::source::{SourceMap, SourceWrite, WriteOutcome};

impl Runner {
    pub(super) fn import_plan(&self, spec: &RunSpec, opened: &Opened, wins: bool, failed: &HashMap<String, String>) -> ImportPlan {
        let as_left = |entry: &Entry| {
            let row = opened.ledger.rows.get(&opened.destination.keys().fold(&entry.key)).filter(|r| r.value_hash.is_some());
            row.is_some_and(|r| matches!(opened.destination.freshness(entry, r), Freshness::Same | Freshness::Unseen))
        };
        let rules = Rules {
            as_left: &as_left,
            check_name: &|name| opened.account.check_name(name),
            check_value: &|value| opened.account.check_value(value),
            destination_wins: wins,
        };
        planned(&spec.config, &opened.source, &opened.inventory, opened.destination.keys(), &opened.ledger, &rules, failed)
    }

    /// Writes an import into the source, reads back what the source holds then, and goes on with
    /// that. Answers the folded keys that a sync must leave alone, because their value exists at
    /// the destination only; the outcome of each has been told.
    pub(super) async fn write_source(
        &self,
        spec: &RunSpec,
        cx: &Cx,
        progress: &Progress,
        opened: &mut Opened,
        plan: ImportPlan,
    ) -> Result<Vec<String>, Stopped> {
        let mut frozen = plan.frozen;
        let target = opened.destination.identity();
        // Before anything is sent: a run that is cut off now must not leave half a value that the
        // next one takes for the truth.
        let doubted: Vec<String> = plan.stranded.into_iter().chain(plan.changes.iter().map(|c| c.fold.clone())).collect();
        let (store, id, at, folds) = (self.store.clone(), spec.state.id.clone(), target.clone(), doubted.clone());
        blocking(move || store.doubt(&id, &at, &folds)).await?;
        opened.ledger.unproven.extend(doubted);
        for skipped in plan.skipped {
            let key = skipped.key.unwrap_or_default();
            progress.done(SecretOutcome { key, source_key: skipped.source_key, outcome: Outcome::Skipped, reason: Some(skipped.reason) });
        }
        if plan.changes.is_empty() {
            return Ok(frozen);
        }
        progress.total(plan.changes.len(), 0);
        let write =
            |c: &ImportChange| SourceWrite { key: c.source_key.clone(), value: c.value.clone(), create: c.create, yields: !plan.destination_wins };
        let writes: Vec<SourceWrite> = plan.changes.iter().map(write).collect();
        let place = pool::place(&spec.config);
        let sending = cx.sending(writes.iter().map(|w| &w.value));
        let written = opened.account.write(&sending, &place, &writes).await;
        self.readings.outdate();
        let outcomes: HashMap<String, WriteOutcome> = written?.into_iter().collect();
        let now = if outcomes.values().any(|o| *o == WriteOutcome::Done) { Some(opened.account.read(cx, &place).await) } else { None };
        let mut proved = Vec::new();
        for change in &plan.changes {
            let (outcome, reason) = match outcomes.get(&change.source_key) {
                Some(WriteOutcome::Done) => match kept(change, now.as_ref(), &spec.config, opened.destination.keys()) {
                    Ok(()) => {
                        proved.push(change.fold.clone());
                        (Outcome::Imported, change.reason.clone())
                    }
                    Err(reason) => (Outcome::Failed, format!("{reason}; here it stays as it is")),
                },
                Some(WriteOutcome::AwaitsApproval(text)) => (Outcome::Skipped, text.clone()),
                Some(WriteOutcome::Failed(text)) => (Outcome::Failed, text.clone()),
                None => (Outcome::Failed, "the KMS did not say what became of it".to_string()),
            };
            if outcome != Outcome::Imported {
                frozen.push(change.fold.clone());
            }
            let source_key = Some(change.source_key.clone());
            progress.done(SecretOutcome { key: change.key.clone(), source_key, outcome, reason: Some(reason) });
        }
        if let Some(Ok(map)) = now {
            opened.set_source(map.selected(&spec.config.sync_options.filter()));
        }
        opened.ledger.unproven.retain(|fold| !proved.contains(fold));
        let (store, id) = (self.store.clone(), spec.state.id.clone());
        blocking(move || store.trust(&id, &target, &proved)).await?;
        self.record(cx, progress).await;
        Ok(frozen)
    }
}

/// Whether the source holds an imported value exactly as it was sent; otherwise what it made of it.
fn kept(change: &ImportChange, now: Option<&Result<SourceMap, ApiError>>, config: &SyncConfig, keys: &dyn KeySpace) -> Result<(), String> {
    let map = match now {
        Some(Ok(map)) => map,
        Some(Err(error)) => return Err(format!("it was sent to the KMS, and could not be read back: {}", error.text())),
        None => return Err("it was not read back from the KMS".into()),
    };
    let schema = plan::schema_of(config, keys);
    let target = |name: &str| keys.convert(&schema.apply(name)).ok().map(|k| keys.fold(&k));
    let named =
        |name: &str| name == change.source_key || (name.eq_ignore_ascii_case(&change.source_key) && target(name).as_ref() == Some(&change.fold));
    match map.secrets.iter().find(|s| named(&s.key)) {
        Some(secret) if secret.value.same_as(&change.value) => Ok(()),
        Some(_) => Err("the KMS changed the value that the import wrote: it holds another one now".into()),
        None if map.unreadable.iter().any(|(key, _)| named(key)) => Err("it was sent to the KMS, which does not show what it holds now".into()),
        None => match map.secrets.iter().find(|s| s.key.trim().eq_ignore_ascii_case(change.source_key.trim())) {
            Some(secret) => Err(format!("the KMS keeps it under another name, {}", secret.key)),
            None => Err("it was sent to the KMS, which does not list it".into()),
        },
    }
}
