//! One sync against one stand-in: plans with the real planner, applies as the executor does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kms_sync::destination::bitbucket::{Tempo, connect_at};
use kms_sync::destination::{Destination, Inventory, Itemised, Listing, Op, Session, Shape, Target, registry};
use kms_sync::http::{ApiError, Cx};
use kms_sync::model::board::Waiting;
use kms_sync::model::connection::ResolvedConnection;
use kms_sync::model::ledger::{Hasher, Ledger, LedgerRow};
use kms_sync::model::plan::Action;
use kms_sync::model::sync::SyncConfig;
use kms_sync::model::{Memory, SecretValue};
use kms_sync::plan::{Inputs, Plan, Policy, compute, want};
use kms_sync::sandbox::bitbucket::{API_SCOPES, At, State, Variable, router};
use kms_sync::sandbox::host::Host;
use kms_sync::source::{SourceMap, SourceSecret};
use serde_json::{Value, json};

pub const EMAIL: &str = "ops@example.com";

/// A [`Memory`] that survives sessions, as the store's does.
#[derive(Default)]
pub struct Kept(Mutex<HashMap<String, Value>>);

impl Memory for Kept {
    fn get(&self, key: &str) -> Option<Value> {
        self.0.lock().expect("memory").get(key).cloned()
    }

    fn put(&self, key: &str, value: Value) {
        self.0.lock().expect("memory").insert(key.to_string(), value);
    }
}

impl Kept {
    pub fn text(&self) -> String {
        format!("{:?}", self.0.lock().expect("memory"))
    }
}

/// Everything one sync needs.
pub struct Rig {
    pub host: Host,
    pub state: State,
    pub session: Arc<dyn Session>,
    pub memory: Arc<Kept>,
    pub config: SyncConfig,
    pub ledger: Ledger,
    pub hasher: Hasher,
    pub waits: Arc<Mutex<Vec<String>>>,
    pub connection: ResolvedConnection,
    pub tempo: Tempo,
    /// As a drift check or `--verify` asks.
    pub full: bool,
}

/// What a run did.
#[derive(Default)]
pub struct Done {
    pub plan: Plan,
    pub warnings: Vec<String>,
    pub created: Vec<String>,
    pub updated: Vec<String>,
    pub deleted: Vec<String>,
    pub failed: Vec<(String, ApiError)>,
    pub requests: u64,
    pub retries: u64,
    pub by_call: Value,
}

impl Done {
    pub fn writes(&self) -> usize {
        self.created.len() + self.updated.len() + self.deleted.len()
    }

    /// The error of a key.
    pub fn error(&self, key: &str) -> &ApiError {
        &self.failed.iter().find(|(k, _)| k == key).unwrap_or_else(|| panic!("{key} did not fail: {:?}", self.failed)).1
    }
}

/// A thousand times faster than Bitbucket; the hour stays an hour.
pub fn quick() -> Tempo {
    Tempo { window: std::time::Duration::from_secs(3600), ..Tempo::faster(1000) }
}

/// The repository's own variables.
pub const REPO: At<'static> = At { workspace: "acme", repository: "api", environment: None };

impl Rig {
    /// A stand-in with workspace `acme`, repository `api`, and a good API token.
    pub async fn new() -> Self {
        let state = State::new();
        state.add_account(EMAIL, "ops", "Olive Operator");
        let token = state.add_api_token(EMAIL, API_SCOPES);
        state.add_workspace("acme", Some("Acme"));
        state.add_repository("acme", "api");
        Self::with(state, json!({"method": "api-token", "email": EMAIL, "apiToken": token})).await
    }

    pub async fn with(state: State, credentials: Value) -> Self {
        let host = Host::start(router(state.clone()), None).await.expect("the stand-in starts");
        let memory = Arc::new(Kept::default());
        let mut connection = resolved(&credentials);
        connection.settings.insert("endpoint".into(), host.url.clone().into());
        let tempo = quick();
        let session = connect_at(connection.clone(), memory.clone(), tempo.clone()).expect("connects");
        let config = config(&json!({"workspaceSlug": "acme", "repositorySlug": "api"}));
        Self {
            host,
            state,
            session,
            memory,
            config,
            ledger: Ledger::default(),
            hasher: Hasher::new([7; 32]),
            waits: Arc::default(),
            connection,
            tempo,
            full: false,
        }
    }

