//! The state: secrets with their versions and labels, KMS keys, credentials, and the switches
//! that make the service misbehave.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::input::{Call, Refusal, refuse};
use super::{ACCESS_KEY_ID, ACCOUNT, KMS_ALIAS, KMS_KEY_ID, ROLE_ARN, SECRET_ACCESS_KEY, View};
use crate::http::http_date;

/// Versions a secret may have before old unlabelled ones go.
const VERSIONS_MAX: usize = 100;
/// Unlabelled versions younger than this are never pruned.
const PRUNE_AFTER_MS: i64 = 86_400_000;

/// What a version holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Text(String),
    Binary(Vec<u8>),
    /// A secret that was made without a value.
    Nothing,
}

pub struct Version {
    pub id: String,
    pub content: Content,
    pub stages: BTreeSet<String>,
    /// Milliseconds.
    pub created: i64,
    pub key: Option<String>,
}

pub struct Secret {
    pub name: String,
    pub arn: String,
    pub description: Option<String>,
    pub key: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub versions: Vec<Version>,
    /// When the deletion was asked for, and its window in days.
    pub deleted: Option<(i64, i64)>,
    pub owner: Option<String>,
    pub kind: Option<String>,
    pub primary_region: Option<String>,
    pub rotated: bool,
    pub created: i64,
    pub changed: i64,
    /// Calls that are still refused after a restore.
    pub settling: u32,
}

#[derive(Default)]
pub struct Region {
    pub secrets: BTreeMap<String, Secret>,
    /// Names that refuse creation for some more calls.
    pub blocked: BTreeMap<String, u32>,
    /// What a lagging listing shows.
    pub frozen: Option<Vec<Value>>,
}

pub struct Key {
    pub secret: String,
    pub token: Option<String>,
    /// Unix seconds.
    pub expires: Option<i64>,
    pub arn: String,
}

struct KmsKey {
    id: String,
    alias: Option<String>,
    enabled: bool,
}

