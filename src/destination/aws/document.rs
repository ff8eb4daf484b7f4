//! Many-to-one: all keys are members of one JSON object in one secret, written as a whole.
//!
//! One DescribeSecret tells whether anything changed: the version id stamps the whole object.
//! The keys that the object of a version holds are remembered (names only), so that neither an
//! unchanged run nor the write of a changed value has to read it again. Members that are not
//! this sync's stay in the object, to the letter, unless the plan removes them.
//!
//! AWS has no conditional write: between our reading and our writing another writer's change
//! can be lost. The time between is kept short, and the next run sees by the stamp who won.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::Instant;

use super::apply::counted;
use super::call::Api;
use super::config::Config;
use super::items::{Detail, ROTATED, key_differs, untouchable};
use super::names::ObjectMembers;
use super::object::{Member, Members, overflow, parse, render, same};
use super::ops::{Content, Listed, Removal, overtaken};
use super::session::Shared;
use super::spec::SERVICE;
use super::tags::TagDelta;
use crate::destination::{
    Batch, BatchWritten, Desired, Destination, Document, Entry, EntryState, Inventory, KeySpace, Listing, Op, Read, Shape, Written,
};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::ledger::{Ledger, LedgerRow};
use crate::model::plan::Action;

/// A description younger than this is good enough to write on.
const FRESH: Duration = Duration::from_secs(10);
/// Pauses while the name is still blocked after a deletion without recovery.
const NAME_PAUSES: &[u64] = &[2, 4, 8, 16, 30, 30, 30];
/// Pauses while a restored secret still refuses calls.
const RESTORE_PAUSES: &[u64] = &[1, 2, 4, 8, 15];

/// Why a member of the object is not ours to overwrite.
const NO_TEXT: &str = "its value in the JSON object is not a text";

/// One sync's target in many-to-one mapping.
pub struct Object {
    api: Arc<Api>,
    shared: Arc<Shared>,
    config: Config,
    name: String,
    identity: String,
    seen: Mutex<Option<Seen>>,
}

/// The secret as the last description told, and the keys of its object when they are known.
#[derive(Clone)]
struct Seen {
    listed: Option<Listed>,
    keys: Option<BTreeSet<String>>,
    at: Instant,
}

impl Object {
    pub fn new(api: Arc<Api>, shared: Arc<Shared>, config: Config, name: String, identity: String) -> Self {
        Self { api, shared, config, name, identity, seen: Mutex::default() }
    }

    fn conflict(&self, why: &str) -> ApiError {
        ApiError::new(ErrorKind::Conflict, SERVICE, format!("the secret {} {why}", self.name))
    }

