//! One vault opened for one run: what it holds, and reading values.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::super::{Destination, Entry, EntryState, Freshness, Inventory, KeySpace, Listing, Read, Shape, Target};
use super::calls;
use super::client::{Ask, Client};
use super::names::Names;
use super::proved::Proved;
use super::settle::{Board, Patience};
use super::wire::{Bundle, Secret, State, mark_of, same_version, stamp, version_of};
use super::{DELETION_DAYS, SERVICE, text};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::ledger::{LedgerRow, Stamp};
use crate::model::{Memory, Time};

/// Up to so many wanted keys every value is read in every run: a few seconds at the modest
/// starting pace. Above, only what may have changed is read, and what was not proved for hours
/// ([`super::proved`]); the drift check reads all.
const SMALL: usize = 200;
/// Values read at once.
const READERS: usize = 16;

/// The freeform tag that names the sync which created a secret.
pub(super) const TAG: &str = "kms-sync";

pub(super) struct VaultTarget {
    pub(super) client: Arc<Client>,
    pub(super) compartment: String,
    pub(super) vault: String,
    pub(super) key: String,
    pub(super) sync_id: String,
    /// 1 to 30.
    pub(super) deletion_days: i64,
    /// Old versions may be given up for new ones.
    pub(super) prune: bool,
    pub(super) patience: Patience,
    pub(super) board: Board,
    /// The first answer that said a quota is full: further creates are not tried.
    pub(super) full: Mutex<Option<ApiError>>,
    /// Own keys whose value could not be read, and why: their versions were compared instead.
    blind: Mutex<BTreeMap<String, Blind>>,
    proved: Proved,
}

/// Why the value of a secret that is there cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Blind {
    /// A rule of the secret blocks content that has expired.
    Expired,
    /// No right to it, by the policy.
    Policy,
}

/// What an entry tells `freshness` and `apply`. Never a value.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    /// The service's word.
    pub state: String,
    /// See [`Secret::mark`].
    pub mark: String,
    pub key_id: Option<String>,
    /// True when this sync made it, as ledger or tag tell.
    pub ours: bool,
    /// True when an unchanged entry is taken for an unchanged value in this run.
    pub trusting: bool,
}

impl Facts {
    pub fn of(entry: &Entry) -> Self {
        serde_json::from_value(entry.facts.clone()).unwrap_or_default()
    }
}

impl VaultTarget {
    pub fn new(client: Arc<Client>, memory: Arc<dyn Memory>, target: &Target, patience: Patience) -> Self {
        let (compartment, vault) = (text(&target.config, "compartmentOcid"), text(&target.config, "vaultOcid"));
        Self {
            client,
            proved: Proved::new(memory, vault, compartment, &target.sync_id),
            compartment: compartment.to_string(),
            vault: vault.to_string(),
            key: text(&target.config, "keyOcid").to_string(),
            sync_id: target.sync_id.clone(),
            deletion_days: target.options.extra.get("deletionDays").and_then(serde_json::Value::as_i64).unwrap_or(DELETION_DAYS).clamp(1, 30),
            prune: target.options.extra.get("pruneVersions").and_then(serde_json::Value::as_bool) == Some(true),
            patience,
            board: Board::default(),
            full: Mutex::new(None),
            blind: Mutex::default(),
        }
    }

    /// Every secret of the compartment and vault, in every state; entries that occur on two
    /// pages (the list moved while it was read) count once.
    pub(super) async fn list_secrets(&self, cx: &Cx) -> Result<Vec<Secret>, ApiError> {
        self.list_by(cx, None).await
    }

    async fn list_by(&self, cx: &Cx, name: Option<&str>) -> Result<Vec<Secret>, ApiError> {
        let mut query = vec![("compartmentId", self.compartment.as_str()), ("vaultId", self.vault.as_str())];
        query.extend(name.map(|n| ("name", n)));
        let mut list: Vec<Secret> = self.client.list(cx, &calls::LIST_SECRETS, None, &["secrets"], &query, Some("1000")).await?;
        // A server that does not filter must not put other vaults' secrets within our reach.
        let here =
            |s: &Secret| s.vault_id.as_ref().is_none_or(|v| *v == self.vault) && s.compartment_id.as_ref().is_none_or(|c| *c == self.compartment);
        list.retain(here);
        let mut last = HashMap::new();
        for (i, secret) in list.iter().enumerate() {
            last.insert(secret.id.clone(), i);
        }
        let mut i = 0;
        list.retain(|s| {
            i += 1;
            last.get(&s.id) == Some(&(i - 1))
        });
        Ok(list)
    }

