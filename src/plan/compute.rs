//! The difference, and what may be done about it.

use std::collections::{HashMap, HashSet};

use super::ownership::{announced, beside, owned, same_object, sibling};
use super::{Ask, Change, Conflict, Inputs, Kept, Overwrite, Plan, Skipped, Wanted, ask, deletion};
use crate::destination::{Desired, Entry, EntryState, Freshness, Missing};
use crate::model::ledger::{LedgerRow, Other};
use crate::model::plan::Action;

/// Indexes of listed entries whose value must be read before [`compute`] can be sure.
pub fn reads(inputs: &Inputs<'_>, wanted: &Wanted) -> Vec<usize> {
    if !inputs.destination.readable() {
        return Vec::new();
    }
    let by_fold = index(inputs);
    let mut out = Vec::new();
    for desired in &wanted.desired {
        let Some(&at) = by_fold.get(desired.fold.as_str()) else { continue };
        let entry = &inputs.inventory.entries[at];
        if entry.state != EntryState::Active || entry.value.is_some() {
            continue;
        }
        let row = inputs.ledger.rows.get(&desired.fold).filter(|r| same_object(entry, r));
        let needed = match row {
            _ if inputs.policy.full => true,
            None => true,
            Some(row) if row.intent.is_some() || row.value_hash.is_none() => true,
            Some(row) => match inputs.destination.freshness(entry, row) {
                Freshness::Same => false,
                Freshness::Unknown => true,
                // Reading what is about to be overwritten may save a version, and shows an outside edit.
                Freshness::Unseen => row.value_hash.as_deref() != Some(&inputs.hasher.hash(&desired.value)),
                Freshness::Changed(_) => false,
            },
        };
        if needed {
            out.push(at);
        }
    }
    // What a dead run was about to write and the source has lost since: only its value tells
    // whether that run made it, and so whether it may go.
    let wished: HashSet<&str> = wanted.desired.iter().map(|d| d.fold.as_str()).collect();
    let unproved = inputs.ledger.rows.values().filter(|r| r.intent.is_some() && !wished.contains(r.fold.as_str()));
    for row in unproved {
        let Some(&at) = by_fold.get(&row.fold) else { continue };
        let entry = &inputs.inventory.entries[at];
        if row.value_hash.is_some() && inputs.destination.freshness(entry, row) == Freshness::Same {
            continue;
        }
        if entry.state == EntryState::Active && entry.value.is_none() && same_object(entry, row) {
            out.push(at);
        }
    }
    out.extend(deletion::doubtful(inputs, wanted, &by_fold));
    out.sort_unstable();
    out.dedup();
    out
}

/// Computes the plan. Entries whose value was read carry it; `failed_reads` names those whose
/// reading failed, by key.
pub fn compute(inputs: &Inputs<'_>, wanted: Wanted, failed_reads: &HashMap<String, String>) -> Plan {
    let by_fold = index(inputs);
    let mut plan = Plan {
        skipped: wanted.skipped,
        conflicts: wanted.conflicts,
        frozen: wanted.frozen,
        warnings: wanted.warnings,
        desired: wanted.desired,
        ..Plan::default()
    };
    plan.warnings.extend(inputs.source.warnings.iter().cloned());
    plan.warnings.extend(inputs.inventory.warnings.iter().cloned());
    plan.warnings.extend(inputs.destination.warnings());
    plan.warnings.extend(inputs.destination.concerns(&plan.desired));
    let desired = std::mem::take(&mut plan.desired);
    for (at, wish) in desired.iter().enumerate() {
        let entry = by_fold.get(wish.fold.as_str()).copied();
        decide(inputs, &mut plan, at, wish, entry, failed_reads);
    }
    deletion::plan(inputs, &mut plan, &desired, &by_fold, failed_reads);
    plan.forget.extend(deletion::stale_rows(inputs, &desired, &plan.frozen, &by_fold));
    plan.desired = desired;
    deletion::settle_asks(inputs, &mut plan);
    plan.changes.sort_by(|a, b| (rank(a.action), &a.key).cmp(&(rank(b.action), &b.key)));
    plan.skipped.sort_by(|a, b| a.key.cmp(&b.key));
    plan.warnings.extend(inputs.destination.outlook(plan.allowed().count()));
    plan
}

