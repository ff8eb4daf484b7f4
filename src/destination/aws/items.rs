//! One-to-one: every key is a secret of its own. Listing, comparing and reading; the writes
//! are in [`super::apply`].
//!
//! The listing of AWS lags behind writes by up to five minutes. Where it shows exactly the
//! state before a write of ours of the last ten minutes, one DescribeSecret (which is recent)
//! decides; so an unchanged sync costs its list pages and nothing else, and an outside edit
//! is believed even moments after our own write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;

use super::call::Api;
use super::config::Config;
use super::facts::{Detail, Facts, ROTATED, is_recent, key_differs, read, untouchable};
use super::keyid::{KeyMatch, KeyRef};
use super::names::SecretNames;
use super::ops::{BATCH_MAX, Got, Listed};
use super::shared::Shared;
use super::stops::Stops;
use super::tags::{TagDelta, Tags, Wanted};
use crate::destination::{Desired, Destination, Entry, EntryState, Freshness, Inventory, KeySpace, Listing, Missing, Read, Shape};
use crate::http::{ApiError, Cx, ErrorKind, Pages};
use crate::model::ledger::{Ledger, LedgerRow};

/// Confirming and reading calls in flight.
const PARALLEL: usize = 16;

/// One sync's target in one-to-one mapping.
pub struct Items {
    pub(super) api: Arc<Api>,
    pub(super) shared: Arc<Shared>,
    pub(super) config: Config,
    pub(super) stops: Stops,
    identity: String,
    /// Folds of missing keys that could neither be confirmed nor denied (no right to describe).
    unconfirmed: Mutex<HashSet<String>>,
    /// BatchGetSecretValue was denied: values are read one by one from now on.
    batch_denied: AtomicBool,
}

impl Items {
    pub fn new(api: Arc<Api>, shared: Arc<Shared>, config: Config, identity: String) -> Self {
        Self { api, shared, config, stops: Stops::default(), identity, unconfirmed: Mutex::default(), batch_denied: AtomicBool::new(false) }
    }

    async fn pages(&self, cx: &Cx, prefix: &str) -> Result<Vec<Listed>, ApiError> {
        let mut restarted = false;
        'listing: loop {
            let mut by_arn: HashMap<String, Listed> = HashMap::new();
            let mut next: Option<String> = None;
            let mut pages = Pages::of(super::spec::SERVICE, "ListSecrets: the list");
            loop {
                let page = match self.api.list_page(cx, prefix, next.as_deref(), None).await {
                    Ok(page) => page,
                    // The token went stale: begin again, once.
                    Err(e) if e.code.as_deref() == Some("InvalidNextTokenException") && !restarted => {
                        restarted = true;
                        continue 'listing;
                    }
                    Err(e) => return Err(e),
                };
                let arns: Vec<String> = page.secrets.iter().map(|s| s.arn.clone()).collect();
                for secret in page.secrets.into_iter().filter(|s| s.name.starts_with(prefix)) {
                    // A secret that moves between pages while they are read appears twice: the last wins.
                    by_arn.insert(secret.arn.clone(), secret);
                }
                let Some(token) = page.next.filter(|t| !t.is_empty()) else { break 'listing Ok(one_per_name(by_arn)) };
                pages.turn(&token, arns)?;
                next = Some(token);
            }
        }
    }

