//! One variable group opened for one run: finding it, listing it, and what the listing proves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use tokio::time::Instant;

use super::api::Resource;
use super::client::{Call, Client, Scope};
use super::errors::Doing;
use super::group::{Group, is_secret};
use super::keys::Keys;
use super::trace::{GroupRow, SyncRow, Trace};
use super::{SERVICE, text};
use crate::destination::{Desired, Destination, Document, Entry, EntryState, Freshness, Inventory, KeySpace, Listing, Read, Shape, Target};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::SecretValue;
use crate::model::ledger::LedgerRow;
use crate::model::text::brief;

const LIST: &str = "GET /{project}/_apis/distributedtask/variablegroups";
const GET: &str = "GET /{project}/_apis/distributedtask/variablegroups/{id}";
/// Windows agents cut the list of secret names at this many characters.
pub(super) const NAMES_WINDOWS: usize = 30_000;
/// After so many repairs in a row that found only a foreign stamp, the tool stops and reports.
const REPAIRS: u32 = 2;
/// A group made so recently may be missing from a list.
const JUST_MADE: i64 = 15;

pub(super) struct DevOpsTarget {
    pub(super) client: Arc<Client>,
    pub(super) trace: Trace,
    /// GUID.
    pub(super) project: String,
    /// The group's name as wanted.
    pub(super) group: String,
    explicit: bool,
    sync_id: String,
    environment: String,
    /// The source told no name of its environment.
    nameless: bool,
    seen: Mutex<Option<Seen>>,
}

