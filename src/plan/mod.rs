//! The planner: source + inventory + options + ledger → plan. Pure: no IO, no clock, no async.
//!
//! A run asks three questions in turn. [`want`]: which destination keys does the source ask
//! for? [`reads`]: which listed values must be read to be sure? [`compute`]: what is to be
//! done? [`import`] answers the same for the way back, from destination to source.

mod compute;
mod deletion;
pub mod import;
mod ownership;
pub mod removal;
mod want;

#[cfg(test)]
mod model_test;
#[cfg(test)]
pub(crate) mod testing;

pub use compute::{compute, reads};
pub use want::{Wanted, want};

use crate::destination::{Desired, Destination, Inventory};
use crate::model::filter::KeyFilter;
use crate::model::ledger::{Hasher, Ledger, LedgerRow};
use crate::model::plan::{Action, ApprovalDoc, ChangeDoc, ConflictDoc, DestinationSide, PlanDoc, SkippedDoc, SourceSide};
use crate::model::schema::KeySchema;
use crate::model::sync::SyncConfig;
use crate::source::SourceMap;

/// What a plan is made from.
pub struct Inputs<'a> {
    pub config: &'a SyncConfig,
    pub source: &'a SourceMap,
    pub destination: &'a dyn Destination,
    pub inventory: &'a Inventory,
    pub ledger: &'a Ledger,
    pub hasher: &'a Hasher,
    pub policy: Policy,
}

/// How much the plan may do without asking.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The operator agreed to everything this plan would ask about.
    pub allow_all: bool,
    /// Every readable value was, or will be, read.
    pub full: bool,
    /// Own values that cannot be read back are written again, whatever the ledger says.
    pub rewrite: bool,
    /// Share of the owned keys (percent) above which deleting them asks first.
    pub mass_delete_percent: u8,
    /// Overwriting foreign values was chosen by the import behaviour.
    pub overwrite_agreed: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { allow_all: false, full: false, rewrite: false, mass_delete_percent: 50, overwrite_agreed: false }
    }
}

/// Fewer owned deletions than this never count as a mass deletion.
pub const MASS_DELETE_FLOOR: usize = 5;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub action: Action,
    pub fold: String,
    /// As it is spelled at the destination, or will be.
    pub key: String,
    pub source_key: Option<String>,
    pub owned: bool,
    pub reason: Option<String>,
    /// False when only something besides the value differs.
    pub value_differs: bool,
    /// Why the operator must agree first; `None` when nothing needs asking, or it was agreed.
    pub ask: Option<Ask>,
    /// Index into [`Plan::desired`].
    pub desired: Option<usize>,
    /// Index into the inventory's entries.
    pub entry: Option<usize>,
}

/// A question to the operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub reason: String,
    /// True when the whole run must stop for it, rather than leave this key out.
    pub stops: bool,
}

/// A question that leaves out one key.
fn ask(reason: &str) -> Option<Ask> {
    Some(Ask { reason: reason.to_string(), stops: false })
}

/// A key that needs nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub fold: String,
    pub key: String,
    pub source_key: String,
}

/// A key left alone on purpose.
#[derive(Debug, Clone, PartialEq)]
pub struct Skipped {
    pub key: Option<String>,
    pub source_key: Option<String>,
    pub reason: String,
}

/// Keys that cannot be written: they fail, the others go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Source keys where known, destination keys otherwise.
    pub keys: Vec<String>,
    pub reason: String,
}

impl Conflict {
    /// One source key that cannot be written; the destination's name for it is told where it is
    /// another one.
    fn of(source_key: &str, key: &str, reason: &str) -> Self {
        let reason = if key == source_key { reason.to_string() } else { format!("{key}: {reason}") };
        Self { keys: vec![source_key.to_string()], reason }
    }
}

/// The difference between source and destination, and what may be done about it.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub unchanged: Vec<Kept>,
    pub skipped: Vec<Skipped>,
    pub conflicts: Vec<Conflict>,
    pub warnings: Vec<String>,
    /// Rows to record without any call: equal values found, stamps that moved.
    pub adopt: Vec<LedgerRow>,
    /// Everything that may be written.
    pub desired: Vec<Desired>,
    /// Folded keys that must stay as they are.
    pub frozen: Vec<String>,
    /// Folded keys whose rows prove nothing any more: somebody else deleted what they stood for.
    pub forget: Vec<String>,
    /// Keys at the destination that the key schema reaches.
    pub reach: usize,
    /// Keys of somebody else that are overwritten because the import behaviour agreed to it.
    pub overwrites: Vec<Overwrite>,
}

/// A key of somebody else that is overwritten without a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Overwrite {
    pub fold: String,
    pub key: String,
    /// The import behaviour whose choice is the agreement.
    pub agreed_by: &'static str,
}

