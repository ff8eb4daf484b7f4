//! What the sandbox keeps, and how secrets move through their states.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
// Not the standard one: a test that pauses tokio's clock holds the sandbox's delays with it.
use tokio::time::Instant;

use super::reply::Refusal;
use crate::model::Time;

/// Active versions a secret may hold, and as many more whose deletion is pending.
pub(super) const VERSIONS: usize = 30;

/// How long secrets stay between two states.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    pub create: Duration,
    pub update: Duration,
    pub schedule: Duration,
    pub cancel: Duration,
    pub erase: Duration,
}

impl Delays {
    /// Every change takes `time`.
    pub fn all(time: Duration) -> Self {
        Self { create: time, update: time, schedule: time, cancel: time, erase: time }
    }
}

/// One version of a secret.
#[derive(Debug, Clone)]
pub struct Version {
    pub number: u64,
    pub name: Option<String>,
    pub content: Vec<u8>,
    pub stages: Vec<&'static str>,
    pub created: Time,
    pub time_of_deletion: Option<Time>,
}

/// One secret.
#[derive(Debug, Clone)]
pub struct Secret {
    pub id: String,
    pub name: String,
    pub compartment: String,
    pub vault: String,
    pub key: String,
    /// The service's word.
    pub state: String,
    /// The state that follows by itself, and when.
    pub next: Option<(Instant, &'static str)>,
    pub details: Option<String>,
    pub created: Time,
    pub time_of_deletion: Option<Time>,
    pub versions: Vec<Version>,
    /// Number of the current version.
    pub current: u64,
    /// Becomes current when an update settles.
    pub(super) coming: Option<u64>,
    pub freeform_tags: Value,
    /// Every other member as it was given: description, rules, rotation, flags.
    pub extra: serde_json::Map<String, Value>,
    edits: u64,
}

impl Secret {
    /// The current version.
    pub fn current(&self) -> Option<&Version> {
        self.versions.iter().find(|v| v.number == self.current)
    }

    /// When the current content expires by the secret's rules, and whether it cannot be read
    /// from then on.
    pub(super) fn expiry(&self) -> Option<(Time, bool)> {
        let rules = self.extra.get("secretRules")?.as_array()?;
        let rule = rules.iter().find(|r| r.get("ruleType").and_then(Value::as_str) == Some("SECRET_EXPIRY_RULE"))?;
        let text = |name: &str| rule.get(name).and_then(Value::as_str);
        let absolute = text("timeOfAbsoluteExpiry").and_then(|t| t.parse::<Time>().ok());
        // `P30D`: whole days are what the service takes.
        let interval = text("secretVersionExpiryInterval").and_then(|t| t.strip_prefix('P')?.strip_suffix('D')?.parse::<i64>().ok());
        let relative = self.current().zip(interval).map(|(v, days)| v.created + jiff::SignedDuration::from_hours(24 * days));
        let at = absolute.into_iter().chain(relative).min()?;
        Some((at, rule.get("isSecretContentRetrievalBlockedOnExpiry").and_then(Value::as_bool) == Some(true)))
    }

    pub(super) fn touch(&mut self) {
        self.edits += 1;
    }

    pub(super) fn etag(&self) -> String {
        blake3::hash(format!("{}/{}/{}", self.id, self.edits, self.state).as_bytes()).to_hex().to_string()
    }

    /// Adds a version and makes it current at once.
    pub fn new_version(&mut self, content: &[u8]) {
        let number = self.push(content.to_vec(), None, vec!["PENDING"]);
        self.promote(number);
    }

    pub(super) fn push(&mut self, content: Vec<u8>, name: Option<String>, stages: Vec<&'static str>) -> u64 {
        let number = self.versions.last().map_or(1, |v| v.number + 1);
        for version in &mut self.versions {
            version.stages.retain(|s| *s != "LATEST");
        }
        let mut stages = stages;
        stages.push("LATEST");
        self.versions.push(Version { number, name, content, stages, created: Time::now(), time_of_deletion: None });
        number
    }

    /// Makes a version current; the old one becomes the previous one.
    pub(super) fn promote(&mut self, number: u64) {
        let old = self.current;
        self.current = number;
        for version in &mut self.versions {
            if version.number == number {
                version.stages.retain(|s| !matches!(*s, "PENDING" | "PREVIOUS" | "DEPRECATED" | "CURRENT"));
                version.stages.insert(0, "CURRENT");
            } else if version.number == old {
                version.stages.retain(|s| *s != "CURRENT");
                version.stages.insert(0, "PREVIOUS");
            } else if version.stages.contains(&"PREVIOUS") {
                version.stages.retain(|s| *s != "PREVIOUS");
                version.stages.insert(0, "DEPRECATED");
            }
        }
        self.touch();
    }

