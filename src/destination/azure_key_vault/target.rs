//! One vault opened for one run: listing, reading, and how far the list may be believed.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use futures::StreamExt as _;

use super::SERVICE;
use super::api::Vault;
use super::errors::{DISABLED, Refusal, Right, failure};
use super::hidden::Hidden;
use super::keys::{Keys, is_name};
use super::stamp::Mark;
use super::wire::{Page, Secret};
use crate::destination::{Destination, Entry, EntryState, Freshness, Inventory, KeySpace, Listing, Read, Shape};
use crate::http::{Answer, ApiError, Cx, ErrorKind, same_origin};
use crate::model::ledger::LedgerRow;
use crate::model::sync::SyncOptions;
use crate::model::text::brief;

/// The largest page the service gives.
const PAGE: &str = "25";
/// No vault has this many pages: a chain of links that long is a loop.
const MOST_PAGES: usize = 100_000;
/// Reads in flight at once.
pub(super) const READERS: usize = 12;

/// One vault.
pub(super) struct KeyVaultTarget {
    pub vault: Vault,
    pub(super) hidden: Hidden,
    deletes: bool,
    /// Unmanaged secrets with a certificate's content type are left alone.
    spare_certificates: bool,
}

impl KeyVaultTarget {
    pub fn new(vault: Vault, hidden: Hidden, options: &SyncOptions) -> Self {
        let spare_certificates = options.extra.get("disableCertificateImport").and_then(|v| v.as_bool()).unwrap_or(true);
        Self { vault, hidden, deletes: options.deletes(), spare_certificates }
    }

    /// Follows a list's links to the end, or for `enough` pages.
    async fn pages(&self, cx: &Cx, path: &'static str, label: &'static str, enough: Option<usize>) -> Result<Vec<Secret>, ApiError> {
        let mut url = self.vault.url(&[path]);
        url.query_pairs_mut().append_pair("maxresults", PAGE);
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        for _ in 0..enough.unwrap_or(MOST_PAGES) {
            let answer = self.vault.page(cx, url.clone(), label).await?;
            if !answer.ok() {
                return Err(failure(cx, &answer, if path == "secrets" { "list secrets" } else { "list deleted secrets" }, Right::List));
            }
            let page: Page = answer.json(SERVICE)?;
            all.extend(page.value);
            // Pages may be short or empty: only a missing link ends the list.
            let Some(link) = page.next_link.filter(|l| !l.trim().is_empty()) else { return Ok(all) };
            url = self.follow(&url, &link)?;
            if !seen.insert(url.as_str().to_string()) {
                return Err(odd("the vault's list leads in a circle: a page names an earlier one as the next"));
            }
        }
        if enough.is_some() { Ok(all) } else { Err(odd("the vault's list does not end")) }
    }

    /// The next page's URL. The token goes there, so it must be the vault's own.
    pub(super) fn follow(&self, from: &url::Url, link: &str) -> Result<url::Url, ApiError> {
        let next = from.join(link.trim()).map_err(|_| odd("the link to the next page is no URL"))?;
        if !same_origin(&self.vault.base, &next) {
            let place = next.host_str().unwrap_or("nowhere");
            return Err(odd(&format!("the link to the next page leads to another place ({} {place}) and is not followed", next.scheme())));
        }
        Ok(next)
    }