impl Plan {
    /// Changes that wait for the operator.
    pub fn asks(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|c| c.ask.is_some())
    }

    /// Why the run must stop before its first write, if it must.
    pub fn stops(&self) -> Option<String> {
        let stopping: Vec<_> = self.asks().filter(|c| c.ask.as_ref().is_some_and(|a| a.stops)).collect();
        stopping.first()?;
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for change in &stopping {
            let reason = change.ask.as_ref().map(|a| a.reason.as_str()).unwrap_or_default();
            match reasons.iter_mut().find(|(r, _)| *r == reason) {
                Some((_, keys)) => keys.push(&change.key),
                None => reasons.push((reason, vec![&change.key])),
            }
        }
        let told: Vec<String> = reasons.iter().take(4).map(|(reason, keys)| format!("{}: {reason}", crate::model::text::names(keys, 5))).collect();
        Some(format!(
            "Needs approval, nothing was written: {} ({}). Look at the plan, then approve in the terminal app or run again with --allow-delete.",
            count(stopping.len(), "key"),
            crate::model::text::joined(&told),
        ))
    }

    /// What may be done now.
    pub fn allowed(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|c| c.ask.is_none())
    }

    /// What the choice of an import behaviour overwrites without a question.
    fn overwrite_warning(&self) -> Option<String> {
        let keys: Vec<&str> = self.overwrites.iter().filter(|o| !self.frozen.contains(&o.fold)).map(|o| o.key.as_str()).collect();
        let agreed_by = self.overwrites.first()?.agreed_by;
        let (hold, value) = if keys.len() == 1 { ("holds", "another value") } else { ("hold", "other values") };
        (!keys.is_empty()).then(|| {
            format!(
                "{} that this sync did not write {hold} {value} at the destination and will be overwritten ({agreed_by}): {}.",
                count(keys.len(), "key"),
                crate::model::text::names(&keys, 5)
            )
        })
    }

    /// The printed form.
    pub fn document(&self, sync: &str, source: &SourceMap, imports: Vec<ChangeDoc>) -> PlanDoc {
        let mut changes = imports;
        changes.extend(self.changes.iter().map(|c| ChangeDoc {
            action: c.action,
            key: c.key.clone(),
            source_key: c.source_key.clone(),
            owned: c.owned,
            reason: c.reason.clone(),
        }));
        PlanDoc {
            sync: sync.to_string(),
            source: SourceSide { secrets: source.secrets.len(), complete: source.complete() },
            destination: DestinationSide { keys: self.reach, complete: true },
            changes,
            unchanged: self.unchanged.len(),
            skipped: self
                .skipped
                .iter()
                .map(|s| SkippedDoc { key: s.key.clone(), source_key: s.source_key.clone(), reason: s.reason.clone() })
                .collect(),
            conflicts: self.conflicts.iter().map(|c| ConflictDoc { keys: c.keys.clone(), reason: c.reason.clone() }).collect(),
            needs_approval: self
                .changes
                .iter()
                .filter_map(|c| Some(ApprovalDoc { key: c.key.clone(), reason: c.ask.as_ref()?.reason.clone() }))
                .collect(),
            warnings: self.overwrite_warning().into_iter().chain(self.warnings.iter().cloned()).collect(),
            requests: Default::default(),
        }
    }
}

/// The key schema of a sync at a destination: open when keys inside an object stay raw.
pub fn schema_of(config: &SyncConfig, keys: &dyn crate::destination::KeySpace) -> KeySchema {
    if keys.schema_on_keys() { KeySchema::new(config.sync_options.key_schema.as_deref(), &config.environment) } else { KeySchema::default() }
}

/// Matches destination keys against schema and filter in the destination's own alphabet.
pub struct Matcher<'k> {
    schema: KeySchema,
    filter: KeyFilter,
    keys: &'k dyn crate::destination::KeySpace,
}

impl<'k> Matcher<'k> {
    /// A matcher for a sync's schema.
    pub fn new(config: &SyncConfig, keys: &'k dyn crate::destination::KeySpace) -> Self {
        let here = |part: &str| keys.fold(&keys.convert_part(part));
        Self { schema: schema_of(config, keys).map(here), filter: config.sync_options.filter().map(here), keys }
    }

    /// True when a source key could become this key and the filter would select it. A key that
    /// is left out is this sync's only when the ledger says so.
    pub fn selects(&self, key: &str) -> bool {
        if self.filter.is_open() {
            return true;
        }
        self.middle(&self.keys.fold(key)).is_some_and(|m| self.filter.selects(m))
    }

    /// The part of a folded key that a source key fills.
    fn middle<'s>(&self, folded: &'s str) -> Option<&'s str> {
        if self.schema.is_open() { Some(folded) } else { self.schema.strip(folded) }
    }

    /// True when the key schema of this sync reaches the key.
    pub fn matches(&self, key: &str) -> bool {
        self.schema.matches(&self.keys.fold(key))
    }

    /// The part of a key that a source key fills, in the key's own spelling.
    pub fn strip<'s>(&self, key: &'s str) -> Option<&'s str> {
        let folded = self.keys.fold(key);
        let middle = self.middle(&folded)?;
        // Folding keeps lengths (ASCII case only), so positions agree; where it does not, the folded text stands.
        if folded.len() == key.len() {
            let start = self.schema.prefix.len();
            key.get(start..start + middle.len())
        } else {
            None
        }
    }

    /// Literal text that every managed key starts with, in the destination's alphabet.
    pub fn prefix(config: &SyncConfig, keys: &dyn crate::destination::KeySpace) -> String {
        keys.convert_part(&schema_of(config, keys).prefix)
    }
}

/// Says which keys of this sync its settings no longer reach, and the way to be rid of them.
pub fn left_behind_text(sync: &str, mut keys: Vec<&str>, written: &str) -> String {
    keys.sort_unstable();
    let names = keys.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = if keys.len() > 5 { ", …" } else { "" };
    let stay = if keys.len() == 1 { "stays" } else { "stay" };
    format!(
        "{} that this sync wrote {written} {stay} there ({names}{more}): `kms-sync remove-secrets {sync} --left-behind` takes away what nobody has changed since.",
        count(keys.len(), "key")
    )
}

/// `1 key is`, `2 keys are`: a count and the verb that agrees with it.
fn counted(n: usize, noun: &str, one: &str, more: &str) -> String {
    format!("{} {}", count(n, noun), if n == 1 { one } else { more })
}

/// `1 key`, `2 keys`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
