//! OCI Vault against the sandbox, through the interfaces the engine uses; and the sandbox and
//! our signatures against Oracle's own SDK.

mod calls;
mod connection;
mod faults;
mod listing;
mod runs;
mod settling;
mod vendor;
mod versions;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kms_sync::destination::oci::OciVault;
use kms_sync::destination::{Desired, Destination, Entry, Inventory, Itemised, Listing, Op, Provider, Session, Shape, Target, Written};
use kms_sync::http::{ApiError, Cx};
use kms_sync::model::connection::ResolvedConnection;
use kms_sync::model::ledger::{Ledger, LedgerRow};
use kms_sync::model::plan::Action;
use kms_sync::model::sync::SyncOptions;
use kms_sync::model::{Forgetful, Map, SecretValue};
use kms_sync::sandbox::host::Host;
use kms_sync::sandbox::oci::{self, State};

/// A sandbox, and a connection to it.
pub struct Bench {
    pub state: State,
    pub host: Host,
    pub session: Arc<dyn Session>,
    pub cx: Cx,
}

/// What `connection add` would have resolved.
pub fn resolved(method: &str, credentials: &[(&str, &str)], settings: serde_json::Value) -> ResolvedConnection {
    ResolvedConnection {
        id: "c1".into(),
        name: "oci".into(),
        app: "oci".into(),
        method: method.into(),
        credentials: credentials.iter().map(|(k, v)| (k.to_string(), SecretValue::new(*v))).collect::<BTreeMap<_, _>>(),
        settings: settings.as_object().cloned().unwrap_or_default(),
        ca_file: None,
        allow_insecure_http: false,
    }
}

pub fn credentials() -> Vec<(&'static str, &'static str)> {
    vec![
        ("userOcid", oci::USER),
        ("tenancyOcid", oci::TENANCY),
        ("region", oci::REGION),
        ("fingerprint", oci::TEST_FINGERPRINT),
        ("privateKey", oci::TEST_KEY),
    ]
}

pub fn connect(connection: ResolvedConnection) -> Result<Arc<dyn Session>, ApiError> {
    OciVault.connect(connection, Arc::new(Forgetful))
}

pub async fn bench() -> Bench {
    let state = State::new();
    state.set_delay(Duration::from_millis(50));
    let host = Host::start(oci::router(state.clone()), None).await.expect("a port");
    let session = connect(resolved("access-key", &credentials(), serde_json::json!({ "endpoint": host.url }))).expect("session");
    Bench { state, host, session, cx: Cx::quiet() }
}

impl Bench {
    pub fn config(&self) -> Map {
        let config = serde_json::json!({
            "compartmentOcid": self.state.compartment(), "vaultOcid": self.state.vault(), "keyOcid": self.state.key(),
        });
        config.as_object().cloned().unwrap_or_default()
    }

    pub fn target(&self, extra: serde_json::Value) -> Target {
        Target {
            sync_id: "sync-1".into(),
            sync_name: "billing".into(),
            config: self.config(),
            options: SyncOptions { extra: extra.as_object().cloned().unwrap_or_default(), ..SyncOptions::default() },
            environment_slug: "prod".into(),
            environment_name: None,
        }
    }

    pub async fn open(&self) -> Arc<dyn Destination> {
        self.session.open(&self.cx, &self.target(serde_json::json!({}))).await.expect("opened")
    }

    pub async fn open_with(&self, extra: serde_json::Value) -> Arc<dyn Destination> {
        self.session.open(&self.cx, &self.target(extra)).await.expect("opened")
    }

    pub async fn list(&self) -> Result<Inventory, ApiError> {
        list(&self.cx, &*self.open().await, &Ledger::default()).await
    }

    pub async fn entry(&self, key: &str) -> Entry {
        self.list().await.expect("listed").entries.into_iter().find(|e| e.key == key).expect("the key is listed")
    }

    /// One operation as the executor runs it.
    pub async fn apply(&self, action: Action, key: &str, value: Option<&str>, entry: Option<&Entry>) -> Result<Written, ApiError> {
        let target = self.open().await;
        apply(&self.cx, &*target, action, key, value, entry).await
    }

    /// Creates a secret through the product.
    pub async fn create(&self, key: &str, value: &str) -> Written {
        self.apply(Action::Create, key, Some(value), None).await.expect("created")
    }

    /// A secret whose deletion is pending.
    pub async fn pending(&self, key: &str, value: &str) -> Entry {
        self.state.put(key, value.as_bytes());
        let entry = self.entry(key).await;
        self.apply(Action::Delete, key, None, Some(&entry)).await.expect("deleted");
        assert_eq!(self.state.secret(key).expect("kept").state, "PENDING_DELETION");
        let entry = self.entry(key).await;
        self.host.log.clear();
        entry
    }
}

pub async fn list(cx: &Cx, target: &dyn Destination, ledger: &Ledger) -> Result<Inventory, ApiError> {
    target.list(cx, &Listing { prefix: "", ledger, wanted: 10, full: true }).await
}

pub fn itemised(target: &dyn Destination) -> &dyn Itemised {
    match target.shape() {
        Shape::Itemised(itemised) => itemised,
        Shape::Document(_) => panic!("OCI Vault holds every key by itself"),
    }
}

pub fn desired(key: &str, value: &str) -> Desired {
    Desired { source_key: key.into(), key: key.into(), fold: key.into(), value: SecretValue::new(value), metadata: Vec::new() }
}

pub async fn apply(
    cx: &Cx,
    target: &dyn Destination,
    action: Action,
    key: &str,
    value: Option<&str>,
    entry: Option<&Entry>,
) -> Result<Written, ApiError> {
    let want = value.map(|v| desired(key, v));
    let token = uuid::Uuid::new_v4().to_string();
    let op = Op { action, key, entry, row: None, desired: want.as_ref(), value_differs: true, token: &token, approved: false };
    itemised(target).apply(cx, &op).await
}

/// The row the engine would keep after a write.
pub fn row(key: &str, written: &Written) -> LedgerRow {
    LedgerRow {
        fold: key.into(),
        key: key.into(),
        source_key: key.into(),
        remote_id: written.id.clone(),
        stamp: written.stamp.clone(),
        previous_stamp: None,
        value_hash: Some("of the value".into()),
        written_at: jiff::Timestamp::now(),
        intent: None,
        detail: written.detail.clone(),
    }
}
