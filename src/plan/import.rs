//! The way back: which destination secrets an import writes into the source.

use std::collections::HashMap;

use super::{Matcher, Skipped};
use crate::destination::{Entry, EntryState, Inventory, KeySpace};
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
    /// True for an entry that still is as this sync wrote it, as far as the destination tells.
    pub as_left: &'a dyn Fn(&Entry) -> bool,
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
            if entry.state == EntryState::Active && (entry.value.is_some() || !(rules.as_left)(entry)) {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Keys, config, source};
    use super::*;

    fn entry(key: &str, value: Option<&str>, state: EntryState) -> Entry {
        let value = value.map(SecretValue::new);
        Entry { key: key.into(), id: None, stamp: None, state, value, facts: serde_json::Value::Null, note: None }
    }

    /// What an import does to `KEY`: the source holds `held` (in the folder, or by a link), the
    /// destination `there`.
    fn fate(held: Option<&str>, linked: bool, there: &str, wins: bool, unproven: bool) -> &'static str {
        let mut map = source(&held.map(|v| ("KEY", v)).into_iter().collect::<Vec<_>>());
        if linked {
            map.own_keys.clear();
        }
        let inventory = Inventory { entries: vec![entry("KEY", Some(there), EntryState::Active)], warnings: Vec::new() };
        let mut ledger = Ledger::default();
        ledger.unproven.extend(unproven.then(|| "key".to_string()));
        let rules = Rules {
            check_name: &|_| Ok(()),
            check_value: &|v| if v.ends_with(' ') { Err("no".into()) } else { Ok(()) },
            as_left: &|_| false,
            destination_wins: wins,
        };
        let plan = plan(&config(None, true), &map, &inventory, &Keys, &ledger, &rules, &HashMap::new());
        match (plan.changes.first().map(|c| c.create), plan.skipped.len(), plan.frozen.len(), plan.stranded.len()) {
            (Some(true), 0, 0, 0) => "created",
            (Some(false), 0, 0, 0) => "updated",
            (None, 0, 0, 0) => "nothing",
            (None, 1, 0, 0) => "told",
            (None, 1, 1, 1) => "stays there",
            other => panic!("{other:?}"),
        }
    }

    /// The table of the server's own rules, and where ours are kinder.
    #[test]
    fn which_side_wins() {
        for (held, linked, there, source_first, destination_first) in [
            (None, false, "v", "created", "created"),
            (None, false, "", "created", "created"),
            (Some("v"), false, "v", "nothing", "nothing"),
            (Some("v"), false, "", "nothing", "nothing"),
            (Some("v"), false, "w", "nothing", "updated"),
            // By a link: the copy would shadow it, so only a value that is to win makes one.
            (Some("v"), true, "v", "nothing", "nothing"),
            (Some("v"), true, "w", "told", "created"),
            // What the source cannot hold.
            (None, false, "v ", "stays there", "stays there"),
            (Some("v"), false, "v ", "nothing", "stays there"),
            (Some("v"), true, "v ", "told", "stays there"),
        ] {
            let told = [false, true].map(|wins| fate(held, linked, there, wins, false));
            assert_eq!(told, [source_first, destination_first], "{held:?} linked: {linked}, there {there:?}");
        }
    }

    #[test]
    fn what_an_import_left_open_is_not_decided_by_the_source() {
        assert_eq!(fate(Some("half"), false, "whole", false, true), "stays there");
        assert_eq!(fate(Some("whole"), false, "whole", false, true), "nothing");
        assert_eq!(fate(Some("half"), false, "whole", true, true), "updated");
        assert_eq!(fate(None, false, "whole", false, true), "created");
    }

    #[test]
    fn what_holds_no_value_to_import_stays_where_it_is() {
        let states = [
            ("PROTECTED", EntryState::Protected("disabled".into())),
            ("BLOCKED", EntryState::Blocked("no text".into())),
            ("MOVING", EntryState::Settling("UPDATING".into())),
            ("EMPTY", EntryState::Empty),
            ("GONE", EntryState::Deleted { until: None }),
            ("BINARY", EntryState::Active),
            ("FAILED", EntryState::Active),
            ("OURS", EntryState::Active),
        ];
        let inventory = Inventory { entries: states.map(|(key, state)| entry(key, None, state)).into(), warnings: Vec::new() };
        let rules = Rules { check_name: &|_| Ok(()), check_value: &|_| Ok(()), as_left: &|e| e.key == "OURS", destination_wins: true };
        let failed = HashMap::from([("FAILED".to_string(), "denied".to_string())]);
        let plan = plan(&config(None, true), &source(&[]), &inventory, &Keys, &Ledger::default(), &rules, &failed);
        let mut told: Vec<_> = plan.skipped.iter().filter_map(|s| s.key.as_deref()).collect();
        told.sort_unstable();
        assert_eq!((told, plan.changes.len()), (vec!["BINARY", "BLOCKED", "FAILED", "MOVING", "OURS", "PROTECTED"], 0));
        assert_eq!(plan.stranded, ["binary", "failed"]);
    }
}