/// The order of work: what was deleted comes back first, deletions go last.
fn rank(action: Action) -> u8 {
    match action {
        Action::Import => 0,
        Action::Restore => 1,
        Action::Create => 2,
        Action::Update => 3,
        Action::Delete => 4,
    }
}

fn index<'a>(inputs: &'a Inputs<'_>) -> HashMap<String, usize> {
    let keys = inputs.destination.keys();
    let mut out: HashMap<String, usize> = HashMap::with_capacity(inputs.inventory.entries.len());
    let entries: &'a [Entry] = &inputs.inventory.entries;
    for (at, entry) in entries.iter().enumerate() {
        match out.entry(keys.fold(&entry.key)) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(at);
            }
            // Two objects of one name: the living one stands for it.
            std::collections::hash_map::Entry::Occupied(mut slot) => {
                if state_rank(&entry.state) < state_rank(&entries[*slot.get()].state) {
                    slot.insert(at);
                }
            }
        }
    }
    out
}

fn state_rank(state: &EntryState) -> u8 {
    match state {
        EntryState::Blocked(_) => 0,
        EntryState::Active | EntryState::Empty => 1,
        EntryState::Protected(_) => 2,
        EntryState::Settling(_) => 3,
        EntryState::Deleted { .. } => 4,
    }
}

fn decide(inputs: &Inputs<'_>, plan: &mut Plan, at: usize, wish: &Desired, entry: Option<usize>, failed_reads: &HashMap<String, String>) {
    let row = inputs.ledger.rows.get(&wish.fold);
    let mut change = Change {
        action: Action::Create,
        fold: wish.fold.clone(),
        key: wish.key.clone(),
        source_key: Some(wish.source_key.clone()),
        owned: false,
        reason: None,
        value_differs: true,
        ask: None,
        desired: Some(at),
        entry,
    };
    let Some(entry_at) = entry else {
        match row {
            Some(row) if row.value_hash.is_some() && row.intent.is_none() && inputs.destination.missing(row) == Missing::Lagging => {
                if row.value_hash.as_deref() == Some(&inputs.hasher.hash(&wish.value)) {
                    keep(plan, wish);
                } else {
                    plan.changes.push(Change { action: Action::Update, owned: true, reason: Some("value differs".into()), ..change });
                }
            }
            Some(row) => {
                let reason = row.value_hash.is_some().then(|| "was deleted outside, comes back".to_string());
                plan.changes.push(Change { owned: true, reason, ..change });
            }
            None => plan.changes.push(change),
        }
        return;
    };
    let entry = &inputs.inventory.entries[entry_at];
    change.key = entry.key.clone();
    let own_row = row.filter(|r| same_object(entry, r));
    let doubtful = inputs.ledger.unproven.contains(&wish.fold) || beside(inputs, &wish.fold, own_row);
    change.owned = !doubtful && own_row.is_some_and(|r| owned(inputs, entry, r));
    match &entry.state {
        EntryState::Blocked(reason) => {
            plan.frozen.push(wish.fold.clone());
            plan.conflicts.push(Conflict::of(&wish.source_key, &entry.key, reason));
        }
        EntryState::Protected(reason) => {
            plan.frozen.push(wish.fold.clone());
            plan.skipped.push(Skipped { key: Some(entry.key.clone()), source_key: Some(wish.source_key.clone()), reason: reason.clone() });
        }
        EntryState::Deleted { .. } => {
            // The row of a key that this sync deleted stays, so that its return needs no question.
            change.owned = own_row.is_some_and(|r| r.was_ours() || owned(inputs, entry, r)) && !inputs.ledger.unproven.contains(&wish.fold);
            change.action = Action::Restore;
            change.reason = Some("its deletion is pending, it comes back".into());
            if let Some(row) = own_row.filter(|r| r.stamp.is_some() && r.stamp == entry.stamp) {
                change.value_differs = row.buried_hash() != Some(inputs.hasher.hash(&wish.value).as_str());
            }
            if !change.owned {
                change.ask = ask("a deleted secret of this name, not written by this sync, would be brought back and overwritten");
            }
            plan.changes.push(change);
        }
        EntryState::Settling(state) => {
            change.action = Action::Update;
            change.reason = Some(format!("waits until {state} has ended"));
            if own_row.is_none() || doubtful {
                change.ask = ask("it is changing now and was not written by this sync: it would be overwritten");
            }
            plan.changes.push(change);
        }
        EntryState::Empty => {
            change.action = Action::Update;
            change.reason = Some("has no value yet".into());
            plan.changes.push(change);
        }
        EntryState::Active => active(inputs, plan, wish, entry, own_row, row, change, failed_reads),
    }
}