    fn see(&self, listed: Option<Listed>, keys: Option<BTreeSet<String>>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { listed, keys, at: Instant::now() });
    }

    async fn describe(&self, cx: &Cx) -> Result<Option<Listed>, ApiError> {
        let listed = self.api.describe(cx, &self.name, &self.name).await?;
        if let Some(there) = &listed {
            if let Some(why) = untouchable(there, &self.config.region) {
                return Err(self.conflict(&format!("cannot be used: {why}")));
            }
            if there.rotated {
                return Err(self.conflict(&format!("cannot be used: {ROTATED}")));
            }
        }
        Ok(listed)
    }

    /// Keys of the object in this version, when they were remembered, and those of them whose
    /// values are no texts.
    fn remembered(&self, version: &str) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
        let fact = self.shared.recall(&format!("members|{}", self.name))?;
        if fact.get("version")?.as_str()? != version {
            return None;
        }
        let keys = |member: &str| serde_json::from_value(fact.get(member)?.clone()).ok();
        Some((keys("keys")?, keys("others")?))
    }

    fn remember(&self, version: &str, members: &Members) {
        let keys: Vec<&String> = members.keys().collect();
        let others: Vec<&String> = members.iter().filter(|(_, m)| matches!(m, Member::Other(_))).map(|(k, _)| k).collect();
        self.shared.remember(&format!("members|{}", self.name), json!({ "version": version, "keys": keys, "others": others }));
    }

    /// What this sync knows of the secret itself (tags it set, its key, who made it).
    fn detail(&self) -> Detail {
        self.shared.recall(&format!("detail|{}", self.name)).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default()
    }

    async fn members(&self, cx: &Cx, arn: &str) -> Result<(Members, String), ApiError> {
        let mut pauses = RESTORE_PAUSES.iter();
        let got = loop {
            match self.api.get(cx, arn, &self.name).await {
                Err(e) if e.code.as_deref() == Some("InvalidRequestException") => match pauses.next() {
                    Some(seconds) => {
                        cx.wait(&format!("{}: AWS has not finished restoring the secret", self.name), Duration::from_secs(*seconds)).await?;
                    }
                    None => return Err(e),
                },
                other => break other?,
            }
        };
        let advice = "It is left as it is: choose another Secret Name, or delete that secret.";
        match got.value {
            Content::Text(text) => {
                cx.redactor().learn(&text);
                let members = parse(text.expose()).map_err(|why| self.conflict(&format!("cannot be used: its value {why}")).advice(advice))?;
                self.remember(&got.version, &members);
                Ok((members, got.version))
            }
            Content::Binary => Err(self.conflict("cannot be used: its value is binary").advice(advice)),
            Content::Nothing => Ok((Members::new(), got.version)),
        }
    }

    fn entry(&self, key: &str, listed: &Listed, state: EntryState, lead: bool) -> Entry {
        Entry {
            key: key.to_string(),
            id: Some(listed.arn.clone()),
            stamp: listed.current.clone(),
            state,
            value: None,
            // Tags and key belong to the whole: one entry speaks for them.
            facts: if lead { json!({ "lead": true, "tags": listed.tags, "key": listed.key }) } else { serde_json::Value::Null },
            note: listed.changed.map(|t| format!("in {}, changed {}", self.name, t.strftime("%Y-%m-%d"))),
        }
    }

    fn key_differs(&self, shown: Option<&str>, detail: &Detail) -> bool {
        let (Some(key), Some(text)) = (&self.config.key, &self.config.key_text) else { return false };
        key_differs(&self.shared, key, text, shown, detail)
    }

    fn tag_delta(&self, listed: &Listed, detail: &Detail) -> TagDelta {
        TagDelta::new(&listed.tags, &self.config.tags, &detail.tags)
    }
}

/// True when every row of the sync carries this version.
fn all_at(ledger: &Ledger, version: &str) -> bool {
    !ledger.rows.is_empty() && ledger.rows.values().all(|r| r.stamp.as_deref() == Some(version))
}

#[async_trait]
impl Destination for Object {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn keys(&self) -> &dyn KeySpace {
        &ObjectMembers
    }

    async fn list(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        let mut warnings: Vec<String> = self.api.clock_warning().into_iter().collect();
        let listed = self.describe(cx).await?;
        let Some(there) = listed.clone() else {
            self.see(None, None);
            return Ok(Inventory { entries: Vec::new(), warnings });
        };
        if there.deleted {
            self.see(listed, None);
            warnings.push(format!("the secret {} is scheduled for deletion: a run restores it", self.name));
            let rows = ask.ledger.rows.values();
            let entries = rows.map(|r| self.entry(&r.key, &there, EntryState::Deleted { until: None }, false)).collect();
            return Ok(Inventory { entries, warnings });
        }
        let Some(version) = there.current.clone() else {
            self.see(listed, Some(BTreeSet::new()));
            return Ok(Inventory { entries: Vec::new(), warnings });
        };
        if !ask.full && all_at(ask.ledger, &version) {
            let known = self.remembered(&version);
            let by_ledger = || (ask.ledger.rows.values().map(|r| r.key.clone()).collect(), BTreeSet::new());
            let (keys, others) = known.clone().unwrap_or_else(by_ledger);
            let state = |k: &String| if others.contains(k) { EntryState::Blocked(NO_TEXT.into()) } else { EntryState::Active };
            let entries = keys.iter().enumerate().map(|(i, k)| self.entry(k, &there, state(k), i == 0)).collect();
            self.see(listed, known.map(|(keys, _)| keys));
            return Ok(Inventory { entries, warnings });
        }
        let (members, read_version) = self.members(cx, &there.arn).await?;
        let there = Listed { current: Some(read_version), ..there };
        let entries = members
            .iter()
            .enumerate()
            .map(|(i, (key, member))| {
                let (state, value) = match member {
                    Member::Text(value) => (EntryState::Active, Some(value.clone())),
                    Member::Other(_) => (EntryState::Blocked(NO_TEXT.into()), None),
                };
                Entry { value, ..self.entry(key, &there, state, i == 0) }
            })
            .collect();
        self.see(Some(there), Some(members.keys().cloned().collect()));
        Ok(Inventory { entries, warnings })
    }

