//! One variable group opened for one run: finding it, listing it, and what the listing proves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::time::Instant;

use super::client::Client;
use super::group::{Group, is_secret};
use super::keys::Keys;
use super::trace::{GroupRow, SyncRow, Trace};
use super::{SERVICE, text};
use crate::destination::{Desired, Destination, Document, Entry, EntryState, Freshness, Inventory, KeySpace, Listing, Read, Shape, Target};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::SecretValue;
use crate::model::ledger::LedgerRow;
use crate::model::text::brief;

/// After so many repairs in a row that found only a foreign stamp, the tool stops and reports.
const REPAIRS: u32 = 2;

pub(super) struct DevOpsTarget {
    pub(super) client: Arc<Client>,
    pub(super) trace: Trace,
    /// GUID.
    pub(super) project: String,
    /// The group's name as wanted.
    pub(super) group: String,
    pub(super) explicit: bool,
    pub(super) sync_id: String,
    pub(super) environment: String,
    /// The source told no name of its environment.
    nameless: bool,
    /// What this sync wrote is taken away: from the group it wrote, whatever that is called now.
    pub(super) removal: Option<Removal>,
    seen: Mutex<Option<Seen>>,
}

/// Where a removal takes from.
pub(super) struct Removal {
    /// The group this sync wrote last, if that is known.
    pub group: Option<i64>,
    /// The name that the configuration and the environment give today.
    pub wanted: String,
}

/// The last listing.
#[derive(Clone)]
pub(super) struct Seen {
    pub at: Instant,
    pub group: Option<Group>,
    row: GroupRow,
    /// Somebody else wrote since this sync did.
    pub foreign: bool,
    repairs: u32,
}

