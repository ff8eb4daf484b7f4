//! One target opened for one run: what it holds, and what a listing proves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::budget::Patience;
use super::client::{Api, Call};
use super::errors::{self, Told};
use super::keys::Keys;
use super::memory::{Graves, repository_memory};
use super::overrides::Overrides;
use super::paging::{self, Listed};
use super::place::Place;
use super::spec::SERVICE;
use crate::destination::{Desired, Destination, Entry, EntryState, Freshness, Inventory, KeySpace, Listing, Missing, Read, Shape};
use crate::http::{Answer, ApiError, Cx, ErrorKind};
use crate::model::SecretValue;
use crate::model::ledger::{LedgerRow, Stamp};
use crate::model::text::brief;

/// From this sum of characters on, the plan warns: the documented limit of a pipeline is 120,000.
const LARGE_SUM: usize = 100_000;

/// A deployment environment.
#[derive(Debug, Clone)]
pub struct Environment {
    pub uuid: String,
    pub name: Option<String>,
    /// The memory key under which its name's uuid is kept, when it was given by name.
    pub remembered_as: Option<String>,
}

/// A variable as the list shows it.
#[derive(Debug, Clone)]
pub struct Variable {
    pub uuid: String,
    pub key: String,
    pub secured: bool,
    /// Only of variables that are not secured.
    pub value: Option<SecretValue>,
}

/// The stamp of a variable: all that the API shows of its state.
pub fn stamp(uuid: &str, secured: bool) -> Stamp {
    format!("{uuid}|{}", if secured { "secured" } else { "open" })
}

/// The variables of a repository or of one of its environments.
pub struct Variables {
    pub(super) api: Arc<Api>,
    pub(super) place: Place,
    pub(super) environment: Option<Environment>,
    /// How the repository is addressed: by its slug, or by its uuid after it was renamed.
    pub(super) address: RwLock<String>,
    keys: Keys,
    pub(super) overrides: Overrides,
    pub(super) graves: Graves,
    /// Set once a write has succeeded: until then writes go one at a time, because a missing
    /// scope shows only at the first one.
    pub(super) proved: AtomicBool,
    pub(super) first: tokio::sync::Mutex<()>,
    /// What stops every further write of this run.
    pub(super) fatal: Mutex<Option<ApiError>>,
    looked: tokio::sync::Mutex<Option<(Instant, Arc<Vec<Variable>>)>>,
}

impl Variables {
    pub fn new(api: Arc<Api>, place: Place, environment: Option<Environment>, graves: Graves) -> Self {
        let keys = Keys { refuses_empty: api.refuses_empty() };
        Self {
            overrides: Overrides::new(api.memory.clone(), &repository_memory(&api, &place)),
            address: RwLock::new(place.repository.clone()),
            api,
            place,
            environment,
            keys,
            graves,
            proved: AtomicBool::new(false),
            first: tokio::sync::Mutex::new(()),
            fatal: Mutex::new(None),
            looked: tokio::sync::Mutex::new(None),
        }
    }

    /// The environment as an operator knows it.
    pub fn environment_label(&self) -> Option<String> {
        self.environment.as_ref().map(|e| e.name.clone().unwrap_or_else(|| e.uuid.clone()))
    }

    /// `acme/api`, or `acme/api/Production`.
    pub(super) fn name(&self) -> String {
        match self.environment_label() {
            None => self.place.full_name(),
            Some(environment) => format!("{}/{}", self.place.full_name(), brief(&environment, 60)),
        }
    }

    pub(super) fn address(&self) -> String {
        self.address.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The route template of the collection.
    pub(super) fn route(&self) -> &'static str {
        match self.environment {
            None => "/repositories/{workspace}/{repository}/pipelines_config/variables",
            Some(_) => "/repositories/{workspace}/{repository}/deployments_config/environments/{environment}/variables",
        }
    }

    /// The path of the collection; `repository` is [`Self::address`].
    pub(super) fn path<'a>(&'a self, repository: &'a str) -> Vec<&'a str> {
        match &self.environment {
            None => vec!["repositories", &self.place.workspace, repository, "pipelines_config", "variables"],
            Some(e) => vec!["repositories", &self.place.workspace, repository, "deployments_config", "environments", &e.uuid, "variables"],
        }
    }