    fn differs(&self, entry: &Entry, _desired: &Desired, _row: Option<&LedgerRow>) -> Option<String> {
        entry.facts.get("lead")?;
        let detail = self.detail();
        let shown = entry.facts.get("key").and_then(serde_json::Value::as_str);
        if self.key_differs(shown, &detail) {
            return Some(format!("the KMS key of {} differs ({})", self.name, shown.unwrap_or("the default key")));
        }
        let tags = entry.facts.get("tags").and_then(|t| serde_json::from_value(t.clone()).ok()).unwrap_or_default();
        let delta = TagDelta::new(&tags, &self.config.tags, &detail.tags);
        (!delta.is_empty()).then(|| format!("{}: {}", self.name, delta.reason()))
    }

    async fn read(&self, cx: &Cx, entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)> {
        let result = self.members(cx, &self.name).await;
        entries
            .iter()
            .map(|e| {
                let read = match &result {
                    Err(error) => Err(error.clone()),
                    Ok((members, version)) => match members.get(&e.key) {
                        Some(Member::Text(value)) => Ok(Read { value: Some(value.clone()), stamp: Some(version.clone()), problem: None }),
                        Some(Member::Other(_)) => Ok(Read { value: None, stamp: Some(version.clone()), problem: Some(NO_TEXT.into()) }),
                        None => Err(ApiError::new(ErrorKind::NotFound, SERVICE, format!("{}: the key is no longer in the secret", e.key))),
                    },
                };
                (e.key.clone(), read)
            })
            .collect()
    }

    fn shape(&self) -> Shape<'_> {
        Shape::Document(self)
    }

    fn warnings(&self) -> Vec<String> {
        self.config.deletion_warning().into_iter().collect()
    }
}

#[async_trait]
impl Document for Object {
    async fn apply(&self, cx: &Cx, batch: &Batch<'_>) -> Result<BatchWritten, ApiError> {
        let Some(first) = batch.changes.first() else { return Ok(BatchWritten::default()) };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = match seen.filter(|s| s.at.elapsed() < FRESH) {
            Some(seen) => seen,
            None => Seen { listed: self.describe(cx).await?, keys: None, at: Instant::now() },
        };
        let mut detail = self.detail();
        let result = match seen.listed {
            None => self.create(cx, batch, first, &mut detail).await?,
            Some(there) => self.change(cx, batch, first, there, seen.keys, &mut detail).await?,
        };
        self.shared.remember(&format!("detail|{}", self.name), detail.json());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(outcomes(batch, result, &detail))
    }
}

/// What became of the object.
struct Done {
    arn: String,
    version: Option<String>,
    untouched: bool,
    note: Option<String>,
}

fn outcomes(batch: &Batch<'_>, done: Done, detail: &Detail) -> BatchWritten {
    let written = Written {
        id: Some(done.arn.clone()),
        stamp: done.version.clone(),
        detail: detail.json(),
        instead: None,
        untouched: done.untouched,
        note: done.note,
    };
    BatchWritten {
        outcomes: batch.changes.iter().map(|op| (op.key.to_string(), Ok(written.clone()))).collect(),
        stamp: done.version,
        id: Some(done.arn),
    }
}