impl DevOpsTarget {
    pub fn new(client: Arc<Client>, trace: Trace, project: String, target: &Target) -> Self {
        let explicit = text(&target.config, "variableGroupName").map(str::to_owned);
        let named = target.environment_name.as_deref().map(str::trim).filter(|n| !n.is_empty());
        Self {
            client,
            trace,
            project,
            group: explicit.clone().unwrap_or_else(|| named.unwrap_or(&target.environment_slug).to_string()),
            nameless: explicit.is_none() && named.is_none(),
            explicit: explicit.is_some(),
            sync_id: target.sync_id.clone(),
            environment: target.environment_slug.clone(),
            removal: None,
            seen: Mutex::new(None),
        }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What remains known after a write upon state `base`; `known`: the ledger shows that `base` was ours.
    pub(super) fn remember(&self, group: &Group, base: Option<&str>, known: bool, created: bool) {
        let mut row = self.trace.group(group.id);
        let repairs = self.seen().as_ref().map_or(0, |s| if s.foreign { s.repairs + 1 } else { 0 });
        if created {
            row = GroupRow { created: true, ..GroupRow::default() };
        }
        if let (true, Some(base)) = (known && row.chain.is_empty(), base) {
            row.chain.push(base.to_string());
        }
        row.wrote(base, &group.modified_on);
        self.trace.keep_group(group.id, &row);
        self.keep(group.id, false, repairs);
        *self.seen() = None;
    }

    fn keep(&self, group: i64, unproven: bool, repairs: u32) {
        let (name, environment) = (self.group.clone(), self.environment.clone());
        self.trace.keep_sync(&self.sync_id, &SyncRow { group, name, environment, explicit: self.explicit, unproven, repairs });
    }

    /// Compares the listed stamp with what this sync left behind, and keeps the result: the
    /// ledger's own stamps may be moved on by a run that could only believe them.
    fn look(&self, group: &Group, ask: &Listing<'_>, seen: &mut Seen) {
        let id = group.id.to_string();
        seen.row = self.trace.group(group.id);
        let mut rows = ask.ledger.rows.values().filter(|r| r.remote_id.as_ref() == Some(&id) && r.value_hash.is_some()).peekable();
        if rows.peek().is_none() {
            return;
        }
        let before = self.trace.sync(&self.sync_id).filter(|r| r.group == group.id);
        let known = before.as_ref().is_some_and(|r| r.unproven);
        seen.repairs = before.map_or(0, |r| r.repairs);
        let now = &group.modified_on;
        seen.foreign = known || rows.any(|r| r.stamp.as_ref().is_some_and(|then| then != now && !seen.row.ours(then, now)));
        if seen.foreign && !known {
            self.keep(group.id, true, seen.repairs);
        }
        // Nobody interfered since our last write: the count of fruitless repairs starts anew.
        if ask.full && !seen.foreign && seen.repairs > 0 {
            seen.repairs = 0;
            self.keep(group.id, false, 0);
        }
    }

    /// The group was deleted by us.
    pub(super) fn forget(&self, id: i64) {
        self.trace.forget_group(id);
        self.trace.forget_sync(&self.sync_id);
        *self.seen() = None;
    }

    fn warnings_of(&self, group: Option<&Group>, seen: &Seen, ask: &Listing<'_>) -> Vec<String> {
        let mut out = Vec::new();
        if self.nameless {
            out.push(format!("The source tells no name of its environment: the variable group is named after its slug, {:?}.", self.group));
        }
        out.extend(self.client.version_warning());
        let Some(group) = group else {
            out.push(format!("There is no variable group {:?} yet: it is made, and each pipeline that uses it must be permitted once.", self.group));
            return out;
        };
        if group.name != self.group {
            out.push(format!("The variable group is called {:?}; it is used although the name wanted is {:?}.", brief(&group.name, 80), self.group));
        }
        if seen.foreign {
            let by = group.modified_by.as_deref().map(|b| format!(" by {}", brief(b, 80))).unwrap_or_default();
            let what = if !ask.full {
                "the next drift check or --verify writes this sync's values again"
            } else if seen.repairs >= REPAIRS {
                "it was repaired twice already, so it is only reported now; does another installation write the same group?"
            } else {
                "this sync's values are written again"
            };
            out.push(format!(
                "The variable group {:?} was changed from outside at {}{by}. Values of secret variables cannot be read back: {what}.",
                brief(&group.name, 80),
                brief(&group.modified_on, 40)
            ));
        }
        out
    }
}

#[async_trait]
impl Destination for DevOpsTarget {
    fn identity(&self) -> String {
        let base = self.client.base().as_str().trim_end_matches('/').to_lowercase();
        format!("{base}/{}/{}", self.project.to_lowercase(), self.group.to_lowercase())
    }

    /// A project's GUID is its own wherever it is reached (`dev.azure.com/NAME`, `NAME.visualstudio.com`).
    fn writers(&self) -> String {
        format!("azure-devops|{}|{}", self.project.to_lowercase(), self.group.to_lowercase())
    }

    fn keys(&self) -> &dyn KeySpace {
        &Keys
    }

    fn readable(&self) -> bool {
        false
    }

    /// One call: a listed group comes with all its variables.
    async fn list(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        *self.seen() = None;
        let mut group = match self.removal.as_ref().and_then(|r| r.group) {
            Some(id) => self.get(cx, id).await?,
            None => None,
        };
        if group.is_none() {
            group = self.find(cx).await?;
        }
        if group.is_none() {
            group = self.wait_for_new(cx, ask).await?;
        }
        if group.is_none() {
            group = self.elsewhere(cx, ask).await?;
        }
        if let Some(group) = &group {
            self.usable(group)?;
        }
        let mut seen = Seen { at: Instant::now(), group: None, row: GroupRow::default(), foreign: false, repairs: 0 };
        let mut entries = Vec::new();
        if let Some(group) = &group {
            self.look(group, ask, &mut seen);
            entries = entries_of(group, ask.full && seen.repairs < REPAIRS);
        }
        let warnings = self.warnings_of(group.as_ref(), &seen, ask);
        seen.group = group;
        *self.seen() = Some(seen);
        Ok(Inventory { entries, warnings })
    }

