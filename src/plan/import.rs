//! The way back: which destination secrets an import writes into the source.

use std::collections::HashMap;

use super::{Matcher, Skipped};
use crate::destination::{EntryState, Inventory, KeySpace};
use crate::model::SecretValue;
use crate::model::ledger::Ledger;
use crate::model::plan::{Action, ChangeDoc};
use crate::model::sync::SyncConfig;
use crate::source::{SourceMap, SourceSecret};

/// One key to write into the source.
#[derive(Debug, Clone)]
pub struct ImportChange {
    /// The source's name for it.
    pub source_key: String,
    /// The destination's key.
    pub key: String,
    pub fold: String,
    pub value: SecretValue,
    /// False: the folder holds the key and its value is updated.
    pub create: bool,
    pub reason: String,
}

/// What an import does.
#[derive(Debug, Clone, Default)]
pub struct ImportPlan {
    pub changes: Vec<ImportChange>,
    pub skipped: Vec<Skipped>,
    /// Folded keys that belong to no source key because they could not be imported: a sync
    /// that follows must not delete them.
    pub frozen: Vec<String>,
    /// Folded keys whose value was to come over and cannot: it stands at the destination alone.
    pub stranded: Vec<String>,
    /// The import behaviour it was made with.
    pub destination_wins: bool,
    pub unchanged: usize,
}

/// What the source can hold, and which side wins.
pub struct Rules<'a> {
    /// The rule for names that the import would make.
    pub check_name: &'a dyn Fn(&str) -> Result<(), String>,
    /// Whether the source would hold a value as it is; otherwise what it would change.
    pub check_value: &'a dyn Fn(&str) -> Result<(), String>,
    /// The import behaviour.
    pub destination_wins: bool,
}

/// Indexes of entries whose value an import needs.
pub fn reads(config: &SyncConfig, inventory: &Inventory, keys: &dyn KeySpace) -> Vec<usize> {
    let matcher = Matcher::new(config, keys);
    let wanted = |e: &crate::destination::Entry| {
        e.state == EntryState::Active && e.value.is_none() && matcher.strip(&e.key).is_some() && matcher.selects(&e.key)
    };
    inventory.entries.iter().enumerate().filter(|(_, e)| wanted(e)).map(|(i, _)| i).collect()
}

/// Compares the destination's readable secrets with the source. `failed_reads` names keys whose
/// value could not be read.
pub fn plan(
    config: &SyncConfig,
    source: &SourceMap,
    inventory: &Inventory,
    keys: &dyn KeySpace,
    ledger: &Ledger,
    rules: &Rules<'_>,
    failed_reads: &HashMap<String, String>,
) -> ImportPlan {
    let matcher = Matcher::new(config, keys);
    let schema = super::schema_of(config, keys);
    let resolved: HashMap<&str, &SourceSecret> = source.secrets.iter().map(|s| (s.key.as_str(), s)).collect();
    let own: std::collections::HashSet<&str> = source.own_keys.iter().map(String::as_str).collect();
    // A destination that converts names (underscore to hyphen) still means the source key that becomes it.
    let by_target: HashMap<String, &str> =
        source.secrets.iter().filter_map(|s| Some((keys.fold(&keys.convert(&schema.apply(&s.key)).ok()?), s.key.as_str()))).collect();
    let mut out = ImportPlan { destination_wins: rules.destination_wins, ..ImportPlan::default() };
    for entry in &inventory.entries {
        let Some(middle) = matcher.strip(&entry.key).filter(|_| matcher.selects(&entry.key)) else { continue };
        let fold = keys.fold(&entry.key);
        let skip = |out: &mut ImportPlan, reason: String| {
            out.frozen.push(fold.clone());
            if entry.state == EntryState::Active {
                out.stranded.push(fold.clone());
            }
            out.skipped.push(Skipped { key: Some(entry.key.clone()), source_key: None, reason });
        };
        match &entry.state {
            EntryState::Active => {}
            EntryState::Deleted { .. } => continue,
            EntryState::Empty => continue,
            EntryState::Protected(reason) | EntryState::Blocked(reason) => {
                skip(&mut out, format!("not imported: {reason}"));
                continue;
            }
            EntryState::Settling(state) => {
                skip(&mut out, format!("not imported: it is {state}"));
                continue;
            }
        }
        if let Some(reason) = failed_reads.get(&entry.key) {
            skip(&mut out, format!("not imported: {reason}"));
            continue;
        }
        let Some(value) = &entry.value else {
            skip(&mut out, "not imported: it holds no value that can be read".into());
            continue;
        };
        let name = by_target.get(&fold).copied().unwrap_or(middle);
        if let Err(reason) = (rules.check_name)(name) {
            skip(&mut out, format!("not imported: {reason}"));
            continue;
        }
        let held = resolved.get(name);
        let same = held.is_some_and(|s| s.value.same_as(value));
        let in_folder = own.contains(name);
        if same || (held.is_some() && value.is_empty()) {
            out.unchanged += 1;
            continue;
        }
        if held.is_some() && !rules.destination_wins {
            if ledger.unproven.contains(&fold) {
                // The source's value may be what an import that was cut off made of this one.
                skip(&mut out, "not imported: an earlier import of it was not completed, and the KMS holds another value now".into());
                continue;
            }
            out.unchanged += 1;
            if !in_folder {
                out.skipped.push(Skipped {
                    key: Some(entry.key.clone()),
                    source_key: Some(name.to_string()),
                    reason: "reaches the folder through an import, whose value is kept".into(),
                });
            }
            continue;
        }
        if let Err(reason) = (rules.check_value)(value.expose()) {
            skip(&mut out, format!("not imported: {reason}. It stays here as it is"));
            continue;
        }
        out.changes.push(ImportChange {
            source_key: name.to_string(),
            key: entry.key.clone(),
            fold: fold.clone(),
            value: value.clone(),
            create: !in_folder,
            reason: if in_folder { "the destination's value wins".into() } else { "only the destination has it".into() },
        });
    }
    out.changes.sort_by(|a, b| a.source_key.cmp(&b.source_key));
    out
}

impl ImportPlan {
    /// The printed form of the changes.
    pub fn documents(&self) -> Vec<ChangeDoc> {
        self.changes
            .iter()
            .map(|c| ChangeDoc {
                action: Action::Import,
                key: c.key.clone(),
                source_key: Some(c.source_key.clone()),
                owned: false,
                reason: Some(c.reason.clone()),
            })
            .collect()
    }
}

/// The source as it will be once the given keys are imported.
pub fn merged(mut source: SourceMap, done: &[&ImportChange]) -> SourceMap {
    for change in done {
        let value = change.value.clone();
        match source.secrets.iter_mut().find(|s| s.key == change.source_key) {
            Some(secret) => {
                secret.value = value;
                secret.origin = None;
            }
            None => {
                source.secrets.push(SourceSecret { key: change.source_key.clone(), value, metadata: Vec::new(), origin: None });
            }
        }
        if !source.own_keys.contains(&change.source_key) {
            source.own_keys.push(change.source_key.clone());
        }
    }
    source
}