impl Object {
    async fn create(&self, cx: &Cx, batch: &Batch<'_>, first: &Op<'_>, detail: &mut Detail) -> Result<Done, ApiError> {
        let members = wanted(Members::new(), batch);
        if members.is_empty() {
            return Ok(Done { arn: self.name.clone(), version: None, untouched: true, note: Some("the secret was gone already".into()) });
        }
        let text = self.fitting(&members)?;
        let mut pauses = NAME_PAUSES.iter();
        let (arn, version) = loop {
            let error = match self.api.create(cx, &self.name, first.token, &text, self.config.key_for_create(), &self.config.tags).await {
                Ok(made) => break made,
                Err(e) if e.kind == ErrorKind::Conflict => e,
                Err(e) => return Err(e),
            };
            match self.describe(cx).await? {
                Some(there) if there.current.as_deref() == Some(first.token) => break (there.arn, first.token.to_string()),
                Some(there) if there.deleted => return self.change(cx, batch, first, there, None, detail).await,
                // Made by somebody else since the description: the next run reads and plans it.
                Some(_) => return Err(error),
                None => match pauses.next() {
                    Some(seconds) => {
                        cx.wait(&format!("{}: AWS still blocks the name of the deleted secret", self.name), Duration::from_secs(*seconds)).await?;
                    }
                    None => return Err(error.advice("The name stays blocked after a deletion: run again in a few minutes.")),
                },
            }
        };
        self.remember(&version, &members);
        *detail = Detail {
            created: true,
            tags: self.config.tags.keys().cloned().collect(),
            key: self.config.key_text.clone(),
            writes: counted(&Detail::default()).unwrap_or_default(),
            ..Detail::default()
        };
        Ok(Done { arn, version: Some(version), untouched: false, note: None })
    }

    async fn change(
        &self,
        cx: &Cx,
        batch: &Batch<'_>,
        first: &Op<'_>,
        there: Listed,
        keys: Option<BTreeSet<String>>,
        detail: &mut Detail,
    ) -> Result<Done, ApiError> {
        let only_deletes = batch.changes.iter().all(|op| op.action == Action::Delete);
        if there.deleted {
            if only_deletes && batch.desired.is_empty() {
                return Ok(Done { arn: there.arn, version: None, untouched: true, note: Some("its deletion was scheduled already".into()) });
            }
            let ours = !batch.ledger.rows.is_empty() || self.shared.deleted_recently(&there.arn) || batch.changes.iter().any(|op| op.approved);
            if !ours {
                return Err(self
                    .conflict("is scheduled for deletion, and this sync never wrote it")
                    .advice("Restore it by hand, or choose another Secret Name."));
            }
            self.restore(cx, &there.arn).await?;
        }
        let base = self.base(cx, batch, &there, keys).await?;
        let members = wanted(base.clone().unwrap_or_default(), batch);
        let key_differs = self.key_differs(there.key.as_deref(), detail);
        let mut done = Done { arn: there.arn.clone(), version: there.current.clone(), untouched: true, note: None };
        if members.is_empty() && only_deletes && detail.created {
            // Nothing is left in a secret that this sync made: it goes, with its recovery window.
            return self.remove(cx, there).await;
        }
        if base.as_ref().is_none_or(|b| !same(b, &members)) {
            let text = self.fitting(&members)?;
            detail.writes = counted(detail).ok_or_else(|| {
                ApiError::new(ErrorKind::Quota, SERVICE, format!("{}: written too often within a day for AWS's limit on versions", self.name))
                    .advice("Two programs probably write this secret in turn: leave it to one of them.")
            })?;
            let version = self.write(cx, &there, first.token, &text, key_differs).await?;
            self.remember(&version, &members);
            done.version = Some(version);
            done.untouched = false;
        } else if key_differs && let Some(key) = self.config.key_for_update() {
            self.api.update(cx, &there.arn, &self.name, key, None).await?;
            done.untouched = false;
        }
        if key_differs {
            let again = detail.key == self.config.key_text;
            detail.key_shown = again.then(|| there.key.clone().unwrap_or_default());
            detail.key = self.config.key_text.clone();
        }
        self.write_tags(cx, &there, detail, &mut done).await?;
        Ok(done)
    }

    async fn restore(&self, cx: &Cx, arn: &str) -> Result<(), ApiError> {
        self.api.restore(cx, arn, &self.name).await?;
        self.shared.forget_deleted(arn);
        Ok(())
    }

