//! The provider against the embedded vault and directory.

mod hidden;
mod listing;
mod sessions;
mod stamps;
mod strict;
mod tags;
mod writing;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::api::Patience;
use super::session::KeyVaultSession;
use crate::destination::{Desired, Destination, Entry, EntryState, Freshness, Inventory, Itemised, Listing, Op, Session, Shape, Target, Written};
use crate::http::{ApiError, Cx};
use crate::model::connection::ResolvedConnection;
use crate::model::ledger::{Ledger, LedgerRow};
use crate::model::plan::Action;
use crate::model::sync::SyncOptions;
use crate::model::{Forgetful, Map, Memory, SecretValue};
use crate::sandbox::azure_key_vault::{State, router};
use crate::sandbox::entra;
use crate::sandbox::host::Host;

pub(super) const TENANT: &str = "11111111-1111-4111-8111-111111111111";
pub(super) const CLIENT: &str = "22222222-2222-4222-8222-222222222222";
pub(super) const SECRET: &str = "s3cr~t+/=&";

/// A memory that outlives its sessions.
#[derive(Default)]
pub(super) struct Notebook(Mutex<HashMap<String, Value>>);

impl Memory for Notebook {
    fn get(&self, key: &str) -> Option<Value> {
        self.0.lock().expect("lock").get(key).cloned()
    }

    fn put(&self, key: &str, value: Value) {
        self.0.lock().expect("lock").insert(key.into(), value);
    }
}

/// A vault, a directory, and a connection to them.
pub(super) struct World {
    pub entra: entra::State,
    pub authority: Host,
    pub vault: State,
    pub host: Host,
    pub cx: Cx,
}

impl World {
    pub async fn new() -> Self {
        let entra = entra::State::new();
        entra.register(TENANT, CLIENT, SECRET);
        let authority = Host::start(entra::router(entra.clone()), None).await.expect("a port");
        let vault = State::new(&entra, TENANT);
        vault.set_authority(&authority.url);
        let ms = Duration::from_millis;
        vault.set_delays(ms(40), ms(40), ms(0));
        let host = Host::start(router(vault.clone()), None).await.expect("a port");
        Self { entra, authority, vault, host, cx: Cx::quiet() }
    }

    pub fn connection(&self) -> ResolvedConnection {
        ResolvedConnection { settings: map(json!({"authorityUrl": self.authority.url})), ..Self::bare() }
    }

    /// A connection to the public cloud.
    pub fn bare() -> ResolvedConnection {
        let text = |t: &str| SecretValue::new(t);
        ResolvedConnection {
            id: "c".into(),
            name: "azure".into(),
            app: "azure-key-vault".into(),
            method: "client-secret".into(),
            credentials: BTreeMap::from([
                ("tenantId".into(), text(TENANT)),
                ("clientId".into(), text(CLIENT)),
                ("clientSecret".into(), text(SECRET)),
            ]),
            settings: Map::new(),
            ca_file: None,
            allow_insecure_http: false,
        }
    }

    pub fn session(&self) -> KeyVaultSession {
        self.session_of(self.connection())
    }

    pub fn session_of(&self, connection: ResolvedConnection) -> KeyVaultSession {
        self.session_with(connection, Arc::new(Forgetful))
    }

    pub fn session_with(&self, connection: ResolvedConnection, memory: Arc<dyn Memory>) -> KeyVaultSession {
        let mut session = KeyVaultSession::new(connection, memory).expect("session");
        session.patience = Patience { limit: Duration::from_secs(3), unit: Duration::from_millis(10) };
        session
    }

    pub fn config(&self) -> Map {
        map(json!({"vaultBaseUrl": self.host.url}))
    }

    pub async fn target(&self) -> std::sync::Arc<dyn Destination> {
        self.session().open(&self.cx, &target(self.config(), SyncOptions::default())).await.expect("target")
    }

    pub async fn list(&self, target: &dyn Destination, ledger: &Ledger, wanted: usize) -> Result<Inventory, ApiError> {
        target.list(&self.cx, &Listing { prefix: "", ledger, wanted, full: false }).await
    }

    /// What a listing does not show of the names that a source wants and the vault does not list.
    pub async fn hidden(&self, target: &dyn Destination, missing: &[&str]) -> Result<Inventory, ApiError> {
        target.hidden(&self.cx, missing).await
    }

    /// One operation on one key that this sync wrote before.
    pub async fn apply(
        &self,
        target: &dyn Destination,
        action: Action,
        key: &str,
        value: Option<&str>,
        entry: Option<&Entry>,
    ) -> Result<Written, ApiError> {
        self.carry_out(target, action, key, value, entry, true).await
    }

    /// The same, where perhaps something besides the value differs.
    pub async fn carry_out(
        &self,
        target: &dyn Destination,
        action: Action,
        key: &str,
        value: Option<&str>,
        entry: Option<&Entry>,
        value_differs: bool,
    ) -> Result<Written, ApiError> {
        let desired = value.map(|v| desired(target, key, v));
        let row = row(&super::tests::desired(target, key, ""), None, "");
        let op = Op {
            action,
            key: entry.map_or_else(|| desired.as_ref().map_or(key, |d| d.key.as_str()), |e| e.key.as_str()),
            entry,
            row: Some(&row),
            desired: desired.as_ref(),
            value_differs,
            token: "6f1b1b1e-0000-4000-8000-000000000000",
            approved: false,
        };
        itemised(target).apply(&self.cx, &op).await
    }
}