    /// As after a restart: another session over the same memory.
    pub fn reconnect(&mut self) {
        // The old one must be gone before the new one reads what it kept.
        self.session =
            connect_at(resolved(&json!({"method": "access-token", "accessToken": "none"})), Arc::new(Kept::default()), quick()).expect("connects");
        self.session = connect_at(self.connection.clone(), self.memory.clone(), self.tempo.clone()).expect("connects");
    }

    /// Uses other credentials against the same stand-in.
    pub fn credentials(&mut self, credentials: Value) {
        let endpoint = self.connection.settings.clone();
        self.connection = resolved(&credentials);
        self.connection.settings = endpoint;
        self.session = connect_at(self.connection.clone(), self.memory.clone(), self.tempo.clone()).expect("connects");
    }

    pub fn pace(&mut self, tempo: Tempo) {
        self.tempo = tempo;
        self.reconnect();
    }

    pub fn target(&mut self, destination: Value) {
        self.config = config(&destination);
    }

    /// Points the sync at a deployment environment; returns its uuid.
    pub fn environment(&mut self, name: &str) -> String {
        let uuid = self.state.environment("acme", "api", name).expect("environment");
        self.target(json!({"workspaceSlug": "acme", "repositorySlug": "api", "environmentId": uuid}));
        uuid
    }

    pub fn cx(&self) -> Cx {
        let waits = self.waits.clone();
        Cx::new(
            tokio_util::sync::CancellationToken::new(),
            Arc::new(move |waiting: Option<Waiting>| {
                if let Some(waiting) = waiting {
                    waits.lock().expect("waits").push(waiting.reason);
                }
            }),
        )
    }

    pub async fn open(&self, cx: &Cx) -> Result<Arc<dyn Destination>, ApiError> {
        let target = Target {
            sync_id: "s1".into(),
            sync_name: self.config.name.clone(),
            config: self.config.destination_config.clone(),
            options: self.config.sync_options.clone(),
            environment_slug: self.config.environment.clone(),
            environment_name: None,
        };
        self.session.open(cx, &target).await
    }

    /// Plans without writing.
    pub async fn plan(&self, cx: &Cx, source: &[(&str, &str)], approve: bool) -> Result<(Arc<dyn Destination>, Inventory, Plan), ApiError> {
        let source = map(source);
        for secret in &source.secrets {
            cx.redactor().learn(&secret.value);
        }
        let destination = self.open(cx).await?;
        let ask = Listing { prefix: "", ledger: &self.ledger, wanted: source.secrets.len(), full: self.full };
        let inventory = destination.list(cx, &ask).await?;
        let inputs = Inputs {
            config: &self.config,
            source: &source,
            destination: destination.as_ref(),
            inventory: &inventory,
            ledger: &self.ledger,
            hasher: &self.hasher,
            policy: Policy { allow_all: approve, ..Policy::default() },
        };
        let wanted = want(&self.config, &source, destination.keys());
        let plan = compute(&inputs, wanted, &HashMap::new());
        Ok((destination, inventory, plan))
    }

    /// A run; the operator agrees to everything.
    pub async fn sync(&mut self, source: &[(&str, &str)]) -> Done {
        let cx = self.cx();
        self.run(&cx, source, true).await.unwrap_or_else(|e| panic!("the run failed: {e}"))
    }

    /// A run that fails before its first write.
    pub async fn refused(&mut self, source: &[(&str, &str)]) -> ApiError {
        let cx = self.cx();
        match self.run(&cx, source, true).await {
            Err(error) => error,
            Ok(done) => panic!("the run went through with {} writes", done.writes()),
        }
    }

    pub async fn run(&mut self, cx: &Cx, source: &[(&str, &str)], approve: bool) -> Result<Done, ApiError> {
        let (destination, inventory, plan) = self.plan(cx, source, approve).await?;
        let mut done = Done { warnings: plan.warnings.clone(), ..Done::default() };
        let Shape::Itemised(target) = destination.shape() else { panic!("itemised") };
        for row in &plan.adopt {
            self.ledger.rows.insert(row.fold.clone(), row.clone());
        }
        let (deletes, writes): (Vec<_>, Vec<_>) = plan.allowed().partition(|c| c.action == Action::Delete);
        for wave in [writes, deletes] {
            if !done.failed.is_empty() {
                break;
            }
            self.wave(cx, target, &inventory, &plan, &wave, approve, &mut done).await;
        }
        self.ledger.settled |= done.failed.is_empty();
        let requests = cx.meter().snapshot();
        done.requests = requests.total;
        done.retries = requests.retries;
        done.by_call = serde_json::to_value(&requests.by_call).expect("counters");
        done.plan = plan;
        Ok(done)
    }