pub struct World {
    pub keys: BTreeMap<String, Key>,
    pub roles: BTreeMap<String, Option<String>>,
    kms: Vec<KmsKey>,
    regions: BTreeMap<String, Region>,
    pub denied: Vec<(String, String)>,
    lagging: bool,
    pub name_blocks: u32,
    pub restore_blocks: u32,
    pub page_cap: usize,
    pub empty_first_page: bool,
    pub clock_shift: i64,
    pub keys_as_arn: bool,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            keys: BTreeMap::new(),
            roles: [(ROLE_ARN.to_string(), None)].into(),
            kms: Vec::new(),
            regions: BTreeMap::new(),
            denied: Vec::new(),
            lagging: false,
            name_blocks: 0,
            restore_blocks: 0,
            page_cap: 100,
            empty_first_page: false,
            clock_shift: 0,
            keys_as_arn: true,
        };
        world.add_key(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None);
        world.add_kms_key(KMS_KEY_ID, Some(KMS_ALIAS));
        world
    }

    /// Unix seconds of the service's clock.
    pub fn now(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    pub fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond() + self.clock_shift * 1000
    }

    /// The `Date` header.
    pub fn date(&self) -> String {
        http_date(jiff::Timestamp::from_second(self.now()).unwrap_or_default())
    }

    pub fn add_key(&mut self, id: &str, secret: &str, token: Option<String>, expires: Option<i64>) {
        let arn = format!("arn:aws:iam::{ACCOUNT}:user/sandbox");
        self.keys.insert(id.to_string(), Key { secret: secret.to_string(), token, expires, arn });
    }

    pub fn expire_sessions(&mut self) {
        let now = self.now();
        self.keys.values_mut().filter(|k| k.token.is_some()).for_each(|k| k.expires = Some(now - 1));
    }

    pub fn add_kms_key(&mut self, id: &str, alias: Option<&str>) {
        self.kms.push(KmsKey { id: id.to_string(), alias: alias.map(str::to_string), enabled: true });
    }

    pub fn set_kms_enabled(&mut self, id: &str, enabled: bool) {
        self.kms.iter_mut().filter(|k| k.id == id).for_each(|k| k.enabled = enabled);
    }

    pub fn region(&mut self, name: &str) -> &mut Region {
        self.regions.entry(name.to_string()).or_default()
    }

    /// The secret that a seeding method names, made without a value when it is not there.
    pub fn secret(&mut self, region: &str, name: &str) -> &mut Secret {
        let blank = self.blank(region, name, self.now_ms());
        self.region(region).secrets.entry(name.to_string()).or_insert(blank)
    }

    /// Puts a secret there.
    pub fn seed(&mut self, region: &str, name: &str, content: Content) {
        let now = self.now_ms();
        let mut secret = self.blank(region, name, now);
        if content != Content::Nothing {
            secret.add(uuid::Uuid::new_v4().to_string(), content, now, None);
        }
        self.region(region).secrets.insert(name.to_string(), secret);
    }

    pub fn edit(&mut self, region: &str, name: &str, content: Content) {
        let now = self.now_ms();
        self.secret(region, name).add(uuid::Uuid::new_v4().to_string(), content, now, None);
    }

    /// A secret without versions. Its ARN ends in six random characters of its own.
    pub fn blank(&self, region: &str, name: &str, now: i64) -> Secret {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let suffix: String = (0..6).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect();
        Secret {
            name: name.to_string(),
            arn: format!("arn:aws:secretsmanager:{region}:{ACCOUNT}:secret:{name}-{suffix}"),
            description: None,
            key: None,
            tags: BTreeMap::new(),
            versions: Vec::new(),
            deleted: None,
            owner: None,
            kind: None,
            primary_region: None,
            rotated: false,
            created: now,
            changed: now,
            settling: 0,
        }
    }

    pub fn set_lagging(&mut self, lagging: bool) {
        self.lagging = lagging;
        for region in self.regions.values_mut() {
            region.frozen = lagging.then(|| region.secrets.values().map(Secret::entry).collect());
        }
    }

    /// What listings show, in no particular order.
    pub fn listing(&mut self, region: &str) -> Vec<Value> {
        let lagging = self.lagging;
        let region = self.region(region);
        match (&region.frozen, lagging) {
            (Some(frozen), _) => frozen.clone(),
            (None, true) => Vec::new(),
            (None, false) => region.secrets.values().map(Secret::entry).collect(),
        }
    }

    /// Finds a secret by name, complete ARN, or ARN without its suffix, and checks the caller's rights.
    pub fn find(&mut self, call: &Call<'_>, id: &str) -> Result<&mut Secret, Refusal> {
        let prefix = format!("arn:aws:secretsmanager:{}:{ACCOUNT}:secret:", call.region);
        let (by_arn, short) = match id.strip_prefix(&prefix) {
            Some(rest) => (true, rest),
            None if id.starts_with("arn:") => return Err(not_found()),
            None => (false, id),
        };
        self.allowed(call, short)?;
        let fits = |s: &Secret| s.name == short || (by_arn && s.arn == id);
        self.region(call.region).secrets.values_mut().find(|s| fits(s)).ok_or_else(not_found)
    }

    /// Refuses what [`super::State::deny`] forbids.
    pub fn allowed(&self, call: &Call<'_>, name: &str) -> Result<(), Refusal> {
        self.permits(call, call.operation, name)
    }

    pub fn permits(&self, call: &Call<'_>, operation: &str, name: &str) -> Result<(), Refusal> {
        if self.denied.iter().any(|(op, part)| op == operation && name.contains(part.as_str())) {
            return Err(refuse(
                "AccessDeniedException",
                format!(
                    "User: {} is not authorized to perform: secretsmanager:{operation} on resource: {name} because no identity-based policy allows the secretsmanager:{operation} action",
                    call.caller
                ),
            ));
        }
        Ok(())
    }

    /// The stored form of a `KmsKeyId`: `None` for the default key.
    pub fn resolve_key(&self, given: Option<&str>, region: &str) -> Result<Option<String>, Refusal> {
        let Some(given) = given.filter(|g| !g.is_empty()) else { return Ok(None) };
        let prefix = format!("arn:aws:kms:{region}:{ACCOUNT}:");
        let local = given.strip_prefix(&prefix).map(|r| r.strip_prefix("key/").unwrap_or(r)).unwrap_or(given);
        if local == "alias/aws/secretsmanager" {
            return Ok(None);
        }
        let key = self.kms.iter().find(|k| k.id == local || k.alias.as_deref() == Some(local));
        let invalid = || refuse("InvalidParameterException", "The operation failed because of an invalid KMS key: Invalid keyId");
        let key = key.ok_or_else(invalid)?;
        if !key.enabled {
            return Err(refuse(
                "EncryptionFailure",
                "Secrets Manager can't encrypt the protected secret text using the provided KMS key: the key is disabled.",
            ));
        }
        Ok(Some(if self.keys_as_arn { format!("{prefix}key/{}", key.id) } else { given.to_string() }))
    }

    /// Refuses to work under a disabled key.
    pub fn usable(&self, key: Option<&str>, code: &'static str) -> Result<(), Refusal> {
        let off = self.kms.iter().any(|k| !k.enabled && key.is_some_and(|text| text.ends_with(&k.id) || k.alias.as_deref() == Some(text)));
        if off { Err(refuse(code, "Secrets Manager can't use the KMS key of the secret: the key is disabled.")) } else { Ok(()) }
    }

    pub fn view(&mut self, region: &str, name: &str) -> Option<View> {
        let s = self.region(region).secrets.get(name)?;
        let current = s.current();
        Some(View {
            arn: s.arn.clone(),
            value: current.and_then(|v| match &v.content {
                Content::Text(text) => Some(text.clone()),
                _ => None,
            }),
            version: current.map(|v| v.id.clone()),
            versions: s.versions.len(),
            deleted: s.deleted.is_some(),
            window: s.deleted.map(|(_, days)| days),
            key: s.key.clone(),
            tags: s.tags.clone(),
        })
    }
}