    pub(super) fn what(&self) -> String {
        format!("cannot list the variables of {}", self.name())
    }

    pub(super) fn failed(&self, cx: &Cx, answer: &Answer, what: &str) -> ApiError {
        errors::of(cx, &self.api.auth, answer, what, Some(&self.place.full_name()), None)
    }

    /// One page of one variable: proves that listing is allowed. Returns the answer for its headers.
    pub async fn peek(&self, cx: &Cx) -> Result<Answer, ApiError> {
        let repository = self.address();
        let call = Call { slash: self.api.slashed(), ..Call::get(self.route(), self.path(&repository)) };
        let answer = self.api.send(cx, &call.query("pagelen", "1").patience(Patience::Question)).await?;
        if answer.ok() {
            paging::object(&answer)?;
            return Ok(answer);
        }
        if answer.status != 404 {
            return Err(self.failed(cx, &answer, &self.what()));
        }
        self.diagnose(cx, answer, Patience::Question).await?;
        let repository = self.address();
        let call = Call { slash: self.api.slashed(), ..Call::get(self.route(), self.path(&repository)) };
        self.api.send(cx, &call.patience(Patience::Question)).await
    }

    /// The whole list.
    pub(super) async fn fetch(&self, cx: &Cx) -> Result<Vec<Variable>, ApiError> {
        let rows = match self.attempt(cx, self.api.slashed(), false, Patience::Run).await? {
            Listed::Rows(rows) => rows,
            Listed::Refused(answer) => match answer.status {
                404 | 301 | 302 | 307 | 308 => self.diagnose(cx, *answer, Patience::Run).await?,
                400 if self.environment.is_some() && !Told::read(&answer.body).lacks_scope() => self.diagnose(cx, *answer, Patience::Run).await?,
                _ => return Err(self.failed(cx, &answer, &self.what())),
            },
        };
        let variables = rows.iter().map(|row| self.variable(cx, row)).collect::<Result<Vec<_>, _>>()?;
        if let Some(environment) = &self.environment {
            self.overrides.listed(&environment.uuid, variables.iter().map(|v| v.key.as_str()));
        }
        Ok(variables)
    }

    pub(super) async fn attempt(&self, cx: &Cx, slash: bool, bare: bool, patience: Patience) -> Result<Listed, ApiError> {
        let repository = self.address();
        let call = Call { slash, ..Call::get(self.route(), self.path(&repository)).patience(patience) };
        paging::list(&self.api, cx, &call, |row| row.get("uuid").and_then(Value::as_str).map(str::to_owned), bare, &self.what()).await
    }

    fn variable(&self, cx: &Cx, row: &Value) -> Result<Variable, ApiError> {
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        let (Some(uuid), Some(key)) = (text("uuid").filter(|u| usable(u)), text("key")) else {
            return Err(ApiError::new(ErrorKind::NotTheService, SERVICE, format!("{}: a variable came without uuid or key", self.what()))
                .advice("This is not Bitbucket's API: check the endpoint and the proxy settings of the connection."));
        };
        let value = text("value").filter(|v| !v.is_empty());
        let secured = row.get("secured").and_then(Value::as_bool).unwrap_or(value.is_none());
        let value = value.filter(|_| !secured).map(SecretValue::new);
        if let Some(value) = &value {
            cx.redactor().learn(value);
        }
        Ok(Variable { uuid: uuid.to_string(), key: key.to_string(), secured, value })
    }

    /// The list as of a moment not before `since`; calls that fail together share one.
    pub(super) async fn look(&self, cx: &Cx, since: Instant) -> Result<Arc<Vec<Variable>>, ApiError> {
        let mut looked = self.looked.lock().await;
        if let Some((at, rows)) = looked.as_ref()
            && *at >= since
        {
            return Ok(rows.clone());
        }
        let at = Instant::now();
        let rows = Arc::new(self.fetch(cx).await?);
        *looked = Some((at, rows.clone()));
        Ok(rows)
    }