    /// Deleted secrets that the ledger knows, and those that an earlier write met. Asked only
    /// when a key of ours is missing from the list or may be coming back, and for no more pages
    /// than the listing can save calls; a name that was met is looked for on all pages.
    async fn deleted(&self, cx: &Cx, ask: &Listing<'_>, listed: &HashMap<String, Entry>) -> Result<Vec<Entry>, ApiError> {
        let rows = &ask.ledger.rows;
        let missing = rows.values().filter(|r| r.value_hash.is_some() && !listed.contains_key(&r.fold)).count();
        let gone = rows.values().filter(|r| r.value_hash.is_none() && !listed.contains_key(&r.fold)).count();
        let standing = rows.values().filter(|r| r.value_hash.is_some() && listed.contains_key(&r.fold)).count();
        // What the source no longer wants needs no look, however long its row stays.
        let pages = (missing + gone).min(ask.wanted.saturating_sub(standing));
        self.hidden.keep(|name| !listed.contains_key(name));
        let met = self.hidden.names();
        if pages == 0 && met.is_empty() {
            return Ok(Vec::new());
        }
        let found = match self.pages(cx, "deletedsecrets", "GET /deletedsecrets", met.is_empty().then_some(pages)).await {
            Ok(found) => found,
            // A vault without soft delete, or a right that is not needed otherwise: the write finds out.
            Err(error) if matches!(error.kind, ErrorKind::Permission | ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Conflict) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let (mut entries, mut folds) = (Vec::new(), HashSet::new());
        for entry in found.iter().filter_map(|s| self.deleted_entry(s)) {
            let fold = Keys.fold(&entry.key);
            if rows.contains_key(&fold) || met.contains(&fold) {
                entries.push(entry);
                folds.insert(fold);
            }
        }
        self.hidden.keep(|name| folds.contains(name));
        Ok(entries)
    }

    fn deleted_entry(&self, secret: &Secret) -> Option<Entry> {
        let (key, _) = secret.name_and_version(self.vault.base.path())?;
        let until = secret.scheduled_purge_date.and_then(|s| jiff::Timestamp::from_second(s).ok());
        Some(Entry {
            key,
            id: None,
            stamp: None,
            state: if secret.is_managed() { managed() } else { EntryState::Deleted { until } },
            value: None,
            facts: serde_json::to_value(secret.keep()).unwrap_or_default(),
            note: until.map(|t| format!("deleted, purged on {t}")),
        })
    }

    fn entry(&self, secret: &Secret, key: String, ask: &Listing<'_>) -> Entry {
        let a = &secret.attributes;
        let state = if secret.is_managed() {
            managed()
        } else if self.spare_certificates && secret.looks_like_certificate() {
            EntryState::Protected("has a certificate's content type and is left alone".into())
        } else if a.enabled == Some(false) {
            EntryState::Protected("disabled in the vault and left alone".into())
        } else {
            EntryState::Active
        };
        let mark = Mark::listed(a);
        // A stamp that the list confirms stays word for word: nothing needs recording then.
        let row = ask.ledger.rows.get(&Keys.fold(&key)).and_then(|r| r.stamp.as_deref());
        let confirmed = row.filter(|text| Mark::parse(text).is_some_and(|then| mark.same_seconds(&then)));
        let stamp = Some(confirmed.map_or_else(|| mark.text(), str::to_owned));
        Entry { key, id: None, stamp, state, value: None, facts: serde_json::to_value(secret.keep()).unwrap_or_default(), note: note(secret) }
    }

    async fn read_one(&self, cx: &Cx, key: &str) -> Result<Read, ApiError> {
        let answer = self.vault.secret(cx, key).await?;
        if answer.ok() {
            return self.read_answer(cx, &answer);
        }
        if answer.status == 403 && Refusal::read(&answer).inner == DISABLED {
            return Ok(Read { value: None, stamp: None, problem: Some("disabled in the vault and left alone".into()) });
        }
        Err(failure(cx, &answer, &format!("get {key}"), Right::Get))
    }

    /// A bundle as a value with its exact stamp.
    pub fn read_answer(&self, cx: &Cx, answer: &Answer) -> Result<Read, ApiError> {
        let bundle = self.vault.bundle(answer)?;
        let stamp = Some(Mark::read(&bundle.attributes, self.vault.version(&bundle), answer).text());
        if bundle.is_managed() {
            return Ok(Read { value: None, stamp, problem: Some("belongs to a certificate and is left alone".into()) });
        }
        if let Some(value) = &bundle.value {
            cx.redactor().learn(value);
        }
        let problem = bundle.value.is_none().then(|| "has no value".to_string());
        Ok(Read { value: bundle.value, stamp, problem })
    }
}

fn odd(text: &str) -> ApiError {
    ApiError::new(ErrorKind::NotTheService, SERVICE, text)
}

fn managed() -> EntryState {
    EntryState::Blocked("belongs to a certificate of the vault and is left alone".into())
}

/// What an operator wants to know before agreeing to a deletion.
fn note(secret: &Secret) -> Option<String> {
    let a = &secret.attributes;
    let day = |s: i64| jiff::Timestamp::from_second(s).ok().map(|t| t.strftime("%Y-%m-%d").to_string());
    let mut parts = Vec::new();
    parts.extend(a.updated.and_then(day).map(|d| format!("changed {d}")));
    parts.extend(a.exp.and_then(day).map(|d| format!("expires {d}")));
    parts.extend(secret.content_type.as_deref().filter(|t| !t.is_empty()).map(|t| brief(t, 40)));
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[async_trait]
impl Destination for KeyVaultTarget {
    fn identity(&self) -> String {
        self.vault.identity()
    }

    /// The vault itself, however it is reached.
    fn writers(&self) -> String {
        self.vault.address.identity()
    }

    fn keys(&self) -> &dyn KeySpace {
        &Keys
    }

    async fn list(&self, cx: &Cx, ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        let secrets = self.pages(cx, "secrets", "GET /secrets", None).await?;
        let mut inventory = Inventory::default();
        let mut listed: HashMap<String, Entry> = HashMap::with_capacity(secrets.len());
        let mut order = Vec::with_capacity(secrets.len());
        let mut final_deletion = false;
        for secret in &secrets {
            let Some((key, _)) = secret.name_and_version(self.vault.base.path()) else {
                return Err(odd("an item of the vault's list has no id that names a secret"));
            };
            if !is_name(&key) {
                inventory.warnings.push(format!("The vault lists a secret under an impossible name ({}): it is left alone.", brief(&key, 60)));
                continue;
            }
            final_deletion |= secret.attributes.recovery_level.as_deref() == Some("Purgeable");
            let fold = Keys.fold(&key);
            // While others write, an item may stand on two pages: the later one is the newer.
            if listed.insert(fold.clone(), self.entry(secret, key, ask)).is_none() {
                order.push(fold);
            }
        }
        if final_deletion && self.deletes {
            inventory.warnings.push("This vault has no soft delete: what is deleted there is gone for good.".into());
        }
        let deleted = self.deleted(cx, ask, &listed).await?;
        inventory.entries = order.into_iter().filter_map(|fold| listed.remove(&fold)).collect();
        inventory.entries.extend(deleted);
        Ok(inventory)
    }

    fn freshness(&self, entry: &Entry, row: &LedgerRow) -> Freshness {
        let mark = |text: &Option<String>| text.as_deref().and_then(Mark::parse);
        match (mark(&entry.stamp), mark(&row.stamp)) {
            (Some(now), Some(then)) if now.same_seconds(&then) && !then.soft => Freshness::Same,
            _ => Freshness::Unknown,
        }
    }

    async fn read(&self, cx: &Cx, entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)> {
        let keys: Vec<String> = entries.iter().map(|e| e.key.clone()).collect();
        futures::stream::iter(keys)
            .map(|key| async move {
                let read = self.read_one(cx, &key).await;
                (key, read)
            })
            .buffer_unordered(READERS)
            .collect()
            .await
    }

    fn shape(&self) -> Shape<'_> {
        Shape::Itemised(self)
    }
}