/// The service's answer for a secret that is not there.
pub fn not_found() -> Refusal {
    refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}

/// Epoch seconds with milliseconds, as AWS writes times.
pub fn seconds(ms: i64) -> Value {
    json!(ms as f64 / 1000.0)
}

impl Secret {
    pub fn current(&self) -> Option<&Version> {
        self.versions.iter().find(|v| v.stages.contains("AWSCURRENT"))
    }

    /// Adds a version and moves AWSCURRENT to it, AWSPREVIOUS to the one before.
    pub fn add(&mut self, id: String, content: Content, now: i64, key: Option<String>) {
        if let Some(current) = self.versions.iter().position(|v| v.stages.contains("AWSCURRENT")) {
            for version in &mut self.versions {
                version.stages.remove("AWSPREVIOUS");
            }
            self.versions[current].stages.remove("AWSCURRENT");
            self.versions[current].stages.insert("AWSPREVIOUS".into());
        }
        self.versions.push(Version { id, content, stages: ["AWSCURRENT".to_string()].into(), created: now, key });
        self.changed = now;
    }

    /// Makes room for one more version, or says that there is none.
    pub fn make_room(&mut self, now: i64) -> Result<(), Refusal> {
        if self.versions.len() < VERSIONS_MAX {
            return Ok(());
        }
        let old = self.versions.iter().position(|v| v.stages.is_empty() && now - v.created > PRUNE_AFTER_MS);
        match old {
            Some(i) => {
                self.versions.remove(i);
                Ok(())
            }
            None => Err(refuse("LimitExceededException", format!("You exceeded the limit of {VERSIONS_MAX} versions for secret {}.", self.name))),
        }
    }

    /// Labelled versions only, as answers show them.
    pub fn stages(&self) -> Option<Value> {
        let map: Map<String, Value> = self.versions.iter().filter(|v| !v.stages.is_empty()).map(|v| (v.id.clone(), json!(v.stages))).collect();
        (!map.is_empty()).then_some(Value::Object(map))
    }

    /// Members that list entries and descriptions have in common.
    pub fn common(&self) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("ARN".into(), json!(self.arn));
        out.insert("Name".into(), json!(self.name));
        out.insert("CreatedDate".into(), seconds(self.created));
        out.insert("LastChangedDate".into(), seconds(self.changed));
        let optional = [
            ("Description", &self.description),
            ("KmsKeyId", &self.key),
            ("OwningService", &self.owner),
            ("Type", &self.kind),
            ("PrimaryRegion", &self.primary_region),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                out.insert(name.into(), json!(value));
            }
        }
        if self.rotated {
            out.insert("RotationEnabled".into(), json!(true));
        }
        if !self.tags.is_empty() {
            let tags: Vec<Value> = self.tags.iter().map(|(k, v)| json!({ "Key": k, "Value": v })).collect();
            out.insert("Tags".into(), json!(tags));
        }
        out
    }

    /// A list entry: its date of deletion is when the deletion was asked for.
    fn entry(&self) -> Value {
        let mut out = self.common();
        if let Some(stages) = self.stages() {
            out.insert("SecretVersionsToStages".into(), stages);
        }
        if let Some((at, _)) = self.deleted {
            out.insert("DeletedDate".into(), seconds(at));
        }
        Value::Object(out)
    }
}
