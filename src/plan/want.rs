//! Which destination keys the source asks for.

use std::collections::HashMap;

use super::{Conflict, Skipped, schema_of};
use crate::destination::{Desired, KeySpace, ValueVerdict};
use crate::model::sync::SyncConfig;
use crate::source::SourceMap;

/// The source in the destination's alphabet.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub desired: Vec<Desired>,
    pub skipped: Vec<Skipped>,
    pub conflicts: Vec<Conflict>,
    /// Folded keys whose existing secrets must stay as they are.
    pub frozen: Vec<String>,
    pub warnings: Vec<String>,
}

/// Applies the key schema and the destination's rules to every source key.
pub fn want(config: &SyncConfig, source: &SourceMap, keys: &dyn KeySpace) -> Wanted {
    let schema = schema_of(config, keys);
    let mut out = Wanted::default();
    let mut by_fold: HashMap<String, Vec<usize>> = HashMap::with_capacity(source.secrets.len());
    let mut candidates: Vec<Desired> = Vec::with_capacity(source.secrets.len());
    for secret in &source.secrets {
        let made = schema.apply(&secret.key);
        match keys.convert(&made) {
            Ok(key) => {
                let fold = keys.fold(&key);
                by_fold.entry(fold.clone()).or_default().push(candidates.len());
                candidates.push(Desired {
                    source_key: secret.key.clone(),
                    key,
                    fold,
                    value: secret.value.clone(),
                    metadata: secret.metadata.clone(),
                });
            }
            Err(reason) => {
                out.frozen.push(keys.fold(&keys.convert_part(&made)));
                out.conflicts.push(Conflict::of(&secret.key, &made, &reason));
            }
        }
    }
    for (fold, members) in &by_fold {
        if members.len() > 1 {
            let mut names: Vec<String> = members.iter().map(|i| candidates[*i].source_key.clone()).collect();
            names.sort();
            let key = &candidates[members[0]].key;
            out.conflicts
                .push(Conflict { reason: format!("{} become {key} at the destination: none of them is written.", list(&names)), keys: names });
            out.frozen.push(fold.clone());
        }
    }
    for desired in candidates {
        if by_fold.get(&desired.fold).is_some_and(|m| m.len() > 1) {
            continue;
        }
        match keys.check_value(desired.value.expose()) {
            ValueVerdict::Fine => {
                if let Some(warning) = keys.warn(&desired.key) {
                    out.warnings.push(format!("{}: {warning}", desired.key));
                }
                out.desired.push(desired);
            }
            ValueVerdict::Skip(reason) => {
                out.frozen.push(desired.fold.clone());
                out.skipped.push(Skipped { key: Some(desired.key), source_key: Some(desired.source_key), reason });
            }
            ValueVerdict::Fail(reason) => {
                out.frozen.push(desired.fold.clone());
                out.conflicts.push(Conflict { keys: vec![desired.source_key], reason });
            }
        }
    }
    for (key, reason) in &source.unreadable {
        freeze(&mut out, &schema.apply(key), keys);
        out.conflicts.push(Conflict { keys: vec![key.clone()], reason: format!("could not be read at the source: {reason}") });
    }
    for (key, paths) in &source.clashes {
        freeze(&mut out, &schema.apply(key), keys);
        out.conflicts
            .push(Conflict { keys: vec![key.clone()], reason: format!("is in several folders ({}): none of them is written.", paths.join(", ")) });
    }
    out.desired.sort_by(|a, b| a.key.cmp(&b.key));
    out.conflicts.sort_by(|a, b| a.keys.cmp(&b.keys));
    out.skipped.sort_by(|a, b| a.key.cmp(&b.key));
    out
}

fn freeze(out: &mut Wanted, made: &str, keys: &dyn KeySpace) {
    let key = keys.convert(made).unwrap_or_else(|_| keys.convert_part(made));
    out.frozen.push(keys.fold(&key));
}

fn list(names: &[String]) -> String {
    match names {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        _ => names.join(", "),
    }
}
