//! What `remove-secrets` takes away: what this sync wrote and nobody has touched since. What
//! the source names and something else wrote, or edited, waits for the operator.

use std::collections::{HashMap, HashSet};

use super::ownership::{NOT_ARRIVED, gone, live, same_object, tampered};
use super::{Ask, Change, Inputs, Plan, Skipped, Wanted};
use crate::destination::{EntryState, Freshness};
use crate::model::plan::Action;

/// Indexes of entries that must be read to know whether they are still as this sync left them.
pub fn reads(inputs: &Inputs<'_>) -> Vec<usize> {
    if !inputs.destination.readable() {
        return Vec::new();
    }
    let keys = inputs.destination.keys();
    let doubtful = |entry: &crate::destination::Entry| {
        let row = inputs.ledger.rows.get(&keys.fold(&entry.key)).filter(|r| live(r) && same_object(entry, r));
        entry.state == EntryState::Active
            && entry.value.is_none()
            && row.is_some_and(|r| inputs.destination.freshness(entry, r) == Freshness::Unknown)
    };
    inputs.inventory.entries.iter().enumerate().filter(|(_, e)| doubtful(e)).map(|(at, _)| at).collect()
}

/// Computes the removal. `failed_reads` names keys whose reading failed.
pub fn plan(inputs: &Inputs<'_>, wanted: &Wanted, failed_reads: &HashMap<String, String>) -> Plan {
    let keys = inputs.destination.keys();
    let named: HashMap<&str, &str> = wanted.desired.iter().map(|d| (d.fold.as_str(), d.source_key.as_str())).collect();
    let mut plan = Plan::default();
    for (at, entry) in inputs.inventory.entries.iter().enumerate() {
        let fold = keys.fold(&entry.key);
        let row = inputs.ledger.rows.get(&fold).filter(|r| r.stands());
        let source_key = named.get(fold.as_str()).map(|s| (*s).to_string()).or_else(|| row.map(|r| r.source_key.clone()));
        if row.is_none() && !named.contains_key(fold.as_str()) {
            continue;
        }
        match &entry.state {
            EntryState::Deleted { .. } => continue,
            _ if let Some(other) = inputs.ledger.others.get(&fold) => {
                // It is that sync's alone from now on.
                let reason = format!("not removed: the sync {} carries it, too", other.sync);
                plan.skipped.push(Skipped { key: Some(entry.key.clone()), source_key, reason });
                plan.forget.extend(row.map(|r| r.fold.clone()));
                continue;
            }
            EntryState::Protected(reason) | EntryState::Blocked(reason) => {
                plan.skipped.push(Skipped { key: Some(entry.key.clone()), source_key, reason: reason.clone() });
                continue;
            }
            _ => {}
        }
        let foreign = match row {
            None => Some("not written by this sync".to_string()),
            Some(_) if inputs.ledger.unproven.contains(&fold) => Some(NOT_ARRIVED.to_string()),
            Some(row) if !same_object(entry, row) => Some("made anew by somebody else".to_string()),
            Some(_) if failed_reads.contains_key(&entry.key) => Some(format!("its value could not be read ({})", failed_reads[&entry.key])),
            Some(row) => tampered(inputs, entry, row).map(str::to_owned),
        };
        let agreed = inputs.policy.allow_all || inputs.ledger.approved.contains(&fold);
        let ask = foreign.clone().filter(|_| !agreed).map(|why| Ask { reason: format!("{why}: it would be deleted"), stops: false });
        plan.changes.push(Change {
            action: Action::Delete,
            key: entry.key.clone(),
            source_key,
            owned: foreign.is_none(),
            reason: Some("removed from the destination".into()),
            value_differs: false,
            ask,
            desired: None,
            entry: Some(at),
            fold,
        });
    }
    plan.changes.sort_by(|a, b| a.key.cmp(&b.key));
    // Rows of keys that somebody else took away prove nothing any more.
    let there: HashSet<String> = inputs.inventory.entries.iter().map(|e| keys.fold(&e.key)).collect();
    plan.forget.extend(gone(inputs, |fold| there.contains(fold)).map(|r| r.fold.clone()));
    plan
}