    /// Goes through `word` to `then`.
    pub(super) fn pass(&mut self, word: &str, then: &'static str, delay: Duration) {
        self.state = word.to_string();
        self.next = Some((Instant::now().checked_add(delay).unwrap_or_else(|| Instant::now() + Duration::from_secs(1 << 30)), then));
        self.touch();
    }

    /// SecretSummary: no version, no etag, no time of change.
    pub(super) fn summary(&self) -> Value {
        let mut out = json!({
            "id": self.id, "secretName": self.name, "compartmentId": self.compartment, "vaultId": self.vault, "keyId": self.key,
            "lifecycleState": self.state, "lifecycleDetails": self.details, "timeCreated": stamp(self.created),
            "timeOfDeletion": self.time_of_deletion.map(stamp), "freeformTags": self.freeform_tags,
            "definedTags": {}, "systemTags": {}, "isReplica": false, "isAutoGenerationEnabled": false,
            "timeOfCurrentVersionExpiry": self.expiry().map(|(at, _)| stamp(at)),
        });
        if let Some(map) = out.as_object_mut() {
            for (key, value) in self.extra.iter().filter(|(k, _)| !matches!(k.as_str(), "metadata" | "secretRules")) {
                map.insert(key.clone(), value.clone());
            }
        }
        out
    }

    /// Secret: what single answers carry.
    pub(super) fn full(&self) -> Value {
        let mut out = self.summary();
        if let Some(map) = out.as_object_mut() {
            map.insert("currentVersionNumber".into(), self.current.into());
            map.insert("metadata".into(), self.extra.get("metadata").cloned().unwrap_or_else(|| json!({})));
            map.insert("secretRules".into(), self.extra.get("secretRules").cloned().unwrap_or_else(|| json!([])));
        }
        out
    }
}

/// A time as the services print it.
pub(super) fn stamp(at: Time) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

pub(super) struct Compartment {
    pub id: String,
    pub parent: String,
    pub name: String,
}

pub(super) struct Vault {
    pub id: String,
    pub name: String,
    pub compartment: String,
    pub management_endpoint: String,
}

pub(super) struct Key {
    pub id: String,
    pub name: String,
    pub vault: String,
    pub compartment: String,
    pub state: String,
    pub algorithm: String,
}

pub(super) struct Inner {
    /// `tenancy/user/fingerprint` → PKCS#1 public key.
    users: HashMap<String, Vec<u8>>,
    pub tenancies: HashMap<String, String>,
    pub compartments: Vec<Compartment>,
    pub hidden: HashSet<String>,
    pub vaults: Vec<Vault>,
    pub keys: Vec<Key>,
    pub secrets: Vec<Secret>,
    /// Retry token → (hash of the body, secret).
    pub tokens: HashMap<String, (String, String)>,
    /// Retry tokens are ignored.
    pub forgets_tokens: bool,
    pub delays: Delays,
    pub page_size: usize,
    pub clock: i64,
    pub denied: HashSet<String>,
    pub rate: Option<usize>,
    turns: HashMap<String, VecDeque<Instant>>,
    pub limit: usize,
    serial: u64,
}

impl Inner {
    pub fn new() -> Self {
        Self {
            users: HashMap::new(),
            tenancies: HashMap::new(),
            compartments: Vec::new(),
            hidden: HashSet::new(),
            vaults: Vec::new(),
            keys: Vec::new(),
            secrets: Vec::new(),
            tokens: HashMap::new(),
            forgets_tokens: false,
            delays: Delays::all(Duration::from_millis(120)),
            page_size: 1000,
            clock: 0,
            denied: HashSet::new(),
            rate: None,
            turns: HashMap::new(),
            limit: 5000,
            serial: 0,
        }
    }

    /// The sandbox's clock.
    pub fn now(&self) -> Time {
        Time::now() + jiff::SignedDuration::from_secs(self.clock)
    }

    fn ocid(&mut self, kind: &str, middle: &str) -> String {
        self.serial += 1;
        format!("ocid1.{kind}.oc1.{middle}.aaaaaaaasandbox{:08}", self.serial)
    }

    pub fn add_user(&mut self, user: &str, tenancy: &str, fingerprint: &str, public: &[u8]) {
        self.users.insert(format!("{tenancy}/{user}/{fingerprint}"), public.to_vec());
    }

