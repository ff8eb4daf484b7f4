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
use super::wire::{Keep, Secret, not_a_vault, page};
use crate::destination::{Desired, Destination, Entry, EntryState, Freshness, Inventory, KeySpace, Listing, Read, Shape, Target};
use crate::http::{Answer, ApiError, Cx, ErrorKind, Pages, same_origin};
use crate::model::ledger::LedgerRow;
use crate::model::text::brief;

/// The largest page the service gives.
const PAGE: &str = "25";
/// Reads in flight at once.
pub(super) const READERS: usize = 12;

/// The tag that says which sync wrote a secret, where the sync's option asks for it.
const OWNER_TAG: &str = "kms-sync";
/// A secret has no more tags.
const MOST_TAGS: usize = 15;

/// One vault.
pub(super) struct KeyVaultTarget {
    pub vault: Vault,
    pub(super) hidden: Hidden,
    deletes: bool,
    /// The sync's id, where its secrets carry it as a tag.
    owner: Option<String>,
    /// Unmanaged secrets with a certificate's content type are left alone.
    spare_certificates: bool,
}

impl KeyVaultTarget {
    pub fn new(vault: Vault, hidden: Hidden, target: &Target) -> Self {
        let flag = |name: &str| target.options.extra.get(name).and_then(|v| v.as_bool());
        let spare_certificates = flag("disableCertificateImport").unwrap_or(true);
        let owner = flag("ownershipTag").unwrap_or(false).then(|| target.sync_id.clone());
        Self { vault, hidden, deletes: target.options.deletes(), owner, spare_certificates }
    }

    /// Adds the ownership tag to what a secret keeps. False: it has as many tags as it can have.
    pub(super) fn sign(&self, keep: &mut Keep) -> bool {
        let Some(owner) = &self.owner else { return true };
        let tags = keep.tags.get_or_insert_default();
        if tags.len() >= MOST_TAGS && !tags.contains_key(OWNER_TAG) {
            return false;
        }
        tags.insert(OWNER_TAG.into(), Some(owner.clone()));
        true
    }

    /// Follows a list's links to the end (`true`), or for `enough` pages.
    async fn pages(&self, cx: &Cx, path: &'static str, label: &'static str, enough: Option<usize>) -> Result<(Vec<Secret>, bool), ApiError> {
        let mut url = self.vault.url(&[path]);
        url.query_pairs_mut().append_pair("maxresults", PAGE);
        let (mut all, mut pages) = (Vec::new(), Pages::of(SERVICE, format!("the vault's list of {path}")));
        for read in 1.. {
            let answer = self.vault.page(cx, url.clone(), label).await?;
            if !answer.ok() {
                return Err(failure(cx, &answer, if path == "secrets" { "list secrets" } else { "list deleted secrets" }, Right::List));
            }
            let page = page(&answer, if path == "secrets" { "the list of secrets" } else { "the list of deleted secrets" })?;
            let ids: Vec<Vec<u8>> = page.value.iter().map(|s| s.id.clone().unwrap_or_default().into_bytes()).collect();
            all.extend(page.value);
            // Pages may be short or empty: only a missing link ends the list.
            let Some(link) = page.next_link.filter(|l| !l.trim().is_empty()) else { return Ok((all, true)) };
            url = self.follow(&url, &link)?;
            pages.turn(url.as_str(), ids)?;
            if enough.is_some_and(|enough| read >= enough) {
                break;
            }
        }
        Ok((all, false))
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

    /// The deleted secrets among these folded names, each found in the list of deleted ones or,
    /// where that is longer than there are names, asked for by itself.
    async fn graves(&self, cx: &Cx, names: &HashSet<&str>) -> Result<Vec<Entry>, ApiError> {
        let (listed, whole) = self.pages(cx, "deletedsecrets", "GET /deletedsecrets", Some(names.len().max(1))).await?;
        let mut found: HashMap<String, Entry> = HashMap::new();
        for secret in &listed {
            let entry = self.deleted_entry(secret)?;
            let fold = Keys.fold(&entry.key);
            if names.contains(fold.as_str()) {
                found.insert(fold, entry);
            }
        }
        if !whole {
            let rest: Vec<String> = names.iter().filter(|n| !found.contains_key(**n)).map(|n| n.to_string()).collect();
            let asked: Vec<_> =
                futures::stream::iter(rest).map(|name| async move { self.grave(cx, &name).await }).buffer_unordered(READERS).collect().await;
            for entry in asked {
                if let Some(entry) = entry? {
                    found.insert(Keys.fold(&entry.key), entry);
                }
            }
        }
        Ok(found.into_values().collect())
    }

    async fn grave(&self, cx: &Cx, name: &str) -> Result<Option<Entry>, ApiError> {
        let answer = self.vault.grave(cx, name).await?;
        match answer.status {
            200..=299 => self.deleted_entry(&self.vault.bundle(&answer, name)?).map(Some),
            404 if answer.is_json() => Ok(None),
            _ => Err(failure(cx, &answer, &format!("get the deleted secret {name}"), Right::Get)),
        }
    }

    fn deleted_entry(&self, secret: &Secret) -> Result<Entry, ApiError> {
        let nameless = || not_a_vault("the list of deleted secrets", "an item has no id that names a secret");
        let (key, _) = secret.name_and_version(self.vault.base.path()).ok_or_else(nameless)?;
        let until = secret.scheduled_purge_date.and_then(|s| jiff::Timestamp::from_second(s).ok());
        Ok(Entry {
            key,
            id: None,
            stamp: None,
            state: if secret.is_managed() { managed() } else { EntryState::Deleted { until } },
            value: None,
            facts: serde_json::to_value(secret.keep()).unwrap_or_default(),
            note: until.map(|t| format!("deleted, purged on {t}")),
        })
    }

    /// A name that a write met deleted, where the list of deleted secrets is closed to us.
    fn met_entry(key: &str) -> Entry {
        Entry {
            key: key.to_string(),
            id: None,
            stamp: None,
            state: EntryState::Deleted { until: None },
            value: None,
            facts: serde_json::Value::Null,
            note: Some("found deleted by an earlier write".into()),
        }
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
            return self.read_answer(cx, &answer, key);
        }
        if answer.status == 403 && Refusal::read(&answer).inner == DISABLED {
            return Ok(Read { value: None, stamp: None, problem: Some("disabled in the vault and left alone".into()) });
        }
        Err(failure(cx, &answer, &format!("get {key}"), Right::Get))
    }

