//! A destination in memory, for the planner's tests: it answers the planner's questions and
//! keeps values, ids and versions like an itemised provider would.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::destination::{Destination, Document, Entry, EntryState, Inventory, KeySpace, Listing, Read, Shape, ValueVerdict};
use crate::http::{ApiError, Cx};
use crate::model::SecretValue;
use crate::model::ledger::{Hasher, Ledger};
use crate::model::sync::{SyncConfig, SyncOptions};
use crate::source::{SourceMap, SourceSecret};

/// Keys of letters, digits, `_` and `-`; `_` becomes `-`, case does not matter, no empty values.
pub struct Keys;

impl KeySpace for Keys {
    fn convert(&self, key: &str) -> Result<String, String> {
        match key.chars().find(|c| !(c.is_ascii_alphanumeric() || "_-".contains(*c))) {
            Some(c) => Err(format!("{c:?} is not allowed")),
            None => Ok(self.convert_part(key)),
        }
    }

    fn fold(&self, key: &str) -> String {
        key.to_ascii_lowercase()
    }

    fn convert_part(&self, part: &str) -> String {
        part.replace('_', "-")
    }

    fn check_value(&self, value: &str) -> ValueVerdict {
        if value.is_empty() { ValueVerdict::Skip("empty".into()) } else { ValueVerdict::Fine }
    }
}

/// What one key holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub id: u64,
    pub version: u64,
    pub value: String,
    pub deleted: bool,
}

/// The destination.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub held: BTreeMap<String, Held>,
    pub next: u64,
    pub writes: usize,
    pub readable: bool,
}

impl Memory {
    pub fn put(&mut self, key: &str, value: &str) -> (String, String) {
        self.next += 1;
        let next = self.next;
        self.writes += 1;
        let fold = Keys.fold(key);
        let spelled = self.held.keys().find(|k| Keys.fold(k) == fold).cloned().unwrap_or_else(|| key.to_string());
        let held = self.held.entry(spelled).or_insert(Held { id: next, version: 0, value: String::new(), deleted: false });
        held.version = next;
        held.value = value.to_string();
        held.deleted = false;
        (held.id.to_string(), held.version.to_string())
    }

    pub fn inventory(&self) -> Inventory {
        let entry = |(key, held): (&String, &Held)| Entry {
            key: key.clone(),
            id: Some(held.id.to_string()),
            stamp: Some(held.version.to_string()),
            state: if held.deleted { EntryState::Deleted { until: None } } else { EntryState::Active },
            value: None,
            facts: serde_json::Value::Null,
            note: None,
        };
        Inventory { entries: self.held.iter().map(entry).collect(), warnings: Vec::new() }
    }
}

#[async_trait]
impl Destination for Memory {
    fn identity(&self) -> String {
        "memory".into()
    }

    fn keys(&self) -> &dyn KeySpace {
        &Keys
    }

    fn readable(&self) -> bool {
        self.readable
    }

    async fn list(&self, _cx: &Cx, _ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        Ok(self.inventory())
    }

    async fn read(&self, _cx: &Cx, _entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)> {
        Vec::new()
    }

    fn shape(&self) -> Shape<'_> {
        Shape::Document(self)
    }
}

#[async_trait]
impl Document for Memory {
    async fn apply(&self, _cx: &Cx, _batch: &crate::destination::Batch<'_>) -> Result<crate::destination::BatchWritten, ApiError> {
        Ok(Default::default())
    }
}

/// A sync with a key schema and the deletion option.
pub fn config(schema: Option<&str>, deletes: bool) -> SyncConfig {
    SyncConfig {
        name: "s".into(),
        project_id: "p".into(),
        description: None,
        connection_id: "c".into(),
        source_connection: None,
        environment: "dev".into(),
        secret_path: "/".into(),
        is_enabled: true,
        sync_options: SyncOptions { key_schema: schema.map(str::to_owned), disable_secret_deletion: Some(!deletes), ..SyncOptions::default() },
        destination: "memory".into(),
        destination_config: Default::default(),
    }
}

/// A complete source.
pub fn source(pairs: &[(&str, &str)]) -> SourceMap {
    SourceMap {
        secrets: pairs
            .iter()
            .map(|(k, v)| SourceSecret { key: (*k).to_string(), value: SecretValue::new(*v), metadata: Vec::new(), origin: None })
            .collect(),
        own_keys: pairs.iter().map(|(k, _)| (*k).to_string()).collect(),
        ..SourceMap::default()
    }
}

/// An empty ledger of a sync that has succeeded before.
pub fn settled() -> Ledger {
    Ledger { settled: true, ..Ledger::default() }
}

pub fn hasher() -> Hasher {
    Hasher::new([7; 32])
}