    /// Replaces what the listing may show too late by what DescribeSecret says now.
    async fn confirm(&self, cx: &Cx, secrets: &mut BTreeMap<String, (Listed, bool)>, ask: &Listing<'_>) -> Result<(), ApiError> {
        let suspects = self.suspects(secrets, ask);
        let answers: Vec<_> = futures::stream::iter(suspects)
            .map(|(name, arn)| async move {
                let answer = self.api.describe(cx, &arn, &name).await;
                (name, answer)
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        for (name, answer) in answers {
            match answer {
                Ok(Some(now)) => {
                    secrets.insert(name, (now, false));
                }
                Ok(None) => {
                    secrets.remove(&name);
                }
                Err(e) if e.kind == ErrorKind::Permission => match secrets.get_mut(&name) {
                    Some((_, lagging)) => *lagging = true,
                    None => {
                        self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner).insert(SecretNames.fold(&name));
                    }
                },
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Names and ARNs whose listed (or missing) state equals the one before our own recent write.
    fn suspects(&self, secrets: &BTreeMap<String, (Listed, bool)>, ask: &Listing<'_>) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for row in ask.ledger.rows.values().filter(|r| is_recent(r) && r.key.starts_with(ask.prefix)) {
            let Some(arn) = &row.remote_id else { continue };
            // A key that this sync deleted is listed as deleted, or not at all.
            let buried = row.value_hash.is_none() && row.intent.is_none();
            let stale = match secrets.get(&row.key) {
                None => !buried,
                Some((listed, _)) if listed.arn != *arn => false,
                Some((listed, _)) if buried => !listed.deleted,
                Some((listed, _)) if listed.deleted => listed.current == row.stamp,
                Some((listed, _)) => listed.current != row.stamp && listed.current == row.previous_stamp,
            };
            if stale {
                out.push((row.key.clone(), arn.clone()));
            }
        }
        for (name, (listed, _)) in secrets.iter().filter(|(_, (l, _))| !l.deleted) {
            if self.shared.deleted_recently(&listed.arn) && !out.iter().any(|(n, _)| n == name) {
                out.push((name.clone(), listed.arn.clone()));
            }
        }
        out
    }

    fn entry(&self, listed: Listed, lagging: bool) -> Entry {
        let state = self.state(&listed);
        let facts = Facts { tags: listed.tags, key: listed.key, lagging };
        Entry {
            key: listed.name,
            id: Some(listed.arn),
            stamp: listed.current,
            state,
            value: None,
            facts: serde_json::to_value(facts).unwrap_or_default(),
            note: listed.changed.map(|t| {
                let replicated = listed.primary_region.is_some();
                format!(
                    "changed {}{}",
                    t.strftime("%Y-%m-%d"),
                    if replicated { ", replicated (AWS refuses to delete it until its replicas are removed)" } else { "" }
                )
            }),
        }
    }

    fn state(&self, listed: &Listed) -> EntryState {
        if let Some(why) = untouchable(listed, &self.config.region) {
            return EntryState::Protected(why);
        }
        if listed.deleted {
            // The list's date is documented as the moment of the call, Describe's as the end of
            // the window: neither is shown as a fact.
            return EntryState::Deleted { until: None };
        }
        if listed.rotated {
            return EntryState::Blocked(ROTATED.into());
        }
        if listed.current.is_none() { EntryState::Empty } else { EntryState::Active }
    }

    /// The tags wanted beside what the secret carries.
    pub(super) fn wanted(&self, desired: &Desired, present: &Tags, detail: &Detail) -> Wanted {
        let metadata = self.config.metadata_as_tags.then_some(desired.metadata.as_slice());
        let is_metadata = |k: &String| metadata.is_some_and(|m| m.iter().any(|(name, _)| name == k));
        let foreign = present.keys().filter(|k| !self.config.tags.contains_key(*k) && !is_metadata(k) && !detail.tags.contains(*k)).count();
        Wanted::new(&self.config.tags, metadata, foreign)
    }

    /// The tag difference of an existing secret.
    pub(super) fn tag_delta(&self, desired: &Desired, present: &Tags, detail: &Detail) -> (Wanted, TagDelta) {
        let wanted = self.wanted(desired, present, detail);
        let delta = TagDelta::new(present, &wanted.tags, &detail.tags);
        (wanted, delta)
    }

    /// True when the secret's key must be changed to the configured one.
    pub(super) fn key_differs(&self, shown: Option<&str>, detail: &Detail) -> bool {
        let (Some(key), Some(text)) = (&self.config.key, &self.config.key_text) else { return false };
        key_differs(&self.shared, key, text, shown, detail)
    }
}

/// One secret per name: a living one before one that is scheduled for deletion, the younger first.
fn one_per_name(by_arn: HashMap<String, Listed>) -> Vec<Listed> {
    let mut by_name: HashMap<String, Listed> = HashMap::new();
    for secret in by_arn.into_values() {
        match by_name.get(&secret.name) {
            Some(old) if (old.deleted, std::cmp::Reverse(old.created)) <= (secret.deleted, std::cmp::Reverse(secret.created)) => {}
            _ => {
                by_name.insert(secret.name.clone(), secret);
            }
        }
    }
    by_name.into_values().collect()
}

#[async_trait]
impl Destination for Items {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn writers(&self) -> String {
        super::account::without_own_endpoint(&self.identity)
    }

    fn keys(&self) -> &dyn KeySpace {
        &SecretNames
    }

    async fn list(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        let pages = self.pages(cx, ask.prefix).await?;
        self.shared.answered();
        let mut secrets: BTreeMap<String, (Listed, bool)> = pages.into_iter().map(|s| (s.name.clone(), (s, false))).collect();
        self.confirm(cx, &mut secrets, ask).await?;
        self.shared.keep_met(|name| !secrets.contains_key(name));
        self.learn_key_form(&secrets, ask.ledger);
        let warnings = self.api.clock_warning().into_iter().chain(self.key_warning(&secrets, ask.ledger)).collect();
        let entries = secrets.into_values().map(|(listed, lagging)| self.entry(listed, lagging)).collect();
        Ok(Inventory { entries, warnings })
    }

    /// The listing lags: what a creation of an earlier run met is asked about by name, so that
    /// the plan shows it before it is restored or overwritten.
    async fn hidden(&self, cx: &Cx, missing: &[&str]) -> Result<Inventory, ApiError> {
        let mut inventory = Inventory::default();
        for name in self.shared.met().iter().filter(|n| missing.contains(&n.as_str())) {
            match self.api.describe(cx, name, name).await {
                Ok(Some(there)) => inventory.entries.push(self.entry(there, false)),
                Ok(None) => self.shared.keep_met(|n| n != name),
                // Its creation will meet it again.
                Err(e) if e.kind == ErrorKind::Permission => {}
                Err(e) => return Err(e),
            }
        }
        Ok(inventory)
    }

    fn freshness(&self, entry: &Entry, row: &LedgerRow) -> Freshness {
        if Facts::of(Some(entry)).lagging {
            return Freshness::Unseen;
        }
        // The version id of a value never changes, so an equal id proves an equal value; a new
        // ARN suffix is another secret under the same name.
        if entry.stamp.is_some() && entry.stamp == row.stamp && entry.id == row.remote_id { Freshness::Same } else { Freshness::Unknown }
    }

    fn missing(&self, row: &LedgerRow) -> Missing {
        let unconfirmed = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner).contains(&row.fold);
        if unconfirmed && is_recent(row) { Missing::Lagging } else { Missing::Gone }
    }

    fn differs(&self, entry: &Entry, desired: &Desired, row: Option<&LedgerRow>) -> Option<String> {
        if !matches!(entry.state, EntryState::Active | EntryState::Empty) {
            return None;
        }
        let (facts, detail) = (Facts::of(Some(entry)), Detail::of(row));
        if self.key_differs(facts.key.as_deref(), &detail) {
            return Some(format!("the KMS key differs ({})", facts.key.as_deref().unwrap_or("the default key")));
        }
        let (_, delta) = self.tag_delta(desired, &facts.tags, &detail);
        (!delta.is_empty()).then(|| delta.reason())
    }

    async fn read(&self, cx: &Cx, entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)> {
        let wanted: Vec<(String, String)> = entries.iter().filter_map(|e| Some((e.key.clone(), e.id.clone()?))).collect();
        let chunks: Vec<Vec<(String, String)>> = wanted.chunks(BATCH_MAX).map(<[_]>::to_vec).collect();
        futures::stream::iter(chunks)
            .map(|chunk| async move { self.read_chunk(cx, &chunk).await })
            .buffer_unordered(PARALLEL / 2)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    fn shape(&self) -> Shape<'_> {
        Shape::Itemised(self)
    }

    fn warnings(&self) -> Vec<String> {
        self.config.deletion_warning().into_iter().collect()
    }
}

impl Items {
    /// Remembers which key id AWS shows for the configured alias, from secrets we wrote with it.
    fn learn_key_form(&self, secrets: &BTreeMap<String, (Listed, bool)>, ledger: &Ledger) {
        let (Some(key), Some(text)) = (&self.config.key, &self.config.key_text) else { return };
        if self.shared.key_form(text).is_some() {
            return;
        }
        let shown: HashSet<&str> = ledger
            .rows
            .values()
            .filter(|row| Detail::of(Some(row)).key.as_deref() == Some(text))
            .filter_map(|row| secrets.get(&row.key)?.0.key.as_deref())
            .filter(|shown| key.compare(&KeyRef::returned(Some(shown))) == KeyMatch::CannotTell)
            .collect();
        if let (1, Some(form)) = (shown.len(), shown.iter().next()) {
            self.shared.learn_key_form(text, form);
        }
    }

    /// Said as long as it cannot be told whether secrets that others made use the configured alias.
    fn key_warning(&self, secrets: &BTreeMap<String, (Listed, bool)>, ledger: &Ledger) -> Option<String> {
        let (key, text) = (self.config.key.as_ref()?, self.config.key_text.as_deref()?);
        if self.shared.key_form(text).is_some() {
            return None;
        }
        let doubtful = ledger.rows.values().filter_map(|row| {
            let listed = &secrets.get(&row.key)?.0;
            let ours = Detail::of(Some(row)).key.as_deref() == Some(text);
            (!ours && key.compare(&KeyRef::returned(listed.key.as_deref())) == KeyMatch::CannotTell).then_some(())
        });
        let count = doubtful.count();
        (count > 0)
            .then(|| format!("whether {count} existing secrets use the KMS key {text} cannot be told from their key id: their key is left as it is"))
    }

    async fn read_chunk(&self, cx: &Cx, chunk: &[(String, String)]) -> Vec<(String, Result<Read, ApiError>)> {
        let mut answers: HashMap<String, Result<Got, ApiError>> = HashMap::new();
        if chunk.len() > 1 && !self.batch_denied.load(Ordering::Relaxed) {
            let arns: Vec<String> = chunk.iter().map(|(_, arn)| arn.clone()).collect();
            match self.api.batch_get(cx, &arns).await {
                Ok(found) => answers.extend(found),
                Err(e) if e.kind == ErrorKind::Permission => self.batch_denied.store(true, Ordering::Relaxed),
                // One secret spoils the whole call at some servers: read them singly.
                Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Invalid) => {}
                Err(e) => return chunk.iter().map(|(key, _)| (key.clone(), Err(e.clone()))).collect(),
            }
        }
        let mut out = Vec::with_capacity(chunk.len());
        for (key, arn) in chunk {
            let answer = match answers.remove(arn) {
                Some(Err(e)) if e.kind.passing() => self.api.get(cx, arn, key).await,
                Some(answer) => answer,
                None => self.api.get(cx, arn, key).await,
            };
            out.push((key.clone(), answer.map(read)));
        }
        out
    }
}