    pub fn public_key(&self, tenancy: &str, user: &str, fingerprint: &str) -> Option<Vec<u8>> {
        self.users.get(&format!("{tenancy}/{user}/{fingerprint}")).cloned()
    }

    pub fn has_user(&self, user: &str) -> bool {
        self.users.keys().any(|k| k.split('/').nth(1) == Some(user))
    }

    pub fn add_compartment(&mut self, name: &str, parent: &str) -> String {
        let id = self.ocid("compartment", "");
        self.compartments.push(Compartment { id: id.clone(), parent: parent.to_string(), name: name.to_string() });
        id
    }

    pub fn add_vault(&mut self, name: &str, compartment: &str) -> String {
        self.serial += 1;
        let segment = format!("seg{:04}", self.serial);
        let id = self.ocid("vault", &format!("{}.{segment}", super::REGION));
        self.vaults.push(Vault {
            id: id.clone(),
            name: name.to_string(),
            compartment: compartment.to_string(),
            management_endpoint: format!("https://{segment}-management.kms.{}.oraclecloud.com", super::REGION),
        });
        id
    }

    pub fn add_key(&mut self, name: &str, vault: &str, compartment: &str) -> String {
        let segment = vault.split('.').nth(4).unwrap_or("seg").to_string();
        let id = self.ocid("key", &format!("{}.{segment}", super::REGION));
        self.keys.push(Key {
            id: id.clone(),
            name: name.to_string(),
            vault: vault.to_string(),
            compartment: compartment.to_string(),
            state: "ENABLED".into(),
            algorithm: "AES".into(),
        });
        id
    }

    /// A secret without versions, active.
    pub fn blank(&mut self, compartment: &str, vault: &str, key: &str, name: &str) -> Secret {
        Secret {
            id: self.ocid("vaultsecret", super::REGION),
            name: name.to_string(),
            compartment: compartment.to_string(),
            vault: vault.to_string(),
            key: key.to_string(),
            state: "ACTIVE".into(),
            next: None,
            details: None,
            created: self.now(),
            time_of_deletion: None,
            versions: Vec::new(),
            current: 0,
            coming: None,
            freeform_tags: json!({}),
            extra: serde_json::Map::new(),
            edits: 0,
        }
    }

    pub fn put(&mut self, compartment: &str, vault: &str, key: &str, name: &str, value: &[u8]) -> String {
        let mut secret = self.blank(compartment, vault, key, name);
        secret.new_version(value);
        let id = secret.id.clone();
        self.secrets.push(secret);
        id
    }

    /// Moves everything on whose time has come.
    pub fn advance(&mut self) {
        let (now, clock, erase) = (Instant::now(), self.now(), self.delays.erase);
        for secret in &mut self.secrets {
            if let Some((_, then)) = secret.next.filter(|(at, _)| *at <= now) {
                secret.next = None;
                secret.state = then.to_string();
                match secret.coming.take() {
                    Some(number) => secret.promote(number),
                    None => secret.touch(),
                }
            }
            if secret.state == "PENDING_DELETION" && secret.time_of_deletion.is_some_and(|t| t <= clock) {
                secret.pass("DELETING", "DELETED", erase);
            }
            secret.versions.retain(|v| v.time_of_deletion.is_none_or(|t| t > clock));
        }
    }

    /// One secret that the user may see.
    pub fn find(&mut self, id: &str) -> Result<&mut Secret, Refusal> {
        let hidden = &self.hidden;
        self.secrets.iter_mut().find(|s| s.id == id && !hidden.contains(&s.compartment)).ok_or_else(Refusal::not_found)
    }

    /// A right that the policy gives, or the answer to one that it does not.
    pub fn right(&self, name: &str) -> Result<(), Refusal> {
        if self.denied.contains(name) { Err(Refusal::not_found()) } else { Ok(()) }
    }

    /// A compartment that exists and may be seen.
    pub fn place(&self, id: &str) -> Result<(), Refusal> {
        let known = self.tenancies.contains_key(id) || self.compartments.iter().any(|c| c.id == id);
        if known && !self.hidden.contains(id) { Ok(()) } else { Err(Refusal::not_found()) }
    }

    /// Counts a request of a user; false when it is one too many in this second.
    pub fn take_turn(&mut self, user: &str) -> bool {
        let Some(rate) = self.rate else { return true };
        let now = Instant::now();
        let turns = self.turns.entry(user.to_string()).or_default();
        while turns.front().is_some_and(|t| now.duration_since(*t) >= Duration::from_secs(1)) {
            turns.pop_front();
        }
        let fits = turns.len() < rate;
        if fits {
            turns.push_back(now);
        }
        fits
    }
}
