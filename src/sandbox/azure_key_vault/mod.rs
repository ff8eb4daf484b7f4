//! An embedded Azure Key Vault: the secrets data plane of one vault, as strict as the real
//! one where its behaviour is documented or was measured.
//!
//! What is modelled: the challenge before anything else, names without case, pages of 25 with
//! opaque tokens, asynchronous deletion, recovery and purge with the real inner codes, times
//! in whole seconds, a PUT that forgets tags, disabled and certificate-backed secrets, rights
//! switched off by their inner codes, the quotas of creations and of all other calls.

mod api;
mod store;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::entra;
use super::host::lock;
use store::{Nature, Phase, Vault, Version};

/// A right that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Operation {
    List,
    Get,
    Set,
    Delete,
    Recover,
    Purge,
}

/// One vault. Cloning shares it.
#[derive(Clone)]
pub struct State(Arc<Mutex<Inner>>);

pub(crate) struct Inner {
    entra: entra::State,
    tenant: String,
    authority: String,
    resource: String,
    vault: Vault,
    nature: Nature,
    forbidden: Vec<Forbidden>,
    /// Moments of the latest creations, for the quota, and of the latest other calls.
    creations: VecDeque<Instant>,
    calls: VecDeque<Instant>,
    /// Moments of all requests to create, refused ones included.
    asked: Vec<Instant>,
    /// A clock that stands, for tests of one-second stamps.
    frozen: Option<i64>,
    /// Seconds by which the vault's clock is ahead of this machine's.
    ahead: i64,
    purges: usize,
}

struct Forbidden {
    operation: Operation,
    name: Option<String>,
    inner: String,
}

/// A secret as the owner of the vault sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub name: String,
    pub value: String,
    pub versions: usize,
    pub enabled: bool,
    pub content_type: Option<String>,
    pub tags: Map<String, Value>,
    pub exp: Option<i64>,
    pub nbf: Option<i64>,
}

