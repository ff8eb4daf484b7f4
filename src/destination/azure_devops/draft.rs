//! The group as it should be: pure, from the group as it is and the batch of changes.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::SERVICE;
use super::group::{Group, Slot};
use super::keys::{Keys, script_form};
use crate::destination::{Batch, Desired, KeySpace, Op};
use crate::http::{ApiError, ErrorKind};
use crate::model::plan::Action;
use crate::model::text::brief;

/// Above this a Windows agent's tasks may not read a secret (agent and task library sources).
const VALUE_WINDOWS: usize = 32_766;
/// Above this a Linux agent cannot start a process with it (kernel limit of one environment string).
const VALUE_LINUX: usize = 131_000;

/// Windows agents cut the list of secret names at about this many characters (agent source).
pub(super) const NAMES_WINDOWS: usize = 30_000;
/// Above this size of all names together no agent can start a job that uses the group.
pub(super) const NAMES_LIMIT: usize = 128 * 1024;
/// A body above this is worth a remark.
pub(super) const BODY_LARGE: usize = 1024 * 1024;

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
        let fate_of = |op: &Op<'_>| {
            let fold = Keys.fold(op.key);
            let there = stored.get(&fold).map_or(&[][..], Vec::as_slice);
            decide(op, &fold, there, &planned, circumstances)
        };
        // Deletions come last, and not at all beside a write that failed.
        let refused = batch.changes.iter().any(|op| op.action != Action::Delete && matches!(fate_of(op), Fate::Refused(_)));
        for op in &batch.changes {
            let fold = Keys.fold(op.key);
            let fate = match fate_of(op) {
                Fate::Remove(_) if refused => Fate::Refused(not_reached()),
                fate => fate,
            };
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
                // Only what this sync wrote to this very group; anything else needs a change of its
                // own, and may be waiting for the operator.
                [name] if group.is_some_and(|g| wrote(batch, &fold, g)) => {
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

fn wrote(batch: &Batch<'_>, fold: &str, group: &Group) -> bool {
    let id = group.id.to_string();
    batch.ledger.rows.get(fold).is_some_and(|r| r.value_hash.is_some() && r.remote_id.as_ref().is_none_or(|r| *r == id))
}

/// Not a failure of its own: the key's turn did not come.
fn not_reached() -> ApiError {
    ApiError::new(ErrorKind::Cancelled, "kms-sync", "nothing is deleted, because a write of this run was refused")
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
pub(super) fn note(op: &Op<'_>) -> Option<String> {
    let length = op.desired?.value.len();
    if length > VALUE_LINUX {
        Some(format!("the value of {length} bytes is too large for the environment of a job, which then fails to start"))
    } else if length > VALUE_WINDOWS {
        Some(format!("the value of {length} bytes is too large for tasks on Windows agents"))
    } else {
        None
    }
}

/// What the wanted keys are together: names that scripts cannot tell apart, and sizes.
pub(super) fn concerns(desired: &[Desired]) -> Vec<String> {
    let mut out = Vec::new();
    let mut forms: HashMap<String, &str> = HashMap::with_capacity(desired.len());
    for wish in desired {
        let form = script_form(&wish.key);
        match forms.get(&form) {
            Some(other) if Keys.fold(other) != Keys.fold(&wish.key) => {
                out.push(format!(
                    "Scripts see both {} and {} as {}: only one of them arrives.",
                    brief(other, 80),
                    brief(&wish.key, 80),
                    brief(&form, 80)
                ));
            }
            Some(_) => {}
            None => {
                forms.insert(form, &wish.key);
            }
        }
    }
    let names = names_size(desired.iter().map(|d| d.key.as_str()));
    if names > NAMES_LIMIT {
        out.push(format!(
            "{} names are {} KiB together: the service's agents could not start a job with them, so they are not written.",
            desired.len(),
            names >> 10
        ));
    } else if names > NAMES_WINDOWS {
        out.push("The names together exceed 30,000 characters: jobs on Windows agents that use the group may fail to start.".into());
    }
    let bytes: usize = desired.iter().map(|d| d.key.len() + d.value.len() + 32).sum();
    if bytes > BODY_LARGE {
        out.push(format!(
            "The group is about {} KiB large, and jobs get all of it in their environment: some agents may fail to start them.",
            bytes >> 10
        ));
    }
    out
}

/// Size of the JSON array of names that agents put into one environment variable.
pub(super) fn names_size<'n>(names: impl Iterator<Item = &'n str>) -> usize {
    names.map(|n| n.len() + 3).sum::<usize>() + 1
}
