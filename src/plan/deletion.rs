//! Which keys go: what this sync wrote and the source no longer has. What somebody else wrote,
//! edited or carries as well waits for the operator, or stays.

use std::collections::{HashMap, HashSet};

use super::ownership::{NOT_ARRIVED, gone, live, owned, same_object, tampered};
use super::{Ask, Change, Inputs, MASS_DELETE_FLOOR, Matcher, Plan, Skipped, Wanted, ask, count, counted};
use crate::destination::{Desired, EntryState, Freshness};
use crate::model::plan::Action;
use crate::model::text::joined;

/// Entries that would be deleted as this sync's own, if only their value proves that they are
/// still as it left them.
pub(super) fn doubtful(inputs: &Inputs<'_>, wanted: &Wanted, by_fold: &HashMap<String, usize>) -> Vec<usize> {
    if !inputs.config.sync_options.deletes() || !inputs.source.complete() {
        return Vec::new();
    }
    let matcher = Matcher::new(inputs.config, inputs.destination.keys());
    let stays: HashSet<&str> = wanted.desired.iter().map(|d| d.fold.as_str()).chain(wanted.frozen.iter().map(String::as_str)).collect();
    let doubtful = |(fold, at): &(&String, &usize)| {
        let entry = &inputs.inventory.entries[**at];
        let row = inputs.ledger.rows.get(*fold).filter(|r| live(r) && same_object(entry, r));
        !stays.contains(fold.as_str())
            && entry.state == EntryState::Active
            && entry.value.is_none()
            && matcher.matches(&entry.key)
            && row.is_some_and(|r| inputs.destination.freshness(entry, r) == Freshness::Unknown)
    };
    by_fold.iter().filter(doubtful).map(|(_, at)| *at).collect()
}

/// Rows of keys that are gone, by another hand, and that nobody wants back: kept, they would
/// claim whatever somebody makes under that name later.
pub(super) fn stale_rows(inputs: &Inputs<'_>, desired: &[Desired], frozen: &[String], by_fold: &HashMap<String, usize>) -> Vec<String> {
    let matcher = Matcher::new(inputs.config, inputs.destination.keys());
    let stays: HashSet<&str> = desired.iter().map(|d| d.fold.as_str()).chain(frozen.iter().map(String::as_str)).collect();
    let rows = gone(inputs, |fold| by_fold.contains_key(fold)).filter(|r| !stays.contains(r.fold.as_str()) && matcher.matches(&r.key));
    rows.map(|r| r.fold.clone()).collect()
}

pub(super) fn plan(
    inputs: &Inputs<'_>,
    plan: &mut Plan,
    desired: &[Desired],
    by_fold: &HashMap<String, usize>,
    failed_reads: &HashMap<String, String>,
) {
    let matcher = Matcher::new(inputs.config, inputs.destination.keys());
    let wanted: HashSet<&str> = desired.iter().map(|d| d.fold.as_str()).chain(plan.frozen.iter().map(String::as_str)).collect();
    let mut found = Vec::new();
    let (mut foreign_syncs, mut left) = (HashMap::<&str, usize>::new(), 0usize);
    for (fold, &at) in by_fold {
        let entry = &inputs.inventory.entries[at];
        if !matcher.matches(&entry.key) {
            continue;
        }
        let row = inputs.ledger.rows.get(fold).filter(|r| r.stands() && same_object(entry, r));
        if !matcher.selects(&entry.key) && row.is_none() {
            continue;
        }
        if !matches!(entry.state, EntryState::Deleted { .. }) {
            plan.reach += 1;
        }
        if wanted.contains(fold.as_str()) {
            continue;
        }
        let own = inputs.ledger.rows.get(fold).filter(|r| live(r) && same_object(entry, r));
        let object = entry.id.as_ref().filter(|_| own.is_none()).and_then(|id| inputs.ledger.other_objects.get(id));
        if let Some(other) = inputs.ledger.others.get(fold).map(|o| &o.sync).or(object) {
            match own.filter(|_| inputs.source.complete() && !matches!(entry.state, EntryState::Deleted { .. })) {
                // It is that sync's alone from now on, and goes when that one drops it.
                Some(row) => {
                    let reason = format!("no longer in the source, and not deleted: the sync {other} carries it, too");
                    plan.skipped.push(Skipped { key: Some(entry.key.clone()), source_key: Some(row.source_key.clone()), reason });
                    plan.forget.push(fold.clone());
                }
                None => *foreign_syncs.entry(other).or_default() += 1,
            }
            continue;
        }
        match &entry.state {
            EntryState::Deleted { .. } => continue,
            EntryState::Protected(reason) | EntryState::Blocked(reason) => {
                if inputs.config.sync_options.deletes() {
                    plan.skipped.push(Skipped { key: Some(entry.key.clone()), source_key: None, reason: reason.clone() });
                }
                continue;
            }
            _ => {}
        }
        if !inputs.config.sync_options.deletes() {
            left += 1;
            continue;
        }
        if inputs.ledger.kept.contains(fold) {
            continue;
        }
        found.push((fold.clone(), at));
    }
    for (other, n) in foreign_syncs {
        let (belong, are) = (counted(n, "key", "there belongs", "there belong"), if n == 1 { "is" } else { "are" });
        plan.warnings.push(format!("{belong} to the sync {other} and {are} left alone."));
    }
    if left > 0 {
        let stay = counted(left, "key", "there is not in the source; it stays", "there are not in the source; they stay");
        plan.warnings.push(format!("{stay}, because Disable Secret Deletion is on."));
    }
    if found.is_empty() {
        return;
    }
    if !inputs.source.complete() {
        let mut why = inputs.source.incomplete.clone();
        if !inputs.source.unreadable.is_empty() {
            why.push(format!("{} of the source could not be read", count(inputs.source.unreadable.len(), "key")));
        }
        if !inputs.source.clashes.is_empty() {
            why.push(counted(inputs.source.clashes.len(), "key", "stands in several folders", "stand in several folders"));
        }
        plan.warnings.push(format!(
            "The source could not be read completely, so nothing is deleted ({} would be): {}.",
            count(found.len(), "key"),
            joined(&why).trim_end_matches('.')
        ));
        for (fold, at) in found {
            let entry = &inputs.inventory.entries[at];
            if let Some(row) = inputs.ledger.rows.get(&fold).filter(|r| live(r) && same_object(entry, r)) {
                let reason = format!("not deleted, because the source could not be read completely: {}", joined(&why));
                plan.skipped.push(Skipped { key: Some(entry.key.clone()), source_key: Some(row.source_key.clone()), reason });
            }
        }
        return;
    }
    for (fold, at) in found {
        let entry = &inputs.inventory.entries[at];
        let row = inputs.ledger.rows.get(&fold).filter(|r| same_object(entry, r));
        let doubtful = inputs.ledger.unproven.contains(&fold);
        let written = !doubtful && row.is_some_and(|r| owned(inputs, entry, r));
        if let Some(reason) = failed_reads.get(&entry.key).filter(|_| written) {
            let reason = format!("no longer in the source, and not deleted, because its value could not be read: {reason}");
            plan.skipped.push(Skipped { key: Some(entry.key.clone()), source_key: row.map(|r| r.source_key.clone()), reason });
            continue;
        }
        let touched = row.filter(|_| written).and_then(|r| tampered(inputs, entry, r));
        let owned = written && touched.is_none();
        let note = entry.note.as_deref().map(|n| format!(" ({n})")).unwrap_or_default();
        let why = match touched {
            _ if doubtful => NOT_ARRIVED,
            touched => touched.unwrap_or("not written by this sync"),
        };
        plan.changes.push(Change {
            action: Action::Delete,
            key: entry.key.clone(),
            source_key: row.map(|r| r.source_key.clone()),
            owned,
            reason: Some(if owned { "no longer in the source".into() } else { format!("not in the source{note}") }),
            value_differs: false,
            ask: if owned { None } else { ask(&format!("{why}, and not in the source: it would be deleted{note}")) },
            desired: None,
            entry: Some(at),
            fold,
        });
    }
}