    /// The secret that speaks for a name, if one is listed.
    pub(super) async fn find(&self, cx: &Cx, name: &str) -> Result<Option<Secret>, ApiError> {
        let list = self.list_by(cx, Some(name)).await?;
        Ok(list.into_iter().filter(|s| s.secret_name == name).min_by_key(|s| s.state().rank()))
    }

    /// One secret without its value; `None` when it is gone or may not be seen.
    pub(super) async fn get(&self, cx: &Cx, id: &str) -> Result<Option<Secret>, ApiError> {
        match self.client.get::<Secret>(cx, &calls::GET_SECRET, Ask { path: &["secrets", id], ..Ask::default() }).await {
            Ok(secret) if secret.id != id => Err(other(id)),
            Ok(secret) => Ok(Some(secret)),
            Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The current content.
    pub(super) async fn bundle(&self, cx: &Cx, id: &str) -> Result<Bundle, ApiError> {
        let bundle: Bundle = self.client.get(cx, &calls::GET_BUNDLE, Ask { path: &["secretbundles", id], ..Ask::default() }).await?;
        if !bundle.secret_id.is_empty() && bundle.secret_id != id {
            return Err(other(id));
        }
        Ok(bundle)
    }

    async fn read_named(&self, cx: &Cx, entry: &Entry) -> (String, Result<Read, ApiError>) {
        (entry.key.clone(), self.read_one(cx, entry).await)
    }

    async fn read_one(&self, cx: &Cx, entry: &Entry) -> Result<Read, ApiError> {
        let id = entry.id.as_deref().ok_or_else(|| ApiError::new(ErrorKind::NotFound, SERVICE, format!("{} has no id", entry.key)))?;
        let mut answer = self.bundle(cx, id).await;
        // Where the policy is known to be in the way, asking twice is no use.
        let again = |e: &ApiError| e.kind == ErrorKind::Unsettled || (e.kind == ErrorKind::NotFound && !self.forbidden());
        if answer.as_ref().is_err_and(again) {
            answer = self.bundle(cx, id).await;
        }
        match answer {
            Ok(bundle) => Ok(self.read_of(cx, id, &bundle, &Facts::of(entry).mark)),
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Unsettled | ErrorKind::Permission) => {
                self.unreadable(cx, entry, id, error).await
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn read_of(&self, cx: &Cx, id: &str, bundle: &Bundle, mark: &str) -> Read {
        let stamp = bundle.version_number.map(|v| stamp(id, v, mark));
        match bundle.value() {
            // Nothing to import and nothing to lose; the version still tells whether it is ours.
            Ok(value) if value.is_empty() => Read { value: None, stamp, problem: None },
            Ok(value) => {
                cx.redactor().learn(&value);
                Read { value: Some(value), stamp, problem: None }
            }
            Err(problem) => Read { value: None, stamp, problem: Some(problem) },
        }
    }

    /// What to make of a listed, active secret whose value was refused: gone meanwhile, moving,
    /// expired, or no right. Of a secret of our own its version tells whether it still holds what
    /// was written, which is all that a sync needs to know.
    async fn unreadable(&self, cx: &Cx, entry: &Entry, id: &str, error: ApiError) -> Result<Read, ApiError> {
        let key = &entry.key;
        let secret = match self.get(cx, id).await {
            Ok(Some(secret)) => secret,
            Ok(None) | Err(_) => return Err(error),
        };
        if secret.state() != State::Active {
            let word = crate::model::text::brief(&secret.lifecycle_state, 40);
            return Err(ApiError::new(ErrorKind::Unsettled, SERVICE, format!("{key} became {word} while this run was reading"))
                .advice("Somebody else changes it now; the next run tries again."));
        }
        let expired = secret.locked_by_expiry(Time::now());
        if Facts::of(entry).ours
            && let Some(version) = secret.current_version_number
        {
            let why = if expired.is_some() { Blind::Expired } else { Blind::Policy };
            self.blind().insert(key.clone(), why);
            return Ok(Read { value: None, stamp: Some(stamp(id, version, &secret.mark())), problem: None });
        }
        let mut error = error;
        error.kind = ErrorKind::Permission;
        if let Some(at) = expired {
            error.message = format!("the value of {key} expired on {}, and a rule of the secret blocks reading it", at.strftime("%Y-%m-%d"));
            return Err(error.advice("Give it a new value, or change the rule, in the OCI Console."));
        }
        error.message = format!("the value of {key} cannot be read, though the secret is there: the policy lacks {}", calls::GET_BUNDLE.right);
        Err(error)
    }

    fn blind(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Blind>> {
        self.blind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when a value was refused by the policy before.
    fn forbidden(&self) -> bool {
        self.blind().values().any(|why| *why == Blind::Policy)
    }

    /// Names of entries whose values are taken for granted in this run: unchanged by the list,
    /// and proved not long ago.
    fn granted<'s>(&self, listed: impl Iterator<Item = &'s Secret>, ask: &Listing<'_>) -> HashSet<String> {
        if ask.wanted <= SMALL {
            return HashSet::new();
        }
        // A list that tells the version leaves nothing to take for granted.
        let own = listed.filter(|s| s.state() == State::Active && s.current_version_number.is_none()).filter_map(|s| {
            let row = ask.ledger.rows.get(&s.secret_name).filter(|r| r.value_hash.is_some() && r.remote_id.as_deref() == Some(&s.id))?;
            Some((row, !ask.full && row.intent.is_none() && row.stamp.as_deref().and_then(mark_of) == Some(&s.mark())))
        });
        let (unchanged, others): (Vec<_>, Vec<_>) = own.partition(|(_, unchanged)| *unchanged);
        self.proved.grant(unchanged.into_iter().map(|(row, _)| row), others.into_iter().map(|(row, _)| row), Time::now()).into_iter().collect()
    }

    fn entry(&self, secret: &Secret, ask: &Listing<'_>, granted: &HashSet<String>) -> Entry {
        let row = ask.ledger.rows.get(&secret.secret_name);
        let written = row.is_some_and(|r| r.remote_id.as_deref() == Some(&secret.id));
        let facts = Facts {
            state: secret.lifecycle_state.to_ascii_uppercase(),
            mark: secret.mark(),
            key_id: secret.key_id.clone(),
            ours: written || secret.tag(TAG) == Some(&self.sync_id),
            trusting: granted.contains(&secret.secret_name),
        };
        Entry {
            key: secret.secret_name.clone(),
            id: Some(secret.id.clone()),
            stamp: secret.current_version_number.map(|v| stamp(&secret.id, v, &secret.mark())),
            state: entry_state(secret, written),
            value: None,
            facts: serde_json::to_value(facts).unwrap_or_default(),
            note: note(secret),
        }
    }
}

/// The error for an answer about another secret than the one asked for.
fn other(id: &str) -> ApiError {
    let text = format!("the answer is about another secret than {}", crate::model::text::brief(id, 120));
    ApiError::new(ErrorKind::NotTheService, SERVICE, text).advice("Check the connection's endpoints and the proxies on the way.")
}

/// The end of an OCID, which tells two of one vault apart.
fn tail(id: &str) -> String {
    format!("…{}", id.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect::<String>())
}

/// How the planner sees a secret. `ours`: this sync wrote it.
fn entry_state(secret: &Secret, ours: bool) -> EntryState {
    if secret.is_replica == Some(true) {
        return EntryState::Protected("it is a read-only replica of a secret in another region".into());
    }
    if secret.rotation_status.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("IN_PROGRESS")) {
        return EntryState::Protected("OCI is rotating it now".into());
    }
    let flag = |config: &Option<serde_json::Value>, name: &str| config.as_ref().and_then(|c| c.get(name)).and_then(serde_json::Value::as_bool);
    let rotated = flag(&secret.rotation_config, "isScheduledRotationEnabled") == Some(true);
    if !ours && (rotated || secret.is_auto_generation_enabled == Some(true)) {
        let what = if rotated { "rotated on a schedule" } else { "generated by OCI" };
        return EntryState::Blocked(format!("its content is {what}; writing it would switch that off"));
    }
    match secret.state() {
        State::Active => EntryState::Active,
        State::Moving(word) => EntryState::Settling(word),
        State::PendingDeletion => EntryState::Deleted { until: secret.until() },
        State::Deleted => EntryState::Deleted { until: None },
        State::Failed(word) => {
            let details = secret.lifecycle_details.as_deref().filter(|d| !d.is_empty()).map(|d| format!(": {}", crate::model::text::brief(d, 200)));
            EntryState::Blocked(format!("it is {word} at OCI Vault{}", details.unwrap_or_default()))
        }
    }
}

fn note(secret: &Secret) -> Option<String> {
    let day = |t: &str| t.get(..10).map(str::to_string);
    let mut parts = Vec::new();
    if let Some(created) = secret.time_created.as_deref().and_then(day) {
        parts.push(format!("created {created}"));
    }
    if let Some(at) = secret.expired(Time::now()) {
        parts.push(format!("expired {}", at.strftime("%Y-%m-%d")));
    }
    if let Some(by) = secret.tag("managed-by") {
        parts.push(format!("managed by {}", crate::model::text::brief(by, 40)));
    }
    if let Some(until) = secret.time_of_deletion.as_deref().and_then(day) {
        parts.push(format!("erased {until}"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[async_trait]
impl Destination for VaultTarget {
    fn identity(&self) -> String {
        format!("oci-vault:{}:{}", self.vault, self.compartment)
    }

    fn keys(&self) -> &dyn KeySpace {
        &Names
    }

    async fn list(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        let list = self.list_secrets(cx).await?;
        let mut by_name: HashMap<&str, &Secret> = HashMap::new();
        let mut twins: HashMap<&str, String> = HashMap::new();
        for secret in list.iter().filter(|s| s.secret_name.starts_with(ask.prefix) && s.state() != State::Deleted) {
            let best = by_name.entry(secret.secret_name.as_str()).or_insert(secret);
            // OCI promises that there are no two.
            if best.id != secret.id && best.state() == State::Active && secret.state() == State::Active {
                twins.insert(secret.secret_name.as_str(), format!("{} and {}", tail(&best.id), tail(&secret.id)));
            }
            if secret.state().rank() < best.state().rank() {
                *best = secret;
            }
        }
        let granted = self.granted(by_name.values().copied(), ask);
        let mut entries: Vec<Entry> = by_name.into_values().map(|s| self.entry(s, ask, &granted)).collect();
        for entry in &mut entries {
            if let Some(ids) = twins.get(entry.key.as_str()) {
                entry.state = EntryState::Blocked(format!("two secrets of this vault have this name ({ids}): delete one of them in the OCI Console"));
            }
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let mut warnings = Vec::new();
        let other_key = entries.iter().filter(|e| ask.ledger.rows.contains_key(&e.key) && Facts::of(e).key_id.is_some_and(|k| k != self.key)).count();
        if other_key > 0 {
            warnings.push(format!(
                "{other_key} existing secrets keep another encryption key than the configured one: OCI sets a secret's key once, when it is created"
            ));
        }
        Ok(Inventory { entries, warnings })
    }

    fn freshness(&self, entry: &Entry, row: &LedgerRow) -> Freshness {
        // Today's list tells no version: with one, reading was refused and the version told instead.
        if let Some(now) = &entry.stamp {
            return match &row.stamp {
                Some(then) if same_version(now, then) => Freshness::Same,
                Some(then) => {
                    let number = |stamp: &str| version_of(stamp).map_or("?".to_string(), |v| v.to_string());
                    Freshness::Changed(format!("was edited outside: version {} where {} was written", number(now), number(then)))
                }
                None => Freshness::Unknown,
            };
        }
        let facts = Facts::of(entry);
        let same = row.remote_id == entry.id && row.stamp.as_deref().and_then(mark_of) == Some(&facts.mark);
        if facts.trusting && same { Freshness::Unseen } else { Freshness::Unknown }
    }

    async fn read(&self, cx: &Cx, entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)> {
        let work: Vec<_> = entries.iter().map(|entry| self.read_named(cx, entry)).collect();
        let results: Vec<(String, Result<Read, ApiError>)> = futures::stream::iter(work).buffer_unordered(READERS).collect().await;
        let stamp = |read: &'_ Result<Read, ApiError>| read.as_ref().ok().filter(|r| r.problem.is_none()).and_then(|r| r.stamp.clone());
        let stamps: Vec<(&str, Option<Stamp>)> = results.iter().map(|(key, read)| (key.as_str(), stamp(read))).collect();
        self.proved.read(stamps.iter().map(|(key, stamp)| (*key, stamp.as_ref())), Time::now());
        results
    }

    fn shape(&self) -> Shape<'_> {
        Shape::Itemised(self)
    }

    fn warnings(&self) -> Vec<String> {
        let blind = self.blind();
        let of = |which: Blind| blind.iter().filter(|(_, why)| **why == which).map(|(key, _)| key.as_str()).collect::<Vec<_>>();
        let mut out = Vec::new();
        let expired = of(Blind::Expired);
        if !expired.is_empty() {
            out.push(format!(
                "{} expired, and a rule blocks reading until there is a new value: change it in the source, or the rule in the OCI Console.",
                crate::model::text::names(&expired, 5)
            ));
        }
        let hidden = of(Blind::Policy);
        if !hidden.is_empty() {
            out.push(format!(
                "{} could not be read, because the policy lacks {}: by its version each is known to be as written, or not.",
                if hidden.len() == 1 { "1 value".to_string() } else { format!("{} values", hidden.len()) },
                calls::GET_BUNDLE.right
            ));
        }
        out.extend(self.unproved());
        out
    }

    fn unproved(&self) -> Option<String> {
        self.proved.told()
    }
}