    /// A bundle as a value with its exact stamp.
    pub fn read_answer(&self, cx: &Cx, answer: &Answer, key: &str) -> Result<Read, ApiError> {
        let bundle = self.vault.bundle(answer, key)?;
        let stamp = Some(Mark::read(&bundle.attributes, self.vault.version(&bundle), answer).text());
        if bundle.is_managed() {
            return Ok(Read { value: None, stamp, problem: Some("belongs to a certificate and is left alone".into()) });
        }
        let Some(value) = bundle.value else {
            if bundle.attributes.enabled == Some(false) {
                return Ok(Read { value: None, stamp, problem: Some("disabled in the vault and left alone".into()) });
            }
            // Every enabled version has one: taken for a secret without, it would be overwritten.
            return Err(not_a_vault(&format!("the answer about {key}"), "it holds no value").status(answer.status));
        };
        cx.redactor().learn(&value);
        Ok(Read { value: Some(value), stamp, problem: None })
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
    let now = jiff::Timestamp::now().as_second();
    parts.extend(a.nbf.filter(|t| *t > now).and_then(day).map(|d| format!("valid from {d}")));
    parts.extend(a.exp.and_then(|t| day(t).map(|d| format!("{} {d}", if t > now { "expires" } else { "expired" }))));
    let owner = secret.tags.as_ref().and_then(|t| t.get(OWNER_TAG)).and_then(Option::as_deref);
    parts.extend(owner.map(|id| format!("tagged as written by the sync {}", brief(id, 40))));
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
        let (secrets, _) = self.pages(cx, "secrets", "GET /secrets", None).await?;
        let mut inventory = Inventory::default();
        let mut listed: HashMap<String, Entry> = HashMap::with_capacity(secrets.len());
        let mut order = Vec::with_capacity(secrets.len());
        let mut final_deletion = false;
        for secret in &secrets {
            let Some((key, _)) = secret.name_and_version(self.vault.base.path()) else {
                return Err(not_a_vault("the list of secrets", "an item has no id that names a secret"));
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
        self.hidden.keep(|name| !listed.contains_key(name));
        inventory.entries = order.into_iter().filter_map(|fold| listed.remove(&fold)).collect();
        Ok(inventory)
    }

    /// Deleted secrets hold their names. The list of living ones does not show them, so they are
    /// looked for when there is something to create.
    async fn hidden(&self, cx: &Cx, missing: &[&str]) -> Result<Inventory, ApiError> {
        let names: HashSet<&str> = missing.iter().copied().collect();
        let met = self.hidden.names();
        match self.graves(cx, &names).await {
            Ok(entries) => {
                let folds: HashSet<String> = entries.iter().map(|e| Keys.fold(&e.key)).collect();
                self.hidden.keep(|name| folds.contains(name) || !names.contains(name));
                Ok(Inventory { entries, warnings: Vec::new() })
            }
            // A vault without soft delete, an emulator without its routes, or a right that is not
            // needed otherwise: the write finds out, and what an earlier one found is asked about.
            Err(error)
                if matches!(error.kind, ErrorKind::Permission | ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Conflict)
                    || matches!(error.status, Some(404 | 405 | 501)) =>
            {
                let denied = error.kind == ErrorKind::Permission;
                let warning = || {
                    format!(
                        "Deleted secrets cannot be looked for ({}): should one hold a name that is new here, its key fails and the next plan asks.",
                        error.text()
                    )
                };
                let entries = met.iter().filter(|(fold, _)| names.contains(fold.as_str())).map(|(_, name)| Self::met_entry(name)).collect();
                Ok(Inventory { entries, warnings: denied.then(warning).into_iter().collect() })
            }
            Err(error) => Err(error),
        }
    }

    fn differs(&self, entry: &Entry, _desired: &Desired, row: Option<&LedgerRow>) -> Option<String> {
        let owner = self.owner.as_deref().filter(|_| entry.state == EntryState::Active)?;
        let mut keep = Keep::of(Some(entry));
        let carried = keep.tags.as_ref().and_then(|t| t.get(OWNER_TAG)).and_then(Option::as_deref);
        // What another sync signed stays signed by it, unless this one has written it since: two
        // syncs that want the same value would sign it in turns.
        let theirs = carried.is_some() && row.is_none();
        (carried != Some(owner) && !theirs && self.sign(&mut keep)).then(|| "the ownership tag is missing".into())
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
