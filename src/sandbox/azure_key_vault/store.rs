//! The vault's contents and the life of a secret in it: active, being deleted, deleted,
//! being recovered, being purged.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// One version of a secret.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub id: String,
    pub value: String,
    pub content_type: Option<String>,
    pub tags: Option<Map<String, Value>>,
    pub enabled: bool,
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
    pub created: i64,
    pub updated: i64,
}

/// Where a secret is in its life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Active,
    BeingDeleted {
        until: Instant,
    },
    Deleted,
    /// Reads answer again after `readable`, writes after `writable`.
    BeingRecovered {
        readable: Instant,
        writable: Instant,
    },
    BeingPurged {
        until: Instant,
    },
}

/// A secret with all its versions, the current one last.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// As it was first spelled.
    pub name: String,
    pub versions: Vec<Version>,
    pub phase: Phase,
    pub managed: bool,
    pub deleted: i64,
    pub purge: i64,
}

/// The vault.
#[derive(Default)]
pub(super) struct Vault {
    /// By name in lower case: identifiers are compared without case.
    pub secrets: BTreeMap<String, Held>,
}

impl Held {
    /// The current version. There always is one: a secret is made with its first.
    pub fn current(&self) -> &Version {
        &self.versions[self.versions.len() - 1]
    }

    pub fn current_mut(&mut self) -> &mut Version {
        let last = self.versions.len() - 1;
        &mut self.versions[last]
    }

    /// Moves on what time has finished. `false`: it is gone.
    fn settle(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::BeingDeleted { until } if until <= now => self.phase = Phase::Deleted,
            Phase::BeingRecovered { writable, .. } if writable <= now => self.phase = Phase::Active,
            Phase::BeingPurged { until } if until <= now => return false,
            _ => {}
        }
        true
    }

    /// Seen by GET and the list.
    pub fn readable(&self) -> bool {
        match self.phase {
            Phase::Active => true,
            Phase::BeingRecovered { readable, .. } => readable <= Instant::now(),
            _ => false,
        }
    }
}

impl Vault {
    /// Brings every secret up to date with the clock.
    pub fn settle(&mut self) {
        let now = Instant::now();
        self.secrets.retain(|_, held| held.settle(now));
    }

    pub fn get(&self, name: &str) -> Option<&Held> {
        self.secrets.get(&name.to_ascii_lowercase())
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut Held> {
        self.secrets.get_mut(&name.to_ascii_lowercase())
    }

    /// Adds a version; the name must be free or active.
    pub fn put(&mut self, name: &str, version: Version) -> &Held {
        let held = self.secrets.entry(name.to_ascii_lowercase()).or_insert_with(|| Held {
            name: name.to_string(),
            versions: Vec::new(),
            phase: Phase::Active,
            managed: false,
            deleted: 0,
            purge: 0,
        });
        held.versions.push(version);
        held
    }
}

/// Quotas count in spans of this length ("Azure Key Vault service limits").
const SPAN: Duration = Duration::from_secs(10);

/// What a vault is like.
#[derive(Debug, Clone)]
pub(super) struct Nature {
    pub delete_takes: Duration,
    pub recover_takes: Duration,
    /// After reads answer again, writes are refused this much longer.
    pub recover_lags: Duration,
    pub purge_takes: Duration,
    pub soft_delete: bool,
    pub refuse_empty: bool,
    pub empty_pages: bool,
    /// Creations allowed in a span of time.
    pub creations: Option<(usize, Duration)>,
    /// Other calls allowed in a span of time.
    pub calls: (usize, Duration),
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            delete_takes: Duration::from_millis(150),
            recover_takes: Duration::from_millis(150),
            recover_lags: Duration::ZERO,
            purge_takes: Duration::from_millis(150),
            soft_delete: true,
            refuse_empty: false,
            empty_pages: false,
            creations: Some((300, SPAN)),
            calls: (4000, SPAN),
        }
    }
}

impl Nature {
    pub fn recovery_level(&self) -> &'static str {
        if self.soft_delete { "Recoverable+Purgeable" } else { "Purgeable" }
    }
}

impl Version {
    pub fn attributes(&self, nature: &Nature) -> Value {
        let mut out = json!({
            "enabled": self.enabled, "created": self.created, "updated": self.updated, "recoveryLevel": nature.recovery_level(),
            "recoverableDays": if nature.soft_delete { 90 } else { 0 },
        });
        if let Some(nbf) = self.nbf {
            out["nbf"] = nbf.into();
        }
        if let Some(exp) = self.exp {
            out["exp"] = exp.into();
        }
        out
    }
}
