//! The group as it should be: pure, from the group as it is and the batch of changes.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::SERVICE;
use super::group::{Group, Slot};
use super::keys::{Keys, script_form};
use crate::destination::{Batch, KeySpace, Op};
use crate::http::{ApiError, ErrorKind};
use crate::model::plan::Action;
use crate::model::text::brief;

/// Above this a Windows agent's tasks may not read a secret (agent and task library sources).
const VALUE_WINDOWS: usize = 32_766;
/// Above this a Linux agent cannot start a process with it (kernel limit of one environment string).
const VALUE_LINUX: usize = 131_000;

/// What becomes of one change.
#[derive(Debug)]
pub(super) enum Fate {
    /// Written under this spelling.
    Write(String),
    Remove(String),
    /// A deletion of something that is gone already.
    Done,
    Refused(ApiError),
}

/// The computed group.
#[derive(Debug)]
pub(super) struct Draft {
    pub variables: BTreeMap<String, Slot>,
    /// By the change's key.
    pub fates: Vec<(String, Fate)>,
    /// False when the group already is as it should be, as far as the batch goes.
    pub changed: bool,
}

/// What the computation must know beside the batch.
#[derive(Debug, Default)]
pub(super) struct Circumstances {
    /// Folded keys the service refused in this batch, with its reason.
    pub excluded: HashMap<String, ApiError>,
    /// Folded keys of a write whose answer was lost: what is there under them may be ours.
    pub tried: HashSet<String>,
}

impl Draft {
    /// Merges: everything stored is carried, deletions leave out, all our values are set,
    /// changed or not. That costs no call and mends what cannot be seen.
    pub fn new(group: Option<&Group>, batch: &Batch<'_>, circumstances: &Circumstances) -> Self {
        let mut stored: HashMap<String, Vec<&String>> = HashMap::new();
        let mut variables = BTreeMap::new();
        for (name, entry) in group.map(|g| &g.variables).into_iter().flatten() {
            stored.entry(Keys.fold(name)).or_default().push(name);
            variables.insert(name.clone(), Slot::carry(entry));
        }
        let mut draft = Self { variables, fates: Vec::with_capacity(batch.changes.len()), changed: false };
        let planned: HashSet<String> = batch.inventory.entries.iter().map(|e| Keys.fold(&e.key)).collect();
        let mut handled = HashSet::new();
        for op in &batch.changes {
            let fold = Keys.fold(op.key);
            let there = stored.get(&fold).map_or(&[][..], Vec::as_slice);
            let fate = decide(op, &fold, there, &planned, circumstances);
            match &fate {
                Fate::Write(name) => {
                    if let Some(desired) = op.desired {
                        let entry = group.and_then(|g| g.variables.get(name));
                        draft.variables.insert(name.clone(), Slot::ours(entry, desired.value.clone()));
                        draft.changed = true;
                    }
                }
                Fate::Remove(name) => {
                    draft.variables.remove(name);
                    draft.changed = true;
                }
                Fate::Done | Fate::Refused(_) => {}
            }
            draft.fates.push((op.key.to_string(), fate));
            handled.insert(fold);
        }
        for desired in batch.desired {
            let fold = Keys.fold(&desired.key);
            if handled.contains(&fold) || circumstances.excluded.contains_key(&fold) || batch.frozen.contains(&fold) {
                continue;
            }
            match stored.get(&fold).map_or(&[][..], Vec::as_slice) {
                [] => {
                    draft.variables.insert(desired.key.clone(), Slot::ours(None, desired.value.clone()));
                    draft.changed = true;
                }
                // Only what this sync wrote before; anything else needs a change of its own.
                [name] if batch.ledger.rows.contains_key(&fold) => {
                    let entry = group.and_then(|g| g.variables.get(*name));
                    draft.variables.insert((*name).clone(), Slot::ours(entry, desired.value.clone()));
                }
                _ => {}
            }
        }
        draft
    }

    /// Folded keys that this draft writes.
    pub fn writes(&self) -> impl Iterator<Item = String> {
        self.fates.iter().filter(|(_, fate)| matches!(fate, Fate::Write(_))).map(|(key, _)| Keys.fold(key))
    }

    /// Folded names of the draft.
    pub fn folds(&self) -> HashSet<String> {
        self.variables.keys().map(|k| Keys.fold(k)).collect()
    }
}

fn decide(op: &Op<'_>, fold: &str, there: &[&String], planned: &HashSet<String>, circumstances: &Circumstances) -> Fate {
    if op.action == Action::Delete {
        let listed = op.entry.map(|e| e.key.as_str());
        return match there.iter().find(|n| Some(n.as_str()) == listed).or(there.first()) {
            None => Fate::Done,
            Some(name) => Fate::Remove((*name).clone()),
        };
    }
    if let Some(why) = circumstances.excluded.get(fold) {
        return Fate::Refused(why.clone());
    }
    match there {
        [] => Fate::Write(op.key.to_string()),
        [name] if op.action == Action::Create && !planned.contains(fold) && !op.approved && !circumstances.tried.contains(fold) => Fate::Refused(
            ApiError::new(ErrorKind::Conflict, SERVICE, format!("the variable {} appeared in the group after the plan was made", brief(name, 80)))
                .advice("Plan again: it is then shown, and written once that is agreed to."),
        ),
        [name] => Fate::Write((*name).clone()),
        _ => Fate::Refused(
            ApiError::new(ErrorKind::Conflict, SERVICE, format!("the variable group holds {} in more than one spelling", brief(op.key, 80)))
                .advice("Delete all but one of them in Azure DevOps."),
        ),
    }
}

/// What the operator should know of a key that was written.
pub(super) fn note(batch: &Batch<'_>, op: &Op<'_>) -> Option<String> {
    let desired = op.desired?;
    let mut notes = Vec::new();
    let form = script_form(&desired.key);
    if let Some(other) = batch.desired.iter().find(|d| d.fold != desired.fold && d.key != desired.key && script_form(&d.key) == form) {
        notes.push(format!("scripts see it as {}, and {} too", brief(&form, 80), brief(&other.key, 80)));
    }
    let length = desired.value.len();
    if length > VALUE_LINUX {
        notes.push(format!("the value of {length} bytes is too large for the environment of a job, which then fails to start"));
    } else if length > VALUE_WINDOWS {
        notes.push(format!("the value of {length} bytes is too large for tasks on Windows agents"));
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}