    #[allow(clippy::too_many_arguments, reason = "a run's parts, once")]
    async fn wave(
        &mut self,
        cx: &Cx,
        target: &dyn Itemised,
        inventory: &Inventory,
        plan: &Plan,
        wave: &[&kms_sync::plan::Change],
        approved: bool,
        done: &mut Done,
    ) {
        let ledger = &self.ledger;
        let jobs = wave.iter().map(|change| async move {
            let op = Op {
                action: change.action,
                key: &change.key,
                entry: change.entry.map(|i| &inventory.entries[i]),
                row: ledger.rows.get(&change.fold),
                desired: change.desired.map(|i| &plan.desired[i]),
                value_differs: change.value_differs,
                token: "00000000-0000-4000-8000-000000000000",
                approved,
            };
            (*change, target.apply(cx, &op).await)
        });
        let results: Vec<_> = futures::stream::iter(jobs).buffer_unordered(target.concurrency()).collect().await;
        for (change, result) in results {
            match result {
                Err(error) => done.failed.push((change.key.clone(), error)),
                Ok(written) => {
                    match written.instead.unwrap_or(change.action) {
                        Action::Create => done.created.push(change.key.clone()),
                        Action::Delete => done.deleted.push(change.key.clone()),
                        _ => done.updated.push(change.key.clone()),
                    }
                    if change.action == Action::Delete {
                        self.ledger.rows.remove(&change.fold);
                        continue;
                    }
                    let value = &plan.desired[change.desired.expect("a write has a wish")].value;
                    self.ledger.rows.insert(change.fold.clone(), row(&change.key, written.id, written.stamp, self.hasher.hash(value)));
                }
            }
        }
        done.created.sort();
        done.updated.sort();
        done.deleted.sort();
    }

    pub fn variables(&self, at: At<'_>) -> Vec<Variable> {
        self.state.variables(at)
    }

    /// Lines of the request log with this method.
    pub fn sent(&self, method: &str) -> usize {
        self.host.log.by_method().get(method).copied().unwrap_or(0)
    }

    pub fn waited_for(&self, text: &str) -> bool {
        self.waits.lock().expect("waits").iter().any(|w| w.contains(text))
    }
}

pub fn row(key: &str, id: Option<String>, stamp: Option<String>, hash: String) -> LedgerRow {
    LedgerRow {
        fold: key.into(),
        key: key.into(),
        source_key: key.into(),
        remote_id: id,
        stamp,
        previous_stamp: None,
        value_hash: Some(hash),
        written_at: jiff::Timestamp::now(),
        intent: None,
        detail: Value::Null,
    }
}

/// `{"method":…, field…}` as a resolved connection.
pub fn resolved(credentials: &Value) -> ResolvedConnection {
    let object = credentials.as_object().expect("object");
    let text = |v: &Value| v.as_str().expect("text").to_string();
    ResolvedConnection {
        id: "c1".into(),
        name: "bitbucket".into(),
        app: "bitbucket".into(),
        method: text(&object["method"]),
        credentials: object.iter().filter(|(k, _)| *k != "method").map(|(k, v)| (k.clone(), SecretValue::new(text(v)))).collect(),
        settings: Default::default(),
        ca_file: None,
        allow_insecure_http: false,
    }
}

pub fn config(destination: &Value) -> SyncConfig {
    let document = json!({
        "name": "my-bitbucket-sync", "projectId": "p1", "connectionId": "c1", "environment": "dev", "secretPath": "/my-secrets",
        "isEnabled": true, "syncOptions": {"initialSyncBehavior": "overwrite-destination"}, "destinationConfig": destination
    });
    SyncConfig::parse(&document, Some("bitbucket"), registry::rules, &registry::kinds()).unwrap_or_else(|p| panic!("{p}"))
}

pub fn map(secrets: &[(&str, &str)]) -> SourceMap {
    SourceMap { secrets: secrets.iter().map(|(k, v)| secret(k, v)).collect(), ..SourceMap::default() }
}

fn secret(key: &str, value: &str) -> SourceSecret {
    SourceSecret { key: key.into(), value: SecretValue::new(value), metadata: Vec::new(), origin: None }
}

/// `N` keys with values of their own.
pub fn many(n: usize) -> Vec<(String, String)> {
    (0..n).map(|i| (format!("KEY_{i:04}"), format!("value number {i}"))).collect()
}

pub fn refs(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}