    /// The object to change; `None` when every member of it is known to be replaced or removed,
    /// so that it need not be read.
    async fn base(&self, cx: &Cx, batch: &Batch<'_>, there: &Listed, keys: Option<BTreeSet<String>>) -> Result<Option<Members>, ApiError> {
        if !there.deleted && there.current.is_none() {
            return Ok(Some(Members::new()));
        }
        let value_differs = batch.changes.iter().any(|op| op.value_differs || op.action != Action::Update);
        let covered =
            |k: &String| batch.desired.iter().any(|d| d.key == *k) || batch.changes.iter().any(|op| op.action == Action::Delete && op.key == k);
        if let Some(keys) = keys.filter(|_| !there.deleted && batch.frozen.is_empty() && value_differs)
            && keys.iter().all(covered)
            && !batch.desired.is_empty()
        {
            return Ok(None);
        }
        Ok(Some(self.members(cx, &there.arn).await?.0))
    }

    fn fitting(&self, members: &Members) -> Result<crate::model::SecretValue, ApiError> {
        let text = render(members);
        match overflow(members, &text) {
            None => Ok(text),
            Some(why) => Err(ApiError::new(ErrorKind::Invalid, SERVICE, format!("{}: {why}", self.name))
                .advice("Nothing was written. Shorten values, or use one-to-one mapping.")),
        }
    }

    async fn write(&self, cx: &Cx, there: &Listed, token: &str, text: &crate::model::SecretValue, with_key: bool) -> Result<String, ApiError> {
        match self.config.key_for_update().filter(|_| with_key) {
            None => self.api.put(cx, &there.arn, &self.name, token, text).await,
            Some(key) => match self.api.update(cx, &there.arn, &self.name, key, Some((token, text))).await {
                Ok(version) => Ok(version.unwrap_or_else(|| token.to_string())),
                Err(e) if e.code.as_deref() == Some("ResourceExistsException") => match self.describe(cx).await? {
                    Some(now) if now.current.as_deref() == Some(token) => Ok(token.to_string()),
                    _ => Err(overtaken(&self.name)),
                },
                Err(e) => Err(e),
            },
        }
    }

    async fn write_tags(&self, cx: &Cx, there: &Listed, detail: &mut Detail, done: &mut Done) -> Result<(), ApiError> {
        let delta = self.tag_delta(there, detail);
        if delta.is_empty() {
            return Ok(());
        }
        let remove: Vec<String> = delta.remove.iter().cloned().collect();
        let result = async {
            if !remove.is_empty() && delta.remove_first(&there.tags) {
                self.api.untag(cx, &there.arn, &self.name, &remove).await?;
            }
            if !delta.set.is_empty() {
                self.api.tag(cx, &there.arn, &self.name, &delta.set).await?;
            }
            if !remove.is_empty() && !delta.remove_first(&there.tags) {
                self.api.untag(cx, &there.arn, &self.name, &remove).await?;
            }
            Ok(())
        };
        match result.await {
            Ok(()) => {
                detail.tags.retain(|k| !delta.remove.contains(k));
                detail.tags.extend(delta.set.into_keys());
                done.untouched = false;
                Ok(())
            }
            // The value stands and must be remembered; the next run reports the tags alone.
            Err(e @ ApiError { .. }) if !done.untouched && e.kind != ErrorKind::Cancelled => {
                done.note = Some(format!("the value was written, the secret's tags were not: {e}"));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    async fn remove(&self, cx: &Cx, there: Listed) -> Result<Done, ApiError> {
        let removal = if self.config.force_delete { Removal::Force } else { Removal::Window(self.config.recovery_window) };
        let until = match self.api.delete(cx, &there.arn, &self.name, removal).await {
            Ok(until) => until,
            Err(e) if e.kind == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        self.shared.note_deleted(&there.arn);
        let note = match (removal, until) {
            (Removal::Window(_), Some(until)) => format!("the secret {} can be restored until {}", self.name, until.strftime("%Y-%m-%d")),
            _ => format!("the secret {} was deleted", self.name),
        };
        Ok(Done { arn: there.arn, version: None, untouched: false, note: Some(note) })
    }
}

/// The object as the batch wants it: removals out, the source's values in, all else as it was.
fn wanted(mut members: Members, batch: &Batch<'_>) -> Members {
    for op in &batch.changes {
        if op.action == Action::Delete {
            members.remove(op.key);
        }
    }
    for desired in batch.desired {
        if batch.frozen.contains(&desired.fold) {
            continue;
        }
        members.insert(desired.key.clone(), Member::Text(desired.value.clone()));
    }
    members
}