/// Decides which questions are settled already, and which stop the run.
pub(super) fn settle_asks(inputs: &Inputs<'_>, plan: &mut Plan) {
    let live = inputs.ledger.rows.values().filter(|r| live(r)).count();
    let owned_deletions = plan.changes.iter().filter(|c| c.action == Action::Delete && c.owned).count();
    let emptied = inputs.source.secrets.is_empty() && owned_deletions > 0;
    let mass = owned_deletions >= MASS_DELETE_FLOOR && owned_deletions * 100 > live * usize::from(inputs.policy.mass_delete_percent);
    for change in &mut plan.changes {
        if change.action == Action::Delete && change.owned && (emptied || mass) {
            let reason = if emptied {
                let filtered = !inputs.config.sync_options.filter().is_open();
                let why = if filtered { "includeKeys and excludeKeys select nothing of the source" } else { "the source folder is empty" };
                format!("{why}: every key this sync wrote would be deleted")
            } else {
                format!("a mass deletion: {owned_deletions} of the {live} keys this sync wrote would be deleted")
            };
            change.ask = Some(Ask { reason, stops: true });
        }
        if inputs.policy.allow_all || inputs.ledger.approved.contains(&change.fold) {
            change.ask = None;
        }
        if let Some(ask) = &mut change.ask {
            // Until a run has succeeded here, nothing is written before the operator has seen the list.
            ask.stops |= !inputs.ledger.settled;
        }
    }
    let matcher = Matcher::new(inputs.config, inputs.destination.keys());
    let earlier: Vec<&str> =
        inputs.ledger.rows.values().filter(|r| r.value_hash.is_some() && !matcher.matches(&r.key)).map(|r| r.key.as_str()).collect();
    if !earlier.is_empty() {
        plan.warnings.push(super::left_behind_text(&inputs.config.name, earlier, "under an earlier Key Schema"));
    }
    // Only what this sync wrote has a key of the source.
    let withheld = plan.changes.iter().filter(|c| c.action == Action::Delete && c.ask.as_ref().is_some_and(|a| !a.stops));
    let (ours, foreign): (Vec<_>, Vec<_>) = withheld.partition(|c| c.source_key.is_some());
    let (ours, foreign) = (ours.len(), foreign.len());
    if ours > 0 {
        plan.warnings.push(counted(
            ours,
            "key",
            "that this sync wrote may hold another value there now and stays until you approve its deletion.",
            "that this sync wrote may hold other values there now and stay until you approve their deletion.",
        ));
    }
    if foreign > 0 {
        plan.warnings.push(counted(
            foreign,
            "key",
            "there was not written by this sync and stays until you approve its deletion.",
            "there were not written by this sync and stay until you approve their deletion.",
        ));
    }
    if inputs.config.sync_options.deletes() && inputs.config.sync_options.key_schema.is_none() && inputs.destination.keys().schema_on_keys() {
        plan.warnings.push("Without a Key Schema this sync manages every key there: keys that are not in the source are deleted.".into());
    }
}