#[allow(clippy::too_many_arguments, reason = "one decision over everything known about one key")]
fn active(
    inputs: &Inputs<'_>,
    plan: &mut Plan,
    wish: &Desired,
    entry: &Entry,
    own_row: Option<&LedgerRow>,
    any_row: Option<&LedgerRow>,
    mut change: Change,
    failed_reads: &HashMap<String, String>,
) {
    change.action = Action::Update;
    if let Some(reason) = failed_reads.get(&entry.key) {
        plan.frozen.push(wish.fold.clone());
        plan.conflicts.push(Conflict::of(&wish.source_key, &entry.key, reason));
        return;
    }
    if inputs.ledger.kept.contains(&wish.fold) && !change.owned {
        plan.frozen.push(wish.fold.clone());
        plan.skipped.push(Skipped {
            key: Some(entry.key.clone()),
            source_key: Some(wish.source_key.clone()),
            reason: "kept as it is at the destination, by your choice".into(),
        });
        return;
    }
    let wanted_hash = inputs.hasher.hash(&wish.value);
    let difference = inputs.destination.differs(entry, wish, own_row);
    let sibling = sibling(inputs, entry, &wish.fold, own_row);
    let contested = |other: &Other| ask(&format!("the sync {} stands for it with another value: that would be overwritten", other.sync));
    // Equal, and whether something there proves it (rather than the ledger alone).
    let (equal, proven) = match (&entry.value, own_row) {
        (Some(value), _) => (value.same_as(&wish.value), true),
        (None, _) if let Some(other) = sibling => {
            let same = other.row.value_hash.as_deref() == Some(wanted_hash.as_str());
            (same, same)
        }
        (None, Some(row)) if row.value_hash.is_some() && row.intent.is_none() => {
            let same = row.value_hash.as_deref() == Some(wanted_hash.as_str());
            match inputs.destination.freshness(entry, row) {
                Freshness::Changed(reason) => {
                    change.reason = Some(reason);
                    change.ask = doubt(inputs, &wish.fold);
                    plan.changes.push(change);
                    return;
                }
                Freshness::Same => (same, true),
                Freshness::Unseen | Freshness::Unknown => (same, false),
            }
        }
        (None, _) => (false, false),
    };
    if equal && change.owned && inputs.policy.rewrite && entry.value.is_none() && !inputs.destination.readable() {
        change.reason = Some("written again as asked, because it cannot be read back".into());
        plan.changes.push(change);
        return;
    }
    if equal {
        // What another sync wrote stays that sync's to change, also when both want the same value:
        // this one stands beside it, so that neither deletes what the other still carries.
        let other = inputs.ledger.others.get(&wish.fold).is_some_and(|o| !o.row.stands_beside());
        let beside = other && own_row.is_none_or(LedgerRow::stands_beside);
        let recorded = |r: &LedgerRow| {
            r.value_hash.as_deref() == Some(wanted_hash.as_str())
                && r.intent.is_none()
                && (r.stamp == entry.stamp || entry.stamp.is_none())
                && r.stands_beside() == beside
        };
        // A stamp that proves nothing is not taken over: a later look must still see that it moved.
        if proven && !own_row.is_some_and(recorded) {
            plan.adopt.push(adopted(wish, entry, own_row, wanted_hash, beside));
        }
        match difference.filter(|_| !beside) {
            Some(reason) => {
                change.value_differs = false;
                change.reason = Some(reason);
                plan.changes.push(change);
            }
            None => keep(plan, wish),
        }
        return;
    }
    let left = own_row.filter(|r| !announced(inputs, entry, r)).and_then(|r| r.value_hash.as_ref());
    let edited = match (&entry.value, left) {
        (Some(value), Some(written)) => inputs.hasher.hash(value) != *written,
        _ => false,
    };
    change.reason = Some(match (edited, own_row.is_some(), difference) {
        (true, ..) => "was edited outside, is overwritten".to_string(),
        (false, _, Some(also)) => format!("value differs; {also}"),
        (false, true, None) => "value differs".to_string(),
        (false, false, None) if entry.value.is_none() => "exists there; its value cannot be read".to_string(),
        (false, false, None) => "value differs".to_string(),
    });
    let ours = |row: &LedgerRow| entry.value.as_ref().is_some_and(|v| row.value_hash.as_deref() == Some(&inputs.hasher.hash(v)));
    // Another sync's value, standing where this one's own was overwritten or never was.
    let rival = sibling.filter(|_| !change.owned || !own_row.is_some_and(ours));
    if let Some(question) = rival.and_then(contested).or_else(|| doubt(inputs, &wish.fold)) {
        change.ask = Some(question);
    } else if !change.owned && inputs.policy.overwrite_agreed {
        let agreed_by = inputs.config.sync_options.initial_sync_behavior.into();
        plan.overwrites.push(Overwrite { fold: wish.fold.clone(), key: entry.key.clone(), agreed_by });
    } else if !change.owned {
        change.ask = ask(match (any_row.is_some(), entry.value.is_some()) {
            (true, _) => "was deleted and made anew by somebody else: its value would be overwritten",
            (false, true) => "exists there with another value, not written by this sync: it would be overwritten",
            (false, false) => "exists there, not written by this sync, and cannot be read: it would be overwritten",
        });
    }
    plan.changes.push(change);
}