    fn freshness(&self, entry: &Entry, row: &LedgerRow) -> Freshness {
        if row.remote_id.is_some() && row.remote_id != entry.id {
            return Freshness::Changed("the variable group was deleted and made anew outside".into());
        }
        if row.intent.is_some() {
            return Freshness::Changed("an earlier write was not confirmed".into());
        }
        if entry.facts["secret"] == false {
            return Freshness::Changed("the variable was made plain outside".into());
        }
        let (Some(now), Some(then)) = (&entry.stamp, &row.stamp) else {
            return if entry.stamp.is_none() { Freshness::Unseen } else { Freshness::Changed("an earlier write was not confirmed".into()) };
        };
        let ours = match self.seen().as_ref() {
            Some(seen) => !seen.foreign && (now == then || seen.row.ours(then, now)),
            None => now == then,
        };
        match (ours, entry.facts["repair"] == true) {
            (true, _) => Freshness::Same,
            (false, true) => Freshness::Changed("the variable group was changed from outside, and its values cannot be read".into()),
            (false, false) => Freshness::Unseen,
        }
    }

    fn differs(&self, entry: &Entry, _desired: &Desired, _row: Option<&LedgerRow>) -> Option<String> {
        (entry.facts["secret"] == false).then(|| "the variable is not secret".to_string())
    }

    fn concerns(&self, desired: &[Desired]) -> Vec<String> {
        super::draft::concerns(desired)
    }

    async fn read(&self, cx: &Cx, entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)> {
        let id = entries.iter().find_map(|e| e.id.as_deref()?.parse().ok());
        let group = match id {
            Some(id) => self.get(cx, id).await,
            None => Ok(None),
        };
        entries
            .iter()
            .map(|entry| {
                let read = match &group {
                    Err(error) => Err(error.clone()),
                    Ok(None) => Err(ApiError::new(ErrorKind::NotFound, SERVICE, "the variable group is gone")),
                    Ok(Some(group)) => match group.variables.get(&entry.key) {
                        None => Err(ApiError::new(ErrorKind::NotFound, SERVICE, format!("the variable {} is gone", brief(&entry.key, 80)))),
                        Some(variable) => Ok(Read { value: plain_value(variable), stamp: stamp(group), problem: None }),
                    },
                };
                (entry.key.clone(), read)
            })
            .collect()
    }

    fn shape(&self) -> Shape<'_> {
        Shape::Document(self as &dyn Document)
    }
}

fn stamp(group: &Group) -> Option<String> {
    Some(group.modified_on.clone()).filter(|s| !s.is_empty())
}

/// The value of a variable that is not secret.
fn plain_value(variable: &serde_json::Value) -> Option<SecretValue> {
    if is_secret(variable) {
        return None;
    }
    Some(SecretValue::new(variable.get("value").and_then(serde_json::Value::as_str).unwrap_or_default()))
}

fn entries_of(group: &Group, repair: bool) -> Vec<Entry> {
    let mut spellings: HashMap<String, usize> = HashMap::new();
    for name in group.variables.keys() {
        *spellings.entry(Keys.fold(name)).or_default() += 1;
    }
    let day: String = group.modified_on.chars().take(10).collect();
    group
        .variables
        .iter()
        .map(|(name, variable)| {
            let secret = is_secret(variable);
            let twin = spellings.get(&Keys.fold(name)).is_some_and(|n| *n > 1);
            let state = if twin {
                EntryState::Blocked(format!("the variable group holds {} in more than one spelling: pipelines see only one of them", brief(name, 80)))
            } else {
                EntryState::Active
            };
            Entry {
                key: name.clone(),
                id: Some(group.id.to_string()),
                stamp: stamp(group),
                state,
                value: plain_value(variable),
                facts: serde_json::json!({"secret": secret, "repair": repair}),
                note: Some(format!("{}; group changed {}", if secret { "secret" } else { "plain" }, brief(&day, 10))),
            }
        })
        .collect()
}