    /// True while a lagging list may still show a variable we deleted.
    fn buried(&self, uuid: &str) -> bool {
        if self.environment.is_none() {
            return false;
        }
        let mut graves = self.graves.lock().unwrap_or_else(PoisonError::into_inner);
        graves.retain(|_, at| at.elapsed() < self.api.tempo.grace);
        graves.contains_key(uuid)
    }

    /// How far a thorough run can go: secured values never come back, so what stands there as
    /// this sync left it is believed to hold what was written.
    fn unread_warning(&self, ask: &Listing<'_>, variables: &[Variable]) -> Option<String> {
        if !ask.full {
            return None;
        }
        let rows = &ask.ledger.rows;
        let ours = |v: &&Variable| rows.get(&self.keys.fold(&v.key)).is_some_and(|r| r.value_hash.is_some() && r.remote_id.as_ref() == Some(&v.uuid));
        let unread = variables.iter().filter(|v| v.secured && v.value.is_none()).filter(ours).count();
        let what = match unread {
            0 => return None,
            1 => "1 secured value".to_string(),
            n => format!("{n} secured values"),
        };
        Some(format!(
            "{what} cannot be read back from Bitbucket: where the source did not change, the key is unchanged by our record, not by comparison \
             (`sync --rewrite` writes them again)."
        ))
    }
}

#[async_trait]
impl Destination for Variables {
    fn identity(&self) -> String {
        let (workspace, repository) = self.place.folded();
        let environment = self.environment.as_ref().map(|e| e.uuid.to_lowercase()).unwrap_or_default();
        format!("bitbucket|{}|{workspace}/{repository}|{environment}", self.api.endpoint.identity())
    }

    fn writers(&self) -> String {
        self.one_place()
    }

    fn keys(&self) -> &dyn KeySpace {
        &self.keys
    }

    /// Secured values never come back.
    fn readable(&self) -> bool {
        false
    }

    async fn list(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        let mut variables = self.fetch(cx).await?;
        variables.retain(|v| !self.buried(&v.uuid));
        let mut inventory = Inventory::default();
        if self.address() != self.place.repository {
            inventory.warnings.push(format!("The repository {} was renamed or moved; update the sync's Repository.", self.place.full_name()));
        }
        inventory.warnings.extend(self.unread_warning(ask, &variables));
        inventory.warnings.extend(ledger_warnings(&variables, ask.ledger.rows.values(), &self.keys));
        let mut by_key: BTreeMap<&str, Vec<&Variable>> = BTreeMap::new();
        for variable in &variables {
            by_key.entry(&variable.key).or_default().push(variable);
        }
        inventory.entries = by_key.into_values().filter_map(|same| entry(&same)).collect();
        Ok(inventory)
    }

    fn freshness(&self, entry: &Entry, row: &LedgerRow) -> Freshness {
        if row.intent.is_some() || row.remote_id.is_none() {
            return Freshness::Changed("an earlier write was not confirmed".into());
        }
        if entry.id != row.remote_id {
            return Freshness::Changed("replaced outside".into());
        }
        if entry.stamp != entry.id.as_deref().map(|uuid| stamp(uuid, true)) {
            return Freshness::Changed("is no longer secured".into());
        }
        Freshness::Unseen
    }

    fn missing(&self, row: &LedgerRow) -> Missing {
        let age = jiff::Timestamp::now().duration_since(row.written_at);
        let young = Duration::try_from(age).map_or(true, |age| age < self.api.tempo.grace);
        if self.environment.is_some() && young { Missing::Lagging } else { Missing::Gone }
    }

    fn differs(&self, entry: &Entry, _desired: &Desired, _row: Option<&LedgerRow>) -> Option<String> {
        (entry.facts.get("secured").and_then(Value::as_bool) == Some(false))
            .then(|| "will be secured; a pipeline that uses it in ${{ }} templating no longer sees it".to_string())
    }

    fn concerns(&self, desired: &[Desired]) -> Vec<String> {
        let mut out = if self.environment.is_none() { self.overrides.warnings(desired) } else { Vec::new() };
        let total: usize = desired.iter().map(|d| d.key.chars().count() + d.value.expose().chars().count()).sum();
        if total >= LARGE_SUM {
            out.push(format!(
                "Names and values have {total} characters together; a pipeline takes at most 120,000 of all its variables, those of workspace, \
                 repository and environment included."
            ));
        }
        out
    }

