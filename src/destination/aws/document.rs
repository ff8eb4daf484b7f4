//! Many-to-one: all keys are members of one JSON object in one secret, written as a whole.
//!
//! One DescribeSecret tells whether anything changed: the version id stamps the whole object.
//! The keys that the object of a version holds are remembered (names only), so that neither an
//! unchanged run nor the write of a changed value has to read it again. Members that are not
//! this sync's stay in the object, to the letter, unless the plan removes them.
//!
//! AWS has no conditional write: between our reading and our writing another writer's change
//! can be lost. Nothing is waited for in between, a write that was refused for the moment is
//! built anew on what is there after the wait, and the next run sees by the stamp who won.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;
use tokio::time::Instant;

use super::call::Api;
use super::config::Config;
use super::facts::{Detail, ROTATED, key_differs, untouchable};
use super::names::ObjectMembers;
use super::object::{Member, Members, parse};
use super::ops::{Content, Listed};
use super::pauses::settled;
use super::shared::Shared;
use super::spec::SERVICE;
use super::tags::TagDelta;
use crate::destination::{Desired, Destination, Entry, EntryState, Inventory, KeySpace, Listing, Read, Shape};
use crate::http::{ApiError, Cx, ErrorKind};
use crate::model::ledger::{Ledger, LedgerRow};

/// Why a member of the object is not ours to overwrite.
const NO_TEXT: &str = "its value in the JSON object is not a text";

/// One sync's target in many-to-one mapping.
pub struct Object {
    pub(super) api: Arc<Api>,
    pub(super) shared: Arc<Shared>,
    pub(super) config: Config,
    pub(super) name: String,
    identity: String,
    pub(super) seen: Mutex<Option<Seen>>,
    /// The secret is scheduled for deletion, and this sync never wrote it.
    strange: AtomicBool,
}

/// The secret as the last description told, and the keys of its object when they are known.
#[derive(Clone)]
pub(super) struct Seen {
    pub listed: Option<Listed>,
    pub keys: Option<BTreeSet<String>>,
    pub at: Instant,
}

impl Object {
    pub fn new(api: Arc<Api>, shared: Arc<Shared>, config: Config, name: String, identity: String) -> Self {
        Self { api, shared, config, name, identity, seen: Mutex::default(), strange: AtomicBool::new(false) }
    }

    pub(super) fn conflict(&self, why: &str) -> ApiError {
        ApiError::new(ErrorKind::Conflict, SERVICE, format!("the secret {} {why}", self.name))
    }

    fn see(&self, listed: Option<Listed>, keys: Option<BTreeSet<String>>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { listed, keys, at: Instant::now() });
    }

    pub(super) async fn describe(&self, cx: &Cx) -> Result<Option<Listed>, ApiError> {
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

    pub(super) fn remember(&self, version: &str, members: &Members) {
        let keys: Vec<&String> = members.keys().collect();
        let others: Vec<&String> = members.iter().filter(|(_, m)| matches!(m, Member::Other(_))).map(|(k, _)| k).collect();
        self.shared.remember(&format!("members|{}", self.name), json!({ "version": version, "keys": keys, "others": others }));
    }

    /// What this sync knows of the secret itself (tags it set, its key, who made it).
    pub(super) fn detail(&self) -> Detail {
        self.shared.recall(&format!("detail|{}", self.name)).and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default()
    }

    pub(super) async fn members(&self, cx: &Cx, arn: &str) -> Result<(Members, String), ApiError> {
        let got = settled(cx, &self.name, || self.api.get(cx, arn, &self.name)).await?;
        let advice = "It is left as it is: choose another Secret Name, or delete that secret.";
        match got.value {
            Content::Text(text) => {
                cx.redactor().learn(&text);
                let members = parse(text.expose()).map_err(|why| self.conflict(&format!("cannot be used: its value {why}")).advice(advice))?;
                self.remember(&got.version, &members);
                Ok((members, got.version))
            }
            Content::Binary => Err(self.conflict("cannot be used: its value is binary").advice(advice)),
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

    pub(super) fn key_differs(&self, shown: Option<&str>, detail: &Detail) -> bool {
        let (Some(key), Some(text)) = (&self.config.key, &self.config.key_text) else { return false };
        key_differs(&self.shared, key, text, shown, detail)
    }

    pub(super) fn tag_delta(&self, listed: &Listed, detail: &Detail) -> TagDelta {
        TagDelta::new(&listed.tags, &self.config.tags, &detail.tags)
    }
}

/// Rows of keys that this sync put into the object, or was about to; the others only remember
/// deletions.
fn standing(ledger: &Ledger) -> impl Iterator<Item = &LedgerRow> {
    ledger.rows.values().filter(|r| r.stands())
}

/// True when every key of the sync was written with, or confirmed in, this version.
fn all_at(ledger: &Ledger, version: &str) -> bool {
    let mut rows = standing(ledger).peekable();
    rows.peek().is_some() && rows.all(|r| r.stamp.as_deref() == Some(version))
}

#[async_trait]
impl Destination for Object {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn writers(&self) -> String {
        super::account::without_own_endpoint(&self.identity)
    }

    fn keys(&self) -> &dyn KeySpace {
        &ObjectMembers
    }

    async fn list(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        let mut warnings: Vec<String> = self.api.clock_warning().into_iter().collect();
        let listed = self.describe(cx).await?;
        self.shared.answered();
        let Some(there) = listed.clone() else {
            self.see(None, None);
            return Ok(Inventory { entries: Vec::new(), warnings });
        };
        if there.deleted {
            self.see(listed, None);
            let strange = ask.ledger.rows.is_empty() && !self.shared.deleted_recently(&there.arn);
            self.strange.store(strange, Ordering::Relaxed);
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
            let by_ledger = || (standing(ask.ledger).map(|r| r.key.clone()).collect(), BTreeSet::new());
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

    /// Every key asks while the secret is one that somebody else scheduled for deletion: the
    /// first of them would restore it.
    async fn hidden(&self, _cx: &Cx, missing: &[&str]) -> Result<Inventory, ApiError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(there) = seen.and_then(|s| s.listed).filter(|l| l.deleted && self.strange.load(Ordering::Relaxed)) else {
            return Ok(Inventory::default());
        };
        let entries = missing.iter().map(|key| self.entry(key, &there, EntryState::Deleted { until: None }, false)).collect();
        Ok(Inventory { entries, warnings: Vec::new() })
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