/// The last listing.
#[derive(Clone)]
pub(super) struct Seen {
    pub at: Instant,
    pub group: Option<Group>,
    row: GroupRow,
    /// Somebody else wrote since us.
    pub foreign: bool,
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
            seen: Mutex::new(None),
        }
    }

    /// Proves that the groups of a project may be listed.
    pub async fn probe(client: &Client, cx: &Cx, project: &str) -> Result<(), ApiError> {
        let answer = client.send(cx, &list_call(project, vec![("$top", "1".into())])).await?;
        Group::list(cx, &answer).map(|_| ())
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All groups of the project, or those a name pattern finds.
    async fn groups(&self, cx: &Cx, name: Option<&str>) -> Result<Vec<Group>, ApiError> {
        let mut all: HashMap<i64, Group> = HashMap::new();
        let mut token: Option<String> = None;
        loop {
            let mut query = Vec::with_capacity(4);
            query.extend(name.map(|n| ("groupName", n.to_string())));
            query.extend([("$top", "100".to_string()), ("queryOrder", "idAscending".to_string())]);
            query.extend(token.clone().map(|t| ("continuationToken", t)));
            let answer = self.client.send(cx, &list_call(&self.project, query)).await?;
            all.extend(Group::list(cx, &answer)?.into_iter().map(|g| (g.id, g)));
            let next = answer.header("x-ms-continuationtoken").map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
            match next {
                None => break,
                // A list in part could hide the group, and a second one would be made.
                Some(next) if Some(&next) == token.as_ref() => {
                    return Err(ApiError::new(
                        ErrorKind::NotTheService,
                        SERVICE,
                        "the list of variable groups turns in a circle: a page names itself as the next one",
                    ));
                }
                Some(next) => token = Some(next),
            }
        }
        let mut groups: Vec<Group> = all.into_values().collect();
        groups.sort_by_key(|g| g.id);
        Ok(groups)
    }

    /// The group by its name. The service's filter knows wildcards, so the name is compared
    /// again; a name with unusual characters is also looked for without the filter.
    pub(super) async fn find(&self, cx: &Cx) -> Result<Option<Group>, ApiError> {
        if let Some(group) = self.pick(self.groups(cx, Some(&self.group)).await?)? {
            return Ok(Some(group));
        }
        if self.group.chars().any(|c| !(c.is_ascii_alphanumeric() || " ._-".contains(c))) {
            return self.pick(self.groups(cx, None).await?);
        }
        Ok(None)
    }

    fn pick(&self, groups: Vec<Group>) -> Result<Option<Group>, ApiError> {
        let folded = self.group.to_lowercase();
        let mut near: Vec<Group> = groups.into_iter().filter(|g| g.name.to_lowercase() == folded).collect();
        if let Some(exact) = near.iter().position(|g| g.name == self.group) {
            return Ok(Some(near.swap_remove(exact)));
        }
        if near.len() > 1 {
            let names: Vec<String> = near.iter().map(|g| format!("{:?} (id {})", brief(&g.name, 80), g.id)).collect();
            return Err(ApiError::new(
                ErrorKind::Conflict,
                SERVICE,
                format!("several variable groups differ from {:?} only by case: {}", self.group, names.join(", ")),
            )
            .advice("Set variableGroupName to the one that is meant."));
        }
        Ok(near.pop())
    }

    /// One group by id; `None` when there is no such group (the service answers `null`).
    pub(super) async fn get(&self, cx: &Cx, id: i64) -> Result<Option<Group>, ApiError> {
        let id = id.to_string();
        let call = Call {
            method: Method::GET,
            label: GET,
            doing: Doing::Read,
            resource: Resource::Groups,
            scope: Scope::Project(&self.project),
            tail: &[&id],
            query: Vec::new(),
            body: None,
        };
        match self.client.send(cx, &call).await {
            Ok(answer) => Group::of(cx, &answer),
            Err(error) if error.status == Some(404) && error.code.as_deref().is_some_and(|c| c.starts_with("VariableGroupNotFound")) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails on a group whose variables are not its own: it is never written.
    pub(super) fn usable(&self, group: &Group) -> Result<(), ApiError> {
        if group.plain() {
            return Ok(());
        }
        let what = if group.kind.eq_ignore_ascii_case("AzureKeyVault") {
            "is linked to an Azure Key Vault".into()
        } else {
            format!("has the type {:?}", brief(&group.kind, 40))
        };
        Err(ApiError::new(ErrorKind::Conflict, SERVICE, format!("the variable group {:?} {what}: it is not written", brief(&group.name, 80)))
            .advice("Set variableGroupName to another name, or rename that group."))
    }

    /// The group is not there under its name. When the one this sync wrote still exists under
    /// another, a second one must not be made beside it in silence.
    async fn renamed(&self, cx: &Cx) -> Result<(), ApiError> {
        let Some(row) = self.trace.sync(&self.sync_id) else { return Ok(()) };
        let same_name = row.name.to_lowercase() == self.group.to_lowercase();
        let environment_renamed = !self.explicit && !row.explicit && row.environment == self.environment;
        if !same_name && !environment_renamed {
            return Ok(());
        }
        let Some(group) = self.get(cx, row.group).await? else { return Ok(()) };
        let name = brief(&group.name, 80);
        let message = if same_name {
            format!("the variable group this sync wrote (id {}) is now called {name:?}, not {:?}", group.id, self.group)
        } else {
            format!("the environment is now called {:?}, but this sync's secrets are in the variable group {name:?} (id {})", self.group, group.id)
        };
        Err(ApiError::new(ErrorKind::Conflict, SERVICE, message).advice(format!(
            "Rename the group to {:?}, or set variableGroupName to {name:?} to go on with it, or to a new name to begin another group.",
            self.group
        )))
    }

    /// A group that was made seconds ago may not be listed yet: it is looked for again before
    /// it is believed to be gone.
    async fn wait_for_new(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Option<Group>, ApiError> {
        let Some(row) = self.trace.sync(&self.sync_id) else { return Ok(None) };
        let (id, now) = (row.group.to_string(), jiff::Timestamp::now().as_second());
        let new = self.trace.group(row.group).chain.len() == 1
            && ask.ledger.rows.values().any(|r| r.remote_id.as_ref() == Some(&id) && (0..JUST_MADE).contains(&(now - r.written_at.as_second())));
        if !new {
            return Ok(None);
        }
        for pause in [400, 800, 1600] {
            cx.wait("the new variable group is not listed yet", Duration::from_millis(pause)).await?;
            if let Some(group) = self.find(cx).await? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// What remains known after a write upon state `base`; `known`: the ledger shows that `base` was ours.
    pub(super) fn remember(&self, group: &Group, base: Option<&str>, known: bool, created: bool) {
        let mut row = self.trace.group(group.id);
        let foreign = self.seen().as_ref().is_some_and(|s| s.foreign);
        if created {
            row = GroupRow { created: true, ..GroupRow::default() };
        }
        if let (true, Some(base)) = (known && row.chain.is_empty(), base) {
            row.chain.push(base.to_string());
        }
        row.wrote(base, &group.modified_on);
        row.repairs = if foreign { row.repairs + 1 } else { 0 };
        self.trace.keep_group(group.id, &row);
        self.trace.keep_sync(
            &self.sync_id,
            &SyncRow { group: group.id, name: self.group.clone(), environment: self.environment.clone(), explicit: self.explicit },
        );
        *self.seen() = None;
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
            } else if seen.row.repairs >= REPAIRS {
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
        if names_size(group.variables.keys()) > NAMES_WINDOWS {
            out.push("The names of this group's secrets exceed 30,000 characters: jobs on Windows agents may fail to start.".into());
        }
        out
    }
}

/// Size of the JSON array of names that agents put into one environment variable.
pub(super) fn names_size<'n>(names: impl Iterator<Item = &'n String>) -> usize {
    names.map(|n| n.len() + 3).sum::<usize>() + 1
}

fn list_call<'a>(project: &'a str, query: Vec<(&'static str, String)>) -> Call<'a> {
    Call {
        method: Method::GET,
        label: LIST,
        doing: Doing::Read,
        resource: Resource::Groups,
        scope: Scope::Project(project),
        tail: &[],
        query,
        body: None,
    }
}

#[async_trait]
impl Destination for DevOpsTarget {
    fn identity(&self) -> String {
        let base = self.client.base().as_str().trim_end_matches('/').to_lowercase();
        format!("{base}/{}/{}", self.project.to_lowercase(), self.group.to_lowercase())
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
        let mut group = self.find(cx).await?;
        if group.is_none() {
            group = self.wait_for_new(cx, ask).await?;
        }
        match &group {
            Some(group) => self.usable(group)?,
            None => self.renamed(cx).await?,
        }
        let mut seen = Seen { at: Instant::now(), group: None, row: GroupRow::default(), foreign: false };
        let mut entries = Vec::new();
        if let Some(group) = &group {
            let id = group.id.to_string();
            let mut row = self.trace.group(group.id);
            seen.foreign = ask.ledger.rows.values().any(|r| {
                r.remote_id.as_ref() == Some(&id)
                    && r.value_hash.is_some()
                    && r.stamp.as_ref().is_some_and(|s| *s != group.modified_on && !row.ours(s, &group.modified_on))
            });
            // Nobody interfered since our last write: the count of fruitless repairs starts anew.
            if ask.full && !seen.foreign && row.repairs > 0 {
                row.repairs = 0;
                self.trace.keep_group(group.id, &row);
            }
            let repair = ask.full && row.repairs < REPAIRS;
            seen.row = row;
            entries = entries_of(group, repair);
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
        let ours = now == then || self.seen().as_ref().is_some_and(|s| s.row.ours(then, now));
        match (ours, entry.facts["repair"] == true) {
            (true, _) => Freshness::Same,
            (false, true) => Freshness::Changed("the variable group was changed from outside, and its values cannot be read".into()),
            (false, false) => Freshness::Unseen,
        }
    }

    fn differs(&self, entry: &Entry, _desired: &Desired, _row: Option<&LedgerRow>) -> Option<String> {
        (entry.facts["secret"] == false).then(|| "the variable is not secret".to_string())
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