    fn outlook(&self, writes: usize) -> Option<String> {
        let left = self.api.budget.left() as usize;
        if writes <= left {
            return None;
        }
        let rest = self.api.budget.resumes().map_or_else(|| "as calls leave the rolling hour".to_string(), |at| format!("from {at} on"));
        Some(format!("Bitbucket's hourly budget: about {writes} calls are needed, {left} can be made now, the rest {rest}."))
    }

    async fn read(&self, _cx: &Cx, entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)> {
        let read = |e: &&Entry| {
            let problem = e.value.is_none().then(|| "secured: Bitbucket never returns its value".to_string());
            (e.key.clone(), Ok(Read { value: e.value.clone(), stamp: e.stamp.clone(), problem }))
        };
        entries.iter().map(read).collect()
    }

    fn shape(&self) -> Shape<'_> {
        Shape::Itemised(self)
    }
}

/// One entry for all variables of one key.
fn entry(same: &[&Variable]) -> Option<Entry> {
    let first = same.first()?;
    let state = if same.len() == 1 {
        EntryState::Active
    } else {
        let uuids: Vec<&str> = same.iter().map(|v| v.uuid.as_str()).collect();
        EntryState::Blocked(format!(
            "{} variables have this key ({}): delete all but one in Bitbucket's settings",
            same.len(),
            brief(&uuids.join(", "), 200)
        ))
    };
    let single = same.len() == 1;
    Some(Entry {
        key: first.key.clone(),
        id: single.then(|| first.uuid.clone()),
        stamp: single.then(|| stamp(&first.uuid, first.secured)),
        state,
        value: first.value.clone().filter(|_| single),
        facts: json!({ "secured": first.secured }),
        note: Some(if first.secured { "secured" } else { "not secured" }.into()),
    })
}

/// What the ledger and the list tell together: renamed variables, and a place made anew.
fn ledger_warnings<'r>(variables: &[Variable], rows: impl Iterator<Item = &'r LedgerRow>, keys: &Keys) -> Vec<String> {
    let by_uuid: HashMap<&str, &Variable> = variables.iter().map(|v| (v.uuid.as_str(), v)).collect();
    let names: HashSet<String> = variables.iter().map(|v| keys.fold(&v.key)).collect();
    let mut warnings = Vec::new();
    let (mut known, mut found, mut replaced) = (0, 0, 0);
    for row in rows.filter(|r| r.value_hash.is_some()) {
        let Some(uuid) = row.remote_id.as_deref() else { continue };
        known += 1;
        replaced += usize::from(names.contains(&row.fold));
        let Some(variable) = by_uuid.get(uuid) else { continue };
        found += 1;
        if keys.fold(&variable.key) != row.fold {
            warnings.push(format!(
                "{} was renamed to {} outside; {} is left alone until you say otherwise.",
                row.key,
                brief(&variable.key, 100),
                brief(&variable.key, 100)
            ));
        }
    }
    if known > 1 && found == 0 && replaced > 0 {
        warnings.push("Not one of the variables this sync wrote is there: the repository or environment was probably deleted and made anew.".into());
    }
    warnings
}

/// True for an id that can stand in a path: an empty one would address the whole collection.
pub fn usable(uuid: &str) -> bool {
    !uuid.trim().is_empty() && !matches!(uuid, "." | ".." | "{}") && !uuid.contains('/')
}

impl Variables {
    /// The error of a write that is not sent any more, when one ended all writes of this run.
    pub(super) fn stopped(&self) -> Option<ApiError> {
        let fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fatal.map(|error| error.unsent("not sent, because another write of this run was refused for all of them"))
    }

    /// Remembers what stops every further write, and that writing is possible at all.
    pub(super) fn learn_from<T>(&self, result: &Result<T, ApiError>) {
        match result {
            Ok(_) => self.proved.store(true, Ordering::Relaxed),
            Err(error) => {
                let bad_id = error.code.as_deref() == Some("unexpected.response.body");
                let stops = matches!(error.kind, ErrorKind::Auth | ErrorKind::Permission | ErrorKind::NotTheService | ErrorKind::NotFound) || bad_id;
                if stops {
                    self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
                }
            }
        }
    }
}