pub(super) fn map(value: Value) -> Map {
    value.as_object().cloned().expect("an object")
}

pub(super) fn target(config: Map, options: SyncOptions) -> Target {
    Target { sync_id: "s".into(), sync_name: "s".into(), config, options, environment_slug: "dev".into(), environment_name: None }
}

pub(super) fn itemised(target: &dyn Destination) -> &dyn Itemised {
    match target.shape() {
        Shape::Itemised(i) => i,
        Shape::Document(_) => panic!("Key Vault keeps an object per key"),
    }
}

pub(super) fn desired(target: &dyn Destination, key: &str, value: &str) -> Desired {
    let name = target.keys().convert(key).expect("a name");
    Desired { source_key: key.into(), fold: target.keys().fold(&name), key: name, value: SecretValue::new(value), metadata: Vec::new() }
}

/// What one run did.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub created: usize,
    pub updated: usize,
    pub restored: usize,
    pub unchanged: usize,
    pub left: Vec<String>,
    pub failed: Vec<(String, ApiError)>,
}

/// A run in small: list, read what is not known to be the same, write what differs, remember.
/// The engine does the same with more care; here it shows what the provider's answers lead to.
pub(super) async fn run(world: &World, target: &dyn Destination, ledger: &mut Ledger, source: &[(&str, &str)]) -> Ran {
    let mut ran = Ran::default();
    let mut inventory = world.list(target, ledger, source.len()).await.expect("list");
    let listed: Vec<String> = inventory.entries.iter().map(|e| target.keys().fold(&e.key)).collect();
    let wanted: Vec<String> = source.iter().map(|(k, v)| desired(target, k, v).fold).collect();
    let missing: Vec<&str> = wanted.iter().map(String::as_str).filter(|w| !listed.iter().any(|l| l == w)).collect();
    if !missing.is_empty() {
        inventory.entries.extend(world.hidden(target, &missing).await.expect("hidden").entries);
    }
    let mut entries: HashMap<String, Entry> = inventory.entries.into_iter().map(|e| (target.keys().fold(&e.key), e)).collect();
    for (key, value) in source {
        let wish = desired(target, key, value);
        let row = ledger.rows.get(&wish.fold).cloned();
        let mut entry = entries.remove(&wish.fold);
        let known = row.as_ref().and_then(|r| r.value_hash.clone());
        let action = match entry.as_mut().map(|e| (e.state.clone(), e)) {
            None => Action::Create,
            Some((EntryState::Deleted { .. }, e)) if row.is_none() => {
                ran.left.push(format!("{}: deleted by another hand", e.key));
                continue;
            }
            Some((EntryState::Deleted { .. }, _)) => Action::Restore,
            Some((EntryState::Active, e)) => {
                let fresh = row.as_ref().map(|r| target.freshness(e, r));
                let now = match (fresh, known) {
                    (Some(Freshness::Same), Some(hash)) => Some(hash),
                    _ => {
                        let read = target.read(&world.cx, &[e]).await.remove(0).1.expect("read");
                        e.stamp = read.stamp;
                        read.value.map(|v| v.expose().to_string())
                    }
                };
                if now.as_deref() == Some(*value) {
                    ran.unchanged += 1;
                    remember(ledger, &wish, e.stamp.clone(), value);
                    continue;
                }
                Action::Update
            }
            Some((state, e)) => {
                ran.left.push(format!("{}: {state:?}", e.key));
                continue;
            }
        };
        let op = Op {
            action,
            key: entry.as_ref().map_or(wish.key.as_str(), |e| e.key.as_str()),
            entry: entry.as_ref(),
            row: row.as_ref(),
            desired: Some(&wish),
            value_differs: true,
            token: "6f1b1b1e-0000-4000-8000-000000000000",
            approved: false,
        };
        match itemised(target).apply(&world.cx, &op).await {
            Ok(written) => {
                match written.instead.unwrap_or(action) {
                    Action::Restore => ran.restored += 1,
                    Action::Create => ran.created += 1,
                    _ => ran.updated += 1,
                }
                remember(ledger, &wish, written.stamp, value);
            }
            Err(error) => ran.failed.push((wish.key.clone(), error)),
        }
    }
    ran
}

/// The tests keep the value itself where the engine keeps a keyed hash.
fn remember(ledger: &mut Ledger, wish: &Desired, stamp: Option<String>, value: &str) {
    ledger.rows.insert(wish.fold.clone(), row(wish, stamp, value));
}

fn row(wish: &Desired, stamp: Option<String>, value: &str) -> LedgerRow {
    LedgerRow {
        fold: wish.fold.clone(),
        key: wish.key.clone(),
        source_key: wish.source_key.clone(),
        remote_id: None,
        stamp,
        previous_stamp: None,
        value_hash: Some(value.to_string()),
        written_at: jiff::Timestamp::now(),
        intent: None,
        detail: Value::Null,
    }
}
