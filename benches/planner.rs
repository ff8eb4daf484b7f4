//! How long the pure parts of a run take: `cargo bench`. A harness, never a timed test.

use std::collections::HashMap;

use async_trait::async_trait;
use kms_sync::destination::{Batch, BatchWritten, Destination, Document, Entry, EntryState, Inventory, KeySpace, Listing, Read, Shape, ValueVerdict};
use kms_sync::http::{ApiError, Cx};
use kms_sync::model::SecretValue;
use kms_sync::model::ledger::{Hasher, Ledger, LedgerRow};
use kms_sync::model::sync::{SyncConfig, SyncOptions};
use kms_sync::plan::{Inputs, Policy, compute, reads, want};
use kms_sync::source::{SourceMap, SourceSecret};

fn main() {
    divan::main();
}

/// A destination that takes every key and knows versions.
struct Plain;

impl KeySpace for Plain {
    fn convert(&self, key: &str) -> Result<String, String> {
        Ok(key.to_string())
    }

    fn check_value(&self, _value: &str) -> ValueVerdict {
        ValueVerdict::Fine
    }
}

#[async_trait]
impl Destination for Plain {
    fn identity(&self) -> String {
        "plain".into()
    }

    fn keys(&self) -> &dyn KeySpace {
        self
    }

    async fn list(&self, _cx: &Cx, _ask: &Listing<'_>) -> Result<Inventory, ApiError> {
        Ok(Inventory::default())
    }

    async fn read(&self, _cx: &Cx, _entries: &[&Entry]) -> Vec<(String, Result<Read, ApiError>)> {
        Vec::new()
    }

    fn shape(&self) -> Shape<'_> {
        Shape::Document(self)
    }
}

#[async_trait]
impl Document for Plain {
    async fn apply(&self, _cx: &Cx, _batch: &Batch<'_>) -> Result<BatchWritten, ApiError> {
        Ok(BatchWritten::default())
    }
}

/// A settled sync of `n` keys with `changed` of them different at the source.
fn world(n: usize, changed: usize) -> (SyncConfig, SourceMap, Inventory, Ledger, Hasher) {
    let hasher = Hasher::new([1; 32]);
    let config = SyncConfig {
        name: "bench".into(),
        project_id: "p".into(),
        description: None,
        connection_id: "c".into(),
        source_connection: None,
        environment: "dev".into(),
        secret_path: "/".into(),
        is_enabled: true,
        sync_options: SyncOptions::default(),
        destination: "plain".into(),
        destination_config: Default::default(),
    };
    let key = |i: usize| format!("KEY_{i:06}");
    let mut source = SourceMap::default();
    let mut inventory = Inventory::default();
    let mut ledger = Ledger { settled: true, ..Ledger::default() };
    for i in 0..n {
        let value = if i < changed { format!("new value {i}") } else { format!("value {i}") };
        source.secrets.push(SourceSecret { key: key(i), value: SecretValue::new(value), metadata: Vec::new(), origin: None });
        inventory.entries.push(Entry {
            key: key(i),
            id: Some(format!("id-{i}")),
            stamp: Some(format!("v-{i}")),
            state: EntryState::Active,
            value: None,
            facts: serde_json::Value::Null,
            note: None,
        });
        let row = LedgerRow {
            fold: key(i),
            key: key(i),
            source_key: key(i),
            remote_id: Some(format!("id-{i}")),
            stamp: Some(format!("v-{i}")),
            previous_stamp: None,
            value_hash: Some(hasher.hash(&SecretValue::new(format!("value {i}")))),
            written_at: jiff::Timestamp::UNIX_EPOCH,
            intent: None,
            detail: serde_json::Value::Null,
        };
        ledger.rows.insert(key(i), row);
    }
    (config, source, inventory, ledger, hasher)
}

/// A whole plan over 1,000 and 10,000 keys, 1 % of them changed.
#[divan::bench(args = [1_000, 10_000])]
fn plan(bencher: divan::Bencher<'_, '_>, n: usize) {
    let (config, source, inventory, ledger, hasher) = world(n, n / 100);
    bencher.bench(|| {
        let wanted = want(&config, &source, &Plain);
        let inputs = Inputs {
            config: &config,
            source: &source,
            destination: &Plain,
            inventory: &inventory,
            ledger: &ledger,
            hasher: &hasher,
            policy: Policy::default(),
        };
        let needed = reads(&inputs, &wanted);
        (needed, compute(&inputs, wanted, &HashMap::new()).changes.len())
    });
}

/// Masking one server text in a run that knows 1,000 values.
#[divan::bench]
fn redact(bencher: divan::Bencher<'_, '_>) {
    let cx = Cx::quiet();
    for i in 0..1_000 {
        cx.redactor().learn(&SecretValue::new(format!("a secret value, number {i}")));
    }
    cx.redact("warm up: the encoded forms are made once");
    bencher.bench(|| cx.redact("the provider answered: Rate exceeded for operation CreateSecret (request 1234)"));
}