impl State {
    /// An empty vault that trusts the tokens of one tenant.
    pub fn new(entra: &entra::State, tenant: &str) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            entra: entra.clone(),
            tenant: tenant.to_string(),
            authority: "https://login.microsoftonline.com".into(),
            resource: entra::KEY_VAULT.into(),
            vault: Vault::default(),
            nature: Nature::default(),
            forbidden: Vec::new(),
            creations: VecDeque::new(),
            calls: VecDeque::new(),
            asked: Vec::new(),
            frozen: None,
            ahead: 0,
            purges: 0,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }

    /// The authority that its challenges name.
    pub fn set_authority(&self, url: &str) {
        self.inner().authority = url.trim_end_matches('/').to_string();
    }

    /// The resource that its tokens must be for, and its challenges name.
    pub fn set_resource(&self, resource: &str) {
        self.inner().resource = resource.to_string();
    }

    /// Moves the vault to another tenant.
    pub fn set_tenant(&self, tenant: &str) {
        self.inner().tenant = tenant.to_string();
    }

    /// How long deletions and recoveries take, and how long writes are refused after a
    /// recovered secret can be read again.
    pub fn set_delays(&self, delete: Duration, recover: Duration, lag: Duration) {
        let mut inner = self.inner();
        inner.nature.delete_takes = delete;
        inner.nature.recover_takes = recover;
        inner.nature.recover_lags = lag;
        inner.nature.purge_takes = delete;
    }

    /// A vault of the old kind, without soft delete.
    pub fn set_soft_delete(&self, on: bool) {
        self.inner().nature.soft_delete = on;
    }

    /// Whether empty values are refused.
    pub fn set_refuse_empty(&self, on: bool) {
        self.inner().nature.refuse_empty = on;
    }

    /// Puts an empty page with a link between every two pages.
    pub fn set_empty_pages(&self, on: bool) {
        self.inner().nature.empty_pages = on;
    }

    /// The most requests to create, refused ones included, in any span of this length.
    pub fn most_creations_in(&self, span: Duration) -> usize {
        let inner = self.inner();
        let within = |from: &Instant| inner.asked.iter().filter(|at| **at >= *from && **at < *from + span).count();
        inner.asked.iter().map(within).max().unwrap_or(0)
    }

    /// The quota of creations in a span of time (300 in 10 s at first); `None`: off.
    pub fn set_creation_quota(&self, limit: Option<(usize, Duration)>) {
        self.inner().nature.creations = limit;
    }

    /// Takes a right away, for all secrets or one, with the inner code of the refusal.
    pub fn forbid(&self, operation: Operation, name: Option<&str>, inner: &str) {
        self.inner().forbidden.push(Forbidden { operation, name: name.map(str::to_owned), inner: inner.to_string() });
    }

    /// Gives all rights back.
    pub fn permit_all(&self) {
        self.inner().forbidden.clear();
    }

    /// Stops the vault's clock at a second, or lets it go on.
    pub fn freeze_clock(&self, second: Option<i64>) {
        self.inner().frozen = second;
    }

    /// Sets the vault's clock this many seconds ahead of this machine's (behind, if negative).
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.inner().ahead = seconds;
    }

    /// Somebody else writes a secret: a new version with these properties only.
    pub fn put(&self, name: &str, value: &str) {
        self.put_with(name, value, |_| {});
    }

    /// Like [`Self::put`], with more properties.
    pub fn put_with(&self, name: &str, value: &str, more: impl FnOnce(&mut Seed)) {
        let mut seed = Seed::default();
        more(&mut seed);
        let mut inner = self.inner();
        let now = inner.now();
        let version = Version {
            id: uuid::Uuid::new_v4().simple().to_string(),
            value: value.to_string(),
            content_type: seed.content_type,
            tags: (!seed.tags.is_empty()).then_some(seed.tags),
            enabled: !seed.disabled,
            nbf: seed.nbf,
            exp: seed.exp,
            created: now,
            updated: now,
        };
        inner.vault.put(name, version);
        if let Some(held) = inner.vault.get_mut(name) {
            held.managed |= seed.managed;
        }
    }

    /// Somebody else sets a tag on the current version.
    pub fn tag(&self, name: &str, tag: &str, value: &str) {
        let mut inner = self.inner();
        let now = inner.now();
        if let Some(held) = inner.vault.get_mut(name) {
            let current = held.current_mut();
            current.tags.get_or_insert_default().insert(tag.to_string(), value.into());
            current.updated = now;
        }
    }

    /// Somebody else disables or enables the current version.
    pub fn enable(&self, name: &str, enabled: bool) {
        let mut inner = self.inner();
        let now = inner.now();
        if let Some(held) = inner.vault.get_mut(name) {
            let current = held.current_mut();
            current.enabled = enabled;
            current.updated = now;
        }
    }

    /// Somebody else deletes a secret; it is soft-deleted at once.
    pub fn delete(&self, name: &str) {
        let mut inner = self.inner();
        let now = inner.now();
        if let Some(held) = inner.vault.get_mut(name) {
            held.phase = Phase::Deleted;
            held.deleted = now;
            held.purge = now + 90 * 86_400;
        }
    }

    /// Somebody else's deletion that has only begun; it takes the vault's delay.
    pub fn begin_delete(&self, name: &str) {
        self.delete(name);
        let mut inner = self.inner();
        let until = Instant::now() + inner.nature.delete_takes;
        if let Some(held) = inner.vault.get_mut(name) {
            held.phase = Phase::BeingDeleted { until };
        }
    }

    /// Somebody purges a deleted secret; the name is free at once.
    pub fn purge(&self, name: &str) {
        self.inner().vault.secrets.remove(&name.to_ascii_lowercase());
    }

    /// Active secrets by name in lower case.
    pub fn secrets(&self) -> BTreeMap<String, Seen> {
        let mut inner = self.inner();
        inner.vault.settle();
        let active = inner.vault.secrets.iter().filter(|(_, h)| matches!(h.phase, Phase::Active | Phase::BeingRecovered { .. }));
        active
            .map(|(fold, held)| {
                let current = held.current();
                let seen = Seen {
                    name: held.name.clone(),
                    value: current.value.clone(),
                    versions: held.versions.len(),
                    enabled: current.enabled,
                    content_type: current.content_type.clone(),
                    tags: current.tags.clone().unwrap_or_default(),
                    exp: current.exp,
                    nbf: current.nbf,
                };
                (fold.clone(), seen)
            })
            .collect()
    }

    /// Names of soft-deleted secrets, in lower case.
    pub fn deleted(&self) -> Vec<String> {
        let mut inner = self.inner();
        inner.vault.settle();
        inner.vault.secrets.iter().filter(|(_, h)| matches!(h.phase, Phase::Deleted | Phase::BeingDeleted { .. })).map(|(f, _)| f.clone()).collect()
    }

    /// Purges asked for by clients.
    pub fn purges(&self) -> usize {
        self.inner().purges
    }
}

/// Properties of a seeded secret.
#[derive(Debug, Default)]
pub struct Seed {
    pub content_type: Option<String>,
    pub tags: Map<String, Value>,
    pub disabled: bool,
    /// The secret half of a certificate.
    pub managed: bool,
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
}

impl Inner {
    fn now(&self) -> i64 {
        self.frozen.unwrap_or_else(|| jiff::Timestamp::now().as_second() + self.ahead)
    }

    /// Takes one creation from the quota.
    fn may_create(&mut self) -> bool {
        self.asked.push(Instant::now());
        self.nature.creations.is_none_or(|quota| take(&mut self.creations, quota))
    }

    /// Takes one other call from the quota.
    fn may_call(&mut self) -> bool {
        take(&mut self.calls, self.nature.calls)
    }
}

/// Takes one from a quota of so many in a span of time. What is refused does not count.
fn take(taken: &mut VecDeque<Instant>, (limit, span): (usize, Duration)) -> bool {
    let now = Instant::now();
    while taken.front().is_some_and(|at| now.duration_since(*at) >= span) {
        taken.pop_front();
    }
    let free = taken.len() < limit;
    if free {
        taken.push_back(now);
    }
    free
}

/// The router of the vault's host.
pub fn router(state: State) -> axum::Router {
    axum::Router::new().fallback(api::handle).with_state(state)
}