/// The question about a key whose value an import was to carry over.
fn doubt(inputs: &Inputs<'_>, fold: &str) -> Option<Ask> {
    let reason = "its value was to be imported, and the KMS does not hold it as it is: it would be overwritten";
    inputs.ledger.unproven.contains(fold).then(|| Ask { reason: reason.into(), stops: false })
}

fn keep(plan: &mut Plan, wish: &Desired) {
    plan.unchanged.push(Kept { fold: wish.fold.clone(), key: wish.key.clone(), source_key: wish.source_key.clone() });
}

fn adopted(wish: &Desired, entry: &Entry, row: Option<&LedgerRow>, hash: String, beside: bool) -> LedgerRow {
    let mut adopted = LedgerRow {
        fold: wish.fold.clone(),
        key: entry.key.clone(),
        source_key: wish.source_key.clone(),
        remote_id: entry.id.clone().or_else(|| row.and_then(|r| r.remote_id.clone())),
        stamp: entry.stamp.clone().or_else(|| row.and_then(|r| r.stamp.clone())),
        previous_stamp: row.and_then(|r| r.stamp.clone()),
        value_hash: Some(hash),
        written_at: row.map_or(jiff::Timestamp::UNIX_EPOCH, |r| r.written_at),
        intent: None,
        detail: row.map(|r| r.detail.clone()).unwrap_or_default(),
    };
    adopted.stand_beside(beside);
    adopted
}
