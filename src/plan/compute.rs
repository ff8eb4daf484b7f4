//! The difference, and what may be done about it.

use std::collections::{HashMap, HashSet};

use super::{Ask, Change, Conflict, Inputs, Kept, MASS_DELETE_FLOOR, Matcher, Plan, Skipped, Wanted, count};
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
    let unproved = inputs.ledger.rows.values().filter(|r| r.value_hash.is_none() && r.intent.is_some() && !wished.contains(r.fold.as_str()));
    for row in unproved {
        let Some(&at) = by_fold.get(&row.fold) else { continue };
        let entry = &inputs.inventory.entries[at];
        if entry.state == EntryState::Active && entry.value.is_none() && same_object(entry, row) {
            out.push(at);
        }
    }
    out.extend(doubtful_deletions(inputs, wanted, &by_fold));
    out.sort_unstable();
    out.dedup();
    out
}

/// Entries that would be deleted as this sync's own, if only their value proves that they are
/// still as it left them.
fn doubtful_deletions(inputs: &Inputs<'_>, wanted: &Wanted, by_fold: &HashMap<String, usize>) -> Vec<usize> {
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

/// True for a row of a key that this sync wrote, and did not delete since.
pub(super) fn live(row: &LedgerRow) -> bool {
    row.value_hash.is_some()
}

/// Why an own key is not as this sync left it; `None` when it is, or when nothing can tell.
pub(super) fn tampered(inputs: &Inputs<'_>, entry: &Entry, row: &LedgerRow) -> Option<&'static str> {
    match (&entry.value, &row.value_hash) {
        (Some(value), Some(hash)) => (inputs.hasher.hash(value) != *hash).then_some("edited outside since this sync wrote it"),
        (None, Some(_)) if inputs.destination.readable() && entry.state == EntryState::Active => match inputs.destination.freshness(entry, row) {
            Freshness::Changed(_) => Some("edited outside since this sync wrote it"),
            Freshness::Unknown => Some("perhaps edited outside since this sync wrote it"),
            Freshness::Same | Freshness::Unseen => None,
        },
        _ => None,
    }
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
    deletions(inputs, &mut plan, &desired, &by_fold, failed_reads);
    plan.forget.extend(stale_rows(inputs, &desired, &plan.frozen, &by_fold));
    plan.desired = desired;
    settle_asks(inputs, &mut plan);
    plan.changes.sort_by(|a, b| (rank(a.action), &a.key).cmp(&(rank(b.action), &b.key)));
    plan.skipped.sort_by(|a, b| a.key.cmp(&b.key));
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

/// True unless both sides name an object and the names differ: then the key was deleted and
/// made anew by somebody else.
pub(super) fn same_object(entry: &Entry, row: &LedgerRow) -> bool {
    match (&entry.id, &row.remote_id) {
        (Some(a), Some(b)) => a == b,
        _ => true,
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
            plan.conflicts.push(Conflict { keys: vec![wish.source_key.clone()], reason: format!("{}: {reason}", entry.key) });
        }
        EntryState::Protected(reason) => {
            plan.frozen.push(wish.fold.clone());
            plan.skipped.push(Skipped { key: Some(entry.key.clone()), source_key: Some(wish.source_key.clone()), reason: reason.clone() });
        }
        EntryState::Deleted { .. } => {
            // The row of a key that this sync deleted stays, so that its return needs no question.
            change.owned = own_row.is_some() && !inputs.ledger.unproven.contains(&wish.fold);
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

/// True for a key that this sync carries beside another one that wrote it: it keeps the other
/// from deleting the key, and does not make it this sync's to change.
fn beside(inputs: &Inputs<'_>, fold: &str, row: Option<&LedgerRow>) -> bool {
    row.is_some_and(LedgerRow::stands_beside) && inputs.ledger.others.get(fold).is_some_and(|o| !o.row.stands_beside())
}

/// The other sync that stands for a key, when what is there now is what its ledger tells. Where
/// nothing there tells, the later write of the two counts.
fn sibling<'i>(inputs: &'i Inputs<'_>, entry: &Entry, fold: &str, own: Option<&LedgerRow>) -> Option<&'i Other> {
    let other = inputs.ledger.others.get(fold)?;
    let hash = other.row.value_hash.as_deref().filter(|_| same_object(entry, &other.row))?;
    let freshness = |row: &LedgerRow| inputs.destination.freshness(entry, row);
    let own = own.filter(|r| live(r));
    let later = own.is_none_or(|r| r.written_at < other.row.written_at);
    let theirs = match &entry.value {
        Some(value) => inputs.hasher.hash(value) == hash,
        None => match freshness(&other.row) {
            Freshness::Same => later || !own.is_some_and(|r| freshness(r) == Freshness::Same),
            Freshness::Unseen => later,
            Freshness::Unknown | Freshness::Changed(_) => false,
        },
    };
    theirs.then_some(other)
}

/// Whether the ledger shows that this sync wrote what stands there. A write that was
/// announced and never confirmed counts when the destination shows its token or its value.
fn owned(inputs: &Inputs<'_>, entry: &Entry, row: &LedgerRow) -> bool {
    if row.value_hash.is_some() {
        return true;
    }
    let Some(intent) = &row.intent else { return false };
    if intent.action == "delete" {
        return true;
    }
    if entry.stamp.as_deref() == Some(intent.token.as_str()) || !inputs.destination.readable() {
        return true;
    }
    let Some(value) = &entry.value else { return false };
    let hash = inputs.hasher.hash(value);
    // Brought back by a run that died before it could write the new value.
    let brought_back = row.buried_hash() == Some(hash.as_str());
    brought_back || intent.value_hash.as_deref() == Some(&hash)
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
        plan.conflicts.push(Conflict { keys: vec![wish.source_key.clone()], reason: format!("{}: {reason}", entry.key) });
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
    let edited = match (&entry.value, own_row.and_then(|r| r.value_hash.as_ref())) {
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
    } else if !change.owned && !inputs.policy.overwrite_agreed {
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

fn ask(reason: &str) -> Option<Ask> {
    Some(Ask { reason: reason.to_string(), stops: false })
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

/// Rows of keys that are gone, by another hand, and that nobody wants back: kept, they would
/// claim whatever somebody makes under that name later.
fn stale_rows(inputs: &Inputs<'_>, desired: &[Desired], frozen: &[String], by_fold: &HashMap<String, usize>) -> Vec<String> {
    let matcher = Matcher::new(inputs.config, inputs.destination.keys());
    let stays: HashSet<&str> = desired.iter().map(|d| d.fold.as_str()).chain(frozen.iter().map(String::as_str)).collect();
    let rows =
        inputs.ledger.rows.values().filter(|r| live(r) && r.intent.is_none() && !by_fold.contains_key(&r.fold) && !stays.contains(r.fold.as_str()));
    rows.filter(|r| matcher.matches(&r.key) && inputs.destination.missing(r) == Missing::Gone).map(|r| r.fold.clone()).collect()
}

fn deletions(inputs: &Inputs<'_>, plan: &mut Plan, desired: &[Desired], by_fold: &HashMap<String, usize>, failed_reads: &HashMap<String, String>) {
    let matcher = Matcher::new(inputs.config, inputs.destination.keys());
    let wanted: HashSet<&str> = desired.iter().map(|d| d.fold.as_str()).chain(plan.frozen.iter().map(String::as_str)).collect();
    let mut found = Vec::new();
    let (mut foreign_syncs, mut left) = (HashMap::<&str, usize>::new(), 0usize);
    for (fold, &at) in by_fold {
        let entry = &inputs.inventory.entries[at];
        if !matcher.matches(&entry.key) {
            continue;
        }
        let row = inputs.ledger.rows.get(fold).filter(|r| (live(r) || r.intent.is_some()) && same_object(entry, r));
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
        plan.warnings.push(format!("{} there belong to the sync {other} and are left alone.", count(n, "key")));
    }
    if left > 0 {
        plan.warnings.push(format!("{} there are not in the source; they stay, because Disable Secret Deletion is on.", count(left, "key")));
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
            why.push(format!("{} stand in several folders", count(inputs.source.clashes.len(), "key")));
        }
        plan.warnings.push(format!(
            "The source could not be read completely, so nothing is deleted ({} would be): {}.",
            count(found.len(), "key"),
            why.join("; ")
        ));
        for (fold, at) in found {
            let entry = &inputs.inventory.entries[at];
            if let Some(row) = inputs.ledger.rows.get(&fold).filter(|r| live(r) && same_object(entry, r)) {
                let reason = format!("not deleted, because the source could not be read completely: {}", why.join("; "));
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
            _ if doubtful => "its value was to be imported, and the KMS does not hold it",
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
fn settle_asks(inputs: &Inputs<'_>, plan: &mut Plan) {
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
    let withheld = plan.changes.iter().filter(|c| c.action == Action::Delete && c.ask.as_ref().is_some_and(|a| !a.stops)).count();
    if withheld > 0 {
        plan.warnings.push(format!("{} there were not written by this sync and stay until you approve their deletion.", count(withheld, "key")));
    }
    if inputs.config.sync_options.deletes() && inputs.config.sync_options.key_schema.is_none() && inputs.destination.keys().schema_on_keys() {
        plan.warnings.push("Without a Key Schema this sync manages every key there: keys that are not in the source are deleted.".into());
    }
}
